"""A detector of tokens: which layer, how good by token, span and text on texts not fitted to, and the fit to all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
import polars.selectors as cs

from bluffscope.detectors.conformal import Alarm, calibrated_alarm, calibration_part
from bluffscope.detectors.domains import new_domains
from bluffscope.detectors.evaluate import DETECTORS_SCHEMA, area_of_a_fit
from bluffscope.detectors.folds import FEWEST_GROUPS, label_folds
from bluffscope.detectors.held_out import Splits
from bluffscope.detectors.inputs import Keys
from bluffscope.detectors.linear import Linear, On, calibrate
from bluffscope.detectors.measures import MEASURES, area, calibration_error, precision_at, recall_at
from bluffscope.detectors.token_fit import best_penalty, fit_tokens, maxima
from bluffscope.detectors.token_inputs import (
    MOST_TOKENS,
    Tokens,
    baselines_of,
    labelled_tokens,
    layers_of,
    matrix_of,
)
from bluffscope.detectors.train import Trained, unseen
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.stats.heldout import FOLDS
from bluffscope.stats.scopes import POOLED
from bluffscope.stats.study import numbered
from bluffscope.table.reader import Run

REPEATS: Final = 2
"""How often folds are drawn."""
ALLOWED: Final = 0.01
"""Share of false alarms at which recall and precision are given."""
UNITS: Final = ("token", "span", "text")
_FOLD_STREAM: Final = 210
_ALARM_STREAM: Final = 211
_FIT_STREAM: Final = 212

_MEASURES: Final[dict[str, Callable[[np.ndarray, np.ndarray], float]]] = {
    "auroc": area,
    "recall_1": partial(recall_at, ALLOWED),
    "precision_1": partial(precision_at, ALLOWED),
}


class _Choice(NamedTuple):
    """A layer with the best of its penalties, as seen by texts that are held out of a training set."""

    area: float
    layer: int
    penalty: float


@dataclass(frozen=True)
class _Layer:
    """What a layer comes to in each fit."""

    scores: np.ndarray
    """(repeat, token) of fits to the other folds."""
    choices: list[_Choice]
    """Of each fit, in the order of repeats and folds."""
    final: _Choice
    """Of the tokens that the saved weights are fitted to."""


@exclusive()
def train_tokens(run: Run, chosen: pl.Series, on: On, seed: int, alpha: float | None = None) -> Trained:
    """Fit a detector to the tokens of some texts of a run, and see how it does on those of the others.

    Layer and penalty are chosen anew within the training texts of each fold, by a fifth of their groups.

    Args:
        run: finished, over labelled texts with ``--position tokens``.
        chosen: (row,) whether each row of its table is trained on.
        on: "residual" or "sae".
        seed: of folds.
        alpha: share of texts without spans that a threshold for a text's highest token may be exceeded by.

    Raises:
        InputError: too few texts, spans or groups, or the run has not kept what the detector looks at.
    """
    layers, tokens = layers_of(run, on), labelled_tokens(run, chosen, seed)
    if reason := tokens.refused:
        raise InputError(f"{reason}: too few to train and test on")
    rng = np.random.default_rng([seed, _ALARM_STREAM])
    apart = np.zeros(len(tokens), dtype=bool) if alpha is None else calibration_part(tokens.groups, rng)
    fitted = np.flatnonzero(~apart)
    if len(np.unique(tokens.groups[fitted][tokens.labels[fitted] == 1])) < FEWEST_GROUPS:
        raise InputError(
            f"--alpha keeps half of the groups for its threshold, which leaves spans in fewer than {FEWEST_GROUPS} "
            "groups: too few to train on"
        )
    splits = Splits.drawn(tokens.groups, tokens.labels, REPEATS, np.random.default_rng([seed, _FOLD_STREAM]))
    found = {layer: _of_layer(run, on, layer, tokens, splits, fitted, seed) for layer in layers}
    scores, probabilities, choices = _nested(run, on, found, tokens, splits, seed)
    baselines = _baselines(tokens, splits)
    units = {unit: _Unit.of(unit, tokens, splits) for unit in UNITS}
    best = max((layer.final for layer in found.values()), key=lambda choice: choice.area)
    matrix, keys = matrix_of(run, on, best.layer, tokens)
    linear = _fit(on, matrix, tokens, fitted, best.penalty)
    trained = Trained(
        arrangement=run.arrangement,
        keys=keys,
        linear=linear,
        calibration=calibrate(scores[0], tokens.labels),
        rows=_rows(on, tokens, units[tokens.unit], scores, probabilities, baselines),
        ece=calibration_error(probabilities[0], tokens.labels),
        left_out=None,
        position="tokens",
        about={
            **_about(run, tokens, seed),
            "domains": _by_domain(run, on, best.layer, matrix, tokens, seed),
            "token_level": {
                **_counted(tokens),
                "layer": best.layer,
                "penalty": best.penalty,
                "measures": [_measured(unit, one, scores, baselines) for unit, one in units.items()],
                "layers": _by_layer(found, splits, choices),
            },
        },
        alarm=_alarm(alpha, linear, matrix, tokens, apart, rng),
    )
    return replace(trained, left_out=_left_out(run, chosen, trained, seed))


def _of_layer(run: Run, on: On, layer: int, tokens: Tokens, splits: Splits, fitted: np.ndarray, seed: int) -> _Layer:
    """All fits to one layer: no more than one is in memory."""
    matrix, _ = matrix_of(run, on, layer, tokens)
    choices: list[_Choice] = []

    def scored(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        choices.append(_chosen(on, layer, matrix, tokens, train, seed))
        return _fit(on, matrix, tokens, train, choices[-1].penalty).scores(matrix[test])

    scores = splits.scores(scored)
    return _Layer(scores, choices, _chosen(on, layer, matrix, tokens, fitted, seed))


def _fit(on: On, matrix: Any, tokens: Tokens, places: np.ndarray, penalty: float) -> Linear:
    texts = len(np.unique(tokens.texts[places]))
    return fit_tokens(on, matrix[places], tokens.labels[places], penalty, tokens.stretches[places], texts)


def _chosen(on: On, layer: int, matrix: Any, tokens: Tokens, places: np.ndarray, seed: int) -> _Choice:
    """The best penalty of a layer, by a fifth of the groups of these tokens."""
    train, test = _parted(tokens, places, seed)
    texts = len(np.unique(tokens.texts[train]))
    found, penalty = best_penalty(on, matrix[train], tokens.labels[train], texts, matrix[test], tokens.labels[test])
    return _Choice(found, layer, penalty)


def _parted(tokens: Tokens, places: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four fifths and one fifth of some tokens, no group in both; the same for all layers."""
    rng = np.random.default_rng([seed, _FIT_STREAM])
    test = label_folds(numbered(tokens.groups[places]), tokens.labels[places], FOLDS, rng) == 0
    return places[~test], places[test]


