"""A detector that is to be kept: how good it is on texts it was not fitted to, and the fit to all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.detectors.classifiers import BASELINES
from bluffscope.detectors.evaluate import CHANCE, FEWEST_GROUPS, calibration_error, detect
from bluffscope.detectors.inputs import Inputs, Views, read_inputs
from bluffscope.detectors.keyed_inputs import Keys, keyed_matrix, keys_of
from bluffscope.detectors.linear import Calibration, Linear, On, calibrate, fit_linear
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.stats.auroc import auroc, ordering, weighted_auroc
from bluffscope.stats.cells import Resampling
from bluffscope.stats.heldout import FOLDS, grouped_folds
from bluffscope.stats.resampling import drawn_counts, ends
from bluffscope.stats.study import POOLED, Scope, Study, build_study
from bluffscope.table.reader import Run

_FOLD_STREAM: Final = 205
_LEFT_OUT_STREAM: Final = 206
_STEP: Final = 200


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
    matrix, keys = inputs.matrices[on], keys_of(on, study, views, inputs)
    _, numbers = np.unique(study.groups[inputs.rows], return_inverse=True)
    rng = np.random.default_rng([seed, _FOLD_STREAM])
    scores, probabilities = _out_of_fold(on, matrix, numbers.ravel(), rng)
    labels = np.repeat([0, 1], len(inputs.rows))
    trained = Trained(
        keys=keys,
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
    study = build_study(table, pairs)
    there = {name: (run.path / f"{name}.parquet").exists() for name in ("residuals", "features")}
    views = Views(
        study.pairs,
        table["pair_id"],
        run.residuals if there["residuals"] else None,
        run.features if there["features"] else None,
    )
    return replace(study, scopes=(Scope(POOLED, np.arange(table.height)),)), views


def _out_of_fold(on: On, matrix: Any, groups: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(text,) scores, and (text,) probabilities of a curve that was fitted inside the training folds as well.

    No text's score, and no text's curve, comes from a fit that saw its group.
    """
    pairs = len(groups)
    folds = grouped_folds(groups, FOLDS, rng)
    scores, probabilities = np.empty(2 * pairs), np.empty(2 * pairs)
    for fold in range(FOLDS):
        train, test = _texts(folds != fold), _texts(folds == fold)
        labels = np.repeat([0, 1], int((folds != fold).sum()))
        scores[test] = fit_linear(on, matrix[train], labels).scores(matrix[test])
        _, inner = np.unique(groups[folds != fold], return_inverse=True)
        within = _inner_scores(on, matrix[train], inner.ravel(), rng)
        probabilities[test] = calibrate(within, labels).probabilities(scores[test])
    return scores, probabilities


def _inner_scores(on: On, matrix: Any, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(text,) scores of the training folds' texts, each from a fit without its group."""
    folds = grouped_folds(groups, FOLDS, rng)
    scores = np.empty(2 * len(groups))
    for fold in range(FOLDS):
        labels = np.repeat([0, 1], int((folds != fold).sum()))
        scores[_texts(folds == fold)] = fit_linear(on, matrix[_texts(folds != fold)], labels).scores(
            matrix[_texts(folds == fold)]
        )
    return scores


def _texts(pairs: np.ndarray) -> np.ndarray:
    """(text,) places of some pairs' facts and hallucinations."""
    return np.flatnonzero(np.concatenate([pairs, pairs]))


def _left_out(run: Run, chosen: pl.Series, trained: Trained, seed: int) -> dict[str, Any] | None:
    """How the fit does on pairs that it has not seen and that share no group with those that it has."""
    known = (
        run.metrics.filter(chosen)["group"].unique()
        if "group" in run.metrics.columns
        else pl.Series([], dtype=pl.String)
    )
    others = ~chosen
    if "group" in run.metrics.columns:
        others &= ~run.metrics["group"].is_in(known.implode())
    if not others.any():
        return None
    study, views = _opened(run, others)
    inputs: Inputs = read_inputs(study, views, seed)
    scores = trained.linear.scores(keyed_matrix(trained.keys, study, views, inputs)).reshape(2, -1)
    scores = np.round(scores, 10)
    found: dict[str, Any] = {"n": len(inputs.rows), "auroc": float(auroc(scores[0][:, None], scores[1][:, None])[0])}
    _, groups = np.unique(study.groups[inputs.rows], return_inverse=True)
    number = int(groups.max()) + 1
    found |= {"groups": number, "lo": None, "hi": None}
    if number >= FEWEST_GROUPS:
        rng, order = np.random.default_rng([seed, _LEFT_OUT_STREAM]), ordering(*scores)
        drawn = [
            weighted_auroc(order, np.ascontiguousarray(drawn_counts(number, _STEP, rng).T[groups.ravel()]))
            for _ in range(Resampling().resamples // _STEP)
        ]
        lo, hi = ends(np.concatenate(drawn)[:, None])[:, 0]
        found |= {"lo": float(lo), "hi": float(hi)}
    return found


def best_baseline(trained: Trained) -> tuple[str, float]:
    """The strongest of what needs no look inside the model, guessing included: its name and AUROC."""
    ranked = trained.baselines.sort("auroc", descending=True, maintain_order=True)
    if ranked.is_empty() or ranked["auroc"][0] <= CHANCE:
        return "guessing", CHANCE
    return str(ranked["detector"][0]), float(ranked["auroc"][0])
