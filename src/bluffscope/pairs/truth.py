"""Labels to true and false: what a data set calls them, and which records say neither."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bluffscope.errors import InputError
from bluffscope.pairs.layout import LeftOut
from bluffscope.pairs.paths import FieldError
from bluffscope.pairs.record import quoted

KNOWN: Final = {
    **dict.fromkeys(("true", "t", "1", "correct"), True),
    **dict.fromkeys(("false", "f", "0", "incorrect"), False),
}
"""Labels that need no explanation, casefolded."""
MOST_NAMED: Final = 20
"""Different labels that are counted by name; all others are counted together."""


@dataclass(frozen=True)
class Labels:
    """What is true and what is false, in the words of a data set."""

    known: Mapping[str, bool] = field(default_factory=lambda: KNOWN)
    """By label, casefolded."""
    given: bool = False
    """Whether the user or the data set's layout named them: then records with another label are left out."""

    @classmethod
    def parse(cls, given: Iterable[str]) -> Labels:
        """Of `DataOptions.labels`, each ``true=LABEL`` or ``false=LABEL``.

        Raises:
            InputError: neither, one label for both, or only one of the two.
        """
        known: dict[str, bool] = {}
        for text in given:
            side, equals, label = text.partition("=")
            if side not in ("true", "false") or not equals or not label.strip():
                raise InputError(f"--labels {quoted(text)}: expected true=LABEL or false=LABEL, such as true=SUPPORTS")
            if known.setdefault(_folded(label), side == "true") != (side == "true"):
                raise InputError(f"--labels {quoted(text)}: the label is both true and false; give it once")
        if known and len(set(known.values())) == 1:
            lacking = "false" if True in known.values() else "true"
            raise InputError(f"--labels: nothing is {lacking}; add {lacking}=LABEL")
        return cls(known, given=True) if known else cls()

    def truth(self, value: Any, name: str, left_out: Counter[str]) -> bool:
        """Whether a label says true.

        Args:
            value: of the record's field.
            name: of that field.
            left_out: knows the labels that were counted already.

        Raises:
            FieldError: it is no label that is known, and nobody said which are.
            LeftOut: there is none, or it is neither of those that were named.
        """
        if value is None or value == "" or value != value:  # noqa: PLR0124 - NaN
            raise LeftOut("no label")
        if not isinstance(value, bool | int | float | str):
            raise FieldError(f"field {quoted(name)} holds a {type(value).__name__}; expected a label")
        found = self.known.get(_folded(value))
        if found is not None:
            return found
        if not self.given:
            raise FieldError(
                f"field {quoted(name)} is {quoted(value)}; expected true or false, 1 or 0; or say what is what: "
                "--labels true=LABEL false=LABEL"
            )
        said = f"label {quoted(value, 40)}"
        many = sum(key.startswith("label ") for key in left_out) >= MOST_NAMED and said not in left_out
        raise LeftOut("another label" if many else said)


def _folded(label: object) -> str:
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label).strip().casefold()