def _nested(
    run: Run, on: On, found: Mapping[int, _Layer], tokens: Tokens, splits: Splits, seed: int
) -> tuple[np.ndarray, np.ndarray, Counter[int]]:
    """(repeat, token) scores and probabilities of each fold's chosen layer, and how often each was chosen.

    A fold's curve goes through scores of a fifth of its training texts, of a fit to the others.
    """
    scores, probabilities = np.empty(splits.folds.shape), np.empty(splits.folds.shape)
    fits = [(repeat, fold) for repeat in range(len(splits.folds)) for fold in range(FOLDS)]
    chosen = [max((one.choices[fit] for one in found.values()), key=lambda one: one.area) for fit in range(len(fits))]
    for layer in sorted({choice.layer for choice in chosen}):
        matrix, _ = matrix_of(run, on, layer, tokens)
        for (repeat, fold), choice in zip(fits, chosen, strict=True):
            if choice.layer == layer:
                test = splits.folds[repeat] == fold
                train, held = _parted(tokens, np.flatnonzero(~test), seed)
                within = _fit(on, matrix, tokens, train, choice.penalty).scores(matrix[held])
                curve = calibrate(within, tokens.labels[held])
                scores[repeat, test] = found[layer].scores[repeat, test]
                probabilities[repeat, test] = curve.probabilities(scores[repeat, test])
    return scores, probabilities, Counter(choice.layer for choice in chosen)


def _baselines(tokens: Tokens, splits: Splits) -> dict[str, np.ndarray]:
    """By name, the (repeat, token) scores of what needs no look inside the model."""

    def held_out(name: str, matrix: Any) -> np.ndarray:
        def scored(train: np.ndarray, test: np.ndarray) -> np.ndarray:
            return fit_tokens(name, matrix[train], tokens.labels[train], 1.0).scores(matrix[test])

        return splits.scores(scored)

    return {name: held_out(name, matrix) for name, matrix in baselines_of(tokens).items()}


