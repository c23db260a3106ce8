"""What an answer is made of: a run's results, and its effects in words, in all pairs or texts and in some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import polars as pl

from bluffscope.host.terminal import interval
from bluffscope.report.contents import Contents, verdicts_withheld
from bluffscope.report.knowledge import knows
from bluffscope.report.labels import clean, effect, in_words, size
from bluffscope.report.own_answers import own_answers
from bluffscope.report.sides import Words, labels_of
from bluffscope.report.verdicts import judged, ranked
from bluffscope.stats.scopes import POOLED
from bluffscope.table.health import Health
from bluffscope.table.metric_pairs import layer_of

MOST_EFFECTS: Final = 5
_OF_ANSWERS: Final = {"facts": "right answers", "halls": "wrong answers"}
"""What the sides of a run over a model's own answers are called."""


@dataclass(frozen=True)
class Results:
    """What an answer is made of."""

    stats: pl.DataFrame | None
    """The statistics under the names of pairs (`sided_statistics`); None where nothing was tested."""
    words: Words
    path: Path
    """The run's folder, or the table."""
    health: Health = field(default_factory=Health)
    manifest: Mapping[str, Any] = field(default_factory=dict[str, Any])
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    about: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """stats.json without its rows."""
    detectors: pl.DataFrame | None = None
    n: int = 0
    """Items of the table."""
    tested: int = 0
    """How many of them were looked at."""
    sides: tuple[int, int] | None = None
    """True and false texts among them, of labelled ones."""
    own: tuple[str, ...] = ()
    """Sentences on a model's own answers (`own_answers`)."""

    @classmethod
    def of(cls, contents: Contents) -> Results:
        """Those of a run."""
        whole = contents.total == contents.metrics.height
        return cls(
            stats=contents.stats,
            words=replace(contents.words, **_OF_ANSWERS) if contents.run.of_answers else contents.words,
            path=contents.path,
            health=contents.health,
            manifest=contents.manifest,
            config=contents.config,
            about=contents.about,
            detectors=contents.detectors,
            n=contents.total,
            tested=contents.metrics.height,
            sides=labels_of(contents.metrics) if whole and not contents.words.paired else None,
            own=own_answers(contents),
        )

    @property
    def withheld(self) -> bool:
        """Whether no verdict may be shown."""
        return verdicts_withheld(self.stats, self.health)

    @property
    def is_run(self) -> bool:
        """Whether there is a run's folder, rather than a table alone."""
        return bool(self.config)

    @property
    def in_memory(self) -> bool:
        """Whether model or SAEs lay in memory, so that no command can load them again."""
        identities = [self.manifest.get("model") or {}, *(self.manifest.get("saes") or {}).values()]
        return any(identity.get("in_memory") for identity in identities)


@dataclass(frozen=True)
class Effect:
    """The difference of hallucinations from facts, or of false texts from true ones, in one metric."""

    metric: str
    """Its column's name."""
    words: str
    """The difference in words, with the layer."""
    scope: str
    n: int
    value: float
    """d_z, of labelled texts Hedges' g, at equal length and wording; raw where there is no such number."""
    lo: float | None
    hi: float | None
    size: str
    """negligible, small, medium or large."""
    verdict: str
    text: str
    """The number with its interval and size: `d_z -5.21, 95 % -6.08 to -4.35, large`."""


@dataclass(frozen=True)
class ScopeAnswer:
    """What some of the pairs or texts say."""

    scope: str
    words: str
    """After "of": "what the model knows"."""
    short: str
    """known, unknown, or the scope's name."""
    name: str
    """What a table calls it: "known=true", "all"."""
    n: int
    separate: int
    """Metrics that separate, of so many tested."""
    tested: int
    strongest: Effect | None
    least: float | None
    """The smallest effect that so many independent items show with 80 % power, before correction."""
    why: str
    """Why nothing was tested; empty where something was."""
    effects: tuple[Effect | None, ...] = ()
    """Those of `Answer.effects`, here."""


