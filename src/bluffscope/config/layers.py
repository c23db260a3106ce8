"""Which layers a run measures, as one writes them: numbers, `all`, `spread`, and slices as Python has them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final, Self

from bluffscope.errors import InputError

SPREAD: Final = "spread"
"""Stands for `SPREAD_LAYERS` layers, evenly spaced, the last among them."""
SPREAD_LAYERS: Final = 6
_SLICE: Final = re.compile(r"(-?\d{1,5})?:(-?\d{1,5})?(?::(-?[1-9]\d{0,4})?)?")


class LayerSlice(str):
    """`all`, `spread`, or START:STOP:STEP over the layers of a model, each part left out or negative as in Python."""

    __slots__ = ()

    def __new__(cls, written: str) -> Self:
        """What is written.

        Raises:
            ValueError: it is none of these.
        """
        if written not in ("all", SPREAD) and not _SLICE.fullmatch(written):
            raise ValueError(f"{written!r}: expected all, {SPREAD}, or START:STOP:STEP")
        return super().__new__(cls, written)

    def of(self, layers: Sequence[int]) -> Sequence[int]:
        """Those that it selects."""
        if self == SPREAD:
            number = min(SPREAD_LAYERS, len(layers))
            return [layers[(place + 1) * len(layers) // number - 1] for place in range(number)]
        match = _SLICE.fullmatch(self)
        return layers[slice(*(None if part is None else int(part) for part in match.groups()))] if match else layers


def numbered(
    asked: Sequence[int | LayerSlice], layers: int, whose: str, among: Collection[int] | None = None
) -> tuple[int, ...]:
    """The layers asked for as numbers, in the order in which they were asked for.

    Args:
        asked: numbers stay as they are, whether or not there is such a layer.
        layers: of the model.
        whose: the model's name.
        among: what a slice may select; None for all layers.

    Raises:
        InputError: a slice selects nothing, or a layer is given twice.
    """
    found: list[int] = []
    for part in asked:
        if not isinstance(part, LayerSlice):
            found.append(part)
            continue
        chosen = [layer for layer in part.of(range(layers)) if among is None or layer in among]
        if not chosen:
            there = f"0 to {layers - 1}" if among is None else " ".join(map(str, sorted(among)))
            raise InputError(f"--layers {part}: it selects none of the layers of {whose} ({there})")
        found += chosen
    if duplicates := [layer for layer in found if found.count(layer) > 1]:
        raise InputError(f"--layers: {duplicates[0]} is given twice; name each layer once")
    return tuple(found)
