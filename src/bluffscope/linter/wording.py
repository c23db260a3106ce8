"""Pairs whose wording gives the answer away, or leaves nothing to read at the last token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from bluffscope.linter.draft import Draft, Excerpt, count, percent
from bluffscope.linter.profile import Profile


def answers_in_prompts(profile: Profile) -> Iterator[Draft]:
    """Pairs of whose completions exactly one stands in the prompt, word for word.

    Where both do (a question that offers both answers), copying tells nothing.
    """
    for side, other in ((0, 1), (1, 0)):
        found = np.flatnonzero(profile.in_prompt[:, side] & ~profile.in_prompt[:, other])
        if len(found):
            yield Draft("answer-in-prompt", found, partial(_in_prompt, side, len(found)))


def _in_prompt(side: int, number: int, found: Sequence[Excerpt]) -> str:
    first, name, other = found[0], ("fact", "hallucination")[side], ("hallucination", "fact")[side]
    return (
        f"The {name} stands in the prompt, and the {other} does not, in {count(number)} (in {first.id}: "
        f"{first[3 + side]} in {first.prompt}): repeating a word tells them apart, no knowledge needed."
    )


def same_last_words(profile: Profile) -> Iterator[Draft]:
    """Pairs whose completions end in the same word or punctuation mark; not asked where tokens are known."""
    found = np.flatnonzero(profile.same_last)
    if profile.tokens is None and len(found):
        yield Draft("same-last-word", found, partial(_same_last, "word or mark", len(found), len(profile.ids)))


def same_last_tokens(profile: Profile) -> Iterator[Draft]:
    """Pairs whose completions end in the same token of the model."""
    if profile.tokens is not None and len(found := np.flatnonzero(profile.tokens.same_last)):
        yield Draft("same-last-token", found, partial(_same_last, "token", len(found), len(profile.ids)))


def _same_last(what: str, number: int, total: int, found: Sequence[Excerpt]) -> str:
    first = found[0]
    return (
        f"Both completions end in the same {what} in {count(number)} ({percent(number / total)}; in {first.id}: "
        f"{first.ending}): read at the last token they differ by context alone; "
        "--position divergence reads them where they part, completion-mean reads them whole."
    )


def merged_boundaries(profile: Profile) -> Iterator[Draft]:
    """Pairs of which a completion's first token also holds the end of the prompt."""
    if profile.tokens is not None and len(found := np.flatnonzero(profile.tokens.merged)):
        yield Draft("boundary-merge", found, partial(_merged, len(found)))


def _merged(number: int, found: Sequence[Excerpt]) -> str:
    first = found[0]
    return (
        f"The end of the prompt and the beginning of a completion become one token in {count(number)} (in "
        f"{first.id}: {first.prompt} + {first.fact} or {first.hallucination}): the prompt is read at a token that "
        "its completions do not have; look for spaces at its end, or at --join."
    )


def without_tokens(profile: Profile) -> Iterator[Draft]:
    """Pairs that the model cannot measure: `analyze` would quarantine them."""
    if profile.tokens is not None:
        for position, reason in profile.tokens.refused.items():
            yield Draft("no-token", np.array([position]), partial(_refused, reason))


def _refused(reason: str, found: Sequence[Excerpt]) -> str:
    return f"Pair {found[0].id} ({found[0].place}) cannot be measured with this model: {reason}."


def labels_as_texts(profile: Profile) -> Iterator[Draft]:
    """A column of labels in place of completions."""
    if profile.labels is not None:
        sentence = profile.labels
        yield Draft("labels-as-texts", np.flatnonzero(profile.labelled), lambda _: sentence)


def spaces_at_joins(profile: Profile) -> Iterator[Draft]:
    """Pairs that bring the white space between prompt and completion along, so that none is added."""
    if len(found := np.flatnonzero(profile.own_space)):
        yield Draft("space-at-join", found, partial(_own_space, len(found)))


def _own_space(number: int, found: Sequence[Excerpt]) -> str:
    first = found[0]
    return (
        f"The prompt ends in white space, or a completion begins with it, in {count(number)} (in {first.id}: "
        f"{first.prompt} + {first.fact} or {first.hallucination}): --join auto adds none there."
    )


def doubled_spaces(profile: Profile) -> Iterator[Draft]:
    """Pairs of which two pieces of white space meet between prompt and completion."""
    if len(found := np.flatnonzero(profile.doubled_space)):
        yield Draft("doubled-space", found, partial(_doubled_space, len(found)))


def _doubled_space(number: int, found: Sequence[Excerpt]) -> str:
    first = found[0]
    return (
        f"Two pieces of white space meet between prompt and completion in {count(number)} (in {first.id}: "
        f"{first.prompt} + {first.fact} or {first.hallucination}): the model sees both; remove one, in the texts or "
        "with --join auto."
    )
