"""From a table to verdicts: every metric in every scope, corrected within its family, judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from bluffscope.host.exclusive import exclusive
from bluffscope.stats.cells import CORRECTED, STATS_SCHEMA, Resampling, ScopeCells, measure_scope
from bluffscope.stats.controls import null_control, planted_control
from bluffscope.stats.effects import ALPHA
from bluffscope.stats.ladder import confound_ladder
from bluffscope.stats.multiplicity import Family, by_family
from bluffscope.stats.scopes import Of
from bluffscope.stats.study import Study, build_study
from bluffscope.stats.text_study import TextStudy
from bluffscope.stats.verdicts import MEASURED_EVIDENCE, Evidence, judge
from bluffscope.table.metric_pairs import needs_sae

Control = Literal["none", "null", "planted"]


@dataclass(frozen=True)
class StatsResult:
    """What the statistics say of a table."""

    rows: pl.DataFrame
    """`STATS_SCHEMA`: scopes in order (domains, pooled, further ones), in each the metrics in the table's order."""
    cross_tables: pl.DataFrame
    """metric, scope, fact, hall, n: how often shape classes go together; empty where there are none."""
    control: pl.DataFrame | None
    """The control that was asked for: shares with exact 95 % bounds."""
    ladder: pl.DataFrame
    """`LADDER_SCHEMA`: what is left of each effect as more is held constant."""
    about: dict[str, Any]
    """Family and corrections, sizes, seeds, and notes on where lengths, groups and scopes come from."""


@exclusive()
def analyse_table(
    table: pl.DataFrame,
    pairs: pl.DataFrame | None = None,
    *,
    by: Sequence[str] = (),
    by_order: bool = False,
    cluster_by: str | None = None,
    family: Family = "scope",
    control: Control = "none",
    resampling: Resampling | None = None,
    withheld: Sequence[str] = (),
    of_saes: bool = False,
) -> StatsResult:
    """Test whether any metric of a table separates fact from hallucination (docs/statistics.md).

    Args:
        table: one row a pair; columns ``l{k}_fact_X`` with ``l{k}_hall_X``, ``X_fact`` with ``X_hall``: `build_study`.
        pairs: what it was measured from, for lengths and groups where the table lacks them: see `build_study`.
        by: further columns whose values are scopes, beside the domains, all pairs pooled, and carried columns of 2 to 6
            values.
        by_order: the k-th row is the k-th pair's; only for a table without ids.
        cluster_by: what makes clusters of pairs: see `build_study`.
        family: what is corrected together: the metrics of one scope, or every metric in every scope.
        control: also run the tool on the table with labels flipped ("null"), or with an effect "planted".
        resampling: seed, flips and repeats, in place of ``Resampling()``.
        withheld: why the numbers cannot be trusted (see `bluffscope.table.health.read_health`): every verdict is
            "withheld" then.
        of_saes: withhold only those on metrics that are measured through SAEs.

    Raises:
        InputError: the table has no rows or no such columns, the pairs do not match it, a column is unknown.
    """
    resampling = resampling or Resampling()
    study = build_study(table, pairs, by, by_order=by_order, cluster_by=cluster_by)
    rows, tests = judge_study(study, family, resampling)
    controls = {"null": null_control, "planted": planted_control}
    found = None if control == "none" else controls[control](study, family, resampling.seed)
    about = _about(study, family, resampling, tests) | {
        "control": control,
        "withheld": list(withheld),
    }
    return StatsResult(with_held(rows, withheld, of_saes), study.cross_tables, found, confound_ladder(study), about)


def with_held(rows: pl.DataFrame, withheld: Sequence[str], of_saes: bool) -> pl.DataFrame:
    """The rows with their verdicts withheld for these reasons; see `analyse_table`."""
    if not withheld:
        return rows
    why = pl.lit("the run failed its health gate: " + "; ".join(withheld))
    doubted = needs_sae() if of_saes else pl.lit(value=True)
    said = {"verdict": pl.lit("withheld"), "reason": why}
    return rows.with_columns(pl.when(doubted).then(text).otherwise(name).alias(name) for name, text in said.items())


def judge_study(study: Study, family: Family, resampling: Resampling) -> tuple[pl.DataFrame, list[int]]:
    """`STATS_SCHEMA` of every metric in every scope, and how many metrics were judged in each scope."""
    cells = [measure_scope(study, scope, resampling) for scope in study.scopes]
    return judge_cells(study.metrics, cells, family, STATS_SCHEMA, _evidence)


