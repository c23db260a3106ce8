"""The engine measures items of any arrangement: labelled texts as well as pairs, with the same numbers bit for bit."""

from __future__ import annotations

import pytest

import tiny
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.metrics import ANALYSES, ON_REQUEST
from bluffscope.pipeline.build import build_worker
from bluffscope.records import PAIRS, PROMPTED, STATEMENTS, LabelledText, Shard
from bluffscope.table.schema import measured_columns, table_columns
from measuring import LAYERS, as_pairs, make_worker, measure, options_of

NAMES = [analysis.name for analysis in (*ANALYSES, *ON_REQUEST)]


def both_sides(pairs, arrangement):
    """The facts and hallucinations as texts of their own, in turn, named after the pair's sides."""
    sides = [(pair, side, text) for pair in pairs for side, text in (("fact", pair.fact), ("hall", pair.hallucination))]
    return tuple(
        LabelledText(index, f"{pair.id}/{side}", side == "fact", "all", pair.id, pair.prompt, text, {}, arrangement)
        for index, (pair, side, text) in enumerate(sides)
    )


@pytest.mark.parametrize(
    "strategy", ["packed", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("batched", "sequential"))]
)
@pytest.mark.parametrize("position", ["last", "completion-mean"])
@pytest.mark.parametrize("arrangement", [PROMPTED, STATEMENTS], ids=["prompted", "statements"])
def test_single_texts_have_the_same_numbers_as_the_two_sides_of_a_pair(
    tiny_model, tiny_saes, strategy, position, arrangement
):
    pairs = as_pairs(tiny.PAIRS)
    asked = {"logprob": True, "p_true": True, "trajectory": "on"}
    options = {"strategy": strategy, "position": position, "dtype": "float64", **asked}
    expected = measure(make_worker(tiny_model, tiny_saes, **options), pairs)
    config = options_of(tiny_model, tiny_saes, **options)
    analyses = [
        analysis for analysis in (*ANALYSES, *ON_REQUEST) if arrangement == PROMPTED or not analysis.needs_prompt
    ]
    names = [analysis.name for analysis in analyses]
    worker = build_worker(
        config,
        analyses,
        lambda layers: table_columns(layers, analyses=names, arrangement=arrangement),
        Stopwatch(),
    )
    texts = both_sides(pairs, arrangement)
    found = worker.run(Shard(0, texts, tuple(pair.id for pair in pairs for _ in range(2)), arrangement))
    assert found["_reason"].null_count() == len(texts)
    assert found["text_id"].to_list() == [text.id for text in texts]
    assert found["label"].to_list() == [True, False] * len(pairs)
    # Read for each of its texts, a prompt is still encoded once; batches of padded rows or without prompts differ.
    exact = strategy == "sequential" or (strategy == "packed" and arrangement == PROMPTED)
    compared = 0
    for column in measured_columns(LAYERS, arrangement=arrangement):
        if column.section not in names:
            continue
        if arrangement == STATEMENTS and column.name.endswith("_prompt_cosine"):  # there is nothing to compare with
            assert found[column.name].null_count() == len(texts)
            continue
        for offset, side in enumerate(("fact", "hall")):
            layer, _, metric = column.name.partition("_")
            by_layer = column.section in ("layer_sensitivity", "trajectory")
            of_prompt = metric.startswith("prompt_") and metric != "prompt_cosine"
            name = f"{layer}_{metric if of_prompt else f'{side}_{metric}'}" if by_layer else f"{column.name}_{side}"
            assert_same(found[column.name].gather_every(2, offset), expected[name], name, exact=exact)
            compared += 1
    assert compared == 2 * sum(
        column.section in names and not (arrangement == STATEMENTS and column.name.endswith("_prompt_cosine"))
        for column in measured_columns(LAYERS, arrangement=arrangement)
    )
    for offset, side in enumerate(("fact", "hall")):
        assert found["text_tokens"].gather_every(2, offset).to_list() == expected[f"{side}_tokens"].to_list()
        assert found["read_token"].gather_every(2, offset).to_list() == expected[f"{side}_read_token"].to_list()
    views = found["_features"].explode().struct.unnest()
    assert views["view"].unique().sort().to_list() == sorted(arrangement.views)


def assert_same(ours, theirs, name, *, exact):
    """Equal; but for single texts, up to the order in which float64 sums of another batch are made."""
    assert ours.is_null().to_list() == theirs.is_null().to_list(), name
    if ours.dtype.is_float():
        assert (ours - theirs).abs().max() in (None, 0 if exact else pytest.approx(0, abs=1e-12)), name
    else:
        assert ours.to_list() == theirs.to_list(), name


def test_a_pair_names_its_columns_as_ever():
    assert PAIRS.parts == ("fact", "hall", "diff")
    assert PAIRS.at_layer(5, "fact", "gini") == "l5_fact_gini"
    for arrangement in (STATEMENTS, PROMPTED):
        assert arrangement.parts == ("",)
        assert (arrangement.at_layer(5, "text", "gini"), arrangement.of_part("entropy", "")) == ("l5_gini", "entropy")
    assert PROMPTED.at_layer(5, "prompt", "gini") == "l5_prompt_gini"
