"""What a run comes to, in plain words: the sentence that terminal and page open with, and what stands below it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import polars as pl

from bluffscope.host.terminal import count
from bluffscope.metrics import LOGPROB
from bluffscope.report.detector_line import alone, better_detectors, detector_line
from bluffscope.report.knowledge import known_scopes
from bluffscope.report.labels import capital, clean
from bluffscope.report.next_commands import next_commands
from bluffscope.report.results import (
    Effect,
    Results,
    ScopeAnswer,
    furthest,
    scope_answer,
    strongest_effects,
    with_effects,
)
from bluffscope.report.sides import Words
from bluffscope.report.verdicts import headline, judged
from bluffscope.stats.scopes import POOLED
from bluffscope.stats.verdicts import NAMES
from bluffscope.table.health import outcome
from bluffscope.table.metric_pairs import layer_of

Kind = Literal["some", "nothing", "none", "withheld"]
"""Whether anything separates; "none" where nothing was tested."""


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
    """The strongest ones that separate where something does, in known pairs, say; else the largest that were tested."""
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
    whole = scope_answer(results, POOLED)
    known = tuple(scope_answer(results, name) for name in known_scopes(results.manifest, rows["scope"].unique()))
    lead = next((part for part in (*known, whole) if part.separate), whole)
    effects = strongest_effects(results, lead.scope)
    tested = judged(rows)
    pooled = tested.filter(scope=POOLED)
    kind = "some" if (tested["verdict"] == "separates").any() else "nothing" if tested.height else "none"
    # Where nothing differs, what differs most between scopes is chance.
    apart = known or (furthest(results, effects) if kind == "some" else ())
    parts = [with_effects(results, part, effects) for part in apart]
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
    items = results.words.number(*results.sides) if results.sides else results.words.count(results.n)
    if results.tested < results.n:
        items += f" ({results.tested:,} tested, drawn at random)"
    if not results.is_run:
        return f"{clean(results.path.name, 60)}: {items}"
    manifest, model = results.manifest, results.config.get("model", {})
    data = str((manifest.get("data") or {}).get("name") or results.words.items)
    name = str((manifest.get("model") or {}).get("name") or model.get("model") or "a model")
    layers = _ranges(model.get("layers") or ())
    saes = f"SAEs {_short(str(model.get('sae') or 'given'))}" if manifest.get("saes") else "without SAEs"
    return f"{_short(data)}: {items}; {_short(name)}, layers {layers}, {saes}"


def _ranges(layers: Sequence[int]) -> str:
    """`2 5 8`, `0-29`: three or more in a row are a range."""
    rows: list[list[int]] = []
    for layer in layers:
        if rows and layer == rows[-1][-1] + 1:
            rows[-1].append(layer)
        else:
            rows.append([layer])
    return " ".join(f"{row[0]}-{row[-1]}" if len(row) > 2 else " ".join(map(str, row)) for row in rows)


def _short(name: str) -> str:
    """Of a file or folder its last part; any other name as it is."""
    return clean(Path(name).name if Path(name).is_absolute() else name, 48)


def _health(results: Results) -> str:
    """Whether the measurement is sound, then what was left out or found in the data."""
    manifest = results.manifest
    parts = [outcome(manifest["health"]) if manifest.get("health") else "Health: not checked"]
    if left_out := (manifest.get("counts") or {}).get("quarantined"):
        parts.append(f"{results.words.count(left_out)} left out, see quarantine.parquet")
    if lint := manifest.get("lint"):
        found = any(item.get("severity") != "info" for item in lint.get("findings", ()))
        said = lint.get("headline") or ("findings" if found else "no warning")
        parts.append(f"lint: {re.sub(r' [(][^)]*[)]', '', said)}")
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
    commands = next_commands(results, "withheld")
    return replace(made, sentence=" ".join(parts), headline=stopped, kind="withheld", banner=None, next=commands)


def _sentence(results: Results, whole: ScopeAnswer, known: Sequence[ScopeAnswer]) -> str:
    words, rows = results.words, results.stats
    assert rows is not None
    without = rows.filter(verdict="withheld")["metric"].n_unique()
    start = f"Without {count(without, 'metric')} of SAEs that failed the health gate: " if without else ""
    if any(part.separate for part in known):
        parts = [f"of {part.words} ({words.count(part.n)}), {_finding(part, words)}" for part in known]
        said = "; ".join(parts)
    elif whole.separate:
        said = f"{_finding(whole, words)}; {_share(whole, rows)} separate them"
    elif whole.tested:
        tested = f"{count(whole.tested, 'metric')} tested over {words.count(whole.n)}"
        found = better_detectors(results.detectors)
        said = f"{'no single metric' if found else 'nothing'} is shown to tell {words.facts} from {words.halls}: "
        said += f"{tested}{_power(whole, words)}"
        said += "".join(_others(rows)) + ("; a detector does" if found else "")
    else:
        said = f"whether anything tells {words.facts} from {words.halls} cannot be judged: {whole.why}"
    return start + (said if start else capital(said)) + "."


def _share(whole: ScopeAnswer, rows: pl.DataFrame) -> str:
    """How many metrics separate; where these are log-probabilities alone, that."""
    found = [layer_of(name)[1] for name in rows.filter(scope=POOLED, verdict="separates")["metric"]]
    only = all(name in {metric.name for metric in LOGPROB.metrics} for name in found)
    tested = count(whole.tested, "metric")
    return f"of {tested} only log-probabilities" if only else f"{whole.separate} of {tested}"


def _finding(part: ScopeAnswer, words: Words) -> str:
    """What is found in a scope, in a clause."""
    if part.strongest is not None:
        differ = f"{words.halls} differ from {words.facts} at equal length and wording"
        return f"{differ}, above all: {part.strongest.words} ({part.strongest.text})"
    return f"nothing is shown to differ{_power(part, words)}" if part.tested else f"nothing can be judged ({part.why})"


def _power(part: ScopeAnswer, words: Words) -> str:
    if part.least is None:
        return ""
    return f" ({words.symbol} {part.least:.2f} would be found with 80 % power)"


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
