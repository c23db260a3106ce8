"""Items, the texts that make a row of the result table, and their token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

View = Literal["prompt", "fact", "hall", "text"]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Which texts make an item, and what its row of the result table calls their columns."""

    key: str
    """Column of the table that names an item; each is unique in the run."""
    table: str
    """Name of the table that holds the texts of all items, without its suffix."""
    views: tuple[View, ...]
    """The texts of an item that are measured, in the table's order."""
    completions: tuple[View, ...]
    """Those of them that metrics of one value a text are given for: all but the prompt."""
    sources: tuple[str, ...]
    """Names of the fields of an item that hold its texts as they were given."""

    @property
    def per(self) -> int:
        """Completions of an item; they are its last views, and its last sources."""
        return len(self.completions)

    def of_part(self, name: str, part: str) -> str:
        """The column of one of the `parts` of a metric: ``entropy_diff``."""
        return f"{name}_{part}" if part else name

    @property
    def parts(self) -> tuple[str, ...]:
        """Suffixes of the columns of a metric that is given for completions: "diff" is the second less the first."""
        return (*self.completions, "diff") if len(self.completions) > 1 else ("",)

    def of_view(self, view: View, name: str) -> str:
        """The column of one view: ``fact_read_token``; just the name for an only completion."""
        return name if (view,) == self.completions else f"{view}_{name}"

    def at_layer(self, layer: int, view: View, name: str) -> str:
        """The column of a metric of one layer and view: ``l5_fact_gini``."""
        return f"l{layer}_{self.of_view(view, name)}"

    @property
    def completed(self) -> list[int]:
        """Indices of the completions among the views."""
        return [self.views.index(view) for view in self.completions]

    def compared(self, name: str, values: Float[np.ndarray, "item view"]) -> dict[str, np.ndarray]:
        """The columns of a metric known for every view: those of `parts`, each with one value an item."""
        columns = [values[:, view] for view in self.completed]
        columns += [columns[1] - columns[0]] if len(columns) > 1 else []
        return {self.of_part(name, part): column for part, column in zip(self.parts, columns, strict=True)}


PAIRS: Final = Arrangement(
    key="pair_id",
    table="pairs",
    views=("prompt", "fact", "hall"),
    completions=("fact", "hall"),
    sources=("prompt", "fact", "hallucination"),
)
"""A prompt with its true and its hallucinated completion."""
STATEMENTS: Final = Arrangement(
    key="text_id", table="texts", views=("text",), completions=("text",), sources=("prompt", "completion")
)
"""A text that is true or false. One with a prompt is read whole, and compared with nothing."""
PROMPTED: Final = replace(STATEMENTS, views=("prompt", "text"))
"""A prompt with one completion that is true or false."""
VIEWS: Final[tuple[View, ...]] = PAIRS.views
AUTO_JOIN: Final = "auto"
"""The join that is one space where prompt and completion do not bring white space of their own."""


def joined(prompt: str, completion: str, join: str) -> str:
    """The text that a model reads: prompt + join + completion.

    Args:
        prompt: may be empty.
        completion: what follows it.
        join: taken as it is; `AUTO_JOIN` is one space, or nothing where the prompt is empty or ends in white space, or
            where the completion begins with white space. Where both have a space there, one of the two is left out.
    """
    if join == AUTO_JOIN:
        join = "" if not prompt or prompt[-1].isspace() or completion[:1].isspace() else " "
        completion = completion[1:] if prompt.endswith(" ") and completion.startswith(" ") else completion
    return prompt + join + completion


def spread(count: int, wanted: int) -> list[int]:
    """So many places out of `count`, from the middle of each of as many equal stretches; all where there are fewer."""
    wanted = min(count, wanted)
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]


class Numbered(Protocol):
    """What work is cut into: things of the input, one after another."""

    @property
    def index(self) -> int:
        """Position in the input, from 0."""
        ...

    @property
    def id(self) -> str:
        """Unique within the input."""
        ...


class Item(Numbered, Protocol):
    """What makes one row of the result table: some texts that are read together."""

    @property
    def extra(self) -> Mapping[str, Any]:
        """Further columns of the source, carried through to the tables."""
        ...

    @property
    def arrangement(self) -> Arrangement:
        """Which texts it has."""
        ...

    @property
    def cells(self) -> dict[str, Any]:
        """What its row of the table says of it, by column; a shard's identity follows from them, in this order."""
        ...

    def texts(self, join: str) -> tuple[str, tuple[str, ...]]:
        """Its prompt ("" for none) and, for each completion of its arrangement, prompt and completion `joined`."""
        ...


