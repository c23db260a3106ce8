"""What a reader of a run would do next: commands to copy, complete and with the run's path."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import polars as pl

from bluffscope.report.own_answers import INSIDE
from bluffscope.stats.scopes import POOLED

if TYPE_CHECKING:
    from bluffscope.report.answer import Kind, Results, ScopeAnswer


def next_commands(results: Results, kind: Kind, lead: ScopeAnswer | None = None) -> tuple[str, ...]:
    """Two commands.

    Args:
        results: of a run, or of a table alone.
        kind: what was found.
        lead: where most was found.
    """
    folder = str(results.path)
    stats = ["stats", folder, "--control", "null" if kind == "some" else "planted"]
    if not results.is_run:
        chosen = [stats, ["stats", folder, "--detectors"]]
    elif kind == "some":
        chosen = [*_features(results, lead), *_detector(results), stats]
    else:
        again = [] if results.in_memory else ["analyze", "--config", f"{folder}/config.yaml"]
        doctor = ["doctor", *again[1:]]
        elsewhere = [*again, "--position", "completion-mean", "--out", f"{folder}-completion-mean"]
        last = results.config.get("measure", {}).get("position") == "last"
        chosen = {
            "nothing": [elsewhere if again and last else ["stats", folder, "--detectors"], stats],
            "withheld": [doctor, again] if again else [["stats", folder, "--allow-unsound"]],
            "none": [["lint", str(results.config.get("data", {}).get("data"))], doctor if again else stats],
        }[kind]
    return tuple(shlex.join(["bluffscope", *words]) for words in chosen[:2])


def _features(results: Results, lead: ScopeAnswer | None) -> list[list[str]]:
    """Which features differ, and what they promote, where most was found."""
    if not results.manifest.get("saes"):
        return []
    where = ["--where", lead.scope] if lead is not None and "=" in lead.scope else []
    return [["features", str(results.path), *where, *([] if results.in_memory else ["--tokens"])]]


def _detector(results: Results) -> list[list[str]]:
    """Save a detector that beats its baselines, or fit some."""
    if results.detectors is None:
        return [["stats", str(results.path), "--detectors"]]
    better = results.detectors.filter(pl.col("gain_lo") > 0, scope=POOLED)["detector"]
    found = [name for name in INSIDE if name in better]
    on = [] if found[:1] == ["sae"] else ["--on", found[0]] if found else []
    return [["detect", "train", str(results.path), *on, "--out", f"{results.path}-detector"]] if found else []
