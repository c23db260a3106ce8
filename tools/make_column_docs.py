"""Writes docs/columns.md from the declared columns: `python tools/make_column_docs.py` (`--check` only compares)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from bluffscope.metrics import ANALYSES, ON_REQUEST, Column, Metric
from bluffscope.stats import LABELLED_SCHEMA
from bluffscope.table.schema import PAIR_COLUMNS, SCHEMA_VERSION, TEXT_COLUMNS
from generated_page import write_or_check

TARGET = Path(__file__).resolve().parents[1] / "docs" / "columns.md"

INTRODUCTION = f"""# Columns of the result tables

This page is made by `python tools/make_column_docs.py`: edit `src/bluffscope/table/schema.py` (columns of the pair) or
the analysis's file in `src/bluffscope/metrics/`, not the page. Schema version {SCHEMA_VERSION}.

`metrics.parquet` has one row for each pair that was measured, in input order: what identifies the pair, the
metrics of the analyses that ran, the columns of your own analyses, and the columns carried from the input.
Decimal numbers are Float64, whole numbers Int64, text String. **Undefined is null, never 0.** Every `diff` is
hallucination - fact.
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
        "one for each residual read; by default where they take at most 1 GB (`--keep-residuals`)",
    ),
    (
        "further_residuals.parquet",
        "`pair_id, view, layer, position, token, values`",
        "one for each residual of a completion read at a further position; only where `--position` has several",
    ),
    (
        "quarantine.parquet",
        "`pair_id, prompt, fact, hallucination, reason`",
        "pairs that could not be processed; no file where there are none",
    ),
)

OF_TEXTS = """A run over labelled texts has one row for each text that was measured, and no column of pairs:
`l{layer}_{metric}` and `{metric}` hold the metrics of the text, `l{layer}_prompt_{metric}` those of its prompt. Of
statements, which have no prompt, there are no columns of prompts, and none of the analyses that compare with one.
"""

TEXT_FILES = (
    (
        "texts.parquet",
        "`text_id, label, domain, prompt, completion, group`, carried columns",
        "all texts of the input, quarantined ones too",
    ),
    (
        "features.parquet",
        "`text_id, view, layer, feature, activation`; views `prompt`, `text`",
        "one for each active SAE feature of each view and layer",
    ),
    (
        "residuals.parquet",
        "`text_id, view, layer, token, values`",
        "one for each residual read; by default where they take at most 1 GB (`--keep-residuals`)",
    ),
    (
        "further_residuals.parquet",
        "`text_id, view, layer, position, token, values`",
        "one for each residual of a completion read at a further position; only where `--position` has several",
    ),
    (
        "tokens.parquet",
        "`text_id, token_index, label, start, end, logprob`",
        "one for each token of the completions; only with `--position tokens`. `token_index` is `token` of the "
        "residuals; `label` is 1 where the token overlaps a span, else 0, null in a false text of which no span is "
        "known; `start` and `end` are its characters in the completion; `logprob` (nats) is null where nothing "
        "predicts it",
    ),
    (
        "token_features.parquet",
        "`text_id, view, layer, token, feature, activation`",
        "one for each active SAE feature of each token read; only with `--position tokens`",
    ),
    (
        "quarantine.parquet",
        "`text_id, prompt, completion, reason`",
        "texts that could not be processed; no file where there are none",
    ),
    (
        "stats.parquet",
        f"`{', '.join(LABELLED_SCHEMA)}` ([statistics](statistics.md#labelled-texts))",
        "one for each metric and scope",
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


def listed(files: Iterable[tuple[str, str, str]]) -> str:
    """A Markdown table of files."""
    lines = ["| File | Columns | Rows |", "|---|---|---|"]
    lines += [f"| `{name}` | {columns} | {rows} |" for name, columns, rows in files]
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## The pair\n", table(PAIR_COLUMNS, "Column")]
    for analysis in (*ANALYSES, *ON_REQUEST):
        columns = "l{layer}_{view}_{metric}" if analysis.per_layer else "{metric}_{fact|hall|diff}"
        parts.append(f"## {analysis.title}: `{columns}`\n")
        whole = table(analysis.of_pair, "Column") if analysis.of_pair else ""
        parts += [part for part in (analysis.head, table(analysis.metrics, "Metric"), whole, analysis.note) if part]
    parts += ["## The other tables of a run\n", listed(FILES), PROVENANCE]
    parts += ["## Labelled texts\n", OF_TEXTS, table(TEXT_COLUMNS, "Column"), listed(TEXT_FILES)]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page, or says whether it is current."""
    return write_or_check(TARGET, page, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
