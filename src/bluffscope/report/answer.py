"""What a run comes to, in plain words: the sentence that terminal and page open with, and what stands below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from bluffscope.host.terminal import count, interval
from bluffscope.report.contents import Contents, knowledge, verdicts_withheld
from bluffscope.report.detector_line import alone, detector_line
from bluffscope.report.labels import clean, effect, in_words, size
from bluffscope.report.next_commands import next_commands
from bluffscope.report.own_answers import own_answers
from bluffscope.report.sides import Words, labels_of
from bluffscope.report.verdicts import headline, judged, ranked
from bluffscope.stats.scopes import POOLED
from bluffscope.stats.verdicts import NAMES
from bluffscope.table.health import Health, outcome
from bluffscope.table.metric_pairs import layer_of

MOST_EFFECTS: Final = 5
Kind = Literal["some", "nothing", "none", "withheld"]
"""Whether anything separates; "none" where nothing was tested."""


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
    detectors: pl.DataFrame | None = None
    n: int = 0
    """Items of the table."""
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
            words=contents.words,
            path=contents.path,
            health=contents.health,
            manifest=contents.manifest,
            config=contents.config,
            detectors=contents.detectors,
            n=contents.total,
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


@dataclass(frozen=True)
class Answer:
    """What a run comes to."""

    ran: str
    """Data, number, model, layers and SAEs in a line."""
    health: str
    """Whether the measurement is sound, and what was left out, in a line."""
    sentence: str
    headline: str
    """How many metrics separate, by their names."""
    kind: Kind = "none"
    effects: tuple[Effect, ...] = ()
    """The strongest ones, those that separate first, where most is found: known pairs, say, or all."""
    where: str = ""
    """What a table calls that place."""
    symbol: str = ""
    """What they are: d_z, of labelled texts g."""
    scopes: tuple[ScopeAnswer, ...] = ()
    """Known and unknown, or the two scopes of the column whose values differ most; empty where there are none."""
    detector: str | None = None
    """How well a detector judges single texts, in a line."""
    next: tuple[str, ...] = ()
    """Two commands."""
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    """Metrics tested over all items, by verdict."""
    banner: str | None = None
    """A warning above verdicts that should not be relied on."""
    alone: str | None = None
    """How well a detector judges single texts, with its gain over baselines."""
    own: tuple[str, ...] = ()
    """What a run over a model's own answers says of them, sentence by sentence."""


def answer(results: Results) -> Answer:
    """What the run comes to."""
    rows = results.stats
    made = Answer(_ran(results), _health(results), "", "", next=next_commands(results, "none"), banner=_banner(results))
    if rows is None or rows.is_empty():
        why = "there is no stats.parquet" if rows is None else "no metric is in the table"
        said = f"No effect was tested: {why}."
        return replace(made, sentence=said, headline=said)
    if results.withheld:
        return replace(_withheld(results, made), own=results.own)
    whole = _scope(results, POOLED)
    known = tuple(_scope(results, name) for name in _known(results, rows))
    lead = next((part for part in (*known, whole) if part.separate), whole)
    effects = _strongest(results, lead.scope)
    tested = judged(rows)
    pooled = tested.filter(scope=POOLED)
    kind = "some" if (tested["verdict"] == "separates").any() else "nothing" if tested.height else "none"
    parts = [_with(results, part, effects) for part in known or _furthest(results, effects)]
    return replace(
        made,
        sentence=_sentence(results, whole, known),
        headline=headline(rows),
        kind=kind,
        effects=effects,
        where=lead.name,
        symbol=results.words.symbol,
        scopes=tuple(parts),
        detector=detector_line(results.detectors, lead, known),
        next=next_commands(results, kind, lead),
        counts={name: pooled.filter(verdict=name).height for name in NAMES} if pooled.height else {},
        alone=None if results.own else alone(results.detectors),
        own=results.own,
    )


def _ran(results: Results) -> str:
    """`bluff200: 200 pairs; bluffscope-demo, layers 2 5 8, SAEs of bluffscope-demo`."""
    items = results.words.number(*(results.sides or (results.n, 0)))
    if not results.is_run:
        return f"{clean(results.path.name, 60)}: {items}"
    manifest, model = results.manifest, results.config.get("model", {})
    data = str((manifest.get("data") or {}).get("name") or results.words.items)
    name = str((manifest.get("model") or {}).get("name") or model.get("model") or "a model")
    layers = " ".join(map(str, model.get("layers") or ()))
    saes = f"SAEs {_short(str(model.get('sae')))}" if manifest.get("saes") else "without SAEs"
    return f"{_short(data)}: {items}; {_short(name)}, layers {layers}, {saes}"


def _short(name: str) -> str:
    """Of a file or folder its last part; any other name as it is."""
    return clean(Path(name).name if Path(name).is_absolute() else name, 48)


def _health(results: Results) -> str:
    """Whether the measurement is sound, then what was left out or found in the data."""
    manifest = results.manifest
    parts = [outcome(manifest["health"]) if manifest.get("health") else "Health: not checked"]
    if left_out := (manifest.get("counts") or {}).get("quarantined"):
        parts.append(f"{results.words.count(left_out)} left out, see quarantine.parquet")
    if lint := (manifest.get("lint") or {}).get("headline"):
        parts.append(f"lint: {lint}")
    return "; ".join(parts)


