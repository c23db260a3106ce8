"""A detector that is to be kept: how good it is on texts it was not fitted to, and the fit to all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.detectors.classifiers import BASELINES
from bluffscope.detectors.conformal import Alarm, calibrated_alarm, calibration_part
from bluffscope.detectors.domains import new_domains
from bluffscope.detectors.evaluate import area_of_a_fit, detect
from bluffscope.detectors.fits import fit
from bluffscope.detectors.folds import FEWEST_GROUPS, too_few
from bluffscope.detectors.held_out import CHANCE, Splits
from bluffscope.detectors.inputs import Inputs, Keys, Views, keyed_matrix, opened, read_inputs
from bluffscope.detectors.linear import Calibration, Linear, On, calibrate
from bluffscope.detectors.measures import calibration_error
from bluffscope.detectors.texts import Texts
from bluffscope.detectors.vectors import Given
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.records import Arrangement
from bluffscope.stats.cells import Resampling
from bluffscope.stats.study import numbered
from bluffscope.table.reader import Run

_FOLD_STREAM: Final = 205
_ALARM_STREAM: Final = 206


Source = Run | Given
"""What a detector is trained on."""


@dataclass(frozen=True)
class Trained:
    """A fitted detector and what is known of it."""

    arrangement: Arrangement
    """What its run's items are."""
    keys: Keys
    linear: Linear
    calibration: Calibration
    rows: pl.DataFrame
    """`DETECTORS_SCHEMA` of the texts it was trained on: it and the baselines, cross-validated by group."""
    ece: float
    """Calibration error of the probabilities as they are given, curves fitted inside the training folds too."""
    left_out: dict[str, Any] | None
    """n, auroc, lo, hi of the run's other pairs or texts (those in no group of the training); None where they lack a
    label."""
    about: dict[str, Any]
    """Pairs or texts, groups, folds, seed, notes, and `domains`, what fits to all but one do in it."""
    alarm: Alarm | None = None
    """The threshold that was asked for; the weights are then of the half of the groups that it was not made from."""
    position: str = "last"
    """Where what it looks at was read."""

    @property
    def row(self) -> dict[str, Any]:
        """Its own row of `rows`."""
        return self.rows.row(by_predicate=pl.col("detector") == self.keys.on, named=True)

    @property
    def baselines(self) -> pl.DataFrame:
        """The rows of the baselines that are there."""
        return self.rows.filter(pl.col("detector").is_in(BASELINES), pl.col("auroc").is_not_null())

    @property
    def by_token(self) -> bool:
        """Whether it judges tokens and not texts; `about` then has `token_level`."""
        return "token_level" in self.about

    @property
    def beats(self) -> bool:
        """Whether its AUROC is above that of the best baseline and of guessing, by the interval of their difference."""
        return self.row["gain_lo"] is not None and self.row["gain_lo"] > 0


@exclusive()
def train(
    run: Source, chosen: pl.Series, on: On, seed: int, alpha: float | None = None, position: str | None = None
) -> Trained:
    """Fit a detector to some pairs or labelled texts of a run, and see how it does on the others.

    Args:
        run: a finished run, or vectors and labels that were given.
        chosen: (row,) whether each row of its table is trained on.
        on: what it looks at.
        seed: of folds.
        alpha: share of false alarms that a threshold is to be kept for.
        position: read position of its residuals, of a run that has several (default: the first).

    Raises:
        InputError: the run was not read there, or has kept only residuals of it; too few groups or texts of a label, or
            for alpha, or the run has not kept what the detector looks at.
    """
    at = _position(run, on, position)
    texts, views = _opened(run, run.metrics.filter(chosen), at)
    if reason := too_few(texts, texts.groups, texts.labels):
        raise InputError(f"{reason}: too few to train and test on")
    resampling = Resampling(seed=seed)
    inputs = read_inputs(texts, views, seed)
    if on not in inputs.matrices:
        raise InputError(f"--on {on}: {inputs.missing[on]}")
    detection = detect(texts, views, resampling)
    matrix, labels = inputs.matrices[on], texts.labels[inputs.rows]
    groups = numbered(texts.groups[inputs.rows])
    rng = np.random.default_rng([seed, _ALARM_STREAM])
    apart = np.zeros(len(labels), dtype=bool) if alpha is None else calibration_part(groups, rng)
    fitted = ~apart
    if reason := too_few(texts, groups[fitted], labels[fitted]):
        raise InputError(
            f"--alpha keeps half of the groups for its threshold, which leaves {reason}: too few to train on"
        )
    found = fit(on, matrix[fitted], labels[fitted], groups[fitted])
    linear = found.linear
    alarm = None
    if alpha is not None:
        true = apart & (labels == 0)
        alarm = calibrated_alarm(linear.scores(matrix[true]), groups[true], alpha, rng)
    rng = np.random.default_rng([seed, _FOLD_STREAM])
    labels = labels[fitted]
    scores, probabilities = _calibrated(on, matrix[fitted], labels, numbered(groups[fitted]), rng)
    trained = Trained(
        arrangement=run.arrangement,
        keys=inputs.keys[on],
        linear=linear,
        alarm=alarm,
        calibration=calibrate(scores, labels),
        rows=detection.rows,
        ece=calibration_error(probabilities, labels),
        left_out=None,
        about={
            **detection.about,
            "groups": len(np.unique(texts.groups)),
            "seed": seed,
            "penalty": found.penalty,
            "domains": _by_domain(on, run, chosen, texts, inputs),
        },
        position=at or "last",
    )
    return replace(trained, left_out=_left_out(run, chosen, trained, seed))


