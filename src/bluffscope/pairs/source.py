"""Where pairs come from: a file, a folder of files, a dataset of the hub, the benchmark; checked, then streamed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from bluffscope.config import DataOptions
from bluffscope.errors import InputError
from bluffscope.pairs.fields import CarriedColumn, CarriedKinds, FieldMap, PairDigest, RowError, converted
from bluffscope.pairs.groups import GroupBuilder, Groups, hash64
from bluffscope.pairs.hub_files import hub_files
from bluffscope.pairs.labels import LabelCount
from bluffscope.pairs.links import Links, find_links
from bluffscope.pairs.readers import READERS, Record, quoted, read_records, shown
from bluffscope.records import Pair

BUNDLED: Final = "bluff200"
LONGEST_NAME: Final = 60


@dataclass(frozen=True)
class Scan:
    """What one pass over all pairs found."""

    count: int
    """Number of pairs, at least 1."""
    groups: Groups
    """The group of each pair, in input order."""
    links: Links
    """What was found of the groups and of closed sets of answers."""
    carried: tuple[CarriedColumn, ...]
    """The further columns, in first-seen order."""
    domains: dict[str, int]
    """Pairs of each domain, in first-seen order."""
    digest: str
    """64 hex digits: identity of the pairs in their order, whatever format they came in."""


def open_source(options: DataOptions) -> Source:
    """The source of the pairs that the options name; nothing is read yet.

    Raises:
        InputError: The path is missing, of an unknown type, or a folder without usable files; or
            `columns` or `limit` make no sense.
    """
    fields = FieldMap.parse(options.columns, file_domains=options.domain_from == "file", chat=options.chat)
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit}: expected at least 1")
    # The bare word is always the benchmark: a run must not depend on what lies in the folder it starts in.
    if options.data == BUNDLED:
        bundled = resources.files("bluffscope.pairs").joinpath("data", f"{BUNDLED}.jsonl")
        return Source(BUNDLED, [Path(str(bundled))], fields, options, BUNDLED)
    if not options.data.strip():
        raise InputError(f"--data is empty; give a {_suffixes()} file, a folder of such files, or {BUNDLED}")
    if options.data.startswith("hf://"):
        found = hub_files(options.data)
        return Source(_safe_name(found.name), found.files, fields, options, found.location, found.commit)
    path = Path(options.data)
    try:
        files = _files(path)
        for file in files:
            file.open("rb").close()
        # A link keeps its own name; only "." and ".." have none.
        named = path if path.name not in ("", "..") else path.resolve()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{shown(path)}: cannot be read ({reason}); check the path and its permissions") from error
    name = _safe_name(named.stem if path.suffix.lower() in READERS else named.name)
    return Source(name, files, fields, options, str(path.resolve()))


def _files(path: Path) -> list[Path]:
    """The file itself, or the files of a folder that have a reader, by name."""
    if path.is_dir():
        inside = sorted((file for file in path.iterdir() if _usable(file)), key=lambda file: file.name)
        if not inside:
            raise InputError(f"{shown(path)}: no {_suffixes()} file in this folder; give the folder that holds them")
        return inside
    if not path.exists():
        raise InputError(f"{shown(path)}: no such file or folder; give a {_suffixes()} file, a folder, or {BUNDLED}")
    if path.suffix.lower() not in READERS:
        raise InputError(f"{shown(path)}: unknown file type {quoted(path.suffix)}; give a {_suffixes()} file")
    if not path.is_file():
        raise InputError(f"{shown(path)}: not a regular file (it is read twice); save the pairs to a file first")
    return [path]


def _usable(file: Path) -> bool:
    return file.suffix.lower() in READERS and not file.name.startswith(".") and file.is_file()


def _suffixes() -> str:
    *others, last = READERS
    return f"{', '.join(others)} or {last}"


def _safe_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:LONGEST_NAME] or "pairs"


class Source:
    """Pairs of a file, a folder or the benchmark: checked by `scan`, streamed by `pairs`."""

    name: str
    """Short name for run folders: letters, digits, ".", "_" and "-" only."""
    location: str
    """The value of `--data` that names the same pairs from any folder, and of a dataset of the hub at any time."""
    commit: str | None
    """Of a dataset of the hub."""
    cluster_by: str
    """See `DataOptions`."""

    def __init__(
        self,
        name: str,
        files: list[Path],
        fields: FieldMap,
        options: DataOptions,
        location: str,
        commit: str | None = None,
    ) -> None:
        self.name = name
        self.location, self.commit, self.cluster_by = location, commit, options.cluster_by
        self._files = files
        self._fields = fields
        self._limit = options.limit
        self._found: Scan | None = None
        self._stamps: list[tuple[int, int]] = []

    def scan(self) -> Scan:
        """Check every pair (up to the limit) in one streaming pass; a second call returns the first's result.

        Memory: about 300 bytes a pair at its peak, whatever the texts' size; a JSON list is held in addition.

        Raises:
            InputError: The first fault found: one line with its file, its place and what to do. Repeated
                ids are looked for last.
        """
        if self._found is None:
            self._stamps = self._stamp()
            self._found = self._scan()
        return self._found

    def pairs(self) -> Iterator[Pair]:
        """The pairs in input order, index from 0, carried values of the types that `scan` found (it runs if need be).

        Raises:
            InputError: As `scan`; or the files changed since.
        """
        scan = self.scan()
        self._refuse_change()
        count = 0
        for record, pair in self._checked():
            count += 1
            if count > scan.count:
                raise self._changed()
            yield _with_kinds(pair, record, scan)
        if count != scan.count:
            raise self._changed()
        self._refuse_change()

    def known(self) -> tuple[np.ndarray, Links] | None:
        """(pair,) number of each pair's group, and their links, where `scan` has found them."""
        return None if self._found is None else (self._found.groups.numbers(), self._found.links)

    def rows(self) -> Iterator[tuple[str, Pair | RowError]]:
        """Each record in input order: its place, and its pair or why it is none. For who wants every fault.

        Ids may repeat, and carried values are as `FieldMap.pair` returns them. Passes may be repeated.

        Raises:
            InputError: A file cannot be read as what its suffix says, or the files changed since the first pass.
        """
        self._stamps = self._stamps or self._stamp()
        self._refuse_change()
        for index, (file, record) in enumerate(islice(self._records(), self._limit)):
            try:
                found = self._fields.pair(record, index, file.stem)
            except RowError as error:
                found = error
            yield record.place, found
        self._refuse_change()

    def _scan(self) -> Scan:
        kinds, builder, digest = CarriedKinds(), GroupBuilder(self.cluster_by), PairDigest()
        domains: Counter[str] = Counter()
        labels = LabelCount()
        for record, pair in self._checked():
            kinds.observe(pair.extra, textual=record.textual)
            builder.add_pair(pair)
            digest.add(pair)
            domains[pair.domain] += 1
            labels.add(pair.fact, pair.hallucination)
        if (side := labels.side()) is not None:
            where, name = shown(self._files[0]), quoted(self._fields.names[side])
            raise InputError(f"{where}: field {name} {labels.said(side)}")
        self._refuse_repeated_ids(builder.id_hashes)
        groups = builder.groups()
        links = find_links(builder, groups.numbers(), self._again)
        return Scan(domains.total(), groups, links, kinds.columns(), dict(domains), digest.hexdigest())

    def _checked(self) -> Iterator[tuple[Record, Pair]]:
        for index, (file, record) in enumerate(islice(self._records(), self._limit)):
            yield record, self._fields.pair(record, index, file.stem)

    def _records(self) -> Iterator[tuple[Path, Record]]:
        for file in self._files:
            for record in read_records(file):
                yield file, record

    def _again(self) -> Iterator[Pair]:
        self._refuse_change()
        yield from (pair for _, pair in self._checked())
        self._refuse_change()

    def _refuse_repeated_ids(self, hashes: np.ndarray) -> None:
        ordered = np.sort(hashes)
        repeated = {int(value) for value in ordered[1:][ordered[1:] == ordered[:-1]]}
        if not repeated:
            return
        # Hashes may agree by chance: the files are read again and the ids themselves compared.
        seen: dict[str, str] = {}
        for record, pair in self._checked():
            if hash64(pair.id) in repeated:
                if pair.id in seen:
                    raise InputError(
                        f"{record.place} (pair {pair.index}): id {quoted(pair.id)} is taken by {seen[pair.id]}; "
                        "give each pair an id of its own (one without gets its row number)"
                    )
                seen[pair.id] = f"{record.place} (pair {pair.index})"

    def _refuse_change(self) -> None:
        if self._stamp() != self._stamps:
            raise self._changed()

    def _changed(self) -> InputError:
        return InputError(f"{shown(self._files[0])}: the data changed while it was in use; start again")

    def _stamp(self) -> list[tuple[int, int]]:
        """Size and time of change of each file."""
        stamps: list[tuple[int, int]] = []
        for file in self._files:
            try:
                status = file.stat()
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise InputError(f"{shown(file)}: cannot be read ({reason}); check the path") from error
            stamps.append((status.st_size, status.st_mtime_ns))
        return stamps


def _with_kinds(pair: Pair, record: Record, scan: Scan) -> Pair:
    try:
        return converted(pair, scan.carried)
    except (ValueError, KeyError) as error:  # only where the file changed after the scan
        raise InputError(f"{record.place}: the data changed while it was in use; start again") from error
