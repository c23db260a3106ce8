"""Can a text that stands alone be told to be hallucinated? Detectors against baselines, on texts not fitted to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.detectors.classifiers import BASELINES, DETECTORS, MEASURED, SURFACE
from bluffscope.detectors.fits import Fitted, fit
from bluffscope.detectors.folds import too_few
from bluffscope.detectors.held_out import CHANCE, Splits
from bluffscope.detectors.inputs import MOST_PAIRS, Inputs, Views, read_inputs
from bluffscope.detectors.measures import MEASURES, area, calibration_error, reliability, risk_coverage
from bluffscope.detectors.texts import Texts, texts_of
from bluffscope.host.exclusive import exclusive
from bluffscope.stats.auroc import areas
from bluffscope.stats.cells import Resampling
from bluffscope.stats.heldout import FOLDS
from bluffscope.stats.scopes import POOLED, Scope
from bluffscope.stats.study import numbered
from bluffscope.table.reader import Run

_AREA: Final = ("auroc", "lo", "hi")
_GAINS: Final = ("gain", "gain_lo", "gain_hi", "surface_gain", "surface_gain_lo", "surface_gain_hi")
_FURTHER: Final = tuple(f"{name}{end}" for name in MEASURES for end in ("", "_lo", "_hi"))
_ASIDE: Final = {"k_sparse", "mean_difference"}
"""Detectors that a run which closes leaves out: the first takes longer than all others, the second is beside one."""
_NOT_BY_DOMAIN: Final = {"residual"}
"""Those that it fits to all items, and by what the model knows, but not domain by domain."""
MOST_GRAM: Final = 2 * 10**9
"""Most squared texts x columns for which it fits residuals: about a second then."""
_LATER: Final = "left to `bluffscope stats --detectors`, as it takes long with so many texts and dimensions"
DETECTORS_SCHEMA: Final = pl.Schema(
    dict.fromkeys(("detector", "scope"), pl.String())
    | {"n": pl.Int64()}
    | dict.fromkeys((*_AREA, "ece", *_GAINS, *_FURTHER), pl.Float64())
    | {"penalty": pl.Float64(), "k": pl.Int64(), "reason": pl.String()}
)
"""One row a detector and scope; docs/statistics.md says what each is."""

_CROSSED: Final = pl.Schema(
    dict.fromkeys(("detector", "train", "test"), pl.String()) | {"n": pl.Int64()} | dict.fromkeys(_AREA, pl.Float64())
)
TRANSFER_SCHEMA: Final = pl.Schema({**_CROSSED, "learnt": pl.Boolean()})
"""One row a detector and an ordered pair of scopes of one column; the diagonal is cross-validated. `learnt`: whether
that of the scope trained on lies above chance, its interval included."""

CURVE_POINTS: Final = 101
"""Most points of a risk-coverage curve."""
CLOSING_PAIRS: Final = 1000
CLOSING_DOMAINS: Final = 6
"""Most pairs, and domains, for which the statistics that close a run fit detectors unasked: it takes seconds then."""
_FOLD_STREAM: Final = 4


AGAINST_SCHEMA: Final = pl.Schema(
    {
        **dict.fromkeys(("detector", "against", "scope"), pl.String()),
        **dict.fromkeys(("gain", "lo", "hi"), pl.Float64()),
    }
)
"""One row a scope and pair of detectors on the same folds, that of SAE features against residuals first."""

CURVES_SCHEMA: Final = pl.Schema(
    dict.fromkeys(("detector", "scope", "curve"), pl.String())
    | dict.fromkeys(("x", "y"), pl.Float64())
    | {"n": pl.Int64()}
)
"""Points of curves, over all repeats: "reliability" (x mean probability of a bin, y share of hallucinations, n texts)
and "risk_coverage" (x share of texts answered, the surest first, y share of wrong answers among them, n texts)."""


@dataclass(frozen=True)
class Detection:
    """How well facts and hallucinations, or true and false texts, can be told apart, text by text."""

    rows: pl.DataFrame
    """`DETECTORS_SCHEMA`: scopes in order, in each the detectors, baselines first."""
    against: pl.DataFrame
    """`AGAINST_SCHEMA`."""
    curves: pl.DataFrame
    """`CURVES_SCHEMA`."""
    transfer: pl.DataFrame
    """`TRANSFER_SCHEMA`."""
    about: dict[str, Any]
    """Sizes, folds, seed, and notes on samples and on what was not there."""


@dataclass(frozen=True)
class _Part:
    """A scope within the sampled texts."""

    scope: Scope
    texts: np.ndarray
    """(text,) places among the sampled texts."""
    labels: np.ndarray
    """(text,) 0 or 1."""
    groups: np.ndarray
    """(text,) numbers from 0 without gaps."""
    n: int
    """Pairs, or labelled texts."""
    too_few: str | None
    """Why nothing is fitted."""

    @classmethod
    def of(cls, texts: Texts, scope: Scope, rows: np.ndarray) -> _Part:
        places = np.flatnonzero(np.isin(rows % texts.items, scope.rows))
        labels, groups = texts.labels[rows[places]], numbered(texts.groups[rows[places]])
        return cls(scope, places, labels, groups, len(places) // texts.per, too_few(texts, groups, labels))


def detect_in(
    table: pl.DataFrame,
    items: pl.DataFrame | None,
    run: Run | None,
    *,
    by: Sequence[str] = (),
    by_order: bool = False,
    resampling: Resampling | None = None,
    quick: bool = False,
) -> Detection:
    """Every detector that what is known allows.

    Args:
        table: the result table, or any other; of pairs, or of labelled texts.
        items: what it was measured from, for the texts.
        run: the table's run, for its residuals and features; None for a table that has none.
        by: further columns whose values are scopes.
        by_order: the k-th row is the k-th pair's; only for a table without ids.
        resampling: seed and repeats, in place of ``Resampling()``.
        quick: fit only what takes a second or two, for a run that closes.

    Raises:
        InputError: residuals or features that cannot be read.
    """
    texts, known = texts_of(table, items, by, by_order=by_order)
    views = Views(known) if run is None else Views.of_run(run, table, known)
    return detect(texts, views, resampling or Resampling(), quick=quick)


def quick_to_detect(table: pl.DataFrame) -> bool:
    """Whether detectors of a table take seconds."""
    domains = table["domain"].n_unique() if "domain" in table.columns else 1
    return table.height <= CLOSING_PAIRS and domains <= CLOSING_DOMAINS


@exclusive()
def detect(texts: Texts, views: Views, resampling: Resampling, *, quick: bool = False) -> Detection:
    """Fit every detector in every scope by cross-validation over groups, and from each domain to the others.

    Args:
        texts: those of the table.
        views: texts, residuals and SAE features, where they are known.
        resampling: seed, and how often folds are drawn.
        quick: fit only what takes a second or two.

    Raises:
        InputError: residuals or features that cannot be read.
    """
    inputs = read_inputs(texts, views, resampling.seed)
    inputs = _without_large(inputs) if quick else inputs
    parts = [_Part.of(texts, scope, inputs.rows) for scope in texts.scopes]
    fitted = [_fitted_in(part.scope, quick=quick) for part in parts]
    found = [_in_scope(part, inputs, resampling, names) for part, names in zip(parts, fitted, strict=True)]
    rows, against, curves = (pl.concat(frames) for frames in zip(*found, strict=True))
    pairs = zip(parts, fitted, strict=True)
    across = [row for train, names in pairs for row in _transferred(train, parts, inputs, names)]
    about = _about(texts, inputs, resampling, _penalties(rows))
    return Detection(rows, against, curves, _transfer(rows, across, parts), about)


def _fitted_in(scope: Scope, *, quick: bool) -> dict[str, str]:
    """The detectors of a scope, and what each looks at."""
    left_out = _ASIDE | (_NOT_BY_DOMAIN if scope.column == "domain" else set()) if quick else set()
    return {name: source for name, source in DETECTORS.items() if name not in left_out}


def _without_large(inputs: Inputs) -> Inputs:
    """The inputs without residuals of so many texts and dimensions that fits take long."""
    residuals = inputs.matrices.get("residual")
    if residuals is None or residuals.shape[0] ** 2 * residuals.shape[1] <= MOST_GRAM:
        return inputs
    matrices = {name: matrix for name, matrix in inputs.matrices.items() if name != "residual"}
    return replace(inputs, matrices=matrices, missing={**inputs.missing, "residual": _LATER})


def _transfer(rows: pl.DataFrame, across: list[dict[str, Any]], parts: Sequence[_Part]) -> pl.DataFrame:
    """`TRANSFER_SCHEMA`: the crossings, and on the diagonal what cross-validation found in each scope."""
    columns = [part.scope.column for part in parts]
    names = [part.scope.name for part in parts]
    crossed = [name for name, column in zip(names, columns, strict=True) if column and columns.count(column) > 1]
    known = rows.filter(pl.col("auroc").is_not_null())
    learnt = known.select("detector", train="scope", learnt=pl.col("lo").fill_nan(None).gt(CHANCE).fill_null(False))
    own = known.filter(pl.col("scope").is_in(crossed)).with_columns(train="scope", test="scope")
    found = pl.concat([own.select(list(_CROSSED)), pl.DataFrame(across, schema=_CROSSED)])
    found = found.join(learnt, on=["detector", "train"], how="left").with_columns(pl.col("learnt").fill_null(False))
    order = (pl.col("detector").cast(pl.Enum(list(DETECTORS))), pl.col("train", "test").cast(pl.Enum(names)))
    return found.sort(*order)


def _in_scope(
    part: _Part, inputs: Inputs, resampling: Resampling, detectors: Mapping[str, str]
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """One row for each detector, each against each, and their curves."""
    reasons = {
        name: part.too_few or inputs.missing.get(source)
        for name, source in detectors.items()
        if source in inputs.matrices or source in inputs.missing
    }
    known = [name for name, reason in reasons.items() if reason is None]
    tested: dict[str, _Tested] = {}
    if known:
        rng = resampling.generator(part.scope, _FOLD_STREAM)
        splits = Splits.drawn(part.groups, part.labels, resampling.repeats, rng)
        tested = {name: _tested(name, inputs.matrices[DETECTORS[name]], part, splits) for name in known}
    rows: list[dict[str, Any]] = []
    for name, reason in reasons.items():
        row: dict[str, Any] = {"detector": name, "scope": part.scope.name, "n": part.n, "reason": reason}
        rows.append(row | (tested[name].columns(name, tested) if name in tested else {}))
    against = [
        {"detector": name, "against": other, "scope": part.scope.name}
        | tested[name].splits.difference(tested[name].areas, tested[other].areas).columns("gain", "")
        for name, other in sorted(combinations(reversed(known), 2), key=_first_line)
    ]
    curves = [
        {"detector": name, "scope": part.scope.name, "curve": curve, "x": x, "y": y, "n": n}
        for name, found in tested.items()
        for curve, x, y, n in found.points()
    ]
    return (
        pl.DataFrame(rows, schema=DETECTORS_SCHEMA),
        pl.DataFrame(against, schema=AGAINST_SCHEMA),
        pl.DataFrame(curves, schema=CURVES_SCHEMA),
    )


def _first_line(pair: tuple[str, str]) -> bool:
    """Order of comparisons: what SAEs add to residuals comes first, the others as they are."""
    return pair != ("sae", "residual")


@dataclass(frozen=True)
class _Tested:
    """A detector's probabilities of texts it was not fitted to."""

    splits: Splits
    scores: np.ndarray
    """(repeat, text)."""
    areas: np.ndarray
    """(fit,) AUROC."""
    fits: Sequence[Fitted]

    def columns(self, name: str, tested: Mapping[str, _Tested]) -> dict[str, float | int]:
        """Its measures with their intervals, and of one that is no baseline the gain over these."""
        splits = self.splits
        ece = np.mean([calibration_error(repeat, splits.labels) for repeat in self.scores])
        found = {"ece": float(ece), **splits.estimated(self.areas).columns("auroc", "")}
        for column, measure in MEASURES.items():
            found |= splits.estimated(splits.by_fit(measure, self.scores)).columns(column, f"{column}_")
        for column, rivals in (("gain", BASELINES), ("surface_gain", SURFACE)) if name not in BASELINES else ():
            others = [tested[rival].areas for rival in rivals if rival in tested]
            found |= splits.gained(self.areas, others).columns(column, f"{column}_")
        medians: dict[str, float | int] = {}
        if penalties := sorted(fitted.penalty for fitted in self.fits if fitted.penalty is not None):
            medians["penalty"] = penalties[len(penalties) // 2]
        if numbers := sorted(fitted.k for fitted in self.fits if fitted.k is not None):
            medians["k"] = numbers[len(numbers) // 2]
        return {column: value for column, value in (found | medians).items() if np.isfinite(value)}

    def points(self) -> Iterator[tuple[str, float, float, int]]:
        """Curve, x, y and n of points of its curves, over all repeats."""
        scores, labels = self.scores.ravel(), np.tile(self.splits.labels, len(self.scores))
        for x, y, n in zip(*reliability(scores, labels), strict=True):
            if n:
                yield "reliability", float(x), float(y), int(n) // len(self.scores)
        risk = risk_coverage(scores, labels)
        for place in np.unique(np.linspace(0, len(risk) - 1, CURVE_POINTS).round().astype(int)):
            yield "risk_coverage", float((place + 1) / len(risk)), float(risk[place]), (place + 1) // len(self.scores)


def _tested(detector: str, matrix: Any, part: _Part, splits: Splits) -> _Tested:
    fits: list[Fitted] = []

    def fitted(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        fits.append(fit(detector, matrix[part.texts[train]], part.labels[train], part.groups[train]))
        return fits[-1].probabilities(matrix[part.texts[test]])

    scores = splits.scores(fitted)
    return _Tested(splits, scores, splits.by_fit(area, scores), fits)


def area_of_a_fit(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """AUROC of (text,) scores of one fit to other texts, as `auroc`, `lo` and `hi`: the interval is over groups."""
    sides = [(scores[labels == label, None], groups[labels == label]) for label in (0, 1)]
    found = areas(sides[0][0], sides[1][0], sides[0][1], sides[1][1])
    return dict(zip(_AREA, (float(one[0]) for one in found), strict=True))


def _transferred(
    train: _Part, parts: Sequence[_Part], inputs: Inputs, detectors: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Each detector fitted to all of one scope and asked about the others of the same column (domains, or `--by`)."""
    column = train.scope.column
    tests = [test for test in parts if test is not train and test.scope.column == column and not test.too_few]
    if not column or train.too_few or not tests:
        return
    for name, source in detectors.items():
        if source in inputs.matrices:
            matrix = inputs.matrices[source]
            fitted = fit(name, matrix[train.texts], train.labels, train.groups)
            for test in tests:
                scores = fitted.probabilities(matrix[test.texts])
                named = {"detector": name, "train": train.scope.name, "test": test.scope.name, "n": test.n}
                yield named | area_of_a_fit(scores, test.labels, test.groups)


def _penalties(rows: pl.DataFrame) -> str:
    """What the detectors that look inside chose over all texts, in a note."""
    inside = rows.filter(pl.col("penalty").is_not_null(), ~pl.col("detector").is_in(BASELINES))
    chosen = inside.filter(pl.col("scope") == POOLED).select("detector", "penalty", "k")
    named = [f"{name} {penalty:g}{'' if k is None else f' (k = {k})'}" for name, penalty, k in chosen.iter_rows()]
    return f"Penalties, chosen within the training folds (median): {', '.join(named)}." if named else ""


def _about(texts: Texts, inputs: Inputs, resampling: Resampling, penalties: str) -> dict[str, Any]:
    notes: list[str] = []
    seen = len(inputs.rows) // texts.per
    if seen < texts.items:
        most = MOST_PAIRS * 2 // texts.per
        taken = f"{seen:,} of {texts.items:,} {texts.of}"
        notes.append(f"Detectors saw {taken}, whole groups at random (at most {most:,}).")
    for reason in dict.fromkeys(inputs.missing.values()):
        names = [name for name, source in DETECTORS.items() if inputs.missing.get(source) == reason]
        if not set(names) <= set(MEASURED):  # what gains are measured against names those
            notes.append(f"Without {' and '.join(names)}: {reason}.")
    for name, values in texts.numbers.items():
        if lacking := int(np.isnan(values[inputs.rows]).sum()):
            share = f"{lacking:,} of {len(inputs.rows):,} texts"
            notes.append(f"{name} is unknown of {share}: they count as the median of the others.")
    notes += [penalties] if penalties else []
    labels = texts.labels[inputs.rows]
    return {
        texts.of: seen,
        **({} if texts.per > 1 else {"true": int((labels == 0).sum()), "false": int(labels.sum())}),
        "folds": FOLDS,
        "repeats": resampling.repeats,
        "seed": resampling.seed,
        "baselines": [name for name in BASELINES if DETECTORS[name] in inputs.matrices],
        "notes": notes,
    }
