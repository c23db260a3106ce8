"""Rows that are said twice, or that say opposite things.

Texts are compared as `bluffscope.pairs.groups` compares them (letter case and white space folded), by their 64-bit
hashes: among a million texts, two different ones agree by chance once in 40 million data sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from bluffscope.linter.draft import Draft, Excerpt, count
from bluffscope.linter.profile import Profile


def duplicate_ids(profile: Profile) -> Iterator[Draft]:
    """Ids that more than one pair has: results could not be traced back, so `analyze` refuses them."""
    for positions in _repeated(profile.ids):
        yield Draft("duplicate-id", positions, partial(_same_id, len(positions)))


def _same_id(number: int, found: Sequence[Excerpt]) -> str:
    places = "; ".join(excerpt.place for excerpt in found)
    more = f" and {number - len(found)} more" if number > len(found) else ""
    return f"id {found[0].id} is used by {number:,} pairs ({places}{more}); give each an id of its own."


def contradictions(profile: Profile) -> Iterator[Draft]:
    """A completion that is the fact of one pair and the hallucination of another, for the same prompt."""
    claims = _joined(np.tile(profile.prompts, 2), profile.completions.T.ravel())  # all that is true, then all false
    total = len(profile.prompts)
    for run in _repeated(claims):
        true, false = run[run < total], run[run >= total] - total
        positions = np.union1d(true, false)
        # One pair alone: its fact and its hallucination are the same, which is another finding.
        if len(true) and len(false) and len(positions) > 1:
            yield Draft("contradiction", positions, partial(_contradicted, positions, true))


def _contradicted(positions: np.ndarray, true: np.ndarray, found: Sequence[Excerpt]) -> str:
    first = found[0]
    first_is_true = positions[0] in true
    claim = first.fact if first_is_true else first.hallucination
    words = ("true", "false") if first_is_true else ("false", "true")
    others = f"pair {found[1].id}" if len(positions) == 2 else f"{len(positions) - 1:,} other pairs"
    end = "" if len(positions) == 2 else " or doubled"
    return (
        f"{claim} is {words[0]} in pair {first.id} and {words[1]}{end} in {others} for the same prompt "
        f"{first.prompt}; keep the one that is right."
    )


def conflicting_facts(profile: Profile) -> Iterator[Draft]:
    """Prompts with several facts, none of which is a hallucination of theirs: that is a contradiction."""
    true, false = profile.completions.T
    for positions in _repeated(profile.prompts):
        facts, firsts = np.unique(true[positions], return_index=True)
        if len(facts) > 1 and not np.isin(facts, false[positions]).any():
            yield Draft("conflicting-facts", np.sort(positions[firsts]), partial(_conflicting, len(facts)))


def _conflicting(number: int, found: Sequence[Excerpt]) -> str:
    one, other = found[:2]
    return (
        f"The prompt {one.prompt} has {number:,} facts ({one.fact} in pair {one.id}, {other.fact} in pair {other.id}): "
        "see that all of them are true."
    )


def same_completions(profile: Profile) -> Iterator[Draft]:
    """Pairs whose fact and hallucination are the same text."""
    same = np.flatnonzero(profile.completions[:, 0] == profile.completions[:, 1])
    if len(same):
        yield Draft("same-completions", same, partial(_same_completions, len(same)))


def _same_completions(number: int, found: Sequence[Excerpt]) -> str:
    return (
        f"Fact and hallucination are the same text in {count(number)} (in {found[0].id}: {found[0].fact}), letter "
        "case and white space aside; there is nothing to tell apart."
    )


def duplicate_pairs(profile: Profile) -> Iterator[Draft]:
    """Pairs that agree in prompt, fact and hallucination."""
    for positions in _repeated(_whole(profile)):
        yield Draft("duplicate-pair", positions, partial(_same_pair, len(positions)))


def _same_pair(number: int, found: Sequence[Excerpt]) -> str:
    return (
        f"{number:,} pairs are the same (prompt {found[0].prompt}, fact {found[0].fact}): they count as one piece of "
        "evidence; keep one."
    )


def duplicate_prompts(profile: Profile) -> Iterator[Draft]:
    """Prompts that several pairs share without being the same pair; they form one group."""
    whole = _whole(profile)
    for positions in _repeated(profile.prompts):
        if len(np.unique(whole[positions])) > 1:
            yield Draft("duplicate-prompt", positions, partial(_same_prompt, len(positions)))


def _same_prompt(number: int, found: Sequence[Excerpt]) -> str:
    return (
        f"{number:,} pairs share the prompt {found[0].prompt}: they form one group, so the data holds fewer "
        "independent pairs than rows."
    )


def _whole(profile: Profile) -> np.ndarray:
    """(pair,) uint64: hash of each pair's three texts."""
    return _joined(_joined(profile.prompts, profile.completions[:, 0]), profile.completions[:, 1])


def _joined(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Hashes of ordered pairs of hashes: an odd multiplier (2^64 / golden ratio) keeps the two places apart."""
    return (left * np.uint64(0x9E3779B97F4A7C15)) ^ right


def _repeated(keys: np.ndarray) -> list[np.ndarray]:
    """The positions of each key that occurs more than once, by first position."""
    order = np.argsort(keys, kind="stable")
    changes = np.flatnonzero(np.diff(keys[order])) + 1
    starts, ends = np.append(0, changes), np.append(changes, len(keys))
    runs = [order[start:end] for start, end in zip(starts, ends, strict=True) if end - start > 1]
    return sorted(runs, key=lambda run: int(run[0]))