class _Unit(NamedTuple):
    """Tokens, spans or texts on test folds: a span's or a text's score is that of its highest token."""

    splits: Splits
    numbers: np.ndarray
    """(token,) which unit each is of."""

    @classmethod
    def of(cls, unit: str, tokens: Tokens, splits: Splits) -> _Unit:
        """The folds of a unit: none parts a text."""
        numbers = {"token": np.arange(len(tokens)), "span": tokens.stretches, "text": tokens.texts}[unit]
        first = np.flatnonzero(np.diff(numbers, prepend=-1))
        return cls(Splits(splits.folds[:, first], maxima(tokens.labels, numbers), splits.groups), numbers)

    def by_fit(self, measure: Callable[[np.ndarray, np.ndarray], float], scores: np.ndarray) -> np.ndarray:
        """(fit,) a measure of (repeat, token) scores."""
        merged = np.stack([maxima(np.round(repeat, 10), self.numbers) for repeat in scores])
        return self.splits.by_fit(measure, merged)


def _rows(
    on: On,
    tokens: Tokens,
    unit: _Unit,
    scores: np.ndarray,
    probabilities: np.ndarray,
    baselines: Mapping[str, np.ndarray],
) -> pl.DataFrame:
    """`DETECTORS_SCHEMA` by the unit that decides: the baselines, and the detector with its gain over them."""
    splits, number = unit.splits, int(tokens.texts[-1]) + 1
    areas = {name: unit.by_fit(area, one) for name, one in baselines.items()}
    rows = [{"detector": name, **splits.estimated(one).columns("auroc", "")} for name, one in areas.items()]
    own = unit.by_fit(area, scores)
    gain = splits.gained(own, list(areas.values())).columns("gain", "gain_")
    row = {"detector": on, **splits.estimated(own).columns("auroc", ""), **gain}
    row["ece"] = float(np.mean([calibration_error(one, tokens.labels) for one in probabilities]))
    for column in ("auprc", "recall_1", "recall_5"):
        row |= splits.estimated(unit.by_fit(MEASURES[column], probabilities)).columns(column, f"{column}_")
    found = [{**one, "scope": POOLED, "n": number} for one in (*rows, row)]
    return pl.DataFrame(found, schema=DETECTORS_SCHEMA).with_columns(cs.float().fill_nan(None))


def _about(run: Run, tokens: Tokens, seed: int) -> dict[str, Any]:
    notes: list[str] = []
    if tokens.left_out:
        every = len(tokens) + tokens.left_out
        notes.append(
            f"Detectors saw {len(tokens):,} of {every:,} tokens, of whole groups at random (at most {MOST_TOKENS:,})."
        )
    if tokens.unknown:
        notes.append(
            f"{tokens.unknown:,} false texts mark no span: where they are false is unknown, and they were left out."
        )
    if tokens.frame["logprob"].is_null().all():
        notes.append("Without logprob: the run has no log-probabilities of tokens: analyze with --logprob.")
    number = int(tokens.texts[-1]) + 1
    return {
        run.arrangement.table: number,
        "groups": int(tokens.groups.max()) + 1,
        "folds": FOLDS,
        "repeats": REPEATS,
        "seed": seed,
        "notes": notes,
    }


def _counted(tokens: Tokens) -> dict[str, Any]:
    return {
        "judged_by": tokens.unit,
        "tokens": len(tokens),
        "in_spans": int(tokens.labels.sum()),
        "spans": tokens.spans(),
        "texts_with_spans": int(maxima(tokens.labels, tokens.texts).sum()),
    }


def _by_layer(found: Mapping[int, _Layer], splits: Splits, choices: Counter[int]) -> list[dict[str, Any]]:
    """AUROC by token at each layer, as if it were the only one, and how often it was chosen."""
    return [
        {"layer": layer, **splits.estimated(splits.by_fit(area, one.scores)).columns("auroc", "")}
        | {"chosen": choices[layer]}
        for layer, one in found.items()
    ]


