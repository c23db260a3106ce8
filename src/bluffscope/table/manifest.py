"""manifest.json: what made a run's numbers, in one file."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from bluffscope.table.schema import SCHEMA_VERSION, Column

PACKAGES: Final = (
    *("bluffscope", "torch", "transformers", "sae-lens", "safetensors", "numpy", "polars"),
    *("torchao", "bitsandbytes"),
)
"""Packages whose versions can change a number; the last are of the extra ``quant``."""

STAGES: Final = ("load", "data", "lint", "tokenise", "forward", "sae", "geometry", "write", "health")
"""The stages that timings are given for."""


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Installed version of each package (None where it is not installed), and of Python; imports none of them."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def metric_versions(columns: Sequence[Column]) -> dict[str, int]:
    """Version of the definition of every measured column; pair and carried columns have none."""
    return {column.name: column.version for column in columns if column.section not in ("pair", "carried")}


def assemble_manifest(
    *,
    columns: Sequence[Column],
    model: Mapping[str, Any],
    saes: Mapping[str, Mapping[str, Any]],
    device: str,
    dtype: str,
    seeds: Mapping[str, int],
    counts: Mapping[str, int],
    timings: Mapping[str, float],
    health: Mapping[str, Any] | None = None,
    lint: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of manifest.json (docs/run-folder.md). Nothing is read from the environment.

    Args:
        columns: the table's columns, for the versions of the metrics.
        model: the model's identity (name or folder, revision, hashes).
        saes: the identity of each layer's SAE, by layer.
        device: where the model ran.
        dtype: precision of the model.
        seeds: every seed of the run, by what it was for.
        counts: pairs read, measured and quarantined, tokens and whatever else was counted.
        timings: seconds by stage, out of `STAGES`; stages without an entry are 0. A key "total" is kept.
        health: what the health gate found, as `bluffscope.table.health` reads it; empty where it did not run.
        lint: findings of the dataset linter; empty where it did not run.

    Raises:
        ValueError: A timing for a stage that is none.
    """
    unknown = set(timings) - {*STAGES, "total"}
    if unknown:
        raise ValueError(f"timings of unknown stages {sorted(unknown)}: expected some of {', '.join(STAGES)}, total")
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "packages": package_versions(),
        "platform": f"{platform.system()} {platform.machine()}",
        "model": dict(model),
        "saes": {str(layer): dict(identity) for layer, identity in saes.items()},
        "device": device,
        "dtype": dtype,
        "seeds": dict(seeds),
        "counts": dict(counts),
        "timings": {
            stage: round(float(timings.get(stage, 0.0)), 4) for stage in (*STAGES, *({"total"} & set(timings)))
        },
        "metric_versions": metric_versions(columns),
        "health": dict(health or {}),
        "lint": dict(lint or {}),
    }