def scope_answer(results: Results, name: str) -> ScopeAnswer:
    """What a scope's pairs or texts say."""
    assert results.stats is not None
    rows = results.stats.filter(scope=name)
    words, short = _spoken(results, name)
    tested = judged(rows)
    found = ranked(tested.filter(verdict="separates"))
    reasons = rows["reason"].value_counts(sort=True)["reason"]
    return ScopeAnswer(
        scope=name,
        words=words,
        short=short,
        name="all" if name == POOLED else clean(name),
        n=int(rows["n"].max() or 0),  # pyright: ignore[reportArgumentType]
        separate=tested.filter(verdict="separates").height,
        tested=tested.height,
        strongest=_effect(results, found.row(0, named=True)) if found.height else None,
        least=tested["mde80"].max(),  # pyright: ignore[reportArgumentType]
        why="" if tested.height else str(reasons[0]) if len(reasons) else "there is no metric",
    )


def _spoken(results: Results, scope: str) -> tuple[str, str]:
    """A scope after "of", and in a word."""
    if (known := knows(results.manifest, scope)) is not None:
        return ("what the model knows", "known") if known else ("what it does not know", "unknown")
    items, name = results.words.items, clean(scope, 40)
    return (f"all {items}", "all") if scope == POOLED else (f"{items} with {name}" if "=" in scope else name, name)


def _effect(results: Results, row: Mapping[str, Any]) -> Effect:
    held = row["adj_dz"] is not None
    value = row["adj_dz"] if held else row["dz"]
    ends = {"lo": row["adj_lo" if held else "dz_lo"], "hi": row["adj_hi" if held else "dz_hi"]}
    within = f", 95 % {interval(ends, style='+.2f')}" if ends["lo"] is not None and ends["hi"] is not None else ""
    layer, name = layer_of(row["metric"])
    label = (results.manifest.get("added") or {}).get(name if layer is not None else row["metric"], {}).get("label")
    return Effect(
        metric=row["metric"],
        words=in_words(row["metric"], value, label or ""),
        scope=row["scope"],
        n=row["n"],
        value=value,
        **ends,
        size=size(value),
        verdict=row["verdict"],
        text=f"{results.words.symbol} {effect(value)}{within}, {size(value)}",
    )


def strongest_effects(results: Results, scope: str) -> tuple[Effect, ...]:
    """The largest that separate; where none does, the largest of all that were tested."""
    assert results.stats is not None
    tested = ranked(judged(results.stats.filter(scope=scope)).drop_nulls("dz"))
    found = tested.filter(verdict="separates")
    shown = (tested if found.is_empty() else found).head(MOST_EFFECTS)
    return tuple(_effect(results, row) for row in shown.iter_rows(named=True))


def with_effects(results: Results, part: ScopeAnswer, effects: Sequence[Effect]) -> ScopeAnswer:
    """The same with the effects of these metrics there."""
    assert results.stats is not None
    rows = {row["metric"]: row for row in results.stats.filter(scope=part.scope).iter_rows(named=True)}
    here = (rows.get(one.metric) for one in effects)
    # What cannot be judged there may be there by choice: log-probability in what the model knows by it.
    return replace(part, effects=tuple(_effect(results, row) if row and row["q"] is not None else None for row in here))


def furthest(results: Results, effects: Sequence[Effect]) -> tuple[ScopeAnswer, ...]:
    """Where the strongest effect is largest and where smallest, of the column whose values differ most in it."""
    if not effects or results.stats is None:
        return ()
    rows = results.stats.filter(pl.col("scope") != POOLED, metric=effects[0].metric).drop_nulls("q")
    value = pl.coalesce("adj_dz", "dz")
    column = pl.col("scope").str.extract("^([^=]*)=").fill_null("domain")
    spread = (
        rows.with_columns(column=column, value=value)
        .group_by("column", maintain_order=True)
        .agg(
            first=pl.col("scope").get(pl.col("value").abs().arg_max()),
            last=pl.col("scope").get(pl.col("value").abs().arg_min()),
            apart=pl.col("value").max() - pl.col("value").min(),
        )
        .filter(pl.col("first") != pl.col("last"))
        .sort("apart", descending=True, maintain_order=True)
    )
    if spread.is_empty():
        return ()
    return tuple(scope_answer(results, name) for name in spread.select("first", "last").row(0))
