"""Detectors carried from one data set to another: a shared direction, one of its own, text alone, other models."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from bluffscope.detectors.data_sets import DataSet, data_sets
from bluffscope.detectors.files import Detector
from bluffscope.detectors.fits import fit
from bluffscope.detectors.held_out import Estimated, Splits
from bluffscope.detectors.inputs import Views, read_inputs
from bluffscope.detectors.linear import Calibration
from bluffscope.detectors.saved import Saved, holds_training, saved
from bluffscope.detectors.texts import Texts
from bluffscope.detectors.transfer import CARRIED_SCHEMA, _verdict, carried_over
from bluffscope.errors import InputError
from bluffscope.records import STATEMENTS
from bluffscope.stats import Resampling
from bluffscope.stats.scopes import POOLED, Scope
from bluffscope.table.reader import read_run
from made_runs import make_run

WIDTH = 12
ONCE = Resampling(repeats=1)


def data_set(name, seed, direction, *, shift=3.0, words=("alpha", "beta"), told=False, size=160):
    """Labelled texts, two a group, with a residual that moves along a direction where they are false."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], size // 2))
    values = rng.normal(size=(size, WIDTH)) + shift * np.outer(labels, direction)
    ids = pl.Series([f"{name}{number}" for number in range(size)])
    residuals = pl.LazyFrame(
        {"text_id": ids, "view": ["text"] * size, "layer": [4] * size, "token": [3] * size, "values": values.tolist()}
    )
    said = [f"{words[label] if told else rng.choice(words)} {rng.integers(40)}" for label in labels]
    groups = np.arange(size) // 2
    texts = Texts(
        *(STATEMENTS, ("m",), rng.normal(size=(size, 1)), np.full(size, 3.0), np.full(size, np.nan), labels, groups),
        scopes=(Scope(POOLED, np.arange(size)),),
    )
    views = Views(pl.DataFrame({"completion": said}), ids, residuals)
    return DataSet(name, texts, read_inputs(texts, views, 0), views, said)


AXES = np.eye(WIDTH)


def cell(found, train, test, detector="residual"):
    return found.filter(detector=detector, train=train, test=test).row(0, named=True)


def test_a_direction_that_data_sets_share_carries_over_and_one_of_its_own_does_not():
    sets = [data_set("a", 0, AXES[0]), data_set("b", 1, AXES[0]), data_set("c", 2, AXES[1])]
    found = carried_over(sets, ["residual", "mean_difference"], ONCE)
    assert found.schema == CARRIED_SCHEMA
    assert found.height == 3 * 9
    for detector in ("residual", "mean_difference"):
        shared = cell(found, "a", "b", detector)
        assert shared["auroc"] > 0.85 and shared["verdict"] in ("carries over", "partly"), shared
        assert shared["gain_lo"] > 0 and shared["text"] == pytest.approx(0.5, abs=0.15)
        assert abs(shared["loss"]) < 0.08 and shared["own"] == pytest.approx(cell(found, "b", "b", detector)["auroc"])
        other = cell(found, "a", "c", detector)
        assert other["verdict"] in ("chance", "unclear") and abs(other["auroc"] - 0.5) < 0.15, other
        assert other["loss"] > 0.25
        assert cell(found, "c", "c", detector)["verdict"] == "found"


@pytest.mark.soak
def test_shared_directions_are_found_and_others_called_chance_or_unclear_in_most_data_sets():
    found = {"shared": 0, "own": 0}
    for seed in range(40):
        ways = {"a": AXES[0], "b": AXES[0], "c": AXES[1]}
        sets = [data_set(name, 3 * seed + place, way) for place, (name, way) in enumerate(ways.items())]
        table = carried_over(sets, ["mean_difference"], ONCE)
        found["shared"] += cell(table, "a", "b", "mean_difference")["verdict"] in ("carries over", "partly")
        found["own"] += cell(table, "a", "c", "mean_difference")["verdict"] in ("chance", "unclear")
    assert found["shared"] >= 36 and found["own"] >= 36, found


def test_a_cell_is_of_fits_without_a_fold_each_asked_about_one_and_its_interval_knows_of_both():
    a, b = data_set("a", 0, AXES[0]), data_set("b", 1, AXES[0], size=400)
    found = carried_over([a, b], ["residual"], ONCE)
    folds = {}
    for one in (a, b):
        rng = np.random.default_rng([ONCE.seed, 207])
        folds[one.name] = Splits.drawn(one.groups, one.labels, 1, rng).folds[0]
    areas, whole = [], []
    for fold in range(5):
        known, asked = folds["a"] != fold, folds["b"] == fold
        fitted = fit("residual", a.inputs.matrices["residual"][known], a.labels[known], a.groups[known])
        scores = fitted.probabilities(b.inputs.matrices["residual"])
        areas.append(roc_auc_score(b.labels[asked], scores[asked]))
        whole.append(roc_auc_score(b.labels, scores))
    moved = cell(found, "a", "b")
    assert moved["auroc"] == pytest.approx(np.mean(areas), abs=1e-9)
    variance = np.var(areas, ddof=1) / 5 + 4 / 5 * ((np.array(whole) - np.mean(whole)) ** 2).sum()
    half = t.ppf(0.975, 4) * np.sqrt(variance)
    assert (moved["lo"], moved["hi"]) == pytest.approx((np.mean(areas) - half, min(1, np.mean(areas) + half)))


