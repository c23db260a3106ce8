"""What a run over a model's own answers says: what it knows, and whether anything inside tells right from wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import NormalDist
from typing import Any, Final

import polars as pl

from bluffscope.detectors.classifiers import BASELINES, INSIDE, called
from bluffscope.detectors.held_out import EDGE
from bluffscope.host.terminal import count
from bluffscope.report.contents import Contents
from bluffscope.report.labels import auroc, capital, gain
from bluffscope.report.sides import IS_FACT
from bluffscope.stats.effects import POWER
from bluffscope.stats.scopes import POOLED

_REACH: Final = 1 + NormalDist().inv_cdf(POWER) / EDGE
"""Half widths of an interval from chance at which an AUROC is found with `POWER`."""


def own_answers(contents: Contents) -> tuple[str, ...]:
    """Sentences for a run over answers; none for others, and none on detectors while verdicts are withheld."""
    if not contents.run.of_answers:
        return ()
    said = [_known(contents)]
    if contents.detectors is not None and not contents.withheld:
        said += _told(contents, contents.detectors.filter(scope=POOLED))
    return tuple(said)


def _known(contents: Contents) -> str:
    """How often the model is right, over the answers that were measured."""
    by_question = (
        contents.metrics.select(group=contents.pairs["group"], right=pl.col(IS_FACT))
        .group_by("group")
        .agg(all=pl.col("right").all(), any=pl.col("right").any())
    )
    always, ever = int(by_question["all"].sum()), int(by_question["any"].sum())
    right = int(contents.metrics[IS_FACT].sum())
    wrong = contents.metrics.height - right
    return (
        f"The model gave {right:,} right and {wrong:,} wrong answers to {count(by_question.height, 'question')}: "
        f"{always:,} always answered right, {ever - always:,} sometimes, {by_question.height - ever:,} never."
    )


def _told(contents: Contents, rows: pl.DataFrame) -> Iterator[str]:
    """Whether a detector tells right from wrong answers, and better than what needs no look inside."""
    by_name = {row["detector"]: row for row in rows.iter_rows(named=True)}
    fitted = {name: row for name, row in by_name.items() if row["auroc"] is not None}
    name = next((name for name in INSIDE if name in fitted), None)
    if name is None:
        reasons = [row["reason"] for row in by_name.values() if row["reason"]]
        yield f"No detector was fitted: {reasons[0] if reasons else 'there is none'}."
        return
    row = fitted[name]
    reached = f"a detector on {called(name)} reaches AUROC {auroc(row)}"
    if row["lo"] is not None and row["lo"] > 0.5:
        yield f"Inside, right and wrong answers differ: {reached} on questions that it was not fitted to."
    else:
        found = contents.stats is not None and not contents.stats.filter(scope=POOLED, verdict="separates").is_empty()
        nothing = "Single metrics apart, nothing" if found else "Nothing"
        yield f"{nothing} inside tells wrong answers from right ones: {reached}.{_reach(contents, row)}"
    known = {one: fitted[one] for one in BASELINES if one in fitted}
    if known and row["gain"] is not None:
        yield _against(row, called(name), known)
    yield from (_alone(one, found) for one, found in known.items())
    for one in BASELINES:
        if one not in fitted and one in by_name:
            yield f"{capital(_named(one))}: not compared ({by_name[one]['reason']})."


def _reach(contents: Contents, row: Mapping[str, Any]) -> str:
    """The smallest AUROC that would have been found, by the width of this one's interval."""
    if row["lo"] is None or row["hi"] is None:
        return ""
    least = 0.5 + _REACH * (row["hi"] - row["lo"]) / 2
    questions = contents.pairs["group"].n_unique()
    answers = count(row["n"], "answer")
    return (
        f" With {answers} to {count(questions, 'question')}, an AUROC of at least {min(least, 1):.2f} would have been "
        f"found with a probability of {100 * POWER:.0f} %."
    )


def _against(row: Mapping[str, Any], inside: str, known: Mapping[str, Mapping[str, Any]]) -> str:
    best = max(known, key=lambda name: known[name]["auroc"])
    lo, hi = row["gain_lo"], row["gain_hi"]
    verb = "is better than" if lo is not None and lo > 0 else "is not shown to be better than"
    verb = "does worse than" if hi is not None and hi < 0 else verb
    over = f"the best baseline, {_named(best)} (AUROC {known[best]['auroc']:.2f})"
    return f"The detector on {inside} {verb} {over}: {gain(row)}."


def _alone(name: str, row: Mapping[str, Any]) -> str:
    tells = row["lo"] is not None and row["lo"] > 0.5
    verb = "tells them apart by itself" if tells else "does not tell them apart by itself"
    return f"{capital(_named(name))} {verb}: AUROC {auroc(row)}."


def _named(baseline: str) -> str:
    return {"text": "the answer's wording", "prompt": "the question's wording"}.get(baseline, BASELINES[baseline])
