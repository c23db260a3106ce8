"""How often the linter's `text-tells` accuses data without a leak and finds one: the figures of docs/lint.md.

    python tools/simulate_text_tells.py [DATA SETS] [SEED]

Completions are eight words drawn from 300; a leak is one word more in some of the hallucinations.
"""

from __future__ import annotations

import sys

import numpy as np

import bluffscope

SHAPES = ((20, 1), (60, 1), (150, 1), (150, 4), (400, 1), (600, 3))
"""Pairs and domains."""
LEAKS = ((60, 0.3), (150, 0.3), (400, 0.2))
"""Pairs, and the share of hallucinations that hold the word."""


def rows(rng: np.random.Generator, pairs: int, domains: int, leak: float) -> list[dict[str, str]]:
    """Pairs whose completions are drawn alike, but for the leak."""

    def text() -> str:
        return " ".join(f"w{word}" for word in rng.integers(300, size=8))

    return [
        {
            "id": str(pair),
            "domain": f"d{pair % domains}",
            "prompt": f"Number {pair} is",
            "fact": text(),
            "hallucination": text() + (" indeed" if rng.random() < leak else ""),
        }
        for pair in range(pairs)
    ]


def found(times: int, seed: int, pairs: int, domains: int, leak: float) -> tuple[float, float]:
    """Share of data sets with a finding, and the mean AUROC of all pairs."""
    hits, aurocs = 0, []
    for number in range(times):
        rng = np.random.default_rng([seed, number, pairs, domains, round(100 * leak)])
        report = bluffscope.lint(rows(rng, pairs, domains, leak))
        hits += bool(report.of("text-tells"))
        aurocs.append(report.scopes[0].auroc)
    return hits / times, float(np.mean(aurocs))


def main() -> None:
    """Print one line a shape."""
    times, seed = (int(given) for given in (*sys.argv[1:3], *("200", "0")[len(sys.argv) - 1 :]))
    out = sys.stdout
    out.write(f"{times} data sets each, seed {seed}\npairs domains leak  found  mean AUROC\n")
    for pairs, domains, leak in (*((*shape, 0.0) for shape in SHAPES), *((pairs, 1, leak) for pairs, leak in LEAKS)):
        share, auroc = found(times, seed, pairs, domains, leak)
        out.write(f"{pairs:5} {domains:7} {leak:4.1f} {100 * share:5.1f} %  {auroc:.3f}\n")
        out.flush()


if __name__ == "__main__":
    main()
