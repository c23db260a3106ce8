"""What the linter reports: findings, the measures behind them, and both as text and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, NamedTuple

from bluffscope.host import notebook
from bluffscope.host.terminal import count

Severity = Literal["error", "warning", "info"]
PLAIN: Final = (
    "{} has a chat template, and these texts are read as plain text: --chat makes conversations of the prompts, as the "
    "model was tuned on them"
)
"""What is said of a model that is given plain text."""
_IN_NOTEBOOK: Final = 8
"""Findings that a notebook shows; the gravest first."""
SEVERITIES: Final[tuple[Severity, Severity, Severity]] = ("error", "warning", "info")

CODES: Final[Mapping[str, Severity]] = {
    "unreadable-row": "error",
    "duplicate-id": "error",
    "labels-as-texts": "error",
    "one-label": "error",
    "answer-is-label": "error",
    "contradiction": "error",
    "same-completions": "error",
    "no-token": "error",
    "near-contradiction": "warning",
    "conflicting-facts": "warning",
    "duplicate-pair": "warning",
    "duplicate-text": "warning",
    "duplicate-prompt": "info",
    "few-clusters": "warning",
    "few-of-a-label": "warning",
    "label-imbalance": "warning",
    "domain-tells": "warning",
    "one-label-prompts": "warning",
    "chained-pairs": "warning",
    "closed-answers": "info",
    "answer-in-prompt": "warning",
    "same-last-word": "warning",
    "same-last-token": "warning",
    "boundary-merge": "warning",
    "special-token": "warning",
    "doubled-space": "warning",
    "space-at-join": "info",
    "plain-text": "info",
    "length-imbalance": "warning",
    "token-length-imbalance": "warning",
    "negation-imbalance": "warning",
    "text-tells": "warning",
    "prompt-tells": "warning",
    "not-judged": "info",
}
"""Every finding there is, in the order of reports: an error makes the data wrong as it stands, a warning makes a
result doubtful, an info limits what can be said."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or doubtful."""

    code: str
    """Which check found it, out of `CODES`."""
    message: str
    """One sentence for the user."""
    pairs: tuple[str, ...] = ()
    """Ids of the pairs or texts concerned, in input order; empty where a whole scope is meant."""
    rows: tuple[int, ...] = ()
    """Their positions in the input, from 0: what tells pairs apart whose ids are the same."""
    scope: str | None = None
    """The domain concerned, or "pooled"; None for findings about single pairs."""

    @property
    def severity(self) -> Severity:
        """What `CODES` says of its code."""
        return CODES[self.code]


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """In the order of `CODES`, within a code as they come."""
    places = {code: place for place, code in enumerate(CODES)}
    return tuple(sorted(findings, key=lambda finding: places[finding.code]))


@dataclass(frozen=True, slots=True)
class ScopeMeasures:
    """The balance of one domain, or of all pairs."""

    scope: str
    """The domain's name, or "pooled"."""
    pairs: int
    groups: int
    """Independent units: pairs that share a prompt or an open completion count as one, or as `cluster_by` says."""
    length_dz: float | None
    """Mean of (hallucination - fact) in characters over its standard deviation; None where that is 0."""
    longer: float
    """Share of pairs whose hallucination has more characters than the fact."""
    shorter: float
    """Share of pairs whose hallucination has fewer."""
    length_p: float | None
    """Wilcoxon signed-rank test over groups; None where none differs or they are too few for any p value to count."""
    token_dz: float | None
    """As `length_dz`, in tokens; None also where no model is given."""
    token_p: float | None
    negations_fact: float
    """Share of facts that hold a negation."""
    negations_hall: float
    negation_p: float | None
    """Exact sign test over groups; None as `length_p`."""
    auroc: float | None = None
    """How well the completions' text alone tells hallucinations from facts (0.5: not at all); None if not judged."""
    auroc_lo: float | None = None
    """Lower end of its interval, which holds for all scopes together with 95 % confidence."""
    auroc_hi: float | None = None
    auroc_p: float | None = None
    """Test by exchanges of fact and hallucination in whole groups; None where the AUROC is too small to matter."""
    auroc_pairs: int = 0
    """Pairs that the text classifier saw: all, or a sample."""


class Difference(NamedTuple):
    """Of a length between true and false texts; None where it is undefined or was not tested."""

    g: float | None = None
    """Hedges' g: mean difference over the pooled standard deviation."""
    auroc: float | None = None
    """P(false longer than true) + P(as long) / 2."""
    p: float | None = None
    """t test of the ranks over groups, with the errors of the statistics (docs/statistics.md)."""