ItemT = TypeVar("ItemT", bound=Item, covariant=True)
NumberedT = TypeVar("NumberedT", bound=Numbered, covariant=True)


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt with its true and its hallucinated completion."""

    index: int
    """Position in the input, from 0: the row of the result table."""
    id: str
    """Unique within the input; the row number as text where the source has none."""
    domain: str
    """Named group of pairs that statistics are reported for; "all" where the source has none."""
    complexity: int | None
    """Difficulty from 1 to 10, or None."""
    prompt: str
    fact: str
    hallucination: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of the source, carried through to the tables."""

    @property
    def arrangement(self) -> Arrangement:
        """That of pairs."""
        return PAIRS

    @property
    def cells(self) -> dict[str, Any]:
        """Its texts and names, by column."""
        return {
            "complexity": self.complexity,
            "pair_id": self.id,
            "domain": self.domain,
            "prompt": self.prompt,
            "fact": self.fact,
            "hallucination": self.hallucination,
        }

    def texts(self, join: str) -> tuple[str, tuple[str, ...]]:
        """The prompt, and the texts of fact and hallucination as `joined` puts them together."""
        return self.prompt, (joined(self.prompt, self.fact, join), joined(self.prompt, self.hallucination, join))

    def text(self, view: View, join: str) -> str:
        """The text of a view."""
        prompt, completions = self.texts(join)
        return dict(zip(VIEWS, (prompt, *completions), strict=True))[view]


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One text that is true or false: a statement, or a prompt with its completion."""

    index: int
    """Position in the input, from 0: the row of the result table."""
    id: str
    """Unique within the input; the row number as text where the source has none."""
    label: bool
    """Whether it is true."""
    domain: str
    """Named group of texts that statistics are reported for; "all" where the source has none."""
    group: str | None
    """Texts of one group are not independent; None where the source says nothing."""
    prompt: str
    """Empty for a statement."""
    completion: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of the source, carried through to the tables."""
    arrangement: Arrangement = STATEMENTS

    @property
    def cells(self) -> dict[str, Any]:
        """Its texts and names, by column."""
        return {
            "text_id": self.id,
            "label": self.label,
            "domain": self.domain,
            "prompt": self.prompt,
            "completion": self.completion,
        }

    def texts(self, join: str) -> tuple[str, tuple[str, ...]]:
        """The prompt, and the whole text as `joined` puts it together."""
        return self.prompt, (joined(self.prompt, self.completion, join),)


@dataclass(frozen=True)  # no slots: Python 3.11 cannot make a `Stretch[Item]` of a frozen class that has them
class Stretch(Generic[NumberedT]):
    """A stretch of the input that is worked on and committed as one: batches never cross its border."""

    number: int
    items: tuple[NumberedT, ...]
    groups: tuple[str, ...] = ()
    """Group label of each item, where they have some."""
    arrangement: Arrangement = PAIRS
    """Of its items, where they are texts to be measured."""


Shard = Stretch[Item]
"""One of texts to be measured."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """The token ids of one text, and where it is read."""

    item: int
    """Index of its item in the input."""
    view: int
    """Which of its item's views it is: an index into `Arrangement.views`."""
    ids: tuple[int, ...]
    """Token ids as the model sees them, a BOS first where one is fed."""
    reads: tuple[int, ...]
    """Indices into `ids` at which the text is measured; never a BOS, never empty but for `answers`."""
    scored: tuple[int, ...] = ()
    """Indices into `ids` of the completion's tokens, where their log-probability is asked for; never the first of
    `ids`, which nothing predicts."""
    answers: bool = False
    """Whether it is a question to the model with an answer: `scored` are the answer's tokens, nothing is read, and
    `view` is 2 k for the answer True about the item's k-th completion, 2 k + 1 for False."""
    further: tuple[tuple[int, ...], ...] = ()
    """Of a completion, likewise `reads` at each further position of which residuals are kept."""

    @property
    def computed(self) -> tuple[int, ...]:
        """The ids that go through the model: nothing looks at an answer's last token but as a prediction."""
        return self.ids[:-1] if self.answers else self.ids


@dataclass(frozen=True, slots=True)
class Tokenized(Generic[ItemT]):
    """The texts of an item as token ids, with what the table says of them, each in the order of its views."""

    item: ItemT
    sequences: tuple[Sequence, ...]
    tokens: tuple[int, ...]
    """Tokens of the prompt, without BOS; of each completion: the text's length less the longest token prefix it has in
    common with the prompt."""
    read_tokens: tuple[str, ...]
    """Text of the (last) token at which each is read."""
    questions: tuple[Sequence, ...] = ()
    """What the model is asked about its completions, with each answer; empty where nothing is asked, or the question
    is too long for the model."""
