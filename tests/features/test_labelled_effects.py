"""Effects of features on labelled texts: every number by hand, ghosts, values, and what is refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bluffscope.errors import InputError
from bluffscope.features.effects import feature_effects
from bluffscope.features.label_tail import label_design, label_tail
from bluffscope.features.labelled import LABELLED_EFFECTS
from bluffscope.features.study import LAYER_SCHEMA
from bluffscope.stats.multiplicity import benjamini_hochberg

TEXTS, FEATURES = 90, 12


def made(seed: int = 0, planted: float = 3.0) -> tuple[pl.LazyFrame, pl.DataFrame, np.ndarray]:
    """A table of features, its texts in groups of three of one label, and the dense (text, feature) activations."""
    rng = np.random.default_rng(seed)
    label = np.repeat(rng.permutation(np.arange(30) < 20), 3)
    dense = rng.gamma(2, 1, (TEXTS, FEATURES)) * (rng.random((TEXTS, FEATURES)) < 0.4)
    dense[~label, 5] += planted
    dense[:, 2] = np.where(label, 0, 1.5) * (np.arange(TEXTS) < 45)
    rows = [
        (f"t{text}", "text", 7, feature, dense[text, feature]) for text, feature in zip(*np.nonzero(dense), strict=True)
    ]
    rows += [("t0", "prompt", 7, 0, 99.0), ("quarantined", "text", 7, 0, 99.0)]  # neither may count
    frame = pl.LazyFrame(rows, schema=["text_id", "view", "layer", "feature", "activation"], orient="row")
    texts = pl.DataFrame(
        {
            "text_id": [f"t{text}" for text in range(TEXTS)],
            "label": label,
            "group": [f"g{text // 3}" for text in range(TEXTS)],
            "domain": ["first"] * 45 + ["second"] * 45,
        }
    )
    return frame.cast({"layer": pl.Int32, "feature": pl.Int32, "activation": pl.Float32}), texts, dense


def test_every_number_of_every_feature_is_that_of_the_dense_table():
    frame, texts, dense = made()
    study = feature_effects(frame, texts)
    assert (study.rows.schema, study.layers.schema) == (LABELLED_EFFECTS, LAYER_SCHEMA)
    false = ~texts["label"].to_numpy()
    groups, domains = np.arange(TEXTS) // 3, np.repeat([0, 1], 45)
    order = np.unique([f"group g{group}" for group in groups], return_inverse=True)[1]
    design = label_design(false, order, domains, 0)
    assert study.about["least_p"] == design.least
    assert study.rows.height == (dense > 0).any(axis=0).sum()
    for row in study.rows.iter_rows(named=True):
        values = dense[:, row["feature"]]
        sides = values[~false], values[false]
        assert row["n"] == TEXTS
        for name, side in zip(("true", "false"), sides, strict=True):
            assert row[f"fires_{name}"] == (side > 0).sum()
            assert row[f"share_{name}"] == pytest.approx((side > 0).mean())
            assert row[f"mean_{name}"] == pytest.approx(side.mean(), rel=1e-6)
        assert row["mean_diff"] == pytest.approx(sides[1].mean() - sides[0].mean(), rel=1e-5)
        pooled = np.sqrt(sum(((side - side.mean()) ** 2).sum() for side in sides) / (TEXTS - 2))
        assert row["g"] == pytest.approx(row["mean_diff"] / pooled * (1 - 3 / (4 * (TEXTS - 2) - 1)), rel=1e-4)
        there = np.flatnonzero(values)
        rng = np.random.default_rng([0, 7, row["feature"]])
        assert row["p"] == pytest.approx(label_tail(design, there, values[there].astype(np.float32), rng), rel=1e-6)
        own = np.flatnonzero(false == (row["mean_diff"] >= 0))
        best = own[np.argsort(-values[own], kind="stable")[:3]]
        assert row["top_texts"] == [f"t{text}" for text in best if values[text] > 0]
    assert study.rows["q"].to_list() == pytest.approx(benjamini_hochberg(study.rows["p"].to_numpy()).tolist())


def test_planted_features_are_found_and_ghosts_are_more_than_other_labels_give():
    study = feature_effects(*made()[:2])
    first = study.rows.filter(feature=5).row(0, named=True)
    assert first["q"] < 0.001
    assert first["differs_in"] == ["first", "second"]
    ghost = study.rows.filter(feature=2).row(0, named=True)
    assert ghost["ghost"]
    assert ghost["differs_in"] == ["first"]
    assert study.ghosts.select("layer", "feature").rows() == [(7, 2)]
    layer = study.layers.row(0, named=True)
    assert layer["ghosts"] == 1 > layer["ghosts_high"]
    assert layer["ghosts_expected"] < 0.05
    assert layer["only_in_facts"] == 0


def test_labels_that_mean_nothing_find_features_no_more_often_than_the_level():
    found = 0
    for seed in range(40):
        frame, texts, _ = made(seed, planted=0.0)
        label = np.repeat(np.random.default_rng([seed, 1]).permutation(30) < 20, 3)
        texts = texts.with_columns(label=pl.Series(label))
        found += int((feature_effects(frame, texts).rows["q"] < 0.05).any())
    assert found <= 6  # 40 draws at 0.05: 2 expected, more than 6 in 1 of 200


def test_what_cannot_be_looked_at_is_refused_in_one_line():
    frame, texts, _ = made()
    for rows, says in (
        (texts.head(0), "no texts are left to look at"),
        (texts.filter("label"), "all 60 texts are true: nothing to compare"),
        (texts.filter(~pl.col("label")), "all 30 texts are false: nothing to compare"),
    ):
        with pytest.raises(InputError, match=says):
            feature_effects(frame, rows)
    with pytest.raises(InputError, match="--by nonsense: no such column in the texts"):
        feature_effects(frame, texts, by="nonsense")
    few = feature_effects(frame, texts, most=30)
    assert few.about["texts"] == 30
    assert few.about["notes"] == ["Of 90 texts, 30 were looked at: whole groups drawn at random, seed 0."]
