"""The confound ladder of labelled texts: what is left of each effect as more of what is not truth is held constant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, get_args

import numpy as np
import polars as pl

from bluffscope.stats.effects import hedges_factor
from bluffscope.stats.held_constant import fit
from bluffscope.stats.held_texts import FEWEST_OF_A_LABEL, Form, few_texts, hold_texts, nothing_held
from bluffscope.stats.ladder import LADDER_SCHEMA, NO_LOGPROB
from bluffscope.stats.linear_model import Estimate
from bluffscope.stats.scopes import Scope
from bluffscope.stats.study import numbered
from bluffscope.stats.text_study import TextBlock, TextStudy
from bluffscope.stats.verdicts import NO_VARIANCE, in_words_of

LABEL_LADDER_SCHEMA: Final = pl.Schema({"g" if name == "dz" else name: kind for name, kind in LADDER_SCHEMA.items()})
"""One row a metric, scope, rung and form, as for pairs; the effect is Hedges' g."""
LABEL_RUNGS: Final = (
    ("raw", "none"),
    *(("length", form) for form in get_args(Form)),
    *(("length_logprob", form) for form in get_args(Form)),
)
"""Rung and form of length, from the bottom up."""


def label_ladder(study: TextStudy) -> pl.DataFrame:
    """Every metric in every scope on every rung (docs/statistics.md).

    Args:
        study: the table.

    Returns:
        `LABEL_LADDER_SCHEMA`: scopes in order, in each the metrics, in each the rungs; g and p null with a reason where
        a rung cannot be computed.
    """
    return pl.concat([pl.DataFrame(schema=LABEL_LADDER_SCHEMA), *(_of_scope(study, scope) for scope in study.scopes)])


def _of_scope(study: TextStudy, scope: Scope) -> pl.DataFrame:
    rows: list[tuple[Any, ...]] = []
    for block in study.blocks(scope):
        for place, (rung, form) in enumerate(LABEL_RUNGS):
            number, found = _rung(study, block, rung, form)
            factor = hedges_factor(number - 2)
            for column, metric in enumerate(block.metrics.tolist()):
                numbers: tuple[float | None, ...] = (None,) * 4
                if isinstance(found, str):
                    why = found
                elif (why := _undefined(found, column, rung)) is None:
                    ends = factor * found.interval()[:, column]
                    numbers = (factor * found.standardised[column], *ends, found.p[column])
                rows.append((metric, place, scope.name, rung, form, number, *numbers, why))
    rows.sort(key=lambda row: row[:2])
    named = [(study.metrics[metric], *rest) for metric, _, *rest in rows]
    return pl.DataFrame(named, schema=LABEL_LADDER_SCHEMA, orient="row")


def _rung(study: TextStudy, block: TextBlock, rung: str, form: str) -> tuple[int, Estimate | str]:
    """How many texts a rung looks at, and its effect on each metric or why there is none."""
    surprise = study.logprobs[block.rows]
    if rung == "length_logprob":
        if not (known := np.isfinite(surprise)).any():
            return 0, NO_LOGPROB
        block, surprise = _only(block, known), surprise[known]
    number = len(block.rows)
    if (few := min(int(block.false.sum()), number - int(block.false.sum()))) < FEWEST_OF_A_LABEL:
        return number, few_texts(few)
    if rung == "raw":
        held = nothing_held(number)
    else:
        further = surprise if rung == "length_logprob" else None
        held = hold_texts(block, study.closed_names, form, further)  # type: ignore[arg-type]
    fitted = fit(block.false.astype(float), held, block.groups)
    return number, fitted if isinstance(fitted, str) else fitted.estimate(block.values)


def _only(block: TextBlock, chosen: np.ndarray) -> TextBlock:
    names = ("rows", "values", "false", "lengths", "domains", "closed")
    parts = {name: getattr(block, name)[chosen] for name in names}
    return replace(block, groups=numbered(block.groups[chosen]), **parts)


def _undefined(found: Estimate, column: int, rung: str) -> str | None:
    """Why one metric has no value on a rung that others have."""
    if np.isfinite([found.effect[column], found.error[column]]).all():
        return None
    return in_words_of("texts", NO_VARIANCE) if rung == "raw" else "what is held constant explains every value"
