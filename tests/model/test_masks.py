"""The attention pattern of packed rows equals the ancestor relation worked out node by node."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bluffscope.model.masks import additive, ancestors, attention_masks
from bluffscope.pipeline.plan import pack
from bluffscope.records import Sequence

sequences = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=8).map(tuple), min_size=1, max_size=6)


def packed(texts, row_tokens=14):
    items = [
        Sequence(item=index // 3, view=index % 3, ids=ids, reads=(len(ids) - 1,)) for index, ids in enumerate(texts)
    ]
    return pack(items, {index: index for index in range(len(texts))}, row_tokens)


def naive(batch, row):
    """Slots that each slot sees: itself, then the nearest slot before it that is one higher in the trie, and so on."""
    width, used = batch.input_ids.shape[1], batch.row_lengths[row]
    visible = torch.zeros(width, width, dtype=torch.bool)
    for query in range(width):
        slot = query
        visible[query, slot] = True
        while query < used and batch.position_ids[row, slot] > 0:
            depth = batch.position_ids[row, slot]
            slot = max(other for other in range(slot) if batch.position_ids[row, other] == depth - 1)
            visible[query, slot] = True
    return visible


@settings(deadline=None)
@given(sequences)
def test_each_slot_sees_its_ancestors_and_itself_and_a_pad_only_itself(texts):
    batch = packed(texts)
    visible = ancestors(torch.from_numpy(batch.subtree_end))
    for row in range(len(batch.row_lengths)):
        assert torch.equal(visible[row], naive(batch, row))
        pads = slice(int(batch.row_lengths[row]), None)
        assert torch.equal(visible[row, pads], torch.eye(visible.shape[1], dtype=torch.bool)[pads])
        assert not visible[row, : pads.start, pads].any()


@settings(deadline=None)
@given(sequences, st.integers(1, 9))
def test_a_sliding_window_is_measured_in_depth_not_in_slots(texts, window):
    batch = packed(texts)
    ends, depths = torch.from_numpy(batch.subtree_end), torch.from_numpy(batch.position_ids)
    masks = attention_masks("by-kind", ends, depths, window, torch.float32)
    full, sliding = (masks[kind][:, 0] == 0 for kind in ("full_attention", "sliding_attention"))
    visible = torch.stack([naive(batch, row) for row in range(len(batch.row_lengths))])
    assert torch.equal(full, visible)
    near = depths[:, :, None] - depths[:, None, :] < window
    assert torch.equal(sliding, visible & near)
    assert sliding.diagonal(dim1=1, dim2=2).all(), "a slot without anything to see has no softmax"
    single = attention_masks("single", ends, depths, window, torch.float32)
    assert torch.equal(single, masks["sliding_attention"])


def test_without_a_window_there_is_one_mask_for_all_kinds():
    batch = packed([(1, 2, 3), (1, 2), (1, 3)])
    ends, depths = torch.from_numpy(batch.subtree_end), torch.from_numpy(batch.position_ids)
    masks = attention_masks("by-kind", ends, depths, None, torch.float32)
    assert masks["full_attention"] is masks["sliding_attention"]
    assert torch.equal(attention_masks("single", ends, depths, None, torch.float32), masks["full_attention"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_mask_is_added_so_it_is_a_float_of_zeros_and_the_lowest_number(dtype):
    mask = additive(torch.tensor([[[True, False], [True, True]]]), torch.full((1, 2, 2), torch.nan, dtype=dtype))
    assert (mask.dtype, mask.shape) == (dtype, (1, 1, 2, 2))
    assert mask[0, 0].tolist() == [[0, torch.finfo(dtype).min], [0, 0]]
    assert mask.isfinite().all()