def test_what_text_alone_carries_over_is_no_merit():
    sets = [data_set(name, seed, AXES[0], told=True, shift=2.0) for name, seed in (("a", 0), ("b", 1))]
    found = carried_over(sets, ["residual"], ONCE)
    assert cell(found, "a", "b", "text")["auroc"] == 1.0
    moved = cell(found, "a", "b")
    assert moved["verdict"] == "no better than text" and moved["gain"] < 0


def test_where_nothing_was_learnt_nothing_is_said_of_elsewhere():
    sets = [data_set("noise", 0, AXES[0], shift=0.0), data_set("b", 1, AXES[0], shift=4.0)]
    found = carried_over(sets, ["residual"], ONCE)
    assert cell(found, "noise", "b")["verdict"] == "nothing learnt"
    assert cell(found, "b", "noise")["verdict"] not in ("carries over", "partly", "no better than text")


def test_too_few_texts_and_other_layers_are_said():
    small = data_set("small", 0, AXES[0], size=12)
    other = data_set("b", 1, AXES[0])
    found = carried_over([small, other], ["residual", "sae"], ONCE)
    assert "fewer than" in cell(found, "b", "small")["reason"]
    assert cell(found, "b", "b", "sae")["reason"] == "no SAE features: the run was measured without SAEs"
    elsewhere = other.views.residuals.with_columns(layer=pl.lit(7, dtype=pl.Int64))
    views = dataclasses.replace(other.views, residuals=elsewhere)
    moved = dataclasses.replace(other, name="c", views=views, inputs=read_inputs(other.texts, views, 0))
    found = carried_over([other, moved], ["residual"], ONCE)
    assert cell(found, "b", "c")["reason"] == "residuals of other layers: 4 and 7"


@pytest.mark.parametrize(
    ("ends", "loss", "gain", "says"),
    [
        ((0.45, 0.58), None, None, "chance"),
        ((0.30, 0.45), None, None, "reversed"),
        ((0.45, 0.70), None, None, "unclear"),
        ((0.60, 0.70), (0.0, -0.02, 0.04), (0.1, 0.02, 0.2), "carries over"),
        ((0.60, 0.70), (0.1, 0.02, 0.2), (0.1, 0.02, 0.2), "partly"),
        ((0.60, 0.70), (0.0, -0.02, 0.04), (0.1, -0.02, 0.2), "no better than text"),
        ((0.60, 0.70), None, (0.1, 0.02, 0.2), "found"),
    ],
)
def test_a_verdict_is_the_first_that_holds(ends, loss, gain, says):
    assert _verdict(*ends, loss and Estimated(*loss), gain and Estimated(*gain)) == says


def test_runs_of_other_models_are_refused_and_one_run_alone_too(tmp_path):
    runs = [
        read_run(make_run(tmp_path / name, manifest={"model": {"weights": digest}, "saes": {}}))
        for name, digest in (("a", "1"), ("b", "2"), ("c", "1"))
    ]
    with pytest.raises(InputError, match="was measured with another model"):
        data_sets(runs, None, 0)
    assert [one.name for one in data_sets([runs[0], runs[2]], None, 0)] == ["a", "c"]
    with pytest.raises(InputError, match="takes two data sets or more"):
        data_sets(runs[:1], None, 0)
    with pytest.raises(InputError, match="no such column"):
        data_sets(runs[:1], "nonsense", 0)


def test_texts_that_both_have_are_not_trained_on_when_they_are_tested():
    # Wide enough to learn noise by heart: a fit to the same texts would be right about all of them.
    noise = data_set("noise", 0, AXES[0], shift=0.0, size=40)
    rng = np.random.default_rng(5)
    wide = noise.views.residuals.with_columns(values=pl.Series(rng.normal(size=(40, 60)).tolist()))
    views = dataclasses.replace(noise.views, residuals=wide)
    contents = [f"prompt {number}\ntext" for number in range(40)]
    one = dataclasses.replace(noise, views=views, inputs=read_inputs(noise.texts, views, 0), contents=contents)
    again = dataclasses.replace(one, name="again")
    found = carried_over([one, again], ["residual"], ONCE)
    assert cell(found, "noise", "again")["auroc"] == pytest.approx(cell(found, "again", "again")["auroc"])
    assert abs(cell(found, "noise", "again")["loss"]) < 1e-9
    # Of groups in another order folds are others, and only the contents say which texts are the same.
    order = rng.permutation(40)
    ids = again.views.ids.gather(order)
    texts = dataclasses.replace(noise.texts, labels=noise.texts.labels[order], groups=19 - noise.texts.groups[order])
    views = dataclasses.replace(views, ids=ids)
    for names, least, most in (([contents[place] for place in order], 0.0, 0.8), (list(map(str, order)), 0.85, 1.0)):
        mixed = dataclasses.replace(
            again, texts=texts, views=views, inputs=read_inputs(texts, views, 0), contents=names
        )
        assert least <= cell(carried_over([one, mixed], ["residual"], ONCE), "noise", "again")["auroc"] <= most


