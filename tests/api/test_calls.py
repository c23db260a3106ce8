"""The library call: pairs in, a table out, options by the names of the flags."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import bluffscope
import tiny
from bluffscope import Column, InputError, UserAnalysis
from bluffscope.api import config_from
from bluffscope.records import VIEWS


@pytest.fixture
def options(tiny_model, tiny_saes):
    return {"model": str(tiny_model), "sae": str(tiny_saes)}


def test_importing_the_package_imports_nothing_heavy():
    script = (
        "import sys, bluffscope; dir(bluffscope); "
        "heavy = {'torch', 'polars', 'transformers', 'numpy', 'yaml', 'tyro'} & set(sys.modules); sys.exit(str(heavy))"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert process.stderr.strip() == "set()"


def test_every_public_name_is_there_and_no_other():
    for name in bluffscope.__all__:
        assert getattr(bluffscope, name) is not None
    assert set(dir(bluffscope)) == set(bluffscope.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'analyse'"):
        _ = bluffscope.analyse


def test_pairs_in_memory_give_the_table_of_their_file(options, pairs_file, tmp_path):
    from_list = bluffscope.analyze(tiny.PAIRS, **options)
    from_generator = bluffscope.analyze((pair for pair in tiny.PAIRS), **options)
    from_file = bluffscope.analyze(pairs_file, **options)
    from_text = bluffscope.analyze(str(pairs_file), **options)
    for table in (from_generator, from_file, from_text):
        assert_frame_equal(table, from_list, check_exact=True)
    assert from_list["pair_id"].to_list() == [pair["id"] for pair in tiny.PAIRS]
    assert list(tmp_path.iterdir()) == [pairs_file]


def test_carried_columns_of_pairs_in_memory_keep_their_types(options):
    pairs = [pair | {"year": np.int64(1999 + i), "ok": np.bool(i > 1), "w": 0.5} for i, pair in enumerate(tiny.PAIRS)]
    table = bluffscope.analyze(pairs, **options)
    assert table.select("year", "ok", "w").row(2) == (2001, True, 0.5)


def test_options_may_be_paths_numpy_numbers_lists_and_ranges(tiny_model, tiny_saes):
    table = bluffscope.analyze(
        tiny.PAIRS, model=tiny_model, sae=tiny_saes, layers=range(2), batch_size=np.int64(2), noise_sweep=[1, 0.5]
    )
    assert "stability_s1_fact" in table.columns
    assert "l1_fact_gini" in table.columns
    assert "l3_fact_gini" not in table.columns


def test_out_keeps_the_run_and_without_it_nothing_is_kept(options, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    bluffscope.analyze(tiny.PAIRS, **options)
    assert list((tmp_path / "scratch").iterdir()) == []
    table = bluffscope.analyze(tiny.PAIRS, out=tmp_path / "kept", **options)
    run = bluffscope.read_run(tmp_path / "kept")
    assert_frame_equal(run.metrics, table, check_exact=True)
    assert not (tmp_path / "kept" / "report.html").exists()
    with pytest.raises(InputError, match="already holds a run"):
        bluffscope.analyze(tiny.PAIRS, out=str(tmp_path / "kept"), **options)


def test_an_analysis_of_one_s_own_stands_beside_the_five(options):
    def strongest(measurement):
        state = measurement.states[measurement.layers[-1]]
        lengths = state.residual.norm(dim=1).double().numpy()
        return measurement.fact_hall_diff("residual_norm", lengths) | {"label": ["x"] * len(measurement.pair_ids)}

    columns = (
        *(Column(f"residual_norm_{part}", "float", "", None, None, "Norm.") for part in ("fact", "hall", "diff")),
        Column("label", "str", "", None, None, "A label."),
    )
    table = bluffscope.analyze(tiny.PAIRS, added=[UserAnalysis(strongest, columns)], **options)
    assert table["label"].to_list() == ["x"] * 5
    difference = table["residual_norm_hall"] - table["residual_norm_fact"]
    assert table["residual_norm_diff"].to_list() == pytest.approx(difference.to_list())
    assert "entropy_fact" in table.columns
    alone = bluffscope.analyze(tiny.PAIRS, analyses=(), added=[UserAnalysis(strongest, columns)], **options)
    assert "entropy_fact" not in alone.columns
    assert alone["residual_norm_fact"].to_list() == pytest.approx(table["residual_norm_fact"].to_list(), rel=1e-5)


def test_an_analysis_that_takes_a_name_of_the_table_is_refused(options, tmp_path):
    taken = UserAnalysis(lambda measurement: {}, (Column("entropy_fact", "float", "", None, None, "No."),))
    with pytest.raises(InputError, match="two columns of the result table would be named 'entropy_fact'"):
        bluffscope.analyze(tiny.PAIRS, added=[taken], out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_some_analyses_give_their_columns_only(options):
    chosen = [analysis for analysis in bluffscope.ANALYSES if analysis.name == "stability"]
    table = bluffscope.analyze(tiny.PAIRS, analyses=chosen, noise_sweep=(0.5,), **options)
    metrics = [name for name in table.columns if name.endswith("_fact")]
    assert metrics == ["stability_fact", "stability_s0.5_fact"]


def test_an_option_that_does_not_exist_is_a_type_error(options):
    with pytest.raises(TypeError, match=r"unknown option 'modle': expected a flag of `bluffscope analyze`"):
        bluffscope.analyze(tiny.PAIRS, modle="x")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"layers": 5}, "layers: expected a list of whole numbers or slices (all, spread, START:STOP:STEP), got 5"),
        (
            {"layers": "0 1"},
            "layers: expected a list of whole numbers or slices (all, spread, START:STOP:STEP), got '0 1'",
        ),
        ({"batch_size": "many"}, "batch_size: expected auto or a whole number, got 'many'"),
        ({"noise_draws": 0}, "--noise-draws 0: give at least 1"),
        ({"noise_std": float("nan")}, "--noise-std nan"),
        ({"dtype": "half"}, "dtype: expected auto or float32"),
        ({"out": "a\0b"}, "out: expected a path or null"),
        ({"limit": 0}, "--limit 0"),
    ],
    ids=str,
)
def test_values_that_cannot_be_are_refused(options, wrong, says):
    with pytest.raises(InputError) as caught:
        bluffscope.analyze(tiny.PAIRS, **(options | wrong))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([], "the file is empty"),
        ([{"prompt": "a", "fact": "b"}], "field 'hallucination' is missing"),
        ([{"prompt": "a", "fact": "b", "hallucination": {1}}], "pair 0: .*give text and numbers"),
        ([tiny.PAIRS[0], tiny.PAIRS[0]], "id 'fr' is taken by"),
        ([{"prompt": "a", "fact": "b", "hallucination": object()}], "pair 0: "),
        (["text"], "pair 0: "),
        ([3], "pair 0: "),
    ],
)
def test_pairs_that_cannot_be_used_are_refused(options, pairs, says):
    with pytest.raises(InputError, match=says) as caught:
        bluffscope.analyze(pairs, **options)
    assert "\n" not in str(caught.value)


def test_quarantined_pairs_are_not_in_the_table_but_in_the_log(options, tmp_path):
    long = {"id": "long", "prompt": "boils " * 300, "fact": "a", "hallucination": "b"}
    table = bluffscope.analyze([long, *tiny.PAIRS], out=tmp_path / "run", **options)
    assert table.height == 5
    (entry,) = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert entry["pair_ids"] == ["long"]


def test_warnings_reach_whoever_has_set_up_logging_and_stderr_otherwise(options, tmp_path, caplog, capsys, monkeypatch):
    model = tiny.save_model(tmp_path / "model", "qwen3")
    for file in model.glob("*token*"):
        file.unlink()
    tiny.save_tokenizer(model, bos=False)
    bluffscope.analyze(tiny.PAIRS, **(options | {"model": model}))
    assert "none is fed" in caplog.text
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    capsys.readouterr()
    bluffscope.analyze(tiny.PAIRS, **(options | {"model": model}))
    assert capsys.readouterr().err == f"the SAEs were trained with a BOS in front, but {model} has none: none is fed\n"
    assert logging.getLogger("bluffscope").handlers == []


def test_config_from_sorts_options_into_their_parts():
    config = config_from(layers=[3], noise_std=1, data="x.csv", out="runs/x", keep_residuals=True)
    assert config.model.layers == (3,)
    assert config.measure.noise_std == 1.0
    assert config.output.out == Path("runs/x")
    assert (config.data.data, config.output.keep_residuals, config.engine.batch_size) == ("x.csv", "on", "auto")


def test_the_table_has_the_pairs_in_input_order_whatever_the_batches(options):
    table = bluffscope.analyze(tiny.PAIRS[::-1], batch_size=2, **options)
    assert table["pair_id"].to_list() == [pair["id"] for pair in tiny.PAIRS[::-1]]
    assert set(table.schema.dtypes()) <= {pl.Float64, pl.Int64, pl.String, pl.Int32, pl.Boolean}
    for view in VIEWS:
        assert table[f"{view}_read_token"].null_count() == 0
