"""Texts that are said twice, true and false at once, or whose prompt knows one label only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from bluffscope.linter.draft import Draft
from bluffscope.linter.labelled.profile import TextProfile
from bluffscope.linter.near import Claims
from bluffscope.linter.repeats import joined_hashes, repeated
from bluffscope.pairs.links import FEWEST_CLUSTERS, POOLED
from bluffscope.stats.study import numbered

MIXED: Final = 0.05
"""Share of the prompts that must have both labels; and so many of them as verdicts need clusters."""


def contradictions(profile: TextProfile) -> Iterator[Draft]:
    """A text that is labelled true in one row and false in another."""
    for positions in repeated(_whole(profile)):
        false = profile.false[positions]
        if false.any() and not false.all():
            here, there = ("false", "true") if false[0] else ("true", "false")
            # The first of either label are those that the sentence quotes.
            first, other = positions[0], positions[false != false[0]][0]
            rest = np.setdiff1d(positions, [first, other])
            more = f" ({len(rest):,} more have this text)" if len(rest) else ""
            sentence = (
                f"{{0.text}} is {here} in text {{0.id}} and {there} in text {{1.id}}{more}: keep the label that is "
                "right."
            )
            yield Draft("contradiction", np.array([first, other, *rest]), sentence)


def duplicate_texts(profile: TextProfile) -> Iterator[Draft]:
    """Texts that agree in prompt, completion and label."""
    for positions in repeated(_whole(profile)):
        for label in (False, True):
            same = positions[profile.false[positions] == label]
            if len(same) > 1:
                said = f"{len(same):,} {'false' if label else 'true'} texts are the same ({{0.text}})"
                yield Draft("duplicate-text", same, f"{said}: they count as one piece of evidence; keep one.")


def one_label_prompts(profile: TextProfile) -> Iterator[Draft]:
    """Nearly no prompt has both true and false completions: what is asked is confounded with the label."""
    if not profile.prompted.all() or len(np.unique(profile.false)) < 2:
        return
    # Groups of the source's own may bring together the prompts that belong together.
    prompts = numbered(profile.groups if profile.own_groups else profile.prompts)
    texts, false = np.bincount(prompts), np.bincount(prompts, profile.false)
    mixed = int(((false > 0) & (false < texts)).sum())
    if len(texts) < FEWEST_CLUSTERS or mixed >= max(FEWEST_CLUSTERS, MIXED * len(texts)):
        return
    what = "group" if profile.own_groups else "prompt"
    several = int((texts > 1).sum())
    having = f"Only {mixed:,}" if mixed else "None"
    sentence = (
        f"{having} of {len(texts):,} {what}s ({several:,} with several texts) has both true and false texts: what is "
        f"asked cannot be told from whether it is answered well; add false completions to {what}s of true ones, or the "
        "other way round."
    )
    yield Draft("one-label-prompts", np.empty(0, np.int64), "{said}", {"said": sentence}, POOLED)


def claims(profile: TextProfile) -> Claims:
    """The texts with prompts as what is true and what is false of a prompt; all else has hashes of its own."""
    completions = np.arange(2 * len(profile.false), dtype=np.uint64).reshape(-1, 2)  # hashes are hardly ever so small
    said = np.flatnonzero(profile.prompted)
    completions[said, profile.false[said].astype(int)] = profile.completions[said]
    return Claims(profile.prompts, completions)


def _whole(profile: TextProfile) -> np.ndarray:
    """(text,) uint64: hash of each text with its prompt; statements are compared with statements."""
    prompts = np.where(profile.prompted, profile.prompts, np.uint64(0))
    return joined_hashes(prompts, profile.completions)
