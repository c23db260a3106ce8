"""The engine on a model of the user's beside the sequential pattern and a careful script: the same work and results."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from bluffscope.cli.main import main
from bluffscope.compare.bench import against, careful
from bluffscope.compare.bench.against import Against, measure, same_metrics, same_residuals
from bluffscope.errors import InputError

LAYERS = (0, 1)


@pytest.fixture
def here(monkeypatch):
    """Every way runs in this process: one of its own for each takes a minute."""
    monkeypatch.setattr(against, "fresh", lambda _what, work, *given, **_settings: work(*given))


@pytest.fixture
def asked(tiny_model, tiny_saes):
    return Against(model=str(tiny_model), sae=str(tiny_saes), layers=LAYERS, pairs=20, sequential_pairs=3, repeats=2)


@pytest.mark.parametrize("saes", [True, False])
def test_all_ways_find_the_same_and_the_engine_computes_the_fewest_tokens(asked, here, saes):
    found = list(measure(asked if saes else replace(asked, sae="none", layers=())))
    kinds = [(each.way, each.does, each.pairs) for each in found]
    plain, whole = "forward + encode", "all analyses"
    assert kinds == [
        *[("careful", plain, 20), ("packed", plain, 20), ("careful", plain, 20)],
        *[("packed", whole, 20), ("sequential", whole, 3)],
    ]
    repeats = [len(each.seconds) for each in found]
    assert min(repeats[:-1]) >= asked.repeats
    assert repeats[-1] == 1
    with_head, packed, without, analysed, sequential = found
    assert {each.layers for each in found} == {LAYERS if saes else (1, 2)}
    assert packed.tokens < with_head.tokens == without.tokens
    for other in (with_head, without):
        agreement = same_residuals(packed, other)
        assert agreement.holds, agreement
        assert other.features.height == packed.features.height > 0 if saes else other.features.is_empty()
    agreement = same_metrics(analysed, sequential)
    assert agreement.holds, agreement
    assert sequential.metrics.height == 3
    assert all(each.seconds_per_pair > 0 for each in found)


def test_a_script_that_reads_the_wrong_place_is_seen(asked, here, monkeypatch):
    right = careful.read

    def wrong(model, tokenizer, saes, states, *given, **options):
        return right(model, tokenizer, saes, {layer: state - 1 for layer, state in states.items()}, *given, **options)

    monkeypatch.setattr(careful, "read", wrong)
    careful_found, packed, *_ = measure(asked)
    agreement = same_residuals(packed, careful_found)
    assert not agreement.holds
    assert str(agreement).startswith("results DIFFER: residuals apart by at most")


def test_features_that_differ_and_metrics_that_differ_are_seen(asked, here):
    careful_found, packed, _, analysed, sequential = measure(asked)
    fewer = careful_found._replace(features=careful_found.features.head(-5))
    assert not same_residuals(packed, fewer).holds
    column = next(name for name in sequential.metrics.columns if name.startswith("l0_fact_"))
    other = sequential._replace(metrics=sequential.metrics.with_columns(pl.col(column) * 1.01))
    assert column in str(same_metrics(analysed, other))


def test_layers_that_no_plain_script_reads_are_refused_in_one_line(asked, here):
    with pytest.raises(
        InputError, match="--layers 3: what is read at blocks.3.hook_resid_post is not among the hidden"
    ):
        list(measure(replace(asked, layers=(0, 3))))


def test_the_pairs_of_the_slow_way_are_spread_over_the_lengths(tmp_path):
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(f"{'x' * length}\n" for length in np.random.default_rng(0).permutation(100) + 1))
    lengths = [len(line) for line in against._spread(data, tmp_path / "some", 5).read_text().splitlines()]
    assert lengths == [11, 31, 51, 71, 91]
    assert len(against._spread(data, tmp_path / "all", 1000).read_text().splitlines()) == 100


def test_the_command_prints_ratios_within_the_run_and_says_that_results_agree(capsys, asked, here, tmp_path):
    given = ("--model", asked.model, "--sae", asked.sae, "--layers", *LAYERS, "--pairs", 20, "--sequential-pairs", 2)
    assert main(["bench", *map(str, given), "--repeats", "1", "--out", str(tmp_path / "bench")]) == 0
    said = capsys.readouterr()
    records = json.loads((tmp_path / "bench" / "bench.json").read_text())["against"]
    careful_found, packed = records[:2]
    ratio = careful_found["seconds_per_pair"] / packed["seconds_per_pair"]
    assert f"{ratio:.1f}x" in said.out
    assert said.out.count("results agree: ") == 3
    assert "measured: careful script, no LM head (forward + encode)" in said.err