def judge_cells(
    metrics: Sequence[str],
    cells: Sequence[ScopeCells],
    family: Family,
    schema: pl.Schema,
    evidence: Callable[[dict[str, Any]], dict[str, Any]],
) -> tuple[pl.DataFrame, list[int]]:
    """The rows of every metric in every scope, and how many metrics were judged in each scope.

    Args:
        metrics: their names.
        cells: one a scope, in order.
        family: what is corrected together.
        schema: of the rows.
        evidence: what a row of numbers says, as parts of an `Evidence`.
    """
    corrected = {
        name: by_family([_tests(scope, names) for scope in cells], family) for name, names in CORRECTED.items()
    }
    parts = [
        _judged(metrics, scope, {name: values[place] for name, values in corrected.items()}, schema, evidence)
        for place, scope in enumerate(cells)
    ]
    return pl.concat(parts), [int(scope.judged.sum()) for scope in cells]


def noted(result: StatsResult, note: str | None) -> StatsResult:
    """The result with a further sentence that a reader must know; as it is where there is none."""
    if note is None:
        return result
    return replace(result, about=result.about | {"notes": [note, *result.about["notes"]]})


def _tests(cells: ScopeCells, names: Sequence[str]) -> np.ndarray:
    """(metric,) the larger of these p values; NaN for what cannot be judged, which is in no family."""
    return np.where(cells.judged, np.max([cells.values[name] for name in names], axis=0), np.nan)


def _judged(
    metrics: Sequence[str],
    cells: ScopeCells,
    corrected: dict[str, np.ndarray],
    schema: pl.Schema,
    evidence: Callable[[dict[str, Any]], dict[str, Any]],
) -> pl.DataFrame:
    """The rows of one scope."""
    frame = pl.DataFrame(cells.values | corrected, nan_to_null=True)
    frame = frame.cast({name: kind for name, kind in schema.items() if name in frame.columns})
    verdicts = [
        judge(Evidence(barred=barred, held=held, **evidence(row)))
        for row, barred, held in zip(frame.iter_rows(named=True), cells.barred, cells.held, strict=True)
    ]
    texts = {
        "metric": metrics,
        "scope": [cells.scope.name] * len(metrics),
        "verdict": [verdict.verdict for verdict in verdicts],
        "reason": [verdict.reason for verdict in verdicts],
    }
    columns = (pl.Series(name, values, dtype=pl.String) for name, values in texts.items())
    return frame.with_columns(*columns).select(list(schema))


def _evidence(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in MEASURED_EVIDENCE}


def _about(study: Study, family: Family, resampling: Resampling, tests: list[int]) -> dict[str, Any]:
    return declare(study, family, tests, "pairs") | {
        "sign_flips": resampling.flips,
        "seed": resampling.seed,
        "notes": list(study.notes),
    }


def declare(study: Study | TextStudy, family: Family, tests: Sequence[int], of: Of) -> dict[str, Any]:
    """What was corrected together, and how many rows, groups and metrics of which scopes there were.

    Args:
        study: what was tested.
        family: what was corrected together.
        tests: how many metrics were judged in each scope.
        of: what the rows are.
    """
    names = [scope.name for scope in study.scopes]
    if family == "all":
        names, tests = ["all scopes"], [sum(tests)]
    declared = "the metrics of one scope" if family == "scope" else "every metric in every scope"
    sizes = Counter(study.groups.tolist())
    return {
        "family": family,
        "corrections": f"Benjamini-Hochberg within a family, {declared}: "
        + ", ".join(f"{q} from {' and '.join(p)}" for q, p in CORRECTED.items()),
        "families": [{"family": name, "tests": number} for name, number in zip(names, tests, strict=True)],
        "alpha": ALPHA,
        of: len(study.groups),
        "metrics": len(study.metrics),
        "scopes": [{"scope": scope.name, of: len(scope.rows)} for scope in study.scopes],
        "length_unit": study.length_unit,
        "groups": len(sizes),
        "largest_group": max(sizes.values()),
        "cluster_by": study.cluster_by,
        "closed_completions": list(study.closed_names),
        "errors": "CR3 over clusters" if len(sizes) < len(study.groups) else f"HC3, each {of[:-1]} its own cluster",
        "intervals": "95 %, from the same t statistic (noncentral t)",
    }
