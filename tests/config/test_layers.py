"""Layers by number and as slices."""

from __future__ import annotations

import pytest

from bluffscope.config.layers import LayerSlice, numbered


@pytest.mark.parametrize(
    ("asked", "layers"),
    [
        ((LayerSlice("all"),), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)),
        ((0, LayerSlice("4:9:2")), (0, 4, 6, 8)),
        ((LayerSlice("-2:"), 1), (8, 9, 1)),
        ((LayerSlice("::-4"),), (9, 5, 1)),
        ((LayerSlice(":2"), LayerSlice("7:100")), (0, 1, 7, 8, 9)),
        ((LayerSlice("spread"),), (0, 2, 4, 5, 7, 9)),
    ],
)
def test_slices_of_layers_are_pythons(asked, layers):
    assert numbered(asked, 10, "a model") == layers


@pytest.mark.parametrize("written", ["all:", "::0", "5", "1:2:3:4", "a:b", "", "none"])
def test_what_is_no_slice_is_refused(written):
    with pytest.raises(ValueError, match="expected all, spread, or START:STOP:STEP"):
        LayerSlice(written)


def test_a_spread_ends_with_the_last_layer_and_takes_all_of_a_few():
    assert numbered((LayerSlice("spread"),), 30, "a model") == (4, 9, 14, 19, 24, 29)
    assert numbered((LayerSlice("spread"),), 3, "a model") == (0, 1, 2)
