"""Stretches of a completion that are false, as annotators marked them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

from bluffscope.pairs.paths import FieldError
from bluffscope.pairs.record import quoted


def checked_spans(value: Any, completion: str, name: str) -> str:
    """The spans of a completion as JSON, ``[[start, end], ...]``: characters, end excluded, in their order.

    Args:
        value: a list, or JSON of one, of ``[start, end]`` or of objects with `start` and `end`.
        completion: what they are places in.
        name: of their field.

    Raises:
        FieldError: it is no such list, or a span lies outside.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list):
        raise FieldError(f"field {quoted(name)}: expected a list of [start, end], places in the completion")
    spans = [_span(item) for item in cast("list[Any]", value)]
    for found, given in zip(spans, cast("list[Any]", value), strict=True):
        if found is None or not 0 <= found[0] < found[1] <= len(completion):
            raise FieldError(
                f"field {quoted(name)}: {quoted(given)} is no stretch of the completion, which has "
                f"{len(completion):,} characters; expected [start, end] with 0 <= start < end"
            )
    return json.dumps(sorted(found for found in spans if found is not None))


def _span(item: Any) -> tuple[int, int] | None:
    ends = (item.get("start"), item.get("end")) if isinstance(item, dict) else item
    if not isinstance(ends, list | tuple) or len(cast("list[Any]", ends)) != 2:
        return None
    start, end = cast("list[Any]", ends)
    whole = all(isinstance(end, int) and not isinstance(end, bool) for end in (start, end))
    return (start, end) if whole else None


def places_of(texts: Iterable[str], completion: str) -> list[tuple[int, int]]:
    """Where each text stands first in a completion; those that do not are left out."""
    starts = ((completion.find(text), text) for text in texts if text)
    return [(start, start + len(text)) for start, text in starts if start >= 0]
