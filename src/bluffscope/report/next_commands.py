"""What a reader of a run would do next: commands to copy, complete and with the run's path."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bluffscope.report.detector_line import better_detectors

if TYPE_CHECKING:
    from bluffscope.report.answer import Kind
    from bluffscope.report.results import Results, ScopeAnswer


def next_commands(results: Results, kind: Kind, lead: ScopeAnswer | None = None) -> tuple[str, ...]:
    """Two commands.

    Args:
        results: of a run, or of a table alone.
        kind: what was found.
        lead: where most was found.
    """
    folder = str(results.path)
    stats = ["stats", folder, *stats_flags(results.about)]
    controls = [
        [*stats, "--control", name]
        for name in (("null", "planted") if kind == "some" else ("planted", "null"))
        if name != results.about.get("control")
    ]
    detectors = [[*stats, "--detectors"]] if results.detectors is None else []
    if not results.is_run:
        chosen = [*controls[:1], *detectors, *controls[1:]]
    elif kind == "some":
        chosen = [*_features(results, lead), *_detector(results), *controls[:1], *_elsewhere(results), *controls[1:]]
    elif kind == "nothing":
        chosen = [*_elsewhere(results), *controls[:1], *detectors, *controls[1:]]
    elif results.in_memory:
        chosen = [[*stats, "--allow-unsound"], *detectors]
    else:
        again = ["--config", f"{folder}/config.yaml"]
        data = results.config.get("data", {}).get("data")
        chosen = [["doctor", *again], ["lint", str(data)] if data and kind == "none" else ["analyze", *again]]
    return tuple(shlex.join(["bluffscope", *words]) for words in chosen[:2])


def stats_flags(about: Mapping[str, Any]) -> list[str]:
    """The flags with which `bluffscope stats` came to these statistics.

    Args:
        about: stats.json without its rows.
    """
    flags: list[str] = []
    if about.get("pairs_from"):
        flags += ["--pairs", about["pairs_from"]]
        flags += ["--columns", *about["columns"]] if about.get("columns") else []
        flags += ["--by-order"] if about.get("by_order") else []
    flags += ["--cluster-by", about["cluster_by_option"]] if about.get("cluster_by_option") else []
    flags += ["--by", *about["by"]] if about.get("by") else []
    for name, default in (("family", "scope"), ("seed", 0)):
        if about.get(name, default) != default:
            flags += [f"--{name}", str(about[name])]
    return flags


def _elsewhere(results: Results) -> list[list[str]]:
    """The same at another read position, where it was the last token's."""
    if results.in_memory or results.config.get("measure", {}).get("position") != "last":
        return []
    out = ["--position", "completion-mean", "--out", f"{results.path}-completion-mean"]
    return [["analyze", "--config", f"{results.path}/config.yaml", *out]]


def _features(results: Results, lead: ScopeAnswer | None) -> list[list[str]]:
    """Which features differ, and what they promote, where most was found."""
    if not results.manifest.get("saes"):
        return []
    where = ["--where", lead.scope] if lead is not None and "=" in lead.scope else []
    return [["features", str(results.path), *where, *([] if results.in_memory else ["--tokens"])]]


def _detector(results: Results) -> list[list[str]]:
    """Save a detector that beats its baselines, or fit some."""
    if results.detectors is None:
        return [["stats", str(results.path), *stats_flags(results.about), "--detectors"]]
    found = better_detectors(results.detectors)
    on = [] if found[:1] == ["sae"] else ["--on", found[0]] if found else []
    return [["detect", "train", str(results.path), *on, "--out", f"{results.path}-detector"]] if found else []