def _by_domain(on: On, run: Source, chosen: pl.Series, texts: Texts, inputs: Inputs) -> list[dict[str, Any]]:
    """Rows of `new_domains`, each with what text alone does there."""
    table = (run.metrics if isinstance(run, Run) else run.items).filter(chosen)
    if "domain" not in table.columns:
        return []
    labels, groups = texts.labels[inputs.rows], texts.groups[inputs.rows]
    matrices = {name: inputs.matrices[name] for name in (on, "text") if name in inputs.matrices}

    def judged(apart: np.ndarray, here: np.ndarray) -> dict[str, Any]:
        row: dict[str, Any] = {"n": len(here) // texts.per}
        if reason := next(filter(None, (too_few(texts, groups[some], labels[some]) for some in (here, apart))), None):
            return row | {"reason": reason}
        found = {
            name: area_of_a_fit(
                fit(name, matrix[apart], labels[apart], groups[apart]).probabilities(matrix[here]),
                labels[here],
                numbered(groups[here]),
            )
            for name, matrix in matrices.items()
        }
        return row | found[on] | ({"text": found["text"]["auroc"]} if "text" in found else {})

    return new_domains(table["domain"].gather(inputs.rows % texts.items), groups, judged)


def _calibrated(
    on: On, matrix: Any, labels: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(text,) scores, and (text,) probabilities of a curve that was fitted inside the training folds as well.

    No text's score, and no text's curve, comes from a fit that saw its group.
    """

    def fitted(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        found = fit(on, matrix[train], labels[train], groups[train])
        scores = found.scores(matrix[test])
        probabilities[test] = calibrate(found.within, labels[train]).probabilities(scores)
        return scores

    probabilities = np.empty(len(groups))
    return Splits.drawn(groups, labels, 1, rng).scores(fitted)[0], probabilities


def _position(run: Source, on: On, position: str | None) -> str | None:
    """Where a detector reads; None of vectors, of which nothing is known."""
    if not isinstance(run, Run):
        return None
    at, first = run.read_at(position), run.positions[0]
    if at != first and on != "residual":
        raise InputError(
            f"--on {on}: metrics and SAE features are of {first} alone; with --position {at}, --on residual"
        )
    return at


def _opened(run: Source, table: pl.DataFrame, position: str | None) -> tuple[Texts, Views]:
    return opened(run, table, position) if isinstance(run, Run) else run.opened(table)


def unseen(run: Source, chosen: pl.Series) -> pl.Series:
    """(row,) whether each row of a table shares no group with those that are chosen."""
    if "group" not in run.metrics.columns:
        return ~chosen
    groups = run.metrics["group"]
    return ~chosen & ~groups.is_in(groups.filter(chosen).unique().implode())


def _left_out(run: Source, chosen: pl.Series, trained: Trained, seed: int) -> dict[str, Any] | None:
    """How the fit does on rows that it has not seen and that share no group with those that it has."""
    if not (others := unseen(run, chosen)).any():
        return None
    texts, views = _opened(run, run.metrics.filter(others), trained.position if isinstance(run, Run) else None)
    inputs = read_inputs(texts, views, seed)
    groups, labels = numbered(texts.groups[inputs.rows]), texts.labels[inputs.rows]
    if len(np.unique(labels)) < 2:
        return None
    scores = np.round(trained.linear.scores(keyed_matrix(trained.keys, texts, views, inputs)), 10)
    number = int(groups.max()) + 1
    bounds = {"lo": None, "hi": None} if number < FEWEST_GROUPS else {}
    return {"n": len(labels) // texts.per, "groups": number} | area_of_a_fit(scores, labels, groups) | bounds


def best_baseline(trained: Trained) -> tuple[str, float]:
    """The strongest of what needs no look inside the model, guessing included: its name and AUROC."""
    ranked = trained.baselines.sort("auroc", descending=True, maintain_order=True)
    if ranked.is_empty() or ranked["auroc"][0] <= CHANCE:
        return "guessing", CHANCE
    return str(ranked["detector"][0]), float(ranked["auroc"][0])
