"""Detectors in a terminal: AUROC by scope, gain over the best baseline, transfer; and one trained to be saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl
from rich.console import RenderableType, group
from rich.text import Text

from bluffscope.detectors.classifiers import called, compared_with, unmeasured
from bluffscope.detectors.conformal import ADVISED_CLUSTERS
from bluffscope.detectors.evaluate import Detection
from bluffscope.detectors.train import Trained, best_baseline
from bluffscope.host.terminal import Row, interval, table
from bluffscope.report.labels import areas, auroc, capital, clean, gain
from bluffscope.report.tokens import render_tokens


@group()
def render_detection(detection: Detection) -> Iterator[RenderableType]:
    """The detectors, to be printed by a rich console of any width from 60 columns."""
    rows = detection.rows
    yield Text("\nDetectors: can a single text be recognised as hallucinated?", style="bold")
    fitted = rows.filter(pl.col("auroc").is_not_null())
    yield Text(f"AUROC, cross-validated by group; gain over {compared_with(fitted['detector'].to_list())}", "dim")
    against = {row["scope"]: row for row in detection.against.filter(detector="sae", against="residual").to_dicts()}
    for (scope,), part in fitted.group_by("scope", maintain_order=True):
        if (row := against.get(scope)) is not None:
            ends = interval(row, style="+.2f")
            yield Text(f"\nSAE features against residuals, {clean(str(scope), 24)}: {row['gain']:+.2f} ({ends})")
        heads = [f"{clean(str(scope), 24)}, n = {part['n'][0]}", "AUROC", "95 %", "ECE", "gain", "95 %"]
        yield table(heads, map(_row, part.to_dicts()), least=24, gap=2)
    yield from _barred(rows)
    yield from _transfer(detection.transfer)
    yield from map(Text, detection.about["notes"])


def _row(row: dict[str, Any]) -> Row:
    auroc, ends, *gain = areas(row)
    found = row["gain_lo"] is not None and row["gain_lo"] > 0
    return Row([row["detector"], auroc, ends, f"{row['ece']:.2f}", *gain], "bold green" if found else "")


def _barred(rows: pl.DataFrame) -> Iterator[Text]:
    """Scopes without any detector."""
    barred = rows.filter(pl.col("auroc").is_not_null().sum().over("scope") == 0)
    for scope, reason in barred.select("scope", "reason").unique("scope", maintain_order=True).iter_rows():
        yield Text(f"{clean(scope)}: no detectors ({reason})")


def _transfer(transfer: pl.DataFrame) -> Iterator[Text]:
    """For each column of scopes and each detector the mean AUROC where it was trained, and elsewhere.

    A detector that learnt nothing where it was trained points somewhere by chance, and far off from there it may well
    rank every text the wrong way round: it has no say elsewhere.
    """
    # Scopes of a further column are named COLUMN=VALUE; domains are named as they are.
    column = pl.col("train").str.extract("^([^=]*)=").fill_null("domain").alias("column")
    for (name,), rows in transfer.group_by(column, maintain_order=True):
        own, other = (rows.filter((pl.col("train") == pl.col("test")) == same) for same in (True, False))
        other = other.filter("learnt")
        texts: list[str] = []
        for detector in rows["detector"].unique(maintain_order=True):
            here, there = own.filter(detector=detector)["auroc"].mean(), other.filter(detector=detector)["auroc"].mean()
            if isinstance(here, float):
                texts.append(f"{detector} {here:.2f} -> {f'{there:.2f}' if isinstance(there, float) else '-'}")
        if texts:
            about = f"Transfer between values of {clean(str(name))} (mean AUROC where trained -> elsewhere, "
            yield Text(f"{about}from where it learnt something): {', '.join(texts)}")


@group()
def render_trained(trained: Trained, where: Sequence[str]) -> Iterator[RenderableType]:
    """What training came to, to be printed by a rich console."""
    about, row, items = trained.about, trained.row, trained.arrangement.table
    named = f" with {' and '.join(clean(condition) for condition in where)}" if where else ""
    judged = f"{about['token_level']['judged_by']}s" if trained.by_token else items
    yield Text(f"Held-out {judged} of the training{named}: AUROC {auroc(row)}.", style="bold")
    if trained.left_out is not None:
        yield Text(f"Other {items} of the run ({trained.left_out['n']:,}): {_elsewhere(trained.left_out)}", "bold")
    yield Text(
        f"Trained on {sees(trained)} of {about[items]:,} {items}{named}, in {about['groups']:,} groups; "
        f"{about['repeats']} draws of {about['folds']} folds that split no group."
    )
    heads = ["detector", "AUROC", "95 %", "gain over the best baseline", "95 %"]
    yield table(heads, trained_rows(trained), gap=2)
    yield Text(
        f"Calibration error of held-out probabilities: {row['ece']:.3f} as fitted, {trained.ece:.3f} with Platt's "
        "curve (saved)."
    )
    if (alarm := trained.alarm) is not None:
        true = "true texts" if not trained.by_token else "the highest tokens of texts without spans"
        coarse = "" if alarm.clusters >= ADVISED_CLUSTERS else f"; few: at least {ADVISED_CLUSTERS} are advised"
        yield Text(
            f"Alarm: a score above {alarm.threshold:.3f}, which at most {alarm.alpha:.1%} of {true} exceed; "
            f"calibrated on a true text of each of {alarm.clusters} groups that nothing was fitted to{coarse}."
        )
    if trained.by_token:
        yield from render_tokens(about["token_level"])
    yield Text(f"{capital(verdict(trained))}.")
    for note in about["notes"]:
        yield Text(note, style="dim")


def sees(trained: Trained) -> str:
    """What a detector looks at."""
    return "vectors" if trained.keys.given else called(trained.keys.on)


def trained_rows(trained: Trained) -> Iterator[Row]:
    """Its own row, and the baselines' before it: detector, AUROC and gain, each with its interval."""
    shown = [*trained.baselines["detector"], trained.keys.on]
    for row in trained.rows.filter(pl.col("detector").is_in(shown)).iter_rows(named=True):
        yield Row([row["detector"], *areas(row)], "bold" if row["detector"] == trained.keys.on else "")


def verdict(trained: Trained) -> str:
    """Whether it does better than what needs no look inside the model, in a clause."""
    name, area = best_baseline(trained)
    row = trained.row
    against = f"the best baseline, {name} (AUROC {area:.2f})"
    known = trained.baselines["detector"].to_list()
    lacking = "" if trained.by_token else unmeasured(known)  # of tokens, a note says it
    verb = "beats" if trained.beats else "does not beat"
    return f"it {verb} {against}: a gain of {gain(row)}{lacking and '; '}{lacking}"


def _elsewhere(found: dict[str, Any]) -> str:
    by, tokens = by_what(found)
    if found["lo"] is None:
        return f"AUROC{by} {found['auroc']:.2f}{tokens}, of {found['groups']} groups: too few for an interval."
    judged = "also better than chance" if found["lo"] > 0.5 else "no better than chance: it does not generalise"
    return f"AUROC{by} {auroc(found)}{tokens}, {judged}."


def by_what(left_out: dict[str, Any]) -> tuple[str, str]:
    """What the AUROC of texts that were left out is by, and that by token where there is another; of texts nothing."""
    tokens = f", by token {left_out['by_token']:.2f}" if "by_token" in left_out else ""
    return f" by {left_out['unit']}" if "unit" in left_out else "", tokens