def test_domains_are_data_sets_once(tmp_path):
    run = read_run(make_run(tmp_path / "run"))
    found = data_sets([run], "domain", 0)
    assert [one.name for one in found] == run.metrics["domain"].unique(maintain_order=True).to_list()
    assert sum(one.n for one in found) == run.metrics.height
    texts = run.pairs.filter(pl.col("domain") == found[0].name)
    assert found[0].contents[0] == f"{texts['prompt'][0].strip()}\n{texts['fact'][0].strip()}"


def kept(train, lo=0.9, **about):
    """A detector on residuals as it would be read back."""
    inputs = train.inputs
    linear = fit("residual", inputs.matrices["residual"], train.labels, train.groups).linear
    evaluation = {"cross_validated": [{"detector": "residual", "lo": lo}]}
    document = {"evaluation": evaluation, "trained": {}, "config": {}, "model": {}, "saes": {}} | about
    return Detector(Path("kept"), document, inputs.keys["residual"], linear, Calibration(1.0, 0.0), None)


def test_a_saved_detector_is_asked_as_it_is_and_text_is_not_beside_it():
    train, same, other = data_set("a", 0, AXES[0]), data_set("b", 1, AXES[0]), data_set("c", 2, AXES[1])
    detectors = saved([kept(train)], [{}], [same, other])
    found = carried_over([same, other], ["residual"], ONCE, detectors)
    assert found["train"].to_list() == ["kept", "kept"] and found["gain"].null_count() == 2
    moved = cell(found, "kept", "b")
    matrix = same.inputs.matrices["residual"]
    probabilities = fit("residual", train.inputs.matrices["residual"], train.labels, train.groups).probabilities(matrix)
    assert moved["auroc"] == pytest.approx(roc_auc_score(same.labels, probabilities), abs=1e-9)
    # What is trained in place leaves out a fold.
    trained = cell(carried_over([train, same], ["residual"], ONCE), "a", "b")
    assert moved["auroc"] == pytest.approx(trained["auroc"], abs=0.03)
    assert moved["verdict"] in ("carries over", "partly")
    # Of 80 groups the weights off the planted direction are not quite 0, and the interval is that of this very fit.
    lost = cell(found, "kept", "c")
    assert lost["verdict"] != "carries over" and abs(lost["auroc"] - 0.5) < 0.15 and lost["loss_lo"] > 0.15
    (weak,) = saved([kept(train, lo=0.4)], [{}], [same])
    assert carried_over([same], [], ONCE, [weak])["verdict"].to_list() == ["nothing learnt"]
    (named,) = saved([kept(train)], [{}], [dataclasses.replace(same, name="kept")])
    assert named.name == "kept (detector)"


def test_a_saved_detector_of_another_model_or_other_layers_is_refused(tmp_path):
    run = read_run(make_run(tmp_path / "run", manifest={"model": {"weights": "1"}, "saes": {}}))
    one = dataclasses.replace(data_set("b", 1, AXES[0]), run=run)
    about = {"model": {"weights": "1"}, "config": {"model": {"layers": [2, 5]}}}
    assert len(saved([kept(one, **about)], [{}], [one])) == 1
    with pytest.raises(InputError, match="was trained with another model or its precision than"):
        saved([kept(one, **about | {"model": {"weights": "2"}})], [{}], [one])
    detector = kept(one, **about)
    far = dataclasses.replace(detector, keys=dataclasses.replace(detector.keys, layers=(7,)))
    with pytest.raises(
        InputError, match=r"reads residuals of layers 7, .* has kept those of 4: analyze with --layers 7"
    ):
        saved([far], [{}], [one])


def test_a_saved_detector_is_not_asked_about_the_groups_that_it_was_trained_on(tmp_path):
    run = read_run(make_run(tmp_path / "run"))
    rows = np.arange(20, 40)
    one = dataclasses.replace(data_set("b", 1, AXES[0]), run=run, rows=rows)
    groups = run.metrics["group"]
    seen = Saved("kept", kept(one), {run.path: groups[:22]})
    assert str(seen.scores(one)).startswith("it was trained on these texts")
    assert isinstance(Saved("kept", kept(one), {run.path: groups[:20]}).scores(one), np.ndarray)
    assert isinstance(Saved("kept", kept(one), {}).scores(one), np.ndarray)
    assert holds_training(kept(one, trained={"run": str(run.path)}), run)
    assert holds_training(kept(one, trained={"run": "moved", "data": "d"}), run)
    assert not holds_training(kept(one, trained={"run": "moved", "data": "e"}), run)
    assert not holds_training(kept(one), run)