def _withheld(results: Results, made: Answer) -> Answer:
    """What is wrong, and what to do."""
    failures = list(results.health.failures) or ["as its statistics say"]
    others = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
    first = next((item for item in results.health.findings if item.severity == "error"), None)
    wrong = failures[0].rstrip(".")
    parts = [f"No verdict, because the measurement is not sound: {wrong}{others}."]
    if first is not None:
        parts += [f"{part.rstrip('.')}." for part in (first.means, first.do) if part and part.rstrip(".") not in wrong]
    stopped = f"Verdicts are withheld: the health gate failed ({wrong}{others})."
    return replace(made, sentence=" ".join(parts), headline=stopped, kind="withheld", banner=None)


def _known(results: Results, rows: pl.DataFrame) -> tuple[str, ...]:
    """The scopes of what a model knows and of what it does not, where both are there."""
    scopes = set(rows["scope"])
    pairs = [(f"{name}=true", f"{name}=false") for name in knowledge(results.manifest)]
    return next((pair for pair in pairs if scopes.issuperset(pair)), ())


def _scope(results: Results, name: str) -> ScopeAnswer:
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
    column, _, value = scope.partition("=")
    if column == knowledge(results.manifest)[0] and value in ("true", "false"):
        return ("what the model knows", "known") if value == "true" else ("what it does not know", "unknown")
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


def _strongest(results: Results, scope: str) -> tuple[Effect, ...]:
    assert results.stats is not None
    tested = ranked(judged(results.stats.filter(scope=scope)).drop_nulls("dz"))
    first = tested.sort(pl.col("verdict") != "separates", maintain_order=True).head(MOST_EFFECTS)
    return tuple(_effect(results, row) for row in first.iter_rows(named=True))


def _with(results: Results, part: ScopeAnswer, effects: Sequence[Effect]) -> ScopeAnswer:
    """The same with the effects of these metrics there."""
    assert results.stats is not None
    rows = {row["metric"]: row for row in results.stats.filter(scope=part.scope).iter_rows(named=True)}
    here = (rows.get(one.metric) for one in effects)
    return replace(
        part, effects=tuple(_effect(results, row) if row and row["dz"] is not None else None for row in here)
    )


def _furthest(results: Results, effects: Sequence[Effect]) -> tuple[ScopeAnswer, ...]:
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
    return tuple(_scope(results, name) for name in spread.select("first", "last").row(0))


def _sentence(results: Results, whole: ScopeAnswer, known: Sequence[ScopeAnswer]) -> str:
    words, rows = results.words, results.stats
    assert rows is not None
    without = rows.filter(verdict="withheld")["metric"].n_unique()
    start = f"Without {count(without, 'metric')} of SAEs that failed the health gate: " if without else ""
    if any(part.separate for part in known):
        parts = [f"of {part.words} ({words.count(part.n)}), {_finding(part, words)}" for part in known]
        said = "; ".join(parts)
    elif whole.separate:
        said = f"{_finding(whole, words)}; {whole.separate} of {count(whole.tested, 'metric')} separate them"
    elif whole.tested:
        tested = f"{count(whole.tested, 'metric')} tested over {words.count(whole.n)}"
        said = f"nothing is shown to tell {words.facts} from {words.halls}: {tested}{_power(whole, words)}"
        said += "".join(_others(rows))
    else:
        said = f"whether anything tells {words.facts} from {words.halls} cannot be judged: {whole.why}"
    return start + (said if start else f"{said[0].upper()}{said[1:]}") + "."


def _finding(part: ScopeAnswer, words: Words) -> str:
    """What is found in a scope, in a clause."""
    if part.strongest is not None:
        differ = f"{words.halls} differ from {words.facts} at equal length and wording"
        return f"{differ}, above all: {part.strongest.words} ({part.strongest.text})"
    return f"nothing is shown to differ{_power(part, words)}" if part.tested else f"nothing can be judged ({part.why})"


def _power(part: ScopeAnswer, words: Words) -> str:
    if part.least is None:
        return ""
    return f" (80 % power for {words.symbol} {part.least:.2f}, {size(part.least)})"


def _others(rows: pl.DataFrame) -> Iterator[str]:
    """What became of metrics that do not separate."""
    pooled = judged(rows.filter(scope=POOLED))
    if explained := pooled.filter(verdict="confounded").height:
        yield f"; {count(explained, 'metric')} differ by length or wording alone"
    if negligible := pooled.filter(verdict="equivalent").height:
        yield f"; {negligible} shown to be negligible"


def _banner(results: Results) -> str | None:
    """What stands above verdicts that were asked for although the health gate failed."""
    failures = results.health.failures
    if not failures:
        return None
    listed = "; ".join(failure.rstrip(".") for failure in failures)
    if not results.health.allowed:
        return f"The health gate failed over the SAEs: {listed}. Only what needs no SAE is judged."
    return (
        f"The health gate failed: {listed}. The verdicts below are shown anyway (--allow-unsound); do not rely on them."
    )


__all__ = ["Answer", "Effect", "Results", "ScopeAnswer", "answer"]
