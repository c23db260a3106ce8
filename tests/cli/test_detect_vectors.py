"""`bluffscope detect train --activations`: vectors that exist already, from training to score, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from bluffscope.detectors.files import read_detector
from bluffscope.detectors.vectors import read_activations

TEXTS, WIDTH = 80, 6
RNG = np.random.default_rng(0)
LABELS = np.tile([True, False], TEXTS // 2)
VALUES = {
    f"layer.{layer}": torch.tensor(
        RNG.normal(size=(TEXTS, WIDTH)) + 2.5 * (layer == 10) * ~LABELS[:, None] * (np.arange(WIDTH) < 2),
        dtype=torch.float32,
    )
    for layer in (10, 9)
}
"""Two tensors, of which layer.10 knows the labels."""


def given(tmp_path, *, ending="csv", tensors=VALUES, metadata=None, **columns):
    """Both files, as the arguments of the command."""
    vectors, labels = tmp_path / "v.safetensors", tmp_path / f"labels.{ending}"
    save_file(dict(tensors), vectors, metadata)
    table = pl.DataFrame({"label": LABELS, "group": np.arange(TEXTS) // 2, **columns})
    {"csv": table.write_csv, "jsonl": table.write_ndjson, "parquet": table.write_parquet}[ending](labels)
    return "--activations", vectors, "--labels", labels


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_vectors_become_a_detector_that_scores_vectors(call, tmp_path, ending):
    files = given(tmp_path, ending=ending)
    outcome = call("detect", "train", *files, "--out", tmp_path / "d", "--alpha", "0.05")
    assert outcome.code == 0, outcome.err
    said = " ".join(outcome.out.split())
    assert "Trained on vectors of 80 texts, in 40 groups" in said
    assert "Penalties, chosen within the training folds (median): residual" in said
    card = (tmp_path / "d" / "README.md").read_text()
    assert "layer.9 (6 values), layer.10 (6 values)" in card and "--activations FILE.safetensors" in card
    assert "was not measured" in card and "nothing in this folder can check" in card
    assert "Penalties" in card and "detect watch" not in card and str(tmp_path) not in card
    detector = read_detector(tmp_path / "d")
    assert detector.about["evaluation"]["beats_baselines"] and detector.about["trained"]["penalty"] > 0

    outcome = call("detect", "score", tmp_path / "d", "--activations", files[1])
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row["row"] for row in rows] == list(range(TEXTS))
    expected = detector.linear.scores(np.hstack([VALUES[name].numpy() for name in ("layer.9", "layer.10")]))
    assert [row["logit"] for row in rows] == pytest.approx(expected.tolist(), abs=1e-9)
    assert np.mean([(row["probability"] > 0.5) != label for row, label in zip(rows, LABELS, strict=True)]) > 0.9
    assert {row["alarm"] for row in rows} == {True, False}

    assert call("detect", "export", tmp_path / "d", "--out", tmp_path / "w.safetensors").code == 0
    kept = load_file(tmp_path / "w.safetensors")
    by_hand = sum(VALUES[name].double() @ kept[f"{name}.weight"] for name in VALUES) + kept["bias"]
    assert by_hand.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    for command in (("score", tmp_path / "d", "--text", "x"), ("watch", tmp_path / "d", "--prompt", "x")):
        refused = call("detect", *command)
        assert refused.code == 2 and "trained on vectors; score with detect score --activations" in refused.err


def test_rows_are_found_by_the_ids_of_the_vectors_and_texts_are_a_baseline(call, tmp_path):
    ids = [f"t{number}" for number in range(TEXTS)]
    files = given(
        tmp_path,
        metadata={"ids": json.dumps(ids)},
        id=ids,
        completion=["no" if label else "yes indeed" for label in LABELS],
    )
    table = pl.read_csv(files[3])
    table.sample(fraction=1, shuffle=True, seed=1).write_csv(files[3])
    outcome = call("detect", "train", *files, "--out", tmp_path / "d", "--allow-weak")
    assert outcome.code == 0, outcome.err
    rows = read_detector(tmp_path / "d").about["evaluation"]["cross_validated"]
    areas = {row["detector"]: row["auroc"] for row in rows}
    assert areas["residual"] > 0.9 and areas["text"] == 1.0 and areas["length"] == 1.0
    assert "It does not beat the best baseline" in outcome.out
    first = json.loads(call("detect", "score", tmp_path / "d", "--activations", files[1]).out.splitlines()[0])
    assert first["id"] == "t0"


def test_half_precision_and_one_tensor_are_read(tmp_path):
    save_file({"x": VALUES["layer.9"].bfloat16()}, tmp_path / "v.safetensors")
    found = read_activations(tmp_path / "v.safetensors")
    assert found.parts == (("x", WIDTH),) and found.values.dtype == np.float32
    assert found.values == pytest.approx(VALUES["layer.9"].numpy(), rel=0.01)


def broken(value):
    tensor = VALUES["layer.9"].clone()
    tensor[7, 2] = value
    return {"x": tensor}


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (broken(np.nan), "x has NaN or infinity in 1 rows, first in row 7"),
        (broken(np.inf), "x has NaN or infinity in 1 rows, first in row 7"),
        ({"x": torch.zeros(TEXTS)}, "x has the shape (80,); expected (texts, width)"),
        ({"x": torch.zeros(2, TEXTS, 3)}, "x has the shape (2, 80, 3)"),
        ({"x": torch.zeros(TEXTS, 3, dtype=torch.int64)}, "x holds int64; expected floats"),
        ({"a": torch.zeros(TEXTS, 3), "b": torch.zeros(9, 3)}, "b has 9 rows, a 80"),
        ({"x": torch.zeros(TEXTS - 1, 3)}, "80 rows for 79 vectors"),
        ({}, "holds no tensor"),
    ],
    ids=["nan", "inf", "one-dimension", "three", "integers", "other-rows", "labels-rows", "empty"],
)
def test_vectors_that_cannot_be_used_are_refused_in_one_line(call, tmp_path, tensors, says):
    outcome = call("detect", "train", *given(tmp_path, tensors=tensors), "--out", tmp_path / "d")
    assert outcome.code == 2 and says in " ".join(outcome.err.split())
    assert not (tmp_path / "d").exists() and "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table.with_columns(label=pl.lit("perhaps")), "label 'perhaps': expected true or false"),
        (lambda table: table.drop("label"), "the table has no column label"),
        (lambda table: table.with_columns(id=pl.int_range(80) + 1), "no row with the id '0' of the vectors"),
        (lambda table: table.with_columns(id=pl.lit(3)), "no row with the id '0' of the vectors"),
        (lambda table: table.with_columns(label=pl.lit(True)), "0 false texts, fewer than 10"),
        (lambda table: table.with_columns(group=pl.lit(1)), "1 groups of texts, fewer than 10"),
    ],
    ids=["unknown", "none", "ids", "twice", "one-label", "one-group"],
)
def test_labels_that_cannot_be_used_are_refused_in_one_line(call, tmp_path, change, says):
    files = given(tmp_path, metadata={"ids": json.dumps(list(range(TEXTS)))})
    change(pl.read_csv(files[3])).write_csv(files[3])
    outcome = call("detect", "train", *files, "--out", tmp_path / "d")
    assert outcome.code == 2 and says in " ".join(outcome.err.split())


def test_files_that_do_not_go_together_are_refused(call, tmp_path):
    files = given(tmp_path)
    for arguments in (files[:2], files[2:], (tmp_path, *files), ()):
        outcome = call("detect", "train", *arguments, "--out", tmp_path / "d")
        assert outcome.code == 2 and "give the folder of a run, or --activations FILE with --labels" in outcome.err
    (tmp_path / "v.safetensors").write_bytes(b"no tensors")
    assert call("detect", "train", *files, "--out", tmp_path / "d").code == 2
    files = given(tmp_path)
    assert call("detect", "train", *files, "--out", tmp_path / "d").code == 0
    save_file({"layer.9": VALUES["layer.9"]}, tmp_path / "other.safetensors")
    outcome = call("detect", "score", tmp_path / "d", "--activations", tmp_path / "other.safetensors")
    assert outcome.code == 2 and "the detector takes layer.9 of width 6, layer.10 of width 6" in outcome.err
