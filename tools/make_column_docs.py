"""Writes docs/columns.md from the schema: `python tools/make_column_docs.py` (`--check` only compares)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from bluffscope.table.schema import (
    ANALYSES,
    LAYER_METRICS,
    LOGPROB_METRICS,
    PAIR_COLUMNS,
    PAIR_METRICS,
    SCHEMA_VERSION,
    Column,
    Metric,
)

TARGET = Path(__file__).resolve().parents[1] / "docs" / "columns.md"

INTRODUCTION = f"""# Columns of the result tables

This page is made from `src/bluffscope/table/schema.py` by `python tools/make_column_docs.py`: edit the schema,
not the page. Schema version {SCHEMA_VERSION}.

`metrics.parquet` has one row for each pair that was measured, in input order: what identifies the pair, the
metrics of the analyses that ran, the columns of your own analyses, and the columns carried from the input.
Decimal numbers are Float64, whole numbers Int64, text String. **Undefined is null, never 0.** Every `diff` is
hallucination - fact.
"""

LAYERS = """For each layer k and each view `prompt`, `fact`, `hall`: `l5_fact_gini`. x is the residual, y the SAE's
reconstruction, l1 >= l2 >= ... the eigenvalues of the weighted cloud of active decoder directions.
"""

SWEEP = """`--noise-sweep S ...` adds `stability_s{S}_{fact|hall|diff}` for each noise level, after all others:
`stability_s0.3_fact`.
"""

LOGPROB = """In runs with `--logprob` only. A completion's tokens are those of its whole text beyond the longest token
prefix it shares with the prompt (`fact_tokens`, `hall_tokens`); null where the first of them is the first of the text,
which nothing predicts.
"""

CROSS_LAYER = """**`cross_layer_consistency` is not interpretable**: it compares two dictionaries index by index, and
they share no index. It is kept for comparison with earlier work; read `cross_layer_alignment`. Both are null in a run
over one layer.
"""

FILES = (
    (
        "pairs.parquet",
        "`pair_id, domain, complexity, prompt, fact, hallucination, group`, carried columns",
        "all pairs of the input, quarantined ones too",
    ),
    (
        "features.parquet",
        "`pair_id, view, layer, feature, activation`",
        "one for each active SAE feature of each view and layer",
    ),
    (
        "residuals.parquet",
        "`pair_id, view, layer, token, values`",
        "one for each residual read; only with `--keep-residuals`",
    ),
    (
        "quarantine.parquet",
        "`pair_id, prompt, fact, hallucination, reason`",
        "pairs that could not be processed; no file where there are none",
    ),
)

PROVENANCE = """The metadata of `metrics.parquet` holds the run's provenance as text, with `schema_version` and
`metric_versions` (JSON) among its keys. A change to a metric's definition bumps that metric's version.
"""


def number(value: float | None) -> str:
    """A bound of a range, or an ellipsis where there is none."""
    return "..." if value is None else f"{value:.4g}"


def table(entries: Iterable[Column | Metric], first: str) -> str:
    """A Markdown table of columns or metrics."""
    lines = [f"| {first} | Type | Unit | Range | Meaning | Version |", "|---|---|---|---|---|---|"]
    for entry in entries:
        unbounded = entry.low is None and entry.high is None
        span = "" if unbounded else f"{number(entry.low)} to {number(entry.high)}"
        doc = entry.doc.format(view="the text").replace("|", "\\|").rstrip(".")
        lines.append(f"| `{entry.name}` | {entry.kind} | {entry.unit} | {span} | {doc}. | {entry.version} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## The pair\n", table(PAIR_COLUMNS, "Column")]
    parts += [
        "## Layer sensitivity: `l{layer}_{view}_{metric}`\n",
        LAYERS,
        table(LAYER_METRICS, "Metric"),
        "With `--position completion-mean` each number is the mean over the completion's tokens.\n",
    ]
    notes = {"stability": SWEEP, "cross_layer": CROSS_LAYER}
    for analysis in ANALYSES[1:]:
        title = analysis.replace("_", " ").capitalize()
        parts += [
            f"## {title}: `{{metric}}_{{fact|hall|diff}}`\n",
            table((metric for metric in PAIR_METRICS if metric.analysis == analysis), "Metric"),
        ]
        parts += [notes[analysis]] if analysis in notes else []
    parts += ["## Log-probability: `{metric}_{fact|hall|diff}`\n", table(LOGPROB_METRICS, "Metric"), LOGPROB]
    files = ["| File | Columns | Rows |", "|---|---|---|"]
    files += [f"| `{name}` | {columns} | {rows} |" for name, columns, rows in FILES]
    return "\n".join([*parts, "## The other tables of a run\n", "\n".join(files) + "\n", PROVENANCE])


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page, or says whether it is current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the page is out of date")
    if parser.parse_args(arguments).check:
        current = TARGET.exists() and TARGET.read_text(encoding="utf-8") == page()
        print(f"{TARGET.name} is {'current' if current else 'out of date: run tools/make_column_docs.py'}")
        return 0 if current else 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(page(), encoding="utf-8")
    print(f"wrote docs/{TARGET.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
