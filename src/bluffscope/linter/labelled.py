"""The linter of labelled texts: what would make a difference between true and false ones wrong or doubtful."""

from __future__ import annotations

from bluffscope.linter.findings import Finding, LintReport
from bluffscope.linter.profile import Tokenize
from bluffscope.linter.sample import Rows
from bluffscope.pairs.fields import RowError


def lint_texts(source: Rows, *, tokenize: Tokenize | None, tokenizer: str | None, plain: bool, seed: int) -> LintReport:
    """Everything that is wrong or doubtful with the labelled texts of a source; docs/lint.md has each check."""
    rows = list(source.rows())
    faults = [found for _, found in rows if isinstance(found, RowError)]
    return LintReport(
        data=source.name,
        rows=len(rows),
        findings=tuple(Finding("unreadable-row", f"{fault}.", (fault.pair_id,), (fault.index,)) for fault in faults),
        scopes=(),
        tokenizer=tokenizer,
        seed=seed,
        cluster_by=source.cluster_by,
    )
