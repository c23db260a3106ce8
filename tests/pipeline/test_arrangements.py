"""The engine measures items of any arrangement: single texts as well as pairs, with the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

import tiny
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.metrics import ANALYSES, ON_REQUEST
from bluffscope.metrics.declaration import Column
from bluffscope.pipeline.build import build_worker
from bluffscope.records import PAIRS, Arrangement, Shard, joined
from bluffscope.table.schema import measured_columns
from measuring import LAYERS, as_pairs, make_worker, measure, options_of

TEXTS = Arrangement(views=("text",), completions=("text",), sources=("prompt", "completion"))
IDENTITY = tuple(
    Column(name, kind, "", None, None, "")
    for name, kind in {"text_id": "str", "group": "str", "text_tokens": "int", "read_token": "str"}.items()
)
OF_THE_PROMPT = "semantic_misalignment"  # it compares with a prompt's read, which a single text has not


@dataclass(frozen=True)
class Statement:
    """One completion, with the prompt it continues."""

    index: int
    id: str
    prompt: str
    completion: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    arrangement: Arrangement = TEXTS

    @property
    def cells(self):
        return {"text_id": self.id, "prompt": self.prompt, "completion": self.completion}

    def texts(self, join):
        return self.prompt, (joined(self.prompt, self.completion, join),)


def both_sides(pairs):
    """The facts and hallucinations as items of their own, in turn."""
    sides = [(pair, side, text) for pair in pairs for side, text in (("fact", pair.fact), ("hall", pair.hallucination))]
    return tuple(
        Statement(index, f"{pair.id}/{side}", pair.prompt, text) for index, (pair, side, text) in enumerate(sides)
    )


@pytest.mark.parametrize("strategy", ["packed", "batched"])
@pytest.mark.parametrize("position", ["last", "completion-mean"])
def test_single_texts_have_the_same_numbers_as_the_two_sides_of_a_pair(tiny_model, tiny_saes, strategy, position):
    pairs = as_pairs(tiny.PAIRS)
    options = {"strategy": strategy, "position": position, "logprob": True, "trajectory": "on", "dtype": "float64"}
    expected = measure(make_worker(tiny_model, tiny_saes, **options), pairs)
    config = options_of(tiny_model, tiny_saes, **options)
    analyses = [analysis for analysis in (*ANALYSES, *ON_REQUEST) if analysis.name != OF_THE_PROMPT]
    worker = build_worker(
        config,
        analyses,
        lambda layers: (
            *IDENTITY,
            *(c for c in measured_columns(layers, arrangement=TEXTS) if c.section in {a.name for a in analyses}),
        ),
        Stopwatch(),
    )
    texts = both_sides(pairs)
    found = worker.run(Shard(0, texts, tuple(pair.id for pair in pairs for _ in range(2)), TEXTS))
    assert found["_reason"].null_count() == len(texts)
    assert found["text_id"].to_list() == [text.id for text in texts]
    compared = 0
    for column in measured_columns(LAYERS, arrangement=TEXTS):
        if column.name.endswith("_prompt_cosine"):  # a single text has no prompt to compare with
            assert found[column.name].null_count() == len(texts)
            continue
        if column.section in (OF_THE_PROMPT, "stability"):  # noise follows from the name of the item and view
            continue
        for offset, side in enumerate(("fact", "hall")):
            layer, _, metric = column.name.partition("_")
            by_layer = column.section in ("layer_sensitivity", "trajectory")
            name = f"{layer}_{side}_{metric}" if by_layer else f"{column.name}_{side}"
            assert_same(found[column.name].gather_every(2, offset), expected[name], name)
            compared += 1
    assert compared == 2 * ((10 + 5) * len(LAYERS) + 1 + 2 + 2)
    assert found["stability"].null_count() < len(texts)
    for offset, side in enumerate(("fact", "hall")):
        assert found["text_tokens"].gather_every(2, offset).to_list() == expected[f"{side}_tokens"].to_list()
        assert found["read_token"].gather_every(2, offset).to_list() == expected[f"{side}_read_token"].to_list()
    views = found["_features"].explode().struct.unnest()
    assert views["view"].unique().to_list() == ["text"]


def assert_same(ours, theirs, name):
    """Equal, up to the order in which float64 sums of another batch are made."""
    assert ours.is_null().to_list() == theirs.is_null().to_list(), name
    if ours.dtype.is_float():
        assert (ours - theirs).abs().max() in (None, pytest.approx(0, abs=1e-9)), name
    else:
        assert ours.to_list() == theirs.to_list(), name


def test_a_pair_names_its_columns_as_ever():
    assert PAIRS.parts == ("fact", "hall", "diff")
    assert PAIRS.at_layer(5, "fact", "gini") == "l5_fact_gini"
    assert TEXTS.parts == ("",)
    assert (TEXTS.at_layer(5, "text", "gini"), TEXTS.of_part("entropy", "")) == ("l5_gini", "entropy")