def _measured(unit: str, of_unit: _Unit, scores: np.ndarray, baselines: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A unit's measures on test folds, and the best baseline's AUROC there."""
    splits, labels = of_unit.splits, of_unit.splits.labels
    row: dict[str, Any] = {"unit": unit, "positive": int(labels.sum()), "negative": int((labels == 0).sum())}
    for name, measure in _MEASURES.items():
        ends = "" if name == "auroc" else f"{name}_"
        found = splits.estimated(of_unit.by_fit(measure, scores))
        defined = np.isfinite(found.value)
        row |= {column: value if defined else None for column, value in found.columns(name, ends).items()}
    if row["auroc"] is None:
        return row | {"baseline": None, "baseline_auroc": None}
    areas = {name: splits.estimated(of_unit.by_fit(area, one)).value for name, one in baselines.items()}
    best = max(areas, key=lambda name: areas[name])
    return row | {"baseline": best, "baseline_auroc": areas[best]}


def _alarm(
    alpha: float | None, linear: Linear, matrix: Any, tokens: Tokens, apart: np.ndarray, rng: np.random.Generator
) -> Alarm | None:
    """The threshold for a text's highest token, from texts without spans that nothing was fitted to."""
    if alpha is None:
        return None
    highest = maxima(linear.scores(matrix), tokens.texts)
    first = np.flatnonzero(np.diff(tokens.texts, prepend=-1))
    true = apart[first] & (maxima(tokens.labels, tokens.texts) == 0)
    return calibrated_alarm(highest[true], tokens.groups[first][true], alpha, rng)


def _left_out(run: Run, chosen: pl.Series, trained: Trained, seed: int) -> dict[str, Any] | None:
    """How the fit does on tokens of texts that it has not seen and that share no group with those that it has."""
    others = unseen(run, chosen)
    tokens = labelled_tokens(run, others, seed) if others.any() else None
    if tokens is None or len(np.unique(tokens.labels)) < 2:
        return None
    layer = int(trained.about["token_level"]["layer"])
    matrix, keys = matrix_of(run, trained.keys.on, layer, tokens)
    if keys.on == "sae":  # in the order of the detector's features
        matrix = _as_trained(matrix, keys, trained.keys)
    number = int(tokens.groups.max()) + 1
    bounds = {"lo": None, "hi": None} if number < FEWEST_GROUPS else {}
    return {**_of_a_fit(tokens, trained.linear.scores(matrix)), "groups": number} | bounds


def _of_a_fit(tokens: Tokens, scores: np.ndarray) -> dict[str, Any]:
    """AUROC of (token,) scores of a fit to other tokens: by text where texts have either label, else by token."""
    scores, first = np.round(scores, 10), np.flatnonzero(np.diff(tokens.texts, prepend=-1))
    found = {"n": len(first), "unit": "token", **area_of_a_fit(scores, tokens.labels, tokens.groups)}
    of_texts = maxima(tokens.labels, tokens.texts)
    if len(np.unique(of_texts)) < 2:
        return found
    # tokens can be told apart by their place alone
    by_text = area_of_a_fit(maxima(scores, tokens.texts), of_texts, tokens.groups[first])
    return found | {"by_token": found["auroc"], "unit": "text"} | by_text


def _by_domain(run: Run, on: On, layer: int, matrix: Any, tokens: Tokens, seed: int) -> list[dict[str, Any]]:
    """Rows of `new_domains` at the layer that is saved; penalties are chosen in the other domains."""
    if "domain" not in run.metrics.columns:
        return []
    known = run.metrics.select("text_id", "domain")
    domains = tokens.frame.select("text_id").join(known, on="text_id", how="left", maintain_order="left")["domain"]

    def judged(apart: np.ndarray, here: np.ndarray) -> dict[str, Any]:
        asked = tokens.part(here)
        if reason := asked.refused or tokens.part(apart).refused:
            return {"n": len(np.unique(asked.texts)), "reason": reason}
        penalty = _chosen(on, layer, matrix, tokens, apart, seed).penalty
        return _of_a_fit(asked, _fit(on, matrix, tokens, apart, penalty).scores(matrix[here]))

    return new_domains(domains, tokens.groups, judged)


def _as_trained(matrix: Any, keys: Keys, trained: Keys) -> Any:
    """Columns of features as a detector has them; those that are in no token are 0."""
    entries = matrix.tocoo()
    found = keys.features[entries.col].with_columns(
        text=pl.Series(entries.row.astype(np.int64)), activation=pl.Series(entries.data)
    )
    return trained.sparse(found, matrix.shape[0])
