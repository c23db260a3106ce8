"""Every column of the result table: those of a pair declared here, those of the metrics in `bluffscope.metrics`.

The lists are plain tuples. A change to a metric's definition bumps that metric's `version`; a change
to the layout of the tables bumps `SCHEMA_VERSION`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from bluffscope import metrics
from bluffscope.errors import InputError
from bluffscope.metrics.declaration import VIEW_WORDS, Column, Kind
from bluffscope.records import PAIRS, PROMPTED, Arrangement

SCHEMA_VERSION: Final = 1
"""Version of the layout of a run's tables."""

ANALYSES: Final = tuple(analysis.name for analysis in metrics.ANALYSES)
"""Names of the built-in analyses, in the table's order."""

LOGPROB: Final = metrics.LOGPROB.name
"""Section of the log-probabilities."""
ON_REQUEST: Final = tuple(analysis.name for analysis in metrics.ON_REQUEST)
"""Sections that are there only when asked for: the trajectory and the log-probabilities."""

SHARD_COLUMNS: Final = ("_index", "_features", "_residuals", "_further_residuals", "_reason")
"""Columns of a shard, beside its texts, that are not columns of the table: no other column may have these names."""


def _of_pair(
    name: str, kind: Kind, doc: str, unit: str = "", least: float | None = None, most: float | None = None
) -> Column:
    return Column(name, kind, unit, least, most, doc, 1, "pair")


_GROUP: Final = (
    "Pairs that are not independent, by `--cluster-by`, have the same label; resampling works on these groups."
)
_COMPLETION: Final = "Tokens of prompt + {} beyond the longest token prefix it shares with the prompt."

PAIR_COLUMNS: Final = (
    _of_pair("pair_id", "str", "Name of the pair, unique in the run."),
    _of_pair("domain", "category", "Named group of pairs that results are reported for."),
    _of_pair("complexity", "int", "Difficulty as the source gives it, or null.", "dimensionless", 1, 10),
    _of_pair("group", "str", _GROUP),
    _of_pair("prompt_tokens", "int", "Tokens of the prompt, without BOS.", "tokens", 0),
    _of_pair("fact_tokens", "int", _COMPLETION.format("fact"), "tokens", 0),
    _of_pair("hall_tokens", "int", _COMPLETION.format("hallucination"), "tokens", 0),
    *(
        _of_pair(f"{view}_read_token", "str", f"Text of the (last) token at which the {VIEW_WORDS[view]} was read.")
        for view in PAIRS.views
    ),
)
"""What identifies a pair, the lengths of its texts, and the tokens that were read."""

_OF_TEXTS: Final = {
    "text_id": _of_pair("text_id", "str", "Name of the text, unique in the run."),
    "label": _of_pair("label", "bool", "Whether the text is true."),
    "domain": _of_pair("domain", "category", "Named group of texts that results are reported for."),
    "group": _of_pair(
        "group", "str", "Texts of one group are not independent: as the source gives it, else by `--cluster-by`."
    ),
    "prompt_tokens": _of_pair("prompt_tokens", "int", "Tokens of the prompt, without BOS.", "tokens", 0),
    "text_tokens": _of_pair(
        "text_tokens",
        "int",
        "Tokens of the text beyond the longest token prefix it shares with its prompt.",
        "tokens",
        0,
    ),
    "prompt_read_token": _of_pair("prompt_read_token", "str", "Text of the (last) token at which the prompt was read."),
    "read_token": _of_pair("read_token", "str", "Text of the (last) token at which the text was read."),
}
TEXT_COLUMNS: Final = tuple(_OF_TEXTS.values())
"""What identifies a labelled text, its length, and the tokens that were read; of a statement, none of a prompt."""


def identifying(arrangement: Arrangement) -> tuple[Column, ...]:
    """The columns that no analysis makes."""
    if arrangement == PAIRS:
        return PAIR_COLUMNS
    of_prompt = ("prompt_tokens", "prompt_read_token")
    return tuple(column for column in TEXT_COLUMNS if arrangement == PROMPTED or column.name not in of_prompt)


def measured_columns(
    layers: Sequence[int], sweep: Sequence[float] = (), arrangement: Arrangement = PAIRS
) -> tuple[Column, ...]:
    """Columns of all built-in metrics: by analysis, then those of the noise sweep, then those on request.

    Args:
        layers: layers measured, in the user's order.
        sweep: noise levels of ``--noise-sweep``.
        arrangement: the texts of an item.
    """
    return (
        *(column for analysis in metrics.ANALYSES for column in analysis.columns(layers, arrangement)),
        *(column for analysis in metrics.ANALYSES for column in analysis.swept_columns(sweep, arrangement)),
        *(column for analysis in metrics.ON_REQUEST for column in analysis.columns(layers, arrangement)),
    )


def table_columns(
    layers: Sequence[int],
    sweep: Sequence[float] = (),
    carried: Iterable[tuple[str, Kind]] = (),
    analyses: Sequence[str] = ANALYSES,
    added: Iterable[Column] = (),
    arrangement: Arrangement = PAIRS,
) -> tuple[Column, ...]:
    """All columns of metrics.parquet, in their order.

    Args:
        layers: layers measured, in the user's order.
        sweep: noise levels of ``--noise-sweep``.
        carried: (name, kind) of the source's further columns.
        analyses: names of the analyses that ran, out of `ANALYSES` and `ON_REQUEST`; the columns of the others are left
            out.
        added: columns of analyses that the user supplied.
        arrangement: the texts of an item.

    Raises:
        InputError: An unknown analysis, or a column name that would stand twice in the table.
    """
    known = (*ANALYSES, *ON_REQUEST)
    if unknown := [name for name in analyses if name not in known]:
        raise InputError(f"unknown analysis {unknown[0]!r}: expected some of {', '.join(known)}")
    measured = measured_columns(layers, sweep, arrangement)
    extra = [Column(name, kind, "", None, None, "Carried from the input.", 1, "carried") for name, kind in carried]
    kept = (column for column in measured if column.section in analyses)
    columns = (*identifying(arrangement), *kept, *added, *extra)
    counts = Counter([*SHARD_COLUMNS, *arrangement.sources, *(column.name for column in columns)])
    for name, count in counts.items():
        if count > 1:
            where = "in the data" if any(column.name == name for column in extra) else "in the options"
            raise InputError(f"two columns of the result table would be named {name!r}: rename the one {where}")
    return columns
