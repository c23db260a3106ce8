"""A run's tables and folder: the schema, atomic shards and their journal, the manifest, the reader.

Their merge is in `bluffscope.table.merge`, which costs the import of pyarrow.
"""

from bluffscope.table.atomic import atomic_write
from bluffscope.table.folder import RunFolder, default_run_path
from bluffscope.table.journal import Journal
from bluffscope.table.manifest import STAGES, assemble_manifest
from bluffscope.table.reader import Run, read_run, read_table
from bluffscope.table.schema import ANALYSES, LOGPROB, SCHEMA_VERSION, Column, Kind, table_columns
from bluffscope.table.shards import shard_schema, write_shard

__all__ = [
    "ANALYSES",
    "LOGPROB",
    "SCHEMA_VERSION",
    "STAGES",
    "Column",
    "Journal",
    "Kind",
    "Run",
    "RunFolder",
    "assemble_manifest",
    "atomic_write",
    "default_run_path",
    "read_run",
    "read_table",
    "shard_schema",
    "table_columns",
    "write_shard",
]
