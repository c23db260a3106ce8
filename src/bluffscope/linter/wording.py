"""Pairs whose wording gives the answer away, or leaves nothing to read at the last token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np

from bluffscope.host.terminal import count
from bluffscope.linter.draft import Draft, percent
from bluffscope.linter.profile import Known, Profile


class Mark(NamedTuple):
    """What makes one finding of all pairs that have it."""

    code: str
    has: Callable[[Profile], np.ndarray | None]
    """(pair,) bool; None where it is not asked."""
    sentence: str
    """A template, as `Draft.sentence`; {pairs} is their number and {share} their share."""


_JOINED: Final = "(in {0.id}: {0.prompt} + {0.fact} or {0.hallucination})"
_IN_PROMPT: Final = (
    "The %s stands in the prompt, and the %s does not, in {pairs} (in {0.id}: {0.%s} in {0.prompt}): repeating a word "
    "tells them apart, no knowledge needed."
)
_SAME_LAST: Final = (
    "Both completions end in the same %s in {pairs} ({share}; in {0.id}: {0.ending}): read at the last token they "
    "differ by context alone; --position divergence reads them where they part, completion-mean reads them whole."
)
MARKS: Final = (
    Mark(
        "same-completions",
        lambda profile: profile.completions[:, 0] == profile.completions[:, 1],
        "Fact and hallucination are the same text in {pairs} (in {0.id}: {0.fact}), letter case and white space aside; "
        "there is nothing to tell apart.",
    ),
    # Where both stand in the prompt (a question that offers both answers), copying tells nothing.
    Mark(
        "answer-in-prompt",
        lambda profile: profile.in_prompt[:, 0] & ~profile.in_prompt[:, 1],
        _IN_PROMPT % ("fact", "hallucination", "fact"),
    ),
    Mark(
        "answer-in-prompt",
        lambda profile: profile.in_prompt[:, 1] & ~profile.in_prompt[:, 0],
        _IN_PROMPT % ("hallucination", "fact", "hallucination"),
    ),
    Mark("same-last-word", lambda profile: None if profile.tokens else profile.same_last, _SAME_LAST % "word or mark"),
    Mark("same-last-token", lambda profile: profile.tokens and profile.tokens.same_last, _SAME_LAST % "token"),
    Mark(
        "boundary-merge",
        lambda profile: profile.tokens and profile.tokens.merged,
        f"The end of the prompt and the beginning of a completion become one token in {{pairs}} {_JOINED}: the prompt "
        "is read at a token that its completions do not have; look for spaces at its end, or at --join.",
    ),
    Mark(
        "special-token",
        lambda profile: profile.special,
        f"The name of a special token stands in {{pairs}} {_JOINED}: the model reads its letters, not the token; leave "
        "it out, and give conversations with --chat.",
    ),
    Mark(
        "doubled-space",
        lambda profile: profile.doubled_space,
        f"Two pieces of white space meet between prompt and completion in {{pairs}} {_JOINED}: the model sees both; "
        "remove one, in the texts or with --join auto.",
    ),
    Mark(
        "space-at-join",
        lambda profile: profile.own_space,
        f"The prompt ends in white space, or a completion begins with it, in {{pairs}} {_JOINED}: --join auto adds "
        "none there.",
    ),
)


def marked(profile: Profile) -> Iterator[Draft]:
    """A finding for each of `MARKS` that any pair has."""
    for mark in MARKS:
        yield from with_mark(mark.code, mark.has(profile), mark.sentence, profile.noun)


def with_mark(code: str, having: np.ndarray | None, sentence: str, noun: str) -> Iterator[Draft]:
    """A finding for the (item,) pairs or texts that have something, if any has."""
    if having is not None and having.any():
        details = {f"{noun}s": count(int(having.sum()), noun), "share": percent(float(having.mean()))}
        yield Draft(code, np.flatnonzero(having), sentence, details)


def without_tokens(profile: Known) -> Iterator[Draft]:
    """Pairs or texts that the model cannot measure: `analyze` would quarantine them."""
    sentence = f"{profile.noun.capitalize()} {{0.id}} ({{0.place}}) cannot be measured with this model: {{reason}}."
    for position, reason in profile.tokens.refused.items() if profile.tokens is not None else ():
        yield Draft("no-token", np.array([position]), sentence, {"reason": reason})


def labels_as_texts(profile: Profile) -> Iterator[Draft]:
    """A column of labels in place of completions."""
    if profile.labels is not None:
        yield Draft("labels-as-texts", np.flatnonzero(profile.labelled), "{said}", {"said": profile.labels})
