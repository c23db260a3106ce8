"""What a detector trained on one data set is worth on another, beside what text alone is worth there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from bluffscope.detectors.classifiers import DETECTORS
from bluffscope.detectors.data_sets import DataSet, listed_layers
from bluffscope.detectors.evaluate import area_of_a_fit
from bluffscope.detectors.fits import Fitted, fit
from bluffscope.detectors.folds import too_few
from bluffscope.detectors.held_out import CHANCE, Estimated, Splits
from bluffscope.detectors.inputs import keyed_matrix
from bluffscope.detectors.measures import area
from bluffscope.detectors.saved import Saved
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.pairs.wordbag import counted
from bluffscope.stats.cells import Resampling
from bluffscope.stats.heldout import FOLDS

CARRIED_SCHEMA: Final = pl.Schema(
    {
        **dict.fromkeys(("detector", "train", "test"), pl.String()),
        "n": pl.Int64(),
        **dict.fromkeys(("auroc", "lo", "hi"), pl.Float64()),
        **dict.fromkeys(("own", "loss", "loss_lo", "loss_hi"), pl.Float64()),
        **dict.fromkeys(("text", "gain", "gain_lo", "gain_hi"), pl.Float64()),
        **dict.fromkeys(("verdict", "reason"), pl.String()),
    }
)
"""One row a detector and ordered pair of data sets; docs/detect.md says what each column is."""
MOST_LOSS: Final = 0.05
"""Of AUROC: a detector carries over where the interval of what it loses ends below."""
NEAR_CHANCE: Final = (0.4, 0.6)
_STREAM: Final = 207
_TEXT: Final = "text"


@exclusive()
def carried_over(
    sets: Sequence[DataSet], detectors: Sequence[str], resampling: Resampling, kept: Sequence[Saved] = ()
) -> pl.DataFrame:
    """Each detector trained on each data set and asked about each; on the diagonal by cross-validation.

    Args:
        sets: of one model and its SAEs.
        detectors: names of `DETECTORS` that look inside.
        resampling: seed and repeats of the folds.
        kept: saved detectors, which are asked as they are; where there are some, none is trained.

    Returns:
        `CARRIED_SCHEMA`.
    """
    words = _words(sets)
    known = [_Set(one, bag, resampling) for one, bag in zip(sets, words, strict=True)]
    found: list[dict[str, Any]] = []
    for one, test in product(kept, known):
        row = {"detector": one.detector.keys.on, "train": one.name, "test": test.set.name, "n": test.set.n}
        found.append(row | test.saved_cell(one))
    for detector, train, test in () if kept else product((_TEXT, *detectors), known, known):
        row = {"detector": detector, "train": train.set.name, "test": test.set.name, "n": test.set.n}
        found.append(row | test.cell(detector, train))
    return pl.DataFrame(found, schema=CARRIED_SCHEMA)


def _words(sets: Sequence[DataSet]) -> list[Any]:
    """(text, word) counts of each data set, in the same columns; None where one has no completions."""
    known = [one.completions or [] for one in sets]
    counts = counted([text for texts in known for text in texts])[0].tocsr()
    ends = np.cumsum([len(texts) for texts in known])
    return [counts[end - len(texts) : end] if texts else None for end, texts in zip(ends, known, strict=True)]


class _Areas(NamedTuple):
    """AUROC of a detector in a data set."""

    by_fold: np.ndarray
    """(fit,) in each of its folds, of a fit without a fold of the training set."""
    whole: np.ndarray | None
    """(fit,) of the same fits in all of its texts; None where folds of these texts show how fits vary."""

    @property
    def elsewhere(self) -> float | None:
        """Variance from the training texts, as `Splits.estimated` takes it: the jackknife over their folds."""
        return None if self.whole is None else _jackknifed(self.whole)


def _jackknifed(whole: np.ndarray) -> float:
    return float((FOLDS - 1) * whole.reshape(-1, FOLDS).var(axis=1).mean())


class _Set:
    """A data set with folds of its own: trained on without each of them, and tested on by fold."""

    def __init__(self, one: DataSet, words: Any, resampling: Resampling) -> None:
        self.set = one
        self.barred = too_few(one.texts, one.groups, one.labels)
        self._words = words
        self._fits: dict[str, list[Fitted]] = {}
        self._areas: dict[tuple[str, str], _Areas | str] = {}
        if self.barred is None:
            rng = np.random.default_rng([resampling.seed, _STREAM])
            self.splits = Splits.drawn(one.groups, one.labels, resampling.repeats, rng)

    def cell(self, detector: str, train: _Set) -> dict[str, Any]:
        """The columns of one cell beside its names.

        Args:
            detector: a name of `DETECTORS`.
            train: what it is trained on; this data set itself for what cross-validation says.
        """
        if reason := self.barred or train.barred:
            return {"reason": reason}
        areas = self.areas(detector, train)
        if isinstance(areas, str):
            return {"reason": areas}
        found = self.splits.estimated(areas.by_fold, areas.elsewhere).columns("auroc", "")
        text, gain = None if detector == _TEXT else self.areas(_TEXT, train), None
        if isinstance(text, _Areas):
            apart = None if areas.whole is None or text.whole is None else areas.whole - text.whole
            beyond = 0.0 if apart is None else _jackknifed(apart)
            gain = self.splits.difference(areas.by_fold, text.by_fold, beyond)
            found |= {"text": float(np.nanmean(text.by_fold)), **gain.columns("gain", "gain_")}
        if train is self:
            return found | {"own": found["auroc"], "verdict": _verdict(found["lo"], found["hi"], None, gain)}
        own = train.areas(detector, train)
        learnt = isinstance(own, _Areas) and train.splits.estimated(own.by_fold).lo > CHANCE
        return found | self._judged(detector, areas, found, gain, learnt=learnt)

    def saved_cell(self, saved: Saved) -> dict[str, Any]:
        """The columns of a saved detector's cell beside its names."""
        scores = self.barred or saved.scores(self.set)
        if isinstance(scores, str):
            return {"reason": scores}
        found = area_of_a_fit(scores, self.set.labels, self.set.groups)
        areas = self._tested_on(lambda _: scores, whole=False)
        return found | self._judged(saved.detector.keys.on, areas, found, None, learnt=saved.learnt)

    def _judged(
        self, detector: str, areas: _Areas, found: Mapping[str, float], gain: Estimated | None, *, learnt: bool
    ) -> dict[str, Any]:
        """Beside what a detector that was trained elsewhere does here: what one trained here does, and the verdict."""
        own = self.areas(detector, self)
        assert isinstance(own, _Areas)  # else there would be nothing to ask the other detector about
        loss = self.splits.difference(own.by_fold, areas.by_fold, areas.elsewhere or 0.0)
        verdict = _verdict(found["lo"], found["hi"], loss, gain)
        return {
            "own": self.splits.estimated(own.by_fold).value,
            **loss.columns("loss", "loss_"),
            # A direction found in noise is a direction still: far off it may rank every text right, or every one wrong.
            "verdict": verdict if learnt else "nothing learnt",
        }

    def areas(self, detector: str, train: _Set) -> _Areas | str:
        """Of a detector that was trained on a set without one of its folds, or why there is none."""
        key = (detector, train.set.name)
        if key not in self._areas:
            self._areas[key] = self._tested(detector, train)
        return self._areas[key]

    def _tested(self, detector: str, train: _Set) -> _Areas | str:
        trained, asked = train._matrix(detector), self._matrix(detector, train.set)
        if isinstance(trained, str) or isinstance(asked, str):
            return trained if isinstance(trained, str) else asked
        here, there = self.set.contents or (), train.set.contents or ()
        both = {content: number for number, content in enumerate({*here, *there})}
        ours, theirs = (np.array([both[content] for content in contents]) for contents in (here, there))
        if train is self or not np.isin(ours, theirs).any():
            fits = iter(train._fitted(detector, trained))
            return self._tested_on(lambda _: next(fits).probabilities(asked), whole=train is not self)
        labels, groups = train.set.labels, train.set.groups

        def apart(places: np.ndarray) -> np.ndarray:
            """As in cross-validation, of a fit without the groups that hold a text of the fold that is tested."""
            kept = ~np.isin(groups, groups[np.isin(theirs, ours[places])])
            if len(np.unique(labels[kept])) < 2:
                return np.full(len(ours), CHANCE)
            return fit(detector, trained[kept], labels[kept], groups[kept]).probabilities(asked)

        return self._tested_on(apart, whole=False)

    def _tested_on(self, scored: Callable[[np.ndarray], np.ndarray], *, whole: bool) -> _Areas:
        """AUROC of (text,) scores, from a fit for each of the folds.

        Args:
            scored: takes the places of the texts of a fold.
            whole: whether that fold's texts are as new to the fit as all others.
        """
        everywhere: list[float] = []

        def of_fold(_: np.ndarray, places: np.ndarray) -> np.ndarray:
            scores = scored(places)
            if whole:
                everywhere.append(area(scores, self.set.labels))
            return scores[places]

        by_fold = self.splits.by_fit(area, self.splits.scores(of_fold))
        return _Areas(by_fold, np.array(everywhere) if whole else None)

    def _fitted(self, detector: str, matrix: Any) -> list[Fitted]:
        """A fit without each fold, in the order of repeats and folds."""
        if detector not in self._fits:
            labels, groups = self.set.labels, self.set.groups
            parts = [np.flatnonzero(folds != fold) for folds in self.splits.folds for fold in range(FOLDS)]
            self._fits[detector] = [fit(detector, matrix[part], labels[part], groups[part]) for part in parts]
        return self._fits[detector]

    def _matrix(self, detector: str, train: DataSet | None = None) -> Any:
        """(text, feature) in the columns of a training set, if not in the own, or why there is none."""
        one, source = self.set, DETECTORS[detector]
        if source == _TEXT:
            return "no texts" if self._words is None else self._words
        if source not in one.inputs.matrices:
            return one.inputs.missing[source]
        if train is None or train is one or source not in train.inputs.keys:
            return one.inputs.matrices[source]
        keys = train.inputs.keys[source]
        if source == "residual" and keys.layers != (others := one.inputs.keys[source].layers):
            return f"residuals of other layers: {listed_layers(keys.layers)} and {listed_layers(others)}"
        try:
            return keyed_matrix(keys, one.texts, one.views, one.inputs)
        except InputError as error:
            return str(error)


def _verdict(lo: float, hi: float, loss: Estimated | None, gain: Estimated | None) -> str:
    """What a cell says; what text does as well is no merit of a look inside, however well it carries over."""
    if lo >= NEAR_CHANCE[0] and hi <= NEAR_CHANCE[1]:
        return "chance"
    if hi < CHANCE:
        return "reversed"
    if lo <= CHANCE:
        return "unclear"
    if gain is not None and not gain.lo > 0:
        return "no better than text"
    if loss is None:
        return "found"
    return "carries over" if loss.hi < MOST_LOSS else "partly"
