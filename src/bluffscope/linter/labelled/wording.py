"""Texts whose wording is read otherwise than it was meant."""

from __future__ import annotations

from collections.abc import Iterator

from bluffscope.linter.draft import Draft
from bluffscope.linter.labelled.profile import TextProfile
from bluffscope.linter.wording import with_mark


def marked(profile: TextProfile) -> Iterator[Draft]:
    """Special tokens, white space where prompt and completion meet, and tokens that they share there."""
    where = "in {texts} (in {0.id}: {0.text})"
    marks = (
        (
            "boundary-merge",
            None if profile.tokens is None else profile.tokens.merged,
            f"The end of the prompt and the beginning of the completion become one token {where}: the prompt is read "
            "at a token that its completion does not have; look for spaces at its end, or at --join.",
        ),
        (
            "special-token",
            profile.special,
            f"The name of a special token stands {where}: the model reads its letters, not the token; leave it out, "
            "and give conversations with --chat.",
        ),
        (
            "doubled-space",
            profile.doubled_space,
            f"Two pieces of white space meet between prompt and completion {where}: the model sees both; remove one, "
            "in the texts or with --join auto.",
        ),
        (
            "space-at-join",
            profile.own_space,
            f"The prompt ends in white space, or the completion begins with it, {where}: --join auto adds none there.",
        ),
    )
    for code, having, sentence in marks:
        yield from with_mark(code, having, sentence, profile.noun)
