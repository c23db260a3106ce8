"""Where that which was read stands in the plain forward of its text, and how far apart two readings are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bluffscope.health.loaded_model import Plain, site_of
from bluffscope.health.reading import _apart, _check_finite, _whose
from bluffscope.model import HookPoint
from bluffscope.records import Pair

PAIR = Pair(0, "p", "all", None, "a", "b", "c")
POINT = HookPoint(1, "hook_resid_post")
STATES = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
PLAIN = Plain(
    PAIR,
    "fact",
    ids=(1, 5, 6, 7),
    reads=(3,),
    bos=True,
    sites={"blocks.0.hook_resid_post": STATES + 3, "blocks.1.hook_resid_post": STATES},
)


@pytest.mark.parametrize(
    ("read", "where"),
    [
        (STATES[3:], "it is the right token"),
        (STATES[2:3] * 1.001, "it is token 2 instead of 3"),
        (STATES[:1], "it is the BOS"),
        (STATES[3:] + 3, "it is the right token at blocks.0.hook_resid_post"),
        (-STATES[3:], "it matches no token of this text at any loaded layer (a pad, another text, or a wrong mask)"),
    ],
)
def test_what_was_read_is_found_at_the_token_and_site_where_it_stands(read, where):
    assert _whose(PLAIN, read, POINT) == where


def test_before_a_block_is_after_the_one_before_it():
    assert site_of(HookPoint(2, "hook_resid_pre")) == site_of(POINT) == "blocks.1.hook_resid_post"
    assert site_of(HookPoint(0, "hook_resid_pre")) == "blocks.0.hook_resid_pre"


def test_readings_of_other_shapes_or_without_a_number_are_infinitely_far_apart():
    assert _apart(STATES, STATES) == 0
    assert _apart(STATES * 1.5, STATES) == pytest.approx(0.5)
    assert _apart(STATES[:3], STATES) == float("inf")
    assert _apart(STATES * float("nan"), STATES) == float("inf")


@pytest.mark.parametrize(
    ("dtype", "value", "severity", "says"),
    [
        (torch.float16, float("inf"), "error", "infinite or NaN in float16, first at blocks.1.hook_resid_post"),
        (torch.bfloat16, float("nan"), "error", "infinite or NaN in bfloat16, first at blocks.1.hook_resid_post"),
        (torch.float16, 65_000.0, "warning", "largest 6.5e+04 in float16"),
        (torch.float32, 65_000.0, "ok", "largest 6.5e+04 in float32"),
    ],
)
def test_overflow_is_an_error_and_in_half_precision_coming_near_it_a_warning(dtype, value, severity, says):
    states = STATES.clone()
    states[2, 3] = value
    plain = Plain(PAIR, "fact", PLAIN.ids, (3,), True, {**PLAIN.sites, "blocks.1.hook_resid_post": states})
    check = _check_finite(SimpleNamespace(model=SimpleNamespace(dtype=dtype)), [plain])
    assert (check.severity, check.seen) == (severity, says)
    if severity == "error":
        assert ("bfloat16 or float32" in check.message) == (dtype is torch.float16)
