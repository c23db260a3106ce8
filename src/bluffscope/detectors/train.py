"""A detector that is to be kept: how good it is on texts it was not fitted to, and the fit to all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.detectors.classifiers import BASELINES
from bluffscope.detectors.evaluate import CHANCE, FEWEST_GROUPS, calibration_error, detect, interval
from bluffscope.detectors.inputs import Keys, Views, keyed_matrix, read_inputs
from bluffscope.detectors.linear import Calibration, Linear, On, calibrate, fit_linear
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.stats.auroc import ordering
from bluffscope.stats.cells import Resampling
from bluffscope.stats.heldout import FOLDS, grouped_folds
from bluffscope.stats.resampling import area_draws
from bluffscope.stats.scopes import POOLED, Scope
from bluffscope.stats.study import Study, build_study, numbered
from bluffscope.table.reader import Run

_FOLD_STREAM: Final = 205
_LEFT_OUT_STREAM: Final = 206


@dataclass(frozen=True)
class Trained:
    """A fitted detector and what is known of it."""

    keys: Keys
    linear: Linear
    calibration: Calibration
    rows: pl.DataFrame
    """`DETECTORS_SCHEMA` of the pairs it was trained on: it and the baselines, cross-validated by group."""
    ece: float
    """Calibration error of the probabilities as they are given, curves fitted inside the training folds too."""
    left_out: dict[str, Any] | None
    """n, auroc, lo, hi of the run's other pairs (those in no group of a training pair); None where there are none."""
    about: dict[str, Any]
    """Pairs, groups, folds, seed, notes."""

    @property
    def row(self) -> dict[str, Any]:
        """Its own row of `rows`."""
        return self.rows.row(by_predicate=pl.col("detector") == self.keys.on, named=True)

    @property
    def baselines(self) -> pl.DataFrame:
        """The rows of the baselines that are there."""
        return self.rows.filter(pl.col("detector").is_in(BASELINES), pl.col("auroc").is_not_null())

    @property
    def beats(self) -> bool:
        """Whether its AUROC is above that of the best baseline and of guessing, by the interval of their difference."""
        return self.row["gain_lo"] is not None and self.row["gain_lo"] > 0


@exclusive()
def train(run: Run, chosen: pl.Series, on: On, seed: int) -> Trained:
    """Fit a detector to some pairs of a run, and see how it does on the others.

    Args:
        run: a finished run.
        chosen: (row,) whether each pair of its table is trained on.
        on: what it looks at.
        seed: of folds and resamples.

    Raises:
        InputError: too few groups, or the run has not kept what the detector looks at.
    """
    study, views = _opened(run, chosen)
    groups = len(np.unique(study.groups))
    if groups < FEWEST_GROUPS:
        raise InputError(f"{groups} groups of pairs, fewer than {FEWEST_GROUPS}: too few to train and test on")
    resampling = Resampling(seed=seed)
    inputs = read_inputs(study, views, seed)
    if on not in inputs.matrices:
        raise InputError(f"--on {on}: {inputs.missing[on]}")
    detection = detect(study, views, resampling)
    matrix, labels = inputs.matrices[on], np.repeat([0, 1], len(inputs.rows))
    rng = np.random.default_rng([seed, _FOLD_STREAM])
    scores, probabilities = _calibrated(on, matrix, numbered(study.groups[inputs.rows]), rng)
    trained = Trained(
        keys=inputs.keys[on],
        linear=fit_linear(on, matrix, labels),
        calibration=calibrate(scores, labels),
        rows=detection.rows,
        ece=calibration_error(probabilities, labels),
        left_out=None,
        about={**detection.about, "groups": groups, "seed": seed},
    )
    return replace(trained, left_out=_left_out(run, chosen, trained, seed))


def _opened(run: Run, chosen: pl.Series) -> tuple[Study, Views]:
    """The chosen pairs as one scope, and what the run has kept of them."""
    table = run.metrics.filter(chosen)
    pairs = run.pairs if (run.path / "pairs.parquet").exists() else None
    study = build_study(table, pairs, carried=False)
    views = Views.of_run(run, table, study.pairs)
    return replace(study, scopes=(Scope(POOLED, np.arange(table.height)),)), views


def _calibrated(on: On, matrix: Any, groups: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(text,) scores, and (text,) probabilities of a curve that was fitted inside the training folds as well.

    No text's score, and no text's curve, comes from a fit that saw its group.
    """
    scores, probabilities = np.empty(2 * len(groups)), np.empty(2 * len(groups))
    for train, test, labels in _splits(groups, rng):
        scores[test] = fit_linear(on, matrix[train], labels).scores(matrix[test])
        inner = numbered(groups[train[: len(labels) // 2]])
        within = np.empty(len(labels))
        for known, held, half in _splits(inner, rng):
            within[held] = fit_linear(on, matrix[train[known]], half).scores(matrix[train[held]])
        probabilities[test] = calibrate(within, labels).probabilities(scores[test])
    return scores, probabilities


def _splits(groups: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Places of each fold's training and test texts, facts first, and the labels of the training texts."""
    folds = grouped_folds(groups, FOLDS, rng)
    for fold in range(FOLDS):
        train = _texts(folds != fold)
        yield train, _texts(folds == fold), np.repeat([0, 1], len(train) // 2)


def _texts(pairs: np.ndarray) -> np.ndarray:
    """(text,) places of some pairs' facts and hallucinations."""
    return np.flatnonzero(np.concatenate([pairs, pairs]))


def _left_out(run: Run, chosen: pl.Series, trained: Trained, seed: int) -> dict[str, Any] | None:
    """How the fit does on pairs that it has not seen and that share no group with those that it has."""
    others = ~chosen
    if "group" in run.metrics.columns:
        others &= ~run.metrics["group"].is_in(run.metrics["group"].filter(chosen).unique().implode())
    if not others.any():
        return None
    study, views = _opened(run, others)
    inputs = read_inputs(study, views, seed)
    scores = np.round(trained.linear.scores(keyed_matrix(trained.keys, study, views, inputs)), 10).reshape(2, -1)
    groups = numbered(study.groups[inputs.rows])
    number = int(groups.max()) + 1
    bounds: dict[str, Any] = {"lo": None, "hi": None}
    if number >= FEWEST_GROUPS:
        rng = np.random.default_rng([seed, _LEFT_OUT_STREAM])
        bounds = interval(area_draws([scores], groups, Resampling().resamples, rng)[:, 0])
    return {"n": len(inputs.rows), "auroc": ordering(*scores).area, "groups": number} | bounds


def best_baseline(trained: Trained) -> tuple[str, float]:
    """The strongest of what needs no look inside the model, guessing included: its name and AUROC."""
    ranked = trained.baselines.sort("auroc", descending=True, maintain_order=True)
    if ranked.is_empty() or ranked["auroc"][0] <= CHANCE:
        return "guessing", CHANCE
    return str(ranked["detector"][0]), float(ranked["auroc"][0])
