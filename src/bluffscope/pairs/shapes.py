"""From the records of a file to records of one pair or text each: fields, paths, data sets, lists, templates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Final, cast

from bluffscope.config import DataOptions
from bluffscope.errors import InputError
from bluffscope.pairs.fields import KEYS, LABELLED_KEYS, TEXTS, FieldMap, carried_text
from bluffscope.pairs.labelled_schemas import PROMPTS
from bluffscope.pairs.layout import KEYS_SHOWN, LABELLED, Fields, Layout, LeftOut, fields_taken
from bluffscope.pairs.paths import FieldError, Template, picked, root_of
from bluffscope.pairs.record import Record, Tell, quoted
from bluffscope.pairs.schemas import AUTO, check_schema, layout_of, not_read
from bluffscope.pairs.truth import Labels

MOST_PAIRS: Final = 1000
"""Pairs that one record may become."""
_SIDES: Final = ("fact", "hallucination")


@dataclass(frozen=True)
class Shape:
    """How the records of one file become pairs, or labelled texts."""

    fields: FieldMap
    layout: Layout | None
    """Of a data set that is read by its name."""
    template: Template | None
    every: bool
    """Whether each item of one list is paired with each of the other."""
    labels: Labels = Labels()
    """Of labelled texts: what is true and what is false."""
    beside: Mapping[str, Fields] = field(default_factory=dict[str, Fields])
    """Further fields of the records, by the value of the layout's `joined_by`."""

    def records(self, record: Record, number: int, left_out: Counter[str]) -> list[Record]:
        """The records of one pair (or text) each that a record becomes; texts stand in the fields that the map names.

        Args:
            record: as the file has it.
            number: its number in the source, from 0: the id of one that has none.
            left_out: counts what does not become a pair or text, by reason.

        Raises:
            FieldError: it is not as the options or the data set say.
        """
        if self.fields.labelled:
            return self._labelled(record, left_out)
        fields, sides = record.fields, [self.fields.names[side] for side in _SIDES]
        plain = self.layout is None and self.template is None and not self._paths(fields)
        if plain and not any(isinstance(fields.get(side), list) for side in sides):
            return [record]
        try:
            single = self._single(fields)
            lists = [_items(single.get(side), side, left_out) for side in sides]
        except LeftOut as reason:
            left_out[str(reason)] += 1
            return []
        if any(isinstance(single.get(side), list) for side in sides):
            return list(self._unfolded(record, single, lists, number))
        return [replace(record, fields=single)]

    def _labelled(self, record: Record, left_out: Counter[str]) -> list[Record]:
        """The record of a labelled text, its label true or false; none where it has no label that counts."""
        name = self.fields.names["label"]
        try:
            single = self._single(record.fields)
            if name not in single:
                raise FieldError(f"field {quoted(name)} is missing; name the right one with --columns label=NAME")
            single[name] = self.labels.truth(single[name], name, left_out)
        except LeftOut as reason:
            left_out[str(reason)] += 1
            return []
        return [replace(record, fields=single)]

    def _paths(self, fields: Mapping[str, Any]) -> list[str]:
        """The names of the map that lead into fields."""
        names = (self.fields.names[key] for key in self.fields.mapped)
        return [name for name in names if name not in fields and root_of(name, fields) in fields]

    def _single(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The values of an item under the names of the map, lists as they are, and the fields that are carried."""
        names = self.fields.names
        if self.layout is None:
            found = {name: picked(name, fields) for name in self._paths(fields)}
            used = {root_of(name, fields) for name in found}
        else:
            found, used = self._of_layout(self.layout, fields), set(self.layout.used)
        if self.template is not None:
            found[names["prompt"]] = self.template.filled(fields)
        return {name: value for name, value in fields.items() if name not in used} | found

    def _of_layout(self, layout: Layout, fields: Mapping[str, Any]) -> dict[str, Any]:
        assert layout.values is not None
        if self.beside:
            fields = {**fields, **self.beside.get(str(fields.get(layout.joined_by)), {})}
        try:
            values = layout.values(fields)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            reason = quoted(f"{type(error).__name__}: {error}")
            raise FieldError(f"the record is not laid out like {layout.title} ({reason}); drop or mend it") from error
        mine = {key: picked(self.fields.names[key], fields) for key in self.fields.mapped}
        return {self.fields.names[key]: value for key, value in (values | mine).items()}

    def _unfolded(
        self, record: Record, single: dict[str, Any], lists: list[list[Any]], number: int
    ) -> Iterator[Record]:
        """Pairs of the k-th with the k-th, the shorter side repeated, or of each with each."""
        longest = max(map(len, lists))
        count = math.prod(map(len, lists)) if self.every else longest
        if count > MOST_PAIRS:
            raise FieldError(f"the record makes {count:,} pairs; at most {MOST_PAIRS:,} of one prompt are read")
        aligned = (tuple(items[k % len(items)] for items in lists) for k in range(count))
        pairs = product(*lists) if self.every else aligned
        names = self.fields.names
        texts = {names[key] for key in TEXTS}
        plain = {name: value if name in texts else carried_text(value, name) for name, value in single.items()}
        base = single.get(names["id"])
        base = number if base is None or base == "" else base
        numbered = isinstance(base, str | int) and count > 1  # of anything else, the fault is told by whoever reads it
        for k, (fact, hallucination) in enumerate(pairs, 1):
            own = {names["fact"]: fact, names["hallucination"]: hallucination}
            own[names["id"]] = f"{base}-{k}" if numbered else base
            yield replace(record, fields=plain | own)


def _items(value: Any, name: str, left_out: Counter[str]) -> list[Any]:
    """The completions of one side: a single one, or those of a list, without empty ones, which are counted."""
    if not isinstance(value, list):
        return [value]
    whole = cast("list[Any]", value)
    items = [item for item in whole if item is not None and item != ""]
    if not items:
        raise LeftOut(f"no text in {quoted(name)}")
    if len(items) < len(whole):
        left_out[f"an empty text in {quoted(name)}"] += len(whole) - len(items)
    return items


class Shapes:
    """How the records of a source become pairs, from its options and the first record of each file."""

    def __init__(self, options: DataOptions) -> None:
        """Check the options.

        Raises:
            InputError: they make no sense, or contradict each other.
        """
        check_schema(options.schema)
        by_file = options.domain_from == "file"
        self.fields = FieldMap.parse(options.columns, file_domains=by_file, chat=options.chat)
        self.layouts: dict[str, Layout] = {}
        """The data sets that were recognised, by their titles."""
        self._labels = Labels.parse(options.labels)
        self._schema, self._every = options.schema, options.pairing == "all"
        self._template = None if options.prompt_template is None else Template.parse(options.prompt_template)
        if self._template is not None and "prompt" in self.fields.mapped:
            raise InputError("--prompt-template and --columns prompt=... contradict each other; give one of them")
        if options.schema != AUTO and (twice := self.fields.mapped & set(TEXTS)):
            raise InputError(
                f"--schema {options.schema} and --columns {min(twice)}=... contradict each other; give one"
            )

    def of(self, first: Record, file: Path, tell: Tell, *, alone: bool = True) -> Shape | None:
        """The shape of a file with this first record; None where it is only read beside another.

        Args:
            first: its first record.
            file: where it is.
            tell: told what is read from where.
            alone: whether it is the only file.

        Raises:
            InputError: it is a data set of which nothing can be read, or not the one that was named.
        """
        try:
            layout = self._layout(first.fields)
        except InputError as error:
            raise InputError(f"{first.place}: {error}") from error
        if layout is None:
            labelled = self.fields.labelled or (not self.fields.mapped and _is_labelled(first.fields))
            fields = self.fields.of_labelled() if labelled else self.fields
            return Shape(fields, None, self._template, self._every, self._labels)
        if layout.holds == PROMPTS and not alone:
            return None
        if layout.values is None:
            raise InputError(f"{first.file}: {not_read(layout)}")
        if layout.title not in self.layouts:
            self.layouts[layout.title] = layout
            keys = [key for key in KEYS_SHOWN if not (key == "prompt" and self._template is not None)]
            tell(f"{first.file}: read as {layout.schema} ({layout.title}): {fields_taken(layout, keys)}")
        names = {key: layout.took.get(key, key) for key in (LABELLED_KEYS if layout.holds == LABELLED else KEYS)}
        names |= {key: self.fields.names[key] for key in self.fields.mapped}
        labels = Labels.parse(layout.labels) if layout.labels and not self._labels.given else self._labels
        beside = {} if layout.beside is None else layout.beside(file, tell)
        return Shape(replace(self.fields, names=names), layout, self._template, self._every, labels, beside)

    def _layout(self, fields: Mapping[str, Any]) -> Layout | None:
        if self._schema != AUTO:
            return layout_of(fields, self._schema)
        literal = [key for key in TEXTS if not (key == "prompt" and self._template is not None)]
        if self.fields.mapped or all(key in fields for key in literal) or _is_labelled(fields):
            return None
        return layout_of(fields)


def _is_labelled(fields: Mapping[str, Any]) -> bool:
    """Whether a record has the fields of a labelled text by their names."""
    return "label" in fields and ("text" in fields or "completion" in fields)
