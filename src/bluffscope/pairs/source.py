"""Where pairs and labelled texts come from: files, a dataset of the hub, the benchmark; checked, then streamed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bluffscope.config import DataOptions
from bluffscope.errors import InputError
from bluffscope.pairs.carried import CarriedColumn, CarriedKinds, PairDigest, converted
from bluffscope.pairs.fields import RowError
from bluffscope.pairs.groups import GroupBuilder, Groups, hash64
from bluffscope.pairs.labels import LabelCount
from bluffscope.pairs.links import Links, find_links
from bluffscope.pairs.located import located
from bluffscope.pairs.paths import FieldError
from bluffscope.pairs.readers import read_records, stem
from bluffscope.pairs.record import Record, quoted, shown
from bluffscope.pairs.shapes import Shape, Shapes
from bluffscope.records import PAIRS, PROMPTED, STATEMENTS, Arrangement, LabelledText, Pair

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scan:
    """What one pass over all pairs or labelled texts found; where it says pairs, it means either."""

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
    arrangement: Arrangement = PAIRS
    """What the items are: pairs, or labelled texts, all with a prompt or not."""
    labels: tuple[int, int] = (0, 0)
    """True and false texts."""
    own_groups: bool = False
    """Whether labelled texts have groups of their own: those are then the labels."""

    @property
    def paired_by(self) -> Literal["group", "prompt"] | None:
        """What true and false texts have in common that make pairs; None for pairs, and where they have nothing."""
        if self.arrangement == PAIRS:
            return None
        return "group" if self.own_groups else "prompt"


def open_source(options: DataOptions) -> Source:
    """The source of the pairs that the options name; nothing is read yet.

    Raises:
        InputError: The path is missing, of an unknown type, or a folder without usable files; or
            another option makes no sense.
    """
    shapes = Shapes(options)
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit}: expected at least 1")
    found = located(options.data)
    return Source(found.name, found.files, shapes, options, found.location, found.commit)


class Source:
    """Pairs or labelled texts of a file, a folder or the benchmark: checked by `scan`, streamed by `items`."""

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
        shapes: Shapes,
        options: DataOptions,
        location: str,
        commit: str | None = None,
    ) -> None:
        self.name = name
        self.location, self.commit, self.cluster_by = location, commit, options.cluster_by
        self._files = files
        self._shapes, self._names = shapes, shapes.fields.names
        self._limit = options.limit
        self._left_out: Counter[str] = Counter()
        self._notes: dict[str, bool] = {}
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
        """`items`, of a source of pairs.

        Raises:
            InputError: As `items`; or they are labelled texts.
        """
        for item in self.items():
            if isinstance(item, LabelledText):
                raise InputError(f"{shown(self._files[0])}: labelled texts, where pairs are needed")
            yield item

    def grouped(self) -> Iterator[tuple[Pair | LabelledText, str]]:
        """`items`, each with the label of its group."""
        scan = self.scan()
        for item, label in zip(self.items(), scan.groups, strict=True):
            own = item.group if scan.own_groups and isinstance(item, LabelledText) else None
            yield item, label if own is None else own

    def items(self) -> Iterator[Pair | LabelledText]:
        """Items in input order, index from 0, carried values of the types that `scan` found (it runs if need be).

        Raises:
            InputError: As `scan`; or the files changed since.
        """
        scan = self.scan()
        self._refuse_change()
        count = 0
        for record, item in self._checked():
            count += 1
            if count > scan.count:
                raise self._changed()
            yield _with_kinds(item, record, scan)
        if count != scan.count:
            raise self._changed()
        self._refuse_change()

    def known(self) -> tuple[np.ndarray, Links] | None:
        """(pair,) number of each pair's group, and their links, where `scan` has found them."""
        return None if self._found is None else (self._found.groups.numbers(), self._found.links)

    @property
    def labelled(self) -> bool:
        """Whether it holds labelled texts, as its options or its first record say."""
        first = next(self._records(), None)
        return first is not None and first[1].fields.labelled

    def rows(self) -> Iterator[tuple[str, Pair | LabelledText | RowError]]:
        """Each record in input order: its place, and its item or why it is none. For who wants every fault.

        Ids may repeat, and carried values are as `FieldMap.item` returns them. Passes may be repeated.

        Raises:
            InputError: A file cannot be read as what its suffix says, or the files changed since the first pass.
        """
        self._stamps = self._stamps or self._stamp()
        self._refuse_change()
        readable = False
        for record, found in self._rows():
            readable = readable or not isinstance(found, RowError)
            yield record.place, found
        if readable:
            self._warn()
        self._refuse_change()

    def reading(self) -> dict[str, Any]:
        """For the manifest: the data sets that were recognised, and how often what was left out; empty for neither."""
        layouts = self._shapes.layouts.values()
        read = {"schema": [f"{layout.schema}: {layout.title}" for layout in layouts]} if layouts else {}
        return read | ({"left_out": dict(self._left_out)} if self._left_out else {})

    def _scan(self) -> Scan:
        kinds, builder, digest = CarriedKinds(), GroupBuilder(self.cluster_by), PairDigest()
        domains: Counter[str] = Counter()
        labels, truth, prompted = LabelCount(), bytearray(), True
        for record, item in self._checked():
            kinds.observe(item.extra, textual=record.textual)
            builder.add_item(item)
            digest.add(item)
            domains[item.domain] += 1
            if isinstance(item, LabelledText):
                truth.append(item.label)
                prompted = prompted and bool(item.prompt)
            else:
                labels.add(item.fact, item.hallucination)
        if truth and labels.pairs:
            raise InputError(f"{shown(self._files[0])}: pairs and labelled texts in one source; give them one by one")
        if (side := labels.side()) is not None:
            where, name = shown(self._files[0]), quoted(self._names[side])
            raise InputError(f"{where}: field {name} {labels.said(side)}")
        self._refuse_repeated_ids(builder.id_hashes)
        groups = builder.groups()
        said = np.frombuffer(truth, dtype=bool) if truth else None
        links = find_links(builder, groups.numbers(), self._again, said)
        self._warn()
        return Scan(
            count=domains.total(),
            groups=groups,
            links=links,
            carried=kinds.columns(),
            domains=dict(domains),
            digest=digest.hexdigest(),
            arrangement=PAIRS if said is None else PROMPTED if prompted else STATEMENTS,
            labels=(0, 0) if said is None else (int(said.sum()), int((~said).sum())),
            own_groups=builder.given,
        )

    def _checked(self) -> Iterator[tuple[Record, Pair | LabelledText]]:
        for record, found in self._rows():
            if isinstance(found, RowError):
                raise found
            yield record, found

    def _rows(self) -> Iterator[tuple[Record, Pair | LabelledText | RowError]]:
        """Each item, or why it is none, with its record; as many as the limit allows."""
        left_out = self._left_out = Counter[str]()
        any_row = False
        for row in islice(self._all_rows(left_out), self._limit):
            any_row = True
            yield row
        if not any_row:
            raise InputError(f"{shown(self._files[0])}: nothing in it to measure: {_counted(left_out)}")

    def _all_rows(self, left_out: Counter[str]) -> Iterator[tuple[Record, Pair | LabelledText | RowError]]:
        index = 0
        for number, (file, shape, record) in enumerate(self._records()):
            try:
                made = shape.records(record, number, left_out)
            except FieldError as error:
                yield record, RowError.of(record, index, error, kind=shape.fields.kind)
                index += 1
                continue
            for each in made:
                try:
                    found = shape.fields.item(each, index, stem(file), number)
                except RowError as error:
                    found = error
                yield each, found
                index += 1

    def _records(self) -> Iterator[tuple[Path, Shape, Record]]:
        alone = len(self._files) == 1
        for file in self._files:
            shape = None
            for record in read_records(file, self._tell):
                if shape is None:
                    shape = self._shapes.of(record, file, self._tell, alone=alone)
                    if shape is None:
                        break
                    self._names = shape.fields.names
                yield file, shape, record

    def _tell(self, line: str) -> None:
        self._notes.setdefault(line, False)

    def _warn(self) -> None:
        """Warn once of how the data is read, whatever the number of passes; not where it is refused in one line."""
        for line, said in self._notes.items():
            if not said:
                _log.warning("%s", line, extra={"called": "note"})
        left_out = f"{shown(self._files[0])}: left out: {_counted(self._left_out)}" if self._left_out else ""
        if left_out and left_out not in self._notes:
            _log.warning("%s", left_out)
            self._tell(left_out)
        self._notes = dict.fromkeys(self._notes, True)

    def _again(self) -> Iterator[Pair | LabelledText]:
        self._refuse_change()
        yield from (item for _, item in self._checked())
        self._refuse_change()

    def _refuse_repeated_ids(self, hashes: np.ndarray) -> None:
        ordered = np.sort(hashes)
        repeated = {int(value) for value in ordered[1:][ordered[1:] == ordered[:-1]]}
        if not repeated:
            return
        # Hashes may agree by chance: the files are read again and the ids themselves compared.
        seen: dict[str, str] = {}
        for record, item in self._checked():
            if hash64(item.id) in repeated:
                kind = "text" if isinstance(item, LabelledText) else "pair"
                if item.id in seen:
                    raise InputError(
                        f"{record.place} ({kind} {item.index}): id {quoted(item.id)} is taken by {seen[item.id]}; "
                        f"give each {kind} an id of its own (one without gets its row number)"
                    )
                seen[item.id] = f"{record.place} ({kind} {item.index})"

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


def _counted(reasons: Counter[str]) -> str:
    return "; ".join(f"{number:,} x {reason}" for reason, number in reasons.most_common())


def _with_kinds(item: Pair | LabelledText, record: Record, scan: Scan) -> Pair | LabelledText:
    if isinstance(item, LabelledText):
        item = replace(item, arrangement=scan.arrangement)
    try:
        return converted(item, scan.carried)
    except (ValueError, KeyError) as error:  # only where the file changed after the scan
        raise InputError(f"{record.place}: the data changed while it was in use; start again") from error
