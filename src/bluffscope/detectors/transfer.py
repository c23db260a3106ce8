"""What a detector trained on one data set is worth on another, beside what text alone is worth there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.detectors.classifiers import DETECTORS
from bluffscope.detectors.data_sets import DataSet, listed_layers
from bluffscope.detectors.evaluate import area_of_a_fit
from bluffscope.detectors.fits import fit
from bluffscope.detectors.folds import too_few
from bluffscope.detectors.held_out import CHANCE, Estimated, Splits
from bluffscope.detectors.inputs import keyed_matrix
from bluffscope.detectors.measures import area
from bluffscope.detectors.saved import Saved
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.pairs.wordbag import counted
from bluffscope.stats.cells import Resampling

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
    found: list[dict[str, Any]] = []
    tests = {one.name: _Test(one, resampling) for one in sets}
    for one, test in product(kept, sets):
        row = {"detector": one.detector.keys.on, "train": one.name, "test": test.name, "n": test.n}
        found.append(row | tests[test.name].saved_cell(one))
    for detector, (train, test) in () if kept else product((_TEXT, *detectors), product(sets, sets)):
        row = {"detector": detector, "train": train.name, "test": test.name, "n": test.n}
        found.append(row | tests[test.name].cell(detector, train, learnt=tests[train.name].learnt(detector)))
    return pl.DataFrame(found, schema=CARRIED_SCHEMA)


class _Test:
    """A data set that detectors are tested on: folds of its own, on which all of them are compared."""

    def __init__(self, test: DataSet, resampling: Resampling) -> None:
        self._set = test
        self._barred = too_few(test.texts, test.groups, test.labels)
        self._own: dict[str, np.ndarray | str] = {}
        self._moved: dict[tuple[str, str], np.ndarray] = {}
        if self._barred is None:
            rng = np.random.default_rng([resampling.seed, _STREAM])
            self._splits = Splits.drawn(test.groups, test.labels, resampling.repeats, rng)

    def learnt(self, detector: str) -> bool:
        """Whether the detector trained on this data set does better than chance on held-out texts of its own."""
        own = None if self._barred else self._own_areas(detector)
        return isinstance(own, np.ndarray) and self._splits.estimated(own).lo > CHANCE

    def cell(self, detector: str, train: DataSet, *, learnt: bool) -> dict[str, Any]:
        """The columns of one cell beside its names.

        Args:
            detector: a name of `DETECTORS`.
            train: what it is trained on.
            learnt: whether it learnt something there.
        """
        if reason := self._barred or too_few(train.texts, train.groups, train.labels):
            return {"reason": reason}
        scores = None if train is self._set else _scores(detector, train, self._set, self._splits)
        return self._judged(detector, train.name, scores, learnt=learnt)

    def saved_cell(self, saved: Saved) -> dict[str, Any]:
        """The columns of a saved detector's cell beside its names."""
        if self._barred:
            return {"reason": self._barred}
        return self._judged(saved.detector.keys.on, saved.name, saved.scores(self._set), learnt=saved.learnt)

    def _judged(self, detector: str, train: str, scores: np.ndarray | str | None, *, learnt: bool) -> dict[str, Any]:
        """What scores are worth, or without any the data set's own detector.

        Args:
            detector: a name of `DETECTORS`.
            train: name of what it was trained on.
            scores: (text,) of one fit, or (repeat, text) of fits by fold, or why there are none.
            learnt: whether it learnt something there.
        """
        own = self._own_areas(detector)
        if reason := next((why for why in (own, scores) if isinstance(why, str)), None):
            return {"reason": reason}
        assert isinstance(own, np.ndarray) and not isinstance(scores, str)
        if scores is None:
            found, by_fit = self._splits.estimated(own).columns("auroc", ""), own
        elif scores.ndim > 1:
            by_fit = self._splits.by_fit(area, scores)
            found = self._splits.estimated(by_fit).columns("auroc", "")
        else:
            found = area_of_a_fit(scores, self._set.labels, self._set.groups)
            by_fit = self._splits.by_fit(area, np.tile(scores, (len(self._splits.folds), 1)))
        self._moved[detector, train] = by_fit
        loss = self._splits.difference(own, by_fit)
        found |= {"own": self._splits.estimated(own).value}
        found |= {} if scores is None else loss.columns("loss", "loss_")
        text = self._moved.get((_TEXT, train))
        gain = None
        if text is not None and detector != _TEXT:
            gain = self._splits.difference(by_fit, text)
            found |= {"text": float(np.nanmean(text)), **gain.columns("gain", "gain_")}
        said = _verdict(found["lo"], found["hi"], None if scores is None else loss, gain)
        # A direction found in noise is a direction still: far off it may rank every text right, or every one wrong.
        return found | {"verdict": said if learnt or scores is None else "nothing learnt"}

    def _own_areas(self, detector: str) -> np.ndarray | str:
        """(fit,) AUROC of the detector trained on this data set itself, or why there is none."""
        if detector not in self._own:
            one, source = self._set, DETECTORS[detector]
            matrix = one.inputs.matrices.get(source)
            if matrix is None:
                self._own[detector] = one.inputs.missing[source]
            else:
                labels, groups = one.labels, one.groups
                scores = self._splits.scores(
                    lambda train, test: fit(detector, matrix[train], labels[train], groups[train]).probabilities(
                        matrix[test]
                    )
                )
                self._own[detector] = self._splits.by_fit(area, scores)
        return self._own[detector]


def _scores(detector: str, train: DataSet, test: DataSet, splits: Splits) -> np.ndarray | str:
    """(text,) probabilities of the test texts, from a fit to all training texts; or why there are none.

    Where both have texts in common, (repeat, text), as in cross-validation: each from a fit without the groups of the
    training set that hold a text of the fold that is tested.
    """
    found = _matrices(detector, train, test)
    if isinstance(found, str):
        return found
    trained, asked = found
    both = [*(train.contents or ()), *(test.contents or ())]
    numbers = {content: number for number, content in enumerate(both)}
    codes = np.array([numbers[content] for content in both], dtype=np.int64)
    ours, theirs = codes[: len(train.contents or ())], codes[len(train.contents or ()) :]
    if not np.isin(ours, theirs).any():
        return fit(detector, trained, train.labels, train.groups).probabilities(asked)

    def fitted(_: np.ndarray, places: np.ndarray) -> np.ndarray:
        kept = ~np.isin(train.groups, train.groups[np.isin(ours, theirs[places])])
        if len(np.unique(train.labels[kept])) < 2:
            return np.full(len(places), CHANCE)
        return fit(detector, trained[kept], train.labels[kept], train.groups[kept]).probabilities(asked[places])

    return splits.scores(fitted)


def _matrices(detector: str, train: DataSet, test: DataSet) -> tuple[Any, Any] | str:
    """(text, feature) of both data sets in the columns of the training set, or why there are none."""
    source = DETECTORS[detector]
    if source == _TEXT:
        if train.completions is None or test.completions is None:
            return "no texts"
        counts = counted([*train.completions, *test.completions])[0].tocsr()
        border = len(train.completions)
        return counts[:border], counts[border:]
    if source not in train.inputs.matrices or source not in test.inputs.matrices:
        return train.inputs.missing.get(source) or test.inputs.missing[source]
    keys = train.inputs.keys[source]
    if source == "residual" and keys.layers != (others := test.inputs.keys[source].layers):
        return f"residuals of other layers: {listed_layers(keys.layers)} and {listed_layers(others)}"
    try:
        return train.inputs.matrices[source], keyed_matrix(keys, test.texts, test.views, test.inputs)
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
