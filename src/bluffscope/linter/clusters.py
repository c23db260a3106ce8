"""What the pairs' clusters and closed answers mean for the statistics, said before any model runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bluffscope.host.terminal import count
from bluffscope.linter.draft import short, where
from bluffscope.linter.findings import Finding
from bluffscope.pairs.links import FEWEST_CLUSTERS, POOLED, Links
from bluffscope.pairs.readers import quoted

NAMED: Final = 5
"""Closed answers, or domains, that a sentence names."""
_ONE: Final = {
    "both": "that share a prompt or a completion are one cluster",
    "prompt": "that share a prompt are one cluster",
    "completion": "that share a completion are one cluster",
}


_REVEALING: Final = {
    "pair": "every pair has answers of a closed set, and their effects cannot be told from that of being false (such "
    "as yes always the fact, or no always the hallucination)",
    "text": "every text is an answer of a closed set, and each answer is always true or always false (such as yes "
    "always true)",
}


def cluster_findings(links: Links, noun: str = "pair", *, own: bool = False) -> Iterator[Finding]:
    """Answers that give the label away, too few clusters, chains of swapped completions, and closed answers.

    Args:
        links: what was found.
        noun: what its items are: "pair" or "text".
        own: whether labelled texts have groups of their own.
    """
    for scope in links.revealing:
        message = (
            f"Which completion it is gives the label away{where(scope)}: {_REVEALING[noun]}; no verdict will be given. "
            "Balance which answer is right."
        )
        yield Finding("answer-is-label", message, scope=scope)
    if links.few:
        linked = None if own else _ONE.get(links.by)
        same = linked or f"with the same {'group' if own else quoted(links.by)} are one cluster"
        shown = [
            f"{count(few.clusters, 'cluster')} in {count(few.pairs, noun)}{where(few.scope)}"
            for few in links.few[:NAMED]
        ]
        pooled = links.few[0].scope == POOLED
        message = (
            f"No verdict will be given: only {listed_first(shown, len(links.few))}, and at least {FEWEST_CLUSTERS} are "
            f"needed ({noun}s {same}). Add {noun}s with {'other prompts and completions' if linked else 'other values'}"
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
        shown = [f"{short(text)} ({count(pairs, noun)})" for text, pairs in links.closed[:NAMED]]
        message = (
            f"Answers of a closed set, {listed_first(shown, len(links.closed))}, link no {noun}s and get effects of "
            "their own in the statistics."
        )
        yield Finding("closed-answers", message, scope=POOLED)


def listed_first(shown: list[str], total: int) -> str:
    """Those that are shown, and how many more there are."""
    return ", ".join(shown) + (f" and {total - len(shown):,} more" if total > len(shown) else "")
