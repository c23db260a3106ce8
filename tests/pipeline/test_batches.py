"""Which pairs share a forward: every pair once, within the limits, neighbours by prompt together."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bluffscope.pipeline.plan import BatchLimits, plan_batches
from bluffscope.records import VIEWS, Pair, Sequence, Tokenized

ids = st.lists(st.integers(1, 3), max_size=6).map(tuple)


def tokenized(index, prompt, fact, hall):
    sequences = tuple(
        Sequence(item=index, view=VIEWS.index(view), ids=views, reads=(len(views) - 1,))
        for view, views in zip(VIEWS, (prompt, fact, hall), strict=True)
    )
    return Tokenized(Pair(index, str(index), "all", None, "", "", ""), sequences, (1, 1, 1), ("", "", ""))


@st.composite
def pairs(draw):
    """Pairs whose completions mostly begin with the prompt's ids, sometimes with fewer of them, as after a merge."""
    made = []
    for index in range(draw(st.integers(0, 12))):
        prompt = (0, *draw(ids))
        views = [
            (*prompt[: draw(st.sampled_from([len(prompt), max(1, len(prompt) - 1)]))], *draw(ids), 1 + number)
            for number in range(2)
        ]
        made.append(tokenized(index, prompt, *views))
    return made


def distinct(batch):
    return len(
        {sequence.ids[:end] for pair in batch for sequence in pair.sequences for end in range(1, len(sequence.ids) + 1)}
    )


@settings(deadline=None)
@given(pairs(), st.integers(1, 5))
def test_a_fixed_size_is_kept_and_every_pair_comes_once(made, size):
    batches = list(plan_batches(made, BatchLimits(batch_size=size, batch_tokens=1, row_tokens=1)))
    assert sorted(pair.item.index for batch in batches for pair in batch) == list(range(len(made)))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert all(0 < len(batch) <= size for batch in batches)


@settings(deadline=None)
@given(pairs(), st.integers(1, 60))
def test_auto_stays_within_the_token_budget_and_every_pair_comes_once(made, budget):
    batches = list(plan_batches(made, BatchLimits(batch_size="auto", batch_tokens=budget, row_tokens=1)))
    assert sorted(pair.item.index for batch in batches for pair in batch) == list(range(len(made)))
    for batch in batches:
        assert len(batch) == 1 or distinct(batch) <= budget


@settings(deadline=None)
@given(pairs())
def test_pairs_come_in_prefix_order_whatever_the_order_of_the_input(made):
    limits = BatchLimits(batch_size="auto", batch_tokens=30, row_tokens=1)
    prompts = [pair.sequences[0].ids for batch in plan_batches(made, limits) for pair in batch]
    assert prompts == sorted(prompts)
    again = [pair.sequences[0].ids for batch in plan_batches(made[::-1], limits) for pair in batch]
    assert again == prompts


def test_a_shared_prompt_is_paid_for_once():
    prompt = (0, *range(10, 30))
    made = [tokenized(index, prompt, (*prompt, index), (*prompt, 50 + index)) for index in range(9)]
    batches = list(plan_batches(made, BatchLimits(batch_size="auto", batch_tokens=21 + 18, row_tokens=1)))
    assert len(batches) == 1
    assert distinct(batches[0]) == 39
