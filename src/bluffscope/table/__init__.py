"""A run's tables and folder: the schema, atomic shards and their merge, the manifest, the reader."""

from bluffscope.table.atomic import atomic_write
from bluffscope.table.folder import RunFolder, default_run_path
from bluffscope.table.manifest import STAGES, assemble_manifest
from bluffscope.table.reader import Run, read_run, read_table
from bluffscope.table.schema import ANALYSES, LOGPROB, METRICS, SCHEMA_VERSION, Column, Kind, table_columns
from bluffscope.table.shards import MergeResult, merge, shard_schema, write_shard

__all__ = [
    "ANALYSES",
    "LOGPROB",
    "METRICS",
    "SCHEMA_VERSION",
    "STAGES",
    "Column",
    "Kind",
    "MergeResult",
    "Run",
    "RunFolder",
    "assemble_manifest",
    "atomic_write",
    "default_run_path",
    "merge",
    "read_run",
    "read_table",
    "shard_schema",
    "table_columns",
    "write_shard",
]
