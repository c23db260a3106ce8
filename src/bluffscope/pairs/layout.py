"""How a data set is laid out: the fields by which it is recognised, and what is read of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from bluffscope.pairs.record import Tell

Fields: TypeAlias = Mapping[str, Any]
Values: TypeAlias = dict[str, Any]
"""By key of a pair or of a labelled text; fact and hallucination may be lists."""
KEYS_SHOWN: Final = ("prompt", "fact", "hallucination", "text", "completion", "label", "group", "domain", "id")
"""What is told of where values come from, in this order."""
PAIRS: Final = "pairs"
GOLD: Final = "questions with right answers only"
LABELLED: Final = "labelled texts"


class LeftOut(Exception):  # noqa: N818 - no error
    """A record from which no pair can be made, and why; it is counted."""


@dataclass(frozen=True)
class Layout:
    """One way in which a data set is laid out."""

    schema: str
    """The data set, as `--schema` names it."""
    title: str
    """What is meant, for people."""
    needs: Mapping[str, type | None]
    """The fields by which it is recognised, with the type of those that tell it from another layout."""
    values: Callable[[Fields], Values] | None = None
    """From a record's fields to the values of its pairs, or of its labelled text; None where it holds neither."""
    took: Mapping[str, str] = field(default_factory=dict[str, str])
    """Where each value comes from, by key of a pair or of a labelled text."""
    used: Sequence[str] = ()
    """Fields that are not carried through to the tables."""
    holds: str = PAIRS
    """What a record is."""
    labels: Sequence[str] = ()
    """What is true and what is false in it, as `--labels` has it."""
    beside: Callable[[Path, Tell], Mapping[str, Fields]] | None = None
    """Of a file of such records, the further fields of each, by the value of `joined_by`, from a file beside it."""
    joined_by: str = ""
    asks: Callable[[Fields], Values] | None = None
    """Of questions with right answers only: question, answers, aliases, id and domain of a record."""

    def fits(self, fields: Fields) -> bool:
        """Whether a record has the fields."""
        return all(
            name in fields and (kind is None or fields[name] is None or isinstance(fields[name], kind))
            for name, kind in self.needs.items()
        )


def fields_taken(layout: Layout, keys: Iterable[str]) -> str:
    """Which value comes from where: `prompt from Question, fact from Best Answer`."""
    return ", ".join(f"{key} from {layout.took[key]}" for key in keys if key in layout.took)


def named(**names: str) -> Callable[[Fields], Values]:
    """The values that stand in fields of their own."""
    return lambda fields: {key: fields.get(name) for key, name in names.items()}
