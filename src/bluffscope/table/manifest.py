"""manifest.json: what made a run's numbers, in one file."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from bluffscope.table.metric_pairs import metric_pairs
from bluffscope.table.schema import SCHEMA_VERSION, Column

PACKAGES: Final = (
    *("bluffscope", "torch", "transformers", "sae-lens", "safetensors", "numpy", "polars"),
    *("torchao", "bitsandbytes"),
)
"""Packages whose versions can change a number; the last are of the extra ``quant``."""

STAGES: Final = ("load", "data", "lint", "tokenise", "forward", "lens", "sae", "geometry", "write", "health")
"""The stages that timings are given for."""


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Installed version of each package (None where it is not installed), and of Python; imports none of them."""
    versions: dict[str, str | None] = {"python": platform.python_version(), **dict.fromkeys(names)}
    for name in names:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def metric_versions(columns: Sequence[Column]) -> dict[str, int]:
    """Version of the definition of every measured column; pair and carried columns have none."""
    return {column.name: column.version for column in columns if column.section not in ("pair", "carried")}


def added_metrics(columns: Sequence[Column]) -> dict[str, dict[str, str]]:
    """Label, unit and sentence of the user's own metrics, by name without layer and view: for the report."""
    added = {column.name: column for column in columns if column.section == "added"}
    of_facts = {pair.metric: added[pair.fact] for pair in metric_pairs(list(added))}
    return {name: {"label": column.label, "unit": column.unit, "doc": column.doc} for name, column in of_facts.items()}


def assemble_manifest(columns: Sequence[Column], timings: Mapping[str, float], **said: Any) -> dict[str, Any]:
    """The content of manifest.json (docs/run-folder.md). Nothing is read from the environment.

    Args:
        columns: the table's columns, for the versions of the metrics.
        timings: seconds by stage, out of `STAGES`; stages without an entry are 0. A key "total" is kept.
        **said: whatever else it holds: `model` and `saes` (identities), `device`, `dtype`, `seeds`, `counts`, `health`
            (as `bluffscope.table.health` reads it) and `lint`, empty where they did not run, ...

    Raises:
        ValueError: A timing for a stage that is none.
    """
    unknown = set(timings) - {*STAGES, "total"}
    if unknown:
        raise ValueError(f"timings of unknown stages {sorted(unknown)}: expected some of {', '.join(STAGES)}, total")
    stages = (*STAGES, *({"total"} & set(timings)))
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "packages": package_versions(),
        "platform": f"{platform.system()} {platform.machine()}",
        "timings": {stage: round(float(timings.get(stage, 0.0)), 4) for stage in stages},
        "metric_versions": metric_versions(columns),
        **({"added": added} if (added := added_metrics(columns)) else {}),
        "health": {},
        "lint": {},
        **said,
    }
