"""Values of options: from words of the command line, from YAML and Python, to what a field's type says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from bluffscope.config.layers import LayerSlice


def short(text: str) -> str:
    """The text, or its beginning."""
    return text if len(text) <= 60 else text[:57] + "..."


def from_words(hint: Any, words: Sequence[str]) -> Any:
    """The value of an option from what is written after its flag.

    Args:
        hint: the option's type.
        words: several for a tuple; else one.

    Raises:
        ValueError: something else was expected, in words.
    """
    try:
        if not takes_several(hint) and len(words) != 1:
            raise TypeError
        return converted(words if takes_several(hint) else words[0], hint, _from_word)
    except (TypeError, ValueError, OverflowError) as error:
        expected = described(hint).removesuffix(" or null")
        raise ValueError(f"expected {expected}, got {short(' '.join(words)) or 'nothing'}") from error


def takes_several(hint: Any) -> bool:
    """Whether an option of this type is given several values, or one or several."""
    return tuple in (get_origin(hint), *map(get_origin, get_args(hint)))


def converted(value: Any, hint: Any, plain: Callable[[Any, Any], Any]) -> Any:
    """The value as the type says.

    Args:
        value: what was given.
        hint: the type.
        plain: converts a value to a type without parts.

    Raises:
        TypeError: it is of another type.
    """
    kind = get_origin(hint)
    if kind in (Union, UnionType):
        for choice in sorted(get_args(hint), key=lambda choice: choice is not NoneType):
            with suppress(TypeError):
                if (found := converted(value, choice, plain)) != ():  # one or several is not none
                    return found
        raise TypeError
    if kind is tuple:
        if isinstance(value, str) and LayerSlice in get_args(get_args(hint)[0]):
            value = [value]  # layers="all"
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            raise TypeError
        return tuple(converted(item, get_args(hint)[0], plain) for item in value)
    if kind is Literal:
        if isinstance(value, bool) and {"on", "off"} <= {*get_args(hint)}:
            value = "on" if value else "off"
        if not isinstance(value, str) or value not in get_args(hint):
            raise TypeError
        return value
    return plain(value, hint)


def _from_word(word: str, kind: Any) -> Any:
    if kind is NoneType and word != "None":
        raise TypeError
    try:
        return None if kind is NoneType else kind(word)
    except ValueError as error:
        raise TypeError from error


def from_value(value: Any, kind: Any) -> Any:
    """A value of Python or YAML as a type without parts, or TypeError."""
    if value is None or isinstance(value, bool) or kind in (NoneType, bool):
        if type(value) is kind:
            return value
    elif kind is int and isinstance(value, Integral):
        return int(value)
    elif kind is float and isinstance(value, Real):
        return float(value)
    # No path or name holds a NUL: the system calls would fail on it.
    elif kind in (str, Path) and isinstance(value, (str, PathLike)) and "\0" not in str(value):
        return kind(value)
    elif kind is LayerSlice and isinstance(value, str):
        return _from_word(value, kind)
    raise TypeError


def described(hint: Any) -> str:
    """What a value of the type is, in words."""
    kind = get_origin(hint)
    if kind in (Union, UnionType):
        several = [choice for choice in get_args(hint) if _of_words(choice)]
        return " or ".join("several of them" if choice in several else described(choice) for choice in get_args(hint))
    if _of_words(hint):
        return f"some of {', '.join(get_args(get_args(hint)[0]))}"
    if kind is tuple:
        slices = "slices (all, spread, START:STOP:STEP)"
        plural = {int: "whole numbers", float: "numbers", str: "texts", LayerSlice: slices}
        return f"a list of {' or '.join(plural[kind] for kind in get_args(get_args(hint)[0]) or get_args(hint)[:1])}"
    if kind is Literal:
        return " or ".join(get_args(hint))
    names = {NoneType: "null", bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(hint, "a path")


def _of_words(hint: Any) -> bool:
    """Whether it is the type of several values out of a few words."""
    return get_origin(hint) is tuple and get_origin(get_args(hint)[0]) is Literal
