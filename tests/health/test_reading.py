"""Where that which was read stands in the plain forward of its text, and how far apart two readings are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bluffscope.health.loaded_model import Plain, site_of
from bluffscope.health.reading import _apart, _check_finite, _whose, check_tokens
from bluffscope.model import HookPoint
from bluffscope.records import Pair, Sequence, Tokenized

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


def subject(*, bos=1, asks=True, position="last"):
    return SimpleNamespace(
        options=SimpleNamespace(position=position),
        tokenizer=SimpleNamespace(bos_token_id=bos),
        texts=SimpleNamespace(chat=None),
        asks_for_bos=asks,
    )


def tokenized(ids, read):
    """The pair with one text: its fact."""
    return Tokenized(PAIR, (Sequence(item=0, view=1, ids=ids, reads=(read,)),), (0,), ("x",))


def said(asked, text):
    checks = {check.check: check for check in check_tokens(asked, [text], [PLAIN])}
    return {title: (check.severity, check.seen) for title, check in checks.items()}


def test_the_tokens_of_a_run_are_those_of_the_reference_and_a_bos_is_fed_and_never_read():
    found = said(subject(), tokenized((1, 5, 6, 7), 3))
    assert found["BOS fed"] == ("ok", "in 1 of 1 texts")
    assert found["BOS not read"] == ("ok", "0 of 1")
    assert found["read position"] == ("ok", "the same ids and positions in 1 texts")


def test_another_read_position_another_text_and_a_bos_that_is_read_are_errors():
    found = said(subject(), tokenized((1, 5, 6, 7), 0))
    assert found["BOS not read"] == ("error", "1 of 1")
    seen = "1 of 1 texts differ; pair p, fact: token [0] of 4 instead of [3] of 4"
    assert found["read position"] == ("error", seen)
    pair = Pair(7, "q", "all", None, "a", "b", "c")
    other = Tokenized(pair, (Sequence(item=7, view=1, ids=(1, 5), reads=(1,)),), (0,), ("x",))
    assert "pair p, fact: no such text instead of [3] of 4" in said(subject(), other)["read position"][1]


@pytest.mark.parametrize(
    ("asked", "ids", "outcome"),
    [
        (subject(), (5, 6, 7), ("error", "in 0 of 1 texts")),
        (subject(), (1, 1, 7), ("error", "in 0 of 1 texts")),
        (subject(asks=False), (5, 6, 7), ("ok", "0 of 1 texts begin with one")),
        (subject(asks=False), (1, 6, 7), ("error", "1 of 1 texts begin with one")),
        (subject(bos=None), (5, 6, 7), ("warning", "the tokenizer has none")),
    ],
)
def test_a_bos_is_fed_once_where_it_is_asked_for_and_nowhere_else(asked, ids, outcome):
    (found,) = (check for title, check in said(asked, tokenized(ids, 2)).items() if title.startswith("BOS fed"))
    assert found == outcome
