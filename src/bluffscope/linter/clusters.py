"""What the pairs' clusters and closed answers mean for the statistics, said before any model runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bluffscope.host.terminal import count
from bluffscope.linter.draft import short, where
from bluffscope.linter.findings import Finding
from bluffscope.pairs.groups import LINKS
from bluffscope.pairs.links import FEWEST_CLUSTERS, POOLED, Links
from bluffscope.pairs.readers import quoted

NAMED: Final = 5
"""Closed answers, or domains, that a sentence names."""
_ONE: Final = {
    "both": "pairs that share a prompt or a completion are one cluster",
    "prompt": "pairs that share a prompt are one cluster",
    "completion": "pairs that share a completion are one cluster",
}


def cluster_findings(links: Links) -> Iterator[Finding]:
    """Answers that give the label away, too few clusters, chains of swapped completions, and closed answers."""
    for scope in links.revealing:
        message = (
            f"Which completion it is gives the label away{where(scope)}: every pair has answers of a closed set, and "
            "their effects cannot be told from that of being false (such as yes always the fact, or no always the "
            "hallucination); no verdict will be given. Balance which answer is right."
        )
        yield Finding("answer-is-label", message, scope=scope)
    if links.few:
        one = _ONE.get(links.by, f"pairs with the same {quoted(links.by)} are one cluster")
        shown = [
            f"{count(few.clusters, 'cluster')} in {count(few.pairs)}{where(few.scope)}" for few in links.few[:NAMED]
        ]
        pooled = links.few[0].scope == POOLED
        message = (
            f"No verdict will be given: only {_listed(shown, len(links.few))}, and at least {FEWEST_CLUSTERS} are "
            f"needed ({one}). Add pairs with {'other prompts and completions' if links.by in LINKS else 'other values'}"
            f"{'' if pooled else ' there'}, or name what is independent with --cluster-by."
        )
        yield Finding("few-clusters", message, scope=POOLED if pooled else None)
    for chain in links.chains:
        message = (
            f"{chain.cluster:,} of {count(chain.pairs)}{where(chain.scope)} are one cluster, chained by completions "
            f"that are true in one pair and false in another ({short(chain.text)} in {quoted(chain.true)} and "
            f"{quoted(chain.false)}): swap facts in twos (A with B, C with D) or within small disjoint sets."
        )
        yield Finding("chained-pairs", message, scope=chain.scope)
    if links.closed:
        shown = [f"{short(text)} ({count(pairs)})" for text, pairs in links.closed[:NAMED]]
        message = (
            f"Answers of a closed set, {_listed(shown, len(links.closed))}, link no pairs and get effects of their own "
            "in the statistics."
        )
        yield Finding("closed-answers", message, scope=POOLED)


def _listed(shown: list[str], total: int) -> str:
    return ", ".join(shown) + (f" and {total - len(shown):,} more" if total > len(shown) else "")
