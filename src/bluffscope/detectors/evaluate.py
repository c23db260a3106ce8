"""Can a text that stands alone be told to be hallucinated? Detectors against baselines, on texts not fitted to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.detectors.classifiers import BASELINES, DETECTORS, SURFACE, probabilities
from bluffscope.detectors.folds import label_folds, too_few
from bluffscope.detectors.inputs import MOST_PAIRS, Inputs, Views, read_inputs
from bluffscope.detectors.texts import Texts, texts_of
from bluffscope.host.exclusive import exclusive
from bluffscope.stats.auroc import ordering
from bluffscope.stats.cells import Resampling
from bluffscope.stats.heldout import FOLDS
from bluffscope.stats.resampling import area_draws, ends
from bluffscope.stats.scopes import Scope
from bluffscope.stats.study import numbered
from bluffscope.table.reader import Run

_AREA: Final = ("auroc", "lo", "hi")
_GAINS: Final = ("gain", "gain_lo", "gain_hi", "surface_gain", "surface_gain_lo", "surface_gain_hi")
DETECTORS_SCHEMA: Final = pl.Schema(
    dict.fromkeys(("detector", "scope"), pl.String())
    | {"n": pl.Int64()}
    | dict.fromkeys((*_AREA, "ece", *_GAINS), pl.Float64())
    | {"reason": pl.String()}
)
"""One row a detector and scope; docs/statistics.md says what each is."""

_CROSSED: Final = pl.Schema(
    dict.fromkeys(("detector", "train", "test"), pl.String()) | {"n": pl.Int64()} | dict.fromkeys(_AREA, pl.Float64())
)
TRANSFER_SCHEMA: Final = pl.Schema({**_CROSSED, "learnt": pl.Boolean()})
"""One row a detector and an ordered pair of scopes of one column; the diagonal is cross-validated. `learnt`: whether
that of the scope trained on lies above chance, its interval included."""

BINS: Final = 10
"""Equal bins of probability of the expected calibration error."""
CHANCE: Final = 0.5
CLOSING_PAIRS: Final = 1000
CLOSING_DOMAINS: Final = 6
"""Most pairs, and domains, for which the statistics that close a run fit detectors unasked: it takes seconds then."""
_FOLD_STREAM, _BOOTSTRAP_STREAM = 4, 5


@dataclass(frozen=True)
class Detection:
    """How well facts and hallucinations, or true and false texts, can be told apart, text by text."""

    rows: pl.DataFrame
    """`DETECTORS_SCHEMA`: scopes in order, in each the detectors, baselines first."""
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


Areas = Mapping[str, tuple[float, np.ndarray]]
"""AUROC of each detector, and (resample,) of resamples of groups."""


def detect_in(
    table: pl.DataFrame,
    items: pl.DataFrame | None,
    run: Run | None,
    *,
    by: Sequence[str] = (),
    by_order: bool = False,
    resampling: Resampling | None = None,
) -> Detection:
    """Every detector that what is known allows.

    Args:
        table: the result table, or any other; of pairs, or of labelled texts.
        items: what it was measured from, for the texts.
        run: the table's run, for its residuals and features; None for a table that has none.
        by: further columns whose values are scopes.
        by_order: the k-th row is the k-th pair's; only for a table without ids.
        resampling: seed and resamples, in place of ``Resampling()``.

    Raises:
        InputError: residuals or features that cannot be read.
    """
    texts, known = texts_of(table, items, by, by_order=by_order)
    views = Views(known) if run is None else Views.of_run(run, table, known)
    return detect(texts, views, resampling or Resampling())


def quick_to_detect(table: pl.DataFrame) -> bool:
    """Whether detectors of a table take seconds."""
    domains = table["domain"].n_unique() if "domain" in table.columns else 1
    return table.height <= CLOSING_PAIRS and domains <= CLOSING_DOMAINS


@exclusive()
def detect(texts: Texts, views: Views, resampling: Resampling) -> Detection:
    """Fit every detector in every scope by cross-validation over groups, and from each domain to the others.

    Args:
        texts: those of the table.
        views: texts, residuals and SAE features, where they are known.
        resampling: seed, and resamples of groups.

    Raises:
        InputError: residuals or features that cannot be read.
    """
    inputs = read_inputs(texts, views, resampling.seed)
    parts = [_Part.of(texts, scope, inputs.rows) for scope in texts.scopes]
    found = [row for part in parts for row in _in_scope(part, inputs, resampling)]
    rows = pl.DataFrame(found, schema=DETECTORS_SCHEMA)
    across = [row for train, test in permutations(parts, 2) for row in _transferred(train, test, inputs, resampling)]
    return Detection(rows, _transfer(rows, across, parts), _about(texts, inputs, resampling))


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


def calibration_error(chance: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error: |mean probability - share of hallucinations| over `BINS` equal bins, by their size.

    Args:
        chance: (text,) probabilities.
        labels: (text,) 0 or 1.
    """
    bins = np.minimum((chance * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, chance - labels, BINS)
    return float(np.abs(gaps).sum() / len(chance))


def _in_scope(part: _Part, inputs: Inputs, resampling: Resampling) -> Iterator[dict[str, Any]]:
    """One row for each detector."""
    reasons = {
        name: part.too_few or inputs.missing.get(source)
        for name, source in DETECTORS.items()
        if source in inputs.matrices or source in inputs.missing
    }
    scores: dict[str, np.ndarray] = {}
    if known := [name for name, reason in reasons.items() if reason is None]:
        folds = label_folds(part.groups, part.labels, FOLDS, resampling.generator(part.scope, _FOLD_STREAM))
        scores = {name: _heldout(name, inputs.matrices[DETECTORS[name]], part, folds) for name in known}
    areas = _areas(scores, part, resampling)
    for name, reason in reasons.items():
        row: dict[str, Any] = dict.fromkeys(DETECTORS_SCHEMA)
        row |= {"detector": name, "scope": part.scope.name, "n": part.n, "reason": reason}
        if name in scores:
            area, drawn = areas[name]
            row |= {"auroc": area, "ece": calibration_error(scores[name], part.labels)} | interval(drawn)
            if name not in BASELINES:
                row |= _gain("gain", name, [*BASELINES], areas) | _gain("surface_gain", name, SURFACE, areas)
        yield row


def _heldout(detector: str, matrix: Any, part: _Part, folds: np.ndarray) -> np.ndarray:
    """(text,) probabilities, each from a fit to the other folds."""
    scores = np.empty(len(part.texts))
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        scores[held] = _applied(detector, matrix, part.texts[~held], part.labels[~held], part.texts[held])
    return scores


def _applied(detector: str, matrix: Any, train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """(text,) probabilities of the test texts."""
    found = probabilities(detector, matrix[train], labels, matrix[test])
    # Texts that look the same to a detector are ties, whatever the order of sums left in the last digits.
    return np.round(found, 10)


def _areas(scores: Mapping[str, np.ndarray], part: _Part, resampling: Resampling) -> Areas:
    """The areas of detectors' scores; all see the same resamples of groups, whatever was trained on."""
    if not scores:
        return {}
    rng = resampling.generator(part.scope, _BOOTSTRAP_STREAM)
    found = areas_of(list(scores.values()), part.labels, part.groups, resampling.resamples, rng)
    return dict(zip(scores, found, strict=True))


def areas_of(
    scores: Sequence[np.ndarray], labels: np.ndarray, groups: np.ndarray, resamples: int, rng: np.random.Generator
) -> list[tuple[float, np.ndarray]]:
    """The AUROC of each (text,) scores, and (resample,) in resamples of groups."""
    sides = [(score[labels == 0], score[labels == 1]) for score in scores]
    drawn = area_draws(sides, groups[labels == 0], resamples, rng, groups[labels == 1])
    return [(ordering(*one).area, area) for one, area in zip(sides, drawn.T, strict=True)]


def interval(drawn: np.ndarray, name: str = "") -> dict[str, float]:
    """The percentile interval of (resample,) values, as columns `lo` and `hi` of a name."""
    return dict(zip((f"{name}lo", f"{name}hi"), ends(drawn[:, None])[:, 0].tolist(), strict=True))


def _gain(column: str, name: str, baselines: Sequence[str], areas: Areas) -> dict[str, float]:
    """AUROC beyond the best baseline, guessing included: one that does worse than chance is no easier to beat."""
    area, drawn = areas[name]
    known = [areas[baseline] for baseline in baselines if baseline in areas]
    best = np.max([np.full_like(drawn, CHANCE), *(draws for _, draws in known)], axis=0)
    return {column: area - max([CHANCE, *(found for found, _ in known)])} | interval(drawn - best, f"{column}_")


def _transferred(train: _Part, test: _Part, inputs: Inputs, resampling: Resampling) -> Iterator[dict[str, Any]]:
    """Each detector fitted to all of one scope and asked about another of the same column (domains, or `--by`)."""
    if not train.scope.column or train.scope.column != test.scope.column:
        return
    if train.too_few or test.too_few:
        return
    scores = {
        name: _applied(name, inputs.matrices[source], train.texts, train.labels, test.texts)
        for name, source in DETECTORS.items()
        if source in inputs.matrices
    }
    named = {"train": train.scope.name, "test": test.scope.name, "n": test.n}
    for name, (area, drawn) in _areas(scores, test, resampling).items():
        yield {"detector": name, **named, "auroc": area, **interval(drawn)}


def _about(texts: Texts, inputs: Inputs, resampling: Resampling) -> dict[str, Any]:
    notes: list[str] = []
    seen = len(inputs.rows) // texts.per
    if seen < texts.items:
        most = MOST_PAIRS * 2 // texts.per
        taken = f"{seen:,} of {texts.items:,} {texts.of}"
        notes.append(f"Detectors saw {taken}, whole groups at random (at most {most:,}).")
    for reason in dict.fromkeys(inputs.missing.values()):
        names = [name for name, source in DETECTORS.items() if inputs.missing.get(source) == reason]
        notes.append(f"Without {' and '.join(names)}: {reason}.")
    for name, values in texts.numbers.items():
        if lacking := int(np.isnan(values[inputs.rows]).sum()):
            share = f"{lacking:,} of {len(inputs.rows):,} texts"
            notes.append(f"{name} is unknown of {share}: they count as the median of the others.")
    labels = texts.labels[inputs.rows]
    return {
        texts.of: seen,
        **({} if texts.per > 1 else {"true": int((labels == 0).sum()), "false": int(labels.sum())}),
        "folds": FOLDS,
        "seed": resampling.seed,
        "baselines": [name for name in BASELINES if DETECTORS[name] in inputs.matrices],
        "notes": notes,
    }
