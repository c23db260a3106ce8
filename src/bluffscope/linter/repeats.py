"""Rows that are said twice, or that say opposite things.

Texts are compared as `bluffscope.pairs.groups` compares them (letter case and white space folded), by their 64-bit
hashes: among a million texts, two different ones agree by chance once in 40 million data sets.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bluffscope.linter.draft import QUOTED_PAIRS, Draft
from bluffscope.linter.profile import Known, Profile


def duplicate_ids(profile: Known) -> Iterator[Draft]:
    """Ids that more than one pair or text has: results could not be traced back, so `analyze` refuses them."""
    for positions in repeated(profile.ids):
        quoted = min(len(positions), QUOTED_PAIRS)
        places = "; ".join(f"{{{place}.place}}" for place in range(quoted))
        more = f" and {len(positions) - quoted} more" if len(positions) > quoted else ""
        sentence = (
            f"id {{0.id}} is used by {len(positions):,} {profile.noun}s ({places}{more}); give each an id of its own."
        )
        yield Draft("duplicate-id", positions, sentence)


def contradictions(profile: Profile) -> Iterator[Draft]:
    """A completion that is the fact of one pair and the hallucination of another, for the same prompt."""
    claims = joined_hashes(
        np.tile(profile.prompts, 2), profile.completions.T.ravel()
    )  # all that is true, then all false
    total = len(profile.prompts)
    for run in repeated(claims):
        true, false = run[run < total], run[run >= total] - total
        positions = np.union1d(true, false)
        # One pair alone: its fact and its hallucination are the same, which is another finding.
        if len(true) and len(false) and len(positions) > 1:
            here, there, side = (
                ("true", "false", "fact") if positions[0] in true else ("false", "true", "hallucination")
            )
            others = "in pair {1.id}" if len(positions) == 2 else f"or doubled in {len(positions) - 1:,} other pairs"
            sentence = (
                f"{{0.{side}}} is {here} in pair {{0.id}} and {there} {others} for the same prompt {{0.prompt}}; keep "
                "the one that is right."
            )
            yield Draft("contradiction", positions, sentence)


def conflicting_facts(profile: Profile) -> Iterator[Draft]:
    """Prompts with several facts, none of which is a hallucination of theirs: that is a contradiction."""
    true, false = profile.completions.T
    for positions in repeated(profile.prompts):
        facts, firsts = np.unique(true[positions], return_index=True)
        if len(facts) > 1 and not np.isin(facts, false[positions]).any():
            sentence = (
                f"The prompt {{0.prompt}} has {len(facts):,} facts ({{0.fact}} in pair {{0.id}}, {{1.fact}} in pair "
                "{1.id}): see that all of them are true."
            )
            yield Draft("conflicting-facts", np.sort(positions[firsts]), sentence)


def duplicate_pairs(profile: Profile) -> Iterator[Draft]:
    """Pairs that agree in prompt, fact and hallucination."""
    for positions in repeated(_whole(profile)):
        sentence = (
            f"{len(positions):,} pairs are the same (prompt {{0.prompt}}, fact {{0.fact}}): they count as one piece of "
            "evidence; keep one."
        )
        yield Draft("duplicate-pair", positions, sentence)


def duplicate_prompts(profile: Profile) -> Iterator[Draft]:
    """Prompts that several pairs share without being the same pair; they form one group."""
    whole = _whole(profile)
    for positions in repeated(profile.prompts):
        if len(np.unique(whole[positions])) > 1:
            one_group = len(np.unique(profile.groups[positions])) == 1
            so = (
                "they form one group, so the data holds fewer independent pairs than rows"
                if one_group
                else "--cluster-by takes them for independent"
            )
            sentence = f"{len(positions):,} pairs share the prompt {{0.prompt}}: {so}."
            yield Draft("duplicate-prompt", positions, sentence)


def _whole(profile: Profile) -> np.ndarray:
    """(pair,) uint64: hash of each pair's three texts."""
    return joined_hashes(joined_hashes(profile.prompts, profile.completions[:, 0]), profile.completions[:, 1])


def joined_hashes(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Hashes of ordered pairs of hashes: an odd multiplier (2^64 / golden ratio) keeps the two places apart."""
    return (left * np.uint64(0x9E3779B97F4A7C15)) ^ right


def repeated(keys: np.ndarray) -> list[np.ndarray]:
    """The positions of each key that occurs more than once, by first position."""
    order = np.argsort(keys, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
    return sorted((run for run in runs if len(run) > 1), key=lambda run: int(run[0]))
