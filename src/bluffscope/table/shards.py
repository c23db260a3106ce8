"""Shards: one file for some pairs with everything that was found of them, committed by exactly one rename.

A shard is a Parquet file with one row a pair, in input order. It holds the table's columns, the texts,
``_index`` (position in the input), ``_features`` (the sparse features of all views and layers),
``_residuals`` (only where kept), ``_further_residuals`` (only with further read positions), ``_tokens`` and
``_token_features`` (only where tokens are) and ``_reason`` (null, or why the pair was quarantined; its metrics are then
null). Its name says which it is and what it must hold:
``<number>.<identity>.<checksum>.parquet``, the identity made of its pairs and of the run, the checksum of the file's
content. So a name in the folder is a shard that is done, and one whose content was cut off or changed gives itself
away.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from bluffscope.errors import InputError, RunFolderError
from bluffscope.records import PAIRS, Arrangement, Shard
from bluffscope.table.atomic import AtomicFile, unreadable, writing
from bluffscope.table.reader import check_parquet
from bluffscope.table.schema import Column

FEATURES_TYPE: Final = pl.List(
    pl.Struct({"view": pl.String, "layer": pl.Int32, "feature": pl.Int32, "activation": pl.Float32})
)
"""Of ``_features``: one entry for each active feature of each view and layer."""

RESIDUALS_TYPE: Final = pl.List(
    pl.Struct({"view": pl.String, "layer": pl.Int32, "token": pl.Int32, "values": pl.List(pl.Float32)})
)
"""Of ``_residuals``: one entry for each view, layer and token read."""
FURTHER: Final = "further_residuals"
"""Table of the residuals at all positions but the first."""
FURTHER_TYPE: Final = pl.List(
    pl.Struct(
        {
            "view": pl.String,
            "layer": pl.Int32,
            "position": pl.String,
            "token": pl.Int32,
            "values": pl.List(pl.Float32),
        }
    )
)
"""Of its column in shards: one entry for each completion, layer, position and token read."""

TOKENS_TYPE: Final = pl.List(
    pl.Struct({"token_index": pl.Int32, "label": pl.Int8, "start": pl.Int32, "end": pl.Int32, "logprob": pl.Float32})
)
"""Of ``_tokens``: one entry for each token read of a labelled text's completion; see docs/columns.md."""
TOKEN_FEATURES_TYPE: Final = pl.List(
    pl.Struct({"view": pl.String, "layer": pl.Int32, "token": pl.Int32, "feature": pl.Int32, "activation": pl.Float32})
)
"""Of ``_token_features``: one entry for each active feature of each token read."""
BY_TOKEN: Final = {"tokens": TOKENS_TYPE, "token_features": TOKEN_FEATURES_TYPE}
"""The tables of a run that keeps tokens, each with the type of its column in shards."""

SESSION: Final = "bluffscope_session"
"""Key of a shard's metadata: what is known of the session that committed it, as JSON."""

_NAME: Final = re.compile(r"(\d{6,})\.([0-9a-f]{16})\.([0-9a-f]{32})\.parquet")


class DamagedShardError(RunFolderError):
    """A shard does not hold what its name says."""


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A committed shard."""

    path: Path
    number: int
    identity: str
    """Of its pairs and of the run: see `shard_identity`."""
    checksum: str
    """The first half of the SHA-256 of its content."""

    @classmethod
    def of(cls, path: Path) -> ShardFile | None:
        """The shard that a name stands for; None for any other name."""
        match = _NAME.fullmatch(path.name)
        return cls(path, int(match[1]), match[2], match[3]) if match else None

    def content(self) -> bytes:
        """The file, read once and found to be what was committed.

        Raises:
            DamagedShardError: It is missing, cut off or altered.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise DamagedShardError(f"shard {unreadable(self.path, error)}") from error
        if _checksum(content) != self.checksum:
            raise DamagedShardError(
                f"shard {self.path} is damaged: its {len(content)} bytes are not what was committed"
            )
        try:
            check_parquet(self.path)
        except InputError as error:  # committed as it is, but not by us
            raise DamagedShardError(f"shard {error}") from error
        return content


def shard_schema(
    columns: Sequence[Column],
    keep_residuals: bool = False,
    arrangement: Arrangement = PAIRS,
    by_token: bool = False,
    further: bool = False,
) -> dict[str, pl.DataType | type[pl.DataType]]:
    """Names and types of a shard's columns: build its frame with these, so that all shards agree.

    A shard in which some column is null throughout would otherwise have another type than its neighbours.
    """
    schema: dict[str, pl.DataType | type[pl.DataType]] = {"_index": pl.Int64}
    schema |= {column.name: column.dtype for column in columns}
    schema |= dict.fromkeys(arrangement.sources, pl.String)
    schema["_features"] = FEATURES_TYPE
    if keep_residuals:
        schema["_residuals"] = RESIDUALS_TYPE
    if further:
        schema[f"_{FURTHER}"] = FURTHER_TYPE
    schema |= {f"_{name}": kind for name, kind in BY_TOKEN.items() if by_token}
    schema["_reason"] = pl.String
    return schema


def shard_identity(shard: Shard, run: str) -> str:
    """16 hex digits that follow from a shard's items, their groups and the digest of the run."""
    digest = hashlib.blake2b(run.encode(), digest_size=8)
    for item, group in zip(shard.items, shard.groups, strict=True):
        said = [item.index, *item.cells.values(), group, sorted(item.extra.items())]
        digest.update(json.dumps(said, default=str).encode() + b"\n")
    return digest.hexdigest()


def write_shard(
    folder: Path,
    number: int,
    frame: pl.DataFrame,
    identity: str = "0" * 16,
    session: Mapping[str, Any] | None = None,
    arrangement: Arrangement = PAIRS,
) -> ShardFile:
    """Commits a shard with one atomic rename.

    Args:
        folder: where shards are.
        number: its place among them.
        frame: its rows, of `shard_schema`.
        identity: see `shard_identity`.
        session: kept in the file's metadata, for the merge.
        arrangement: of its items.

    Raises:
        RunFolderError: The file cannot be written.
        ValueError: Columns that every shard has are missing.
    """
    needed = ("_index", arrangement.key, *arrangement.sources, "_features", "_reason")
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise ValueError(f"a shard needs the columns {missing}: build its frame with shard_schema()")
    made = io.BytesIO()
    frame.write_parquet(made, metadata={SESSION: json.dumps(dict(session or {}))})
    content = made.getvalue()
    checksum = _checksum(content)
    name = f"{number:06d}.{identity}.{checksum}.parquet"
    with writing(folder / name), AtomicFile(folder, f"{number:06d}.parquet") as file:
        file.write(content)
        return ShardFile(file.commit(name), number, identity, checksum)


def committed_shards(folder: Path) -> Iterator[ShardFile]:
    """The shards of a folder, by number. What a killed process left half-written has a hidden name and is none.

    Raises:
        RunFolderError: The folder cannot be read, or holds Parquet files of another name.
    """
    found: list[ShardFile] = []
    with writing(folder):
        for path in folder.iterdir():
            if file := ShardFile.of(path):
                found.append(file)
            elif path.suffix == ".parquet" and not path.name.startswith("."):
                raise RunFolderError(f"{path} is not a shard of this run; move it elsewhere")
    yield from sorted(found, key=lambda file: (file.number, file.path.name))


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
