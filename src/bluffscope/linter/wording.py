"""Pairs whose wording gives the answer away, or leaves nothing to read at the last token."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bluffscope.linter.draft import Draft, marked
from bluffscope.linter.profile import Profile

_JOINED = "(in {0.id}: {0.prompt} + {0.fact} or {0.hallucination})"
_SAME_LAST = (
    "Both completions end in the same {what} in {pairs} ({share}; in {0.id}: {0.ending}): read at the last token they "
    "differ by context alone; --position divergence reads them where they part, completion-mean reads them whole."
)


def answers_in_prompts(profile: Profile) -> Iterator[Draft]:
    """Pairs of whose completions exactly one stands in the prompt, word for word.

    Where both do (a question that offers both answers), copying tells nothing.
    """
    for side, (name, other) in enumerate((("fact", "hallucination"), ("hallucination", "fact"))):
        sentence = (
            f"The {name} stands in the prompt, and the {other} does not, in {{pairs}} (in {{0.id}}: {{0.{name}}} in "
            "{0.prompt}): repeating a word tells them apart, no knowledge needed."
        )
        found = profile.in_prompt[:, side] & ~profile.in_prompt[:, 1 - side]
        yield from marked("answer-in-prompt", found, sentence)


def same_last_words(profile: Profile) -> Iterator[Draft]:
    """Pairs whose completions end in the same word or punctuation mark; not asked where tokens are known."""
    if profile.tokens is None:
        yield from marked("same-last-word", profile.same_last, _SAME_LAST, what="word or mark")


def same_last_tokens(profile: Profile) -> Iterator[Draft]:
    """Pairs whose completions end in the same token of the model."""
    if profile.tokens is not None:
        yield from marked("same-last-token", profile.tokens.same_last, _SAME_LAST, what="token")


def merged_boundaries(profile: Profile) -> Iterator[Draft]:
    """Pairs of which a completion's first token also holds the end of the prompt."""
    if profile.tokens is not None:
        sentence = (
            f"The end of the prompt and the beginning of a completion become one token in {{pairs}} {_JOINED}: the "
            "prompt is read at a token that its completions do not have; look for spaces at its end, or at --join."
        )
        yield from marked("boundary-merge", profile.tokens.merged, sentence)


def without_tokens(profile: Profile) -> Iterator[Draft]:
    """Pairs that the model cannot measure: `analyze` would quarantine them."""
    sentence = "Pair {0.id} ({0.place}) cannot be measured with this model: {reason}."
    for position, reason in profile.tokens.refused.items() if profile.tokens is not None else ():
        yield Draft("no-token", np.array([position]), sentence, {"reason": reason})


def labels_as_texts(profile: Profile) -> Iterator[Draft]:
    """A column of labels in place of completions."""
    if profile.labels is not None:
        yield Draft("labels-as-texts", np.flatnonzero(profile.labelled), "{said}", {"said": profile.labels})


def spaces_at_joins(profile: Profile) -> Iterator[Draft]:
    """Pairs that bring the white space between prompt and completion along, so that none is added."""
    sentence = (
        "The prompt ends in white space, or a completion begins with it, in {pairs} "
        f"{_JOINED}: --join auto adds none there."
    )
    yield from marked("space-at-join", profile.own_space, sentence)


def doubled_spaces(profile: Profile) -> Iterator[Draft]:
    """Pairs of which two pieces of white space meet between prompt and completion."""
    sentence = (
        f"Two pieces of white space meet between prompt and completion in {{pairs}} {_JOINED}: the model sees both; "
        "remove one, in the texts or with --join auto."
    )
    yield from marked("doubled-space", profile.doubled_space, sentence)
