"""`bluffscope verify`: agreement on every architecture and on trained models, and each planted error found."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import tiny
from bluffscope.compare.tables import compare
from bluffscope.metrics import spectrum
from bluffscope.model import ResidualReader
from bluffscope.pipeline.plan import tries
from bluffscope.records import Activations

STORIES = Path(__file__).resolve().parents[3] / "shared" / "testdata" / "TinyStories-656K"
SENSITIVITY = importlib.import_module("bluffscope.metrics.sensitivity")
STRATEGIES = importlib.import_module("bluffscope.compare.strategies")
AGREE = r"All strategies agree in {}: ([\d,]+) cells of (\d+) columns in (\d+) pairs, "
CHECK_TOKENS = 11
"""Slots of the row that the self-check at load packs: what is planted must lie behind it."""


@pytest.fixture
def flags(tiny_model, tiny_saes, pairs_file):
    """Flags of a model and pairs that verify can take."""
    return ["--model", tiny_model, "--sae", tiny_saes, "--data", pairs_file, "--noise-draws", "2", "--no-logprob"]


@pytest.fixture
def found(call, flags):
    """What verify says of an error that a test has planted, in float64 alone."""

    def verify(*more, but_agree=()):
        outcome = call("verify", *flags, "--dtype", "float64", *more)
        assert outcome.code == 1, outcome
        line = next(line for line in outcome.out.splitlines() if line.startswith("Strategies differ in float64: "))
        for strategy in but_agree:
            assert strategy not in line.partition(" from ")[0]
        return outcome

    return verify


def agreed(outcome, *dtypes, pairs):
    """All strategies agreed in these precisions, on every cell in float64; gives the number of columns."""
    assert outcome.code == 0, outcome
    lines = "\n".join(line for line in outcome.out.splitlines() if line.startswith("All strategies"))
    for dtype in dtypes:
        match = re.search(AGREE.format(dtype), lines)
        assert match, outcome
        assert int(match[3]) == pairs
        if dtype == "float64":
            assert int(match[1].replace(",", "")) == int(match[2]) * pairs
    assert len(lines.splitlines()) == len(dtypes)


@pytest.mark.process
def test_all_strategies_agree_on_every_architecture(call, any_model, tiny_saes, pairs_file):
    outcome = call("verify", "--model", any_model, "--sae", tiny_saes, "--data", pairs_file, "--noise-draws", "2")
    agreed(outcome, "float64", "float32", pairs=5)


@pytest.mark.process
@pytest.mark.parametrize("limit", [[], ["--limit", "7"]])
def test_all_strategies_agree_on_the_demo(call, limit):
    agreed(call("verify", *limit), "float64", "float32", pairs=7 if limit else 5)


@pytest.mark.process
@pytest.mark.skipif(not STORIES.is_dir(), reason="no TinyStories-656K beside the checkout")
@pytest.mark.parametrize("position", ["last", "completion-mean"])
def test_all_strategies_agree_on_a_real_pretrained_model(call, tmp_path, position):
    saes = tiny.save_saes(tmp_path / "saes", (0, 1), d_in=128, d_sae=512)
    outcome = call("verify", "--model", STORIES, "--sae", saes, "--position", position)
    agreed(outcome, "float64", "float32", pairs=5)


@pytest.mark.process
def test_each_strategy_runs_once_in_each_precision_with_its_time(call, flags):
    lines = call("verify", *flags).err.splitlines()
    names = ("sequential", "separate", "batched", "packed")
    expected = [f"{dtype} {name}: 5 pairs in " for dtype in ("float64", "float32") for name in names]
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected


@pytest.mark.process
def test_nothing_is_left_behind(call, flags, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    assert call("verify", *flags, "--dtype", "float64").code == 0
    assert list(scratch.iterdir()) == []
    assert list((tmp_path / "cwd").iterdir()) == []


@pytest.mark.process
@pytest.mark.parametrize(
    "options",
    [
        ["--position", "completion-mean", "--join", ""],
        ["--position", "divergence", "--p-true"],
        ["--position", "first-completion", "--batch-size", "2"],
    ],
)
def test_options_of_model_data_and_measurement_hold(call, flags, options):
    agreed(call("verify", *flags, *options, "--layers", "1", "3"), "float64", "float32", pairs=5)


@pytest.mark.process
@pytest.mark.parametrize(("dtype", "code"), [("float32", 1), ("bfloat16", 0), ("float16", 0)])
def test_float32_decides_and_half_precision_is_for_information(call, flags, monkeypatch, dtype, code):
    right = SENSITIVITY.gini

    def off_below_float64(features):
        return right(features) + (0 if features.values.dtype is torch.float64 else 0.01)

    monkeypatch.setattr(SENSITIVITY, "gini", off_below_float64)
    outcome = call("verify", *flags, "--dtype", dtype)
    assert outcome.code == code, outcome
    assert re.search(AGREE.format("float64"), outcome.out)
    ratios = [float(ratio) for ratio in re.findall(r"\(([\d.e+]+)\)", re.search(r"\ngini .*", outcome.out)[0])]
    assert len(ratios) == 3
    assert ratios[2] > 10
    assert ("Strategies differ in float32: batched, packed from sequential" in outcome.out) == (code == 1)
    assert (f"{dtype}: for information, in multiples of what float32 is allowed" in outcome.out) == (code == 0)


@pytest.mark.process
def test_log_probabilities_are_verified_unless_they_are_left_out(call, flags, monkeypatch):
    plain, with_them = call("verify", *flags), call("verify", *flags[:-1])
    agreed(plain, "float64", "float32", pairs=5)
    agreed(with_them, "float64", "float32", pairs=5)
    columns = [int(re.search(AGREE.format("float64"), outcome.out)[2]) for outcome in (plain, with_them)]
    assert columns[1] - columns[0] == 7
    assert "logprob_per_token" in with_them.out
    assert "logprob" not in plain.out
    right = tries._targets

    def late(targets):
        found = right(targets)
        return dataclasses.replace(found, slot=np.maximum(found.slot - 1, 0))

    monkeypatch.setattr(tries, "_targets", late)  # the position before the one that predicts the token
    outcome = call("verify", *flags[:-1], "--dtype", "float64")
    assert outcome.code == 1
    assert "Strategies differ in float64: batched, packed from sequential" in outcome.out
    assert re.search(r"packed: \d+ cells of [67] columns differ", outcome.out)


@pytest.mark.process
def test_pairs_that_cannot_be_measured_are_named_and_left_out(call, flags, tmp_path):
    long = {"id": "long", "domain": "geo", "prompt": "Water boils at " * 60, "fact": "a", "hallucination": "b"}
    data = tiny.write_pairs(tmp_path / "more.jsonl", [tiny.PAIRS[0], long, *tiny.PAIRS[1:]])
    outcome = call("verify", *flags[:4], "--data", data, "--dtype", "float64")
    agreed(outcome, "float64", pairs=4)
    assert re.search(r"^  pair long: .*context", outcome.out, re.MULTILINE)
    outcome = call("verify", *flags[:4], "--data", tiny.write_pairs(tmp_path / "only.jsonl", [long]))
    assert outcome.code == 1
    assert "Nothing was compared in float64: no pair could be measured." in outcome.out


@pytest.mark.process
def test_a_pair_that_only_one_strategy_cannot_measure_is_a_difference(call, flags, monkeypatch):
    read = ResidualReader.read

    def broken(self, batch):
        activations = read(self, batch)
        if not batch.branching or batch.input_ids.shape[1] == CHECK_TOKENS:
            return activations
        struck = torch.from_numpy(batch.read_item == 0)[:, None]
        return Activations({k: x.masked_fill(struck, torch.nan) for k, x in activations.residuals.items()})

    monkeypatch.setattr(ResidualReader, "read", broken)
    outcome = call("verify", *flags, "--dtype", "float64")
    assert outcome.code == 1
    assert re.search(r"^pair \w+: only packed could not measure it \(the residual stream", outcome.out, re.MULTILINE)


@pytest.mark.process
def test_a_pad_token_that_is_read(found, monkeypatch):
    pad = tries.pad

    def padded(*arguments):
        batch = pad(*arguments)
        return dataclasses.replace(batch, read_slot=np.full_like(batch.read_slot, batch.input_ids.shape[1] - 1))

    monkeypatch.setattr("bluffscope.pipeline.shard.pad", padded)
    outcome = found(but_agree=["packed"])
    assert "batched: " in outcome.out


@pytest.mark.process
def test_a_hole_in_the_mask(found, monkeypatch):
    ancestors = importlib.import_module("bluffscope.model.masks").ancestors

    def holed(subtree_end):
        visible = ancestors(subtree_end).clone()
        if visible.shape[-1] != CHECK_TOKENS:
            visible[:, 2:, 1] = False
        return visible

    monkeypatch.setattr("bluffscope.model.masks.ancestors", holed)
    found(but_agree=["batched", "separate"])


def packed_batches(monkeypatch, change):
    """Every packed batch is changed by `change(batch)`, behind the self-check at load."""
    pack = tries.pack

    def changed(*arguments):
        return dataclasses.replace(batch := pack(*arguments), **change(batch))

    monkeypatch.setattr("bluffscope.pipeline.shard.pack", changed)


@pytest.mark.process
def test_a_shifted_position(found, monkeypatch):
    def shift(batch):
        positions = batch.position_ids.copy()
        positions[batch.read_row[-1], batch.read_slot[-1]] += 1
        return {"position_ids": positions}

    packed_batches(monkeypatch, shift)
    found(but_agree=["batched", "separate"])


@pytest.mark.process
def test_a_token_too_early_read_in_one_text(found, monkeypatch):
    def early(batch):
        slots = batch.read_slot.copy()
        slots[1] -= 1
        return {"read_slot": slots}

    packed_batches(monkeypatch, early)
    found(but_agree=["batched", "separate"])


def second_axis(vectors):
    return vectors[..., -2]


def mirrored_axis(vectors):
    return torch.cat([-vectors[:, :1, -1], vectors[:, 1:, -1]], dim=1)


@pytest.mark.process
@pytest.mark.parametrize("wrong", [second_axis, mirrored_axis])
def test_a_flipped_axis(found, monkeypatch, wrong):
    right = spectrum.eigenvalues_and_top
    flipped = lambda tensor: (right(tensor)[0], wrong(torch.linalg.eigh(tensor).eigenvectors))  # noqa: E731
    monkeypatch.setattr(spectrum, "eigenvalues_and_top", flipped)
    outcome = found(but_agree=["separate"])
    assert "misalignment_angle" in outcome.out
    assert "batched: " in outcome.out
    assert "packed: " in outcome.out


@pytest.mark.thorough
def test_the_cells_that_differ_are_named_worst_first_at_most_ten_of_a_strategy(found, monkeypatch):
    right = SENSITIVITY.gini
    monkeypatch.setattr(SENSITIVITY, "gini", lambda features: right(features) + 2 / features.counts)
    outcome = found("--limit", "2", but_agree=["separate"])
    title = "packed: 18 cells of 9 columns differ by more than is allowed, the worst:"
    assert title in outcome.out
    rows = [line for line in outcome.out[outcome.out.index(title) :].splitlines() if re.match(r"l\d_\w+_gini ", line)]
    assert len(rows) == 10
    ratios = [float(row.split()[-1]) for row in rows]
    assert ratios == sorted(ratios, reverse=True)
    cells = rows[0].split()
    got, expected, difference, ratio = map(float, cells[2:])
    assert got - expected == pytest.approx(difference, rel=0.05)
    assert ratio == pytest.approx(difference / 1e-6, rel=0.05)


@pytest.mark.process
def test_a_model_that_takes_no_packed_rows_is_said_to_run_batched(call, flags, monkeypatch):
    monkeypatch.setattr(ResidualReader, "_packs_exactly", lambda self: False)
    outcome = call("verify", *flags, "--dtype", "float64")
    agreed(outcome, "float64", pairs=5)
    assert "packed (ran as batched)" in outcome.err
    assert outcome.err.count("ignores custom attention masks or positions") == 1


@pytest.fixture
def told(call, flags, monkeypatch):
    """What verify prints of phases that a test makes up; their tables are compared as always."""

    def show(*phases):
        monkeypatch.setattr(STRATEGIES, "verify", lambda config, tell: iter(phases))
        return call("verify", *flags)

    return show


def phase(precision, *values, dtype=None, quarantined=({}, {}), ran_as="sequential"):
    """All strategies found the first value of gini in every pair; the packed one the last value in the last pair."""
    right, *_, other = values

    def measured(strategy, last, left_out):
        table = {"pair_id": [str(n) for n in range(len(values))], "l1_fact_gini": [*[right] * (len(values) - 1), last]}
        return STRATEGIES.Measured(
            strategy=strategy,
            ran_as=ran_as if strategy == "sequential" else strategy,
            dtype=dtype or precision,
            seconds=1.25,
            metrics=pl.DataFrame(table).head(0 if "only" in left_out else len(values)),
            features=pl.DataFrame(),
            quarantined=left_out,
        )

    reference = measured("sequential", right, quarantined[0])
    others = (measured("batched", right, quarantined[0]), measured("packed", other, quarantined[1]))
    agreements = [
        STRATEGIES.Agreement(
            one,
            compare(one.metrics, reference.metrics, precision),
            tuple(one.quarantined.keys() ^ reference.quarantined.keys()),
        )
        for one in others
    ]
    return STRATEGIES.Phase(dtype or precision, precision, reference, tuple(agreements))


def test_agreement_is_told_with_the_cell_that_comes_nearest_to_its_tolerance(told):
    outcome = told(phase("float64", 0.5, 0.5 + 2e-7), phase("float32", 0.5, 0.5))
    assert outcome.code == 0, outcome
    assert re.search(r"^packed +1\.2 +4 +2\.0e-07 +0\.2 +0 of 0 +l1_fact_gini, pair 1$", outcome.out, re.MULTILINE)
    assert (
        "All strategies agree in float64: 4 cells of 2 columns in 2 pairs, largest difference 2.0e-07 (0.2 of what is "
        "allowed) at l1_fact_gini, pair 1"
    ) in outcome.out
    assert "All strategies agree in float32: 4 cells of 2 columns in 2 pairs, without any difference" in outcome.out
    assert re.search(r"^gini +0 \(0\) +0 \(0\)$", outcome.out, re.MULTILINE)


def test_half_precision_is_shown_and_decides_nothing(told):
    outcome = told(phase("reduced", 0.5, 0.6, dtype="bfloat16"))
    assert outcome.code == 0, outcome
    assert "bfloat16: for information, in multiples of what float32 is allowed" in outcome.out
    assert "All strategies agree" not in outcome.out
    assert "differ" not in outcome.out.partition("Total time")[2]


def test_null_against_a_number_is_a_difference_of_float32_too(told):
    outcome = told(phase("float32", 0.5, None))
    assert outcome.code == 1
    assert "packed: 1 cells of 1 columns differ by more than is allowed:" in outcome.out
    assert re.search(r"^l1_fact_gini +1 +null +0\.5 +text +inf$", outcome.out, re.MULTILINE)
    assert "Strategies differ in float32: packed from sequential; see above." in outcome.out


def test_pairs_that_one_strategy_or_none_could_measure_are_named(told):
    left_out = ({"both": "too long"}, {"both": "too long", "long": "not finite"})
    outcome = told(phase("float64", 0.5, 0.5, quarantined=left_out))
    assert outcome.code == 1
    assert "Not measured by any strategy that quarantines it, in float64:\n  pair both: too long\n" in outcome.out
    assert "pair long: only packed could not measure it (not finite)" in outcome.out
    nothing = told(phase("float64", 0.5, 0.5, quarantined=({"only": "too long"}, {"only": "too long"})))
    assert nothing.code == 1
    assert "Nothing was compared in float64: no pair could be measured." in nothing.out


@pytest.mark.thorough
def test_a_strategy_that_is_compared_with_itself_proves_nothing(call, flags, monkeypatch):
    run = STRATEGIES.run

    def always_packed(config, **options):
        return run(dataclasses.replace(config, engine=dataclasses.replace(config.engine, strategy="packed")), **options)

    monkeypatch.setattr(STRATEGIES, "run", always_packed)
    outcome = call("verify", *flags, "--dtype", "float64", "--limit", "1")
    assert outcome.code == 1
    assert "Nothing is proved in float64: sequential (ran as packed)." in outcome.out


@pytest.mark.process
@pytest.mark.parametrize("flag", [["--strategy", "packed"], ["--out", "x"], ["--keep-residuals"], ["--fidelity=3"]])
def test_options_that_verify_sets_itself_are_refused(refused, flags, flag):
    refused("verify", *flags, *flag, says=(flag[0].partition("=")[0], "leave it out"))


@pytest.mark.process
def test_wrong_options_and_data_are_refused_in_one_line(refused, flags, tmp_path):
    refused("verify", "--limits", "3", says="--limit")
    refused("verify", *flags[:4], "--data", tmp_path / "none.jsonl", says="none.jsonl")
    refused("verify", "--model", tmp_path / "none", "--sae", flags[3], says="no such folder")


@pytest.mark.process
def test_a_model_too_large_for_memory_is_refused_before_it_is_loaded(refused, flags, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "enormous")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 10**12}))
    says = ("float64 needs about 128000.5 GB", "GB are free on this machine", "verify a smaller model")
    refused("verify", "--model", folder, *flags[2:], says=says)


@pytest.mark.process
def test_a_replayed_config_has_five_pairs_unless_told_otherwise(call, tiny_flags, tmp_path):
    assert call("analyze", *tiny_flags, "--limit", "3").code == 0
    replay = ["verify", "--config", tmp_path / "run" / "config.yaml", "--dtype", "float64"]
    agreed(call(*replay), "float64", pairs=5)
    agreed(call(*replay, "--limit", "2"), "float64", pairs=2)
