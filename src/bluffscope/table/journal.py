"""Which shards of a run are committed: looked up before a shard is measured, updated when one is."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import polars as pl

from bluffscope.records import Shard
from bluffscope.table.atomic import remove_leftovers, writing
from bluffscope.table.folder import RunFolder
from bluffscope.table.shards import DamagedShardError, ShardFile, committed_shards, shard_identity, write_shard


class Journal:
    """The committed shards of a run. The folder is the only record: what is kept here is what was read from it."""

    def __init__(self, folder: RunFolder, run: str) -> None:
        """Nothing is read yet.

        Args:
            folder: the run's; nobody else may be writing there.
            run: digest of everything but the pairs that results depend on.
        """
        self._folder = folder
        self._run = run
        self._lock = threading.Lock()
        self._committed: set[int] = set()
        self.pairs = 0
        """Pairs in committed shards, those in quarantine included."""
        self.bytes = 0
        """Size of the committed shards that `recover` found."""
        self.reasons: Counter[str] = Counter()
        """Quarantined pairs in committed shards, by reason."""
        self.dropped: list[str] = []
        """What was wrong with shards that have to be measured again."""

    @property
    def quarantined(self) -> int:
        """Pairs in quarantine."""
        return self.reasons.total()

    def recover(self, shards: Iterable[Shard]) -> None:
        """Find the shards of the input that are committed; all other files there are removed.

        Every committed shard is read and compared with its checksum. One that is damaged, or that holds other pairs
        or another run's results, is noted in `dropped`, and missing from then on.

        Args:
            shards: all shards of the input.

        Raises:
            RunFolderError: The folder cannot be read or written.
        """
        files: dict[int, list[ShardFile]] = {}
        with writing(self._folder.shards):
            self._folder.shards.mkdir(exist_ok=True)
            remove_leftovers(self._folder.shards)
        for file in committed_shards(self._folder.shards):
            files.setdefault(file.number, []).append(file)
        if not files:
            return
        for shard in shards:
            for file in files.pop(shard.number, ()):
                self._take_in(file, shard)
        for file in (file for spare in files.values() for file in spare):
            self._drop(file, f"shard {file.path} is not of this run's pairs")

    def missing(self, shards: Iterable[Shard]) -> Iterator[Shard]:
        """The shards that are not committed, in their order."""
        return (shard for shard in shards if shard.number not in self._committed)

    def commit(self, shard: Shard, frame: pl.DataFrame, session: Mapping[str, Any]) -> None:
        """Make a shard's table durable. A shard that is committed already stays as it is.

        Args:
            shard: whichever is done next: their order is all one.
            frame: its rows.
            session: what is known of this session; the merge returns the latest of each session.

        Raises:
            RunFolderError: The file cannot be written.
            ValueError: The table does not hold the shard's pairs.
        """
        if frame["_index"].to_list() != [item.index for item in shard.items]:
            raise ValueError(f"the table of shard {shard.number} does not hold its pairs")
        with self._lock:
            if shard.number in self._committed:
                return
            identity = shard_identity(shard, self._run)
            file = write_shard(self._folder.shards, shard.number, frame, identity, session, shard.arrangement)
            self._count(file.number, frame["_reason"])

    def _take_in(self, file: ShardFile, shard: Shard) -> None:
        if shard.number in self._committed:  # the same pairs were committed twice
            self._drop(file, None)
        elif file.identity != shard_identity(shard, self._run):
            self._drop(file, f"shard {file.path} holds other pairs, or results of other options")
        else:
            try:
                content = file.content()
            except DamagedShardError as error:
                self._drop(file, str(error))
            else:
                self.bytes += len(content)
                self._count(file.number, pl.read_parquet(io.BytesIO(content), columns=["_reason"])["_reason"])

    def _count(self, number: int, reasons: pl.Series) -> None:
        self._committed.add(number)
        self.pairs += len(reasons)
        self.reasons.update(reasons.drop_nulls().to_list())

    def _drop(self, file: ShardFile, fault: str | None) -> None:
        if fault is not None:
            self.dropped.append(fault)
        with writing(file.path):
            file.path.unlink(missing_ok=True)