@dataclass(frozen=True, slots=True)
class TextMeasures:
    """The balance of one domain of labelled texts, or of all texts; differences are false - true."""

    scope: str
    """The domain's name, or "pooled"."""
    texts: int
    true: int
    false: int
    groups: int
    """Independent units: texts that share a prompt or an open completion count as one, or as their groups say."""
    length: Difference
    """Of the completions' characters."""
    tokens: Difference
    """Of their tokens; undefined where no model is given."""
    negations_true: float
    """Share of the true texts whose completion holds a negation; 0 where there is none."""
    negations_false: float
    negation_p: float | None
    """t test over groups; None where it was not made."""
    auroc: float | None = None
    """How well the completions' text alone tells false from true (0.5: not at all); None if not judged."""
    auroc_lo: float | None = None
    """Lower end of its interval, which holds for all scopes together with 95 % confidence."""
    auroc_hi: float | None = None
    auroc_p: float | None = None
    """Test by labels dealt out again to whole groups; None where the AUROC is too small to matter."""
    auroc_texts: int = 0
    """Texts that the text classifier saw: all, or a sample."""
    prompt_auroc: float | None = None
    """The same of the prompts' text alone; None also where there are none."""
    prompt_auroc_lo: float | None = None
    prompt_auroc_hi: float | None = None
    prompt_auroc_p: float | None = None


@dataclass(frozen=True, slots=True)
class LintReport:
    """All that the linter found in a dataset."""

    data: str
    """Name of the data."""
    rows: int
    """Records read."""
    findings: tuple[Finding, ...]
    """In the order of `CODES`, within a code in input order."""
    scopes: tuple[ScopeMeasures, ...] | tuple[TextMeasures, ...]
    """Pooled first, then each domain in first-seen order; of pairs, or of labelled texts."""
    tokenizer: str | None = None
    """The model whose tokenizer was used as well."""
    seed: int = 0
    """Seed of the text classifier's sample and bootstrap."""
    cluster_by: str = "both"
    """What makes pairs one group: an option of the data."""
    items: Literal["pairs", "texts"] = "pairs"
    """What was linted."""

    @property
    def noun(self) -> str:
        """One of the `items`, for messages."""
        return self.items[:-1]

    @property
    def failed(self) -> bool:
        """Whether there is a finding of severity error."""
        return any(finding.severity == "error" for finding in self.findings)

    def of(self, code: str) -> tuple[Finding, ...]:
        """The findings with a code."""
        return tuple(finding for finding in self.findings if finding.code == code)

    def codes(self, severity: Severity) -> dict[str, int]:
        """The codes found at a severity, and how many different pairs or texts each concerns (0: a whole scope)."""
        return {
            code: len({row for finding in found for row in finding.rows})
            for code, level in CODES.items()
            if level == severity and (found := self.of(code))
        }

    def headline(self) -> str | None:
        """`1 error (contradiction: 2 pairs), 1 warning (same last word: 12 pairs)`; None without either."""
        parts: list[str] = []
        for severity in ("error", "warning"):
            if codes := self.codes(severity):
                named = [
                    f"{code.replace('-', ' ')}{f': {count(number, self.noun)}' if number else ''}"
                    for code, number in codes.items()
                ]
                parts.append(f"{count(len(codes), severity)} ({'; '.join(named)})")
        return ", ".join(parts) or None

    def _repr_html_(self) -> str:
        """How many findings there are, and the gravest, for a notebook."""
        counts = [count(sum(f.severity == severity for f in self.findings), severity) for severity in SEVERITIES]
        graver = sorted(self.findings, key=lambda finding: SEVERITIES.index(finding.severity))
        rows = [[found.severity, found.code, found.scope or "", found.message] for found in graver[:_IN_NOTEBOOK]]
        parts = [notebook.table(["severity", "code", "scope", "what"], rows)]
        if left := len(graver) - len(rows):
            parts.append(notebook.line(f"{count(left, 'more finding')} in .findings", faint=True))
        return notebook.block(self.data, [count(self.rows, self.noun), ", ".join(counts)], parts)

    def as_dict(self, most: int | None = None) -> dict[str, Any]:
        """The report as JSON knows it.

        Args:
            most: keep no more findings of a code, and no more pairs of a finding, than this; the counts stay whole.
        """
        kept = [finding for code in CODES for finding in self.of(code)[:most]]
        return {
            "data": self.data,
            "rows": self.rows,
            "tokenizer": self.tokenizer,
            "seed": self.seed,
            "cluster_by": self.cluster_by,
            "headline": self.headline(),
            "counts": {severity: sum(f.severity == severity for f in self.findings) for severity in SEVERITIES},
            "findings": [
                {
                    "code": finding.code,
                    "severity": finding.severity,
                    "scope": finding.scope,
                    "message": finding.message,
                    "count": len(finding.rows),
                    "pairs": list(finding.pairs[:most]),
                    "rows": list(finding.rows[:most]),
                }
                for finding in kept
            ],
            "scopes": [asdict(scope) for scope in self.scopes],
        } | ({} if self.items == "pairs" else {"items": self.items})
