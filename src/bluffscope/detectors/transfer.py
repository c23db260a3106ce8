"""What a detector trained on one data set is worth on another, beside what text alone is worth there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.detectors.classifiers import DETECTORS
from bluffscope.detectors.evaluate import area_of_a_fit
from bluffscope.detectors.fits import fit
from bluffscope.detectors.folds import too_few
from bluffscope.detectors.held_out import CHANCE, Estimated, Splits
from bluffscope.detectors.inputs import Inputs, Views, completions, keyed_matrix, known_items, opened, read_inputs
from bluffscope.detectors.measures import area
from bluffscope.detectors.texts import Texts, texts_of
from bluffscope.errors import InputError
from bluffscope.host.exclusive import exclusive
from bluffscope.pairs.wordbag import counted
from bluffscope.stats.cells import Resampling
from bluffscope.stats.scopes import POOLED, Scope
from bluffscope.stats.study import numbered
from bluffscope.table.reader import Run

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


@dataclass(frozen=True)
class DataSet:
    """The texts of a run, or of some of its rows."""

    name: str
    texts: Texts
    inputs: Inputs
    views: Views
    completions: list[str] | None
    """(text,) of the sampled texts; None where the run has none."""

    @property
    def labels(self) -> np.ndarray:
        """(text,) 0 or 1."""
        return self.texts.labels[self.inputs.rows]

    @property
    def groups(self) -> np.ndarray:
        """(text,) numbers from 0 without gaps."""
        return numbered(self.texts.groups[self.inputs.rows])

    @property
    def n(self) -> int:
        """Pairs, or labelled texts."""
        return len(self.inputs.rows) // self.texts.per


def data_sets(runs: Sequence[Run], by: str | None, seed: int) -> list[DataSet]:
    """Each run, or each of its values of a column of few values.

    Raises:
        InputError: runs of different models or SAEs, an unknown column, or fewer than two data sets.
    """
    for run in runs[1:]:
        _refuse_other(runs[0], run)
    found = [part for run in runs for part in _parts(run, by, seed)]
    if len(found) < 2:
        raise InputError("transfer takes two data sets or more: give further runs, or --by COLUMN")
    names = [part.name for part in found]
    return [
        replace(part, name=f"{part.name} ({place})") if names.count(part.name) > 1 else part
        for place, part in enumerate(found, start=1)
    ]


def _refuse_other(first: Run, run: Run) -> None:
    for what in ("model", "saes"):
        ours, theirs = _weights(first, what), _weights(run, what)
        if ours != theirs:
            named = "model or its precision" if what == "model" else "SAEs or layers"
            raise InputError(
                f"{run.path} was measured with another {named} than {first.path}: a detector reads what its own model "
                "computes; give runs of one model"
            )


def _weights(run: Run, what: str) -> Any:
    known: Any = run.manifest.get(what) or {}
    if what == "model":
        return known.get("weights"), run.config.get("model", {}).get("dtype")
    return {layer: one.get("weights") for layer, one in known.items()}


def _parts(run: Run, by: str | None, seed: int) -> Iterator[DataSet]:
    table = run.metrics
    whole, _ = texts_of(table, known_items(run), () if by is None else (by,))
    scopes = [scope for scope in whole.scopes if scope.column == by] if by else [Scope(POOLED, np.arange(table.height))]
    if by and len(scopes) < 2:
        raise InputError(f"--by {by}: {run.path} has no such column of 2 values or more")
    for scope in scopes:
        texts, views = opened(run, table[scope.rows])
        inputs = read_inputs(texts, views, seed)
        said = completions(texts, views, inputs.rows)
        name = run.path.resolve().name
        name = f"{name}, {scope.name}" if by else name
        yield DataSet(name, texts, inputs, views, None if isinstance(said, str) else said)


@exclusive()
def carried_over(sets: Sequence[DataSet], detectors: Sequence[str], resampling: Resampling) -> pl.DataFrame:
    """Each detector trained on each data set and asked about each; on the diagonal by cross-validation.

    Args:
        sets: of one model and its SAEs.
        detectors: names of `DETECTORS` that look inside.
        resampling: seed and repeats of the folds.

    Returns:
        `CARRIED_SCHEMA`.
    """
    found: list[dict[str, Any]] = []
    tests = {one.name: _Test(one, resampling) for one in sets}
    for detector, (train, test) in product((_TEXT, *detectors), product(sets, sets)):
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
        own = self._own_areas(detector)
        if isinstance(own, str):
            return {"reason": own}
        if train is self._set:
            found, by_fit = self._splits.estimated(own).columns("auroc", ""), own
        else:
            scores = _scores(detector, train, self._set)
            if isinstance(scores, str):
                return {"reason": scores}
            found = area_of_a_fit(scores, self._set.labels, self._set.groups)
            by_fit = self._splits.by_fit(area, np.tile(scores, (len(self._splits.folds), 1)))
        self._moved[detector, train.name] = by_fit
        loss = self._splits.difference(own, by_fit)
        found |= {"own": self._splits.estimated(own).value}
        found |= {} if train is self._set else loss.columns("loss", "loss_")
        text = self._moved.get((_TEXT, train.name))
        gain = None
        if text is not None and detector != _TEXT:
            gain = self._splits.difference(by_fit, text)
            found |= {"text": float(np.nanmean(text)), **gain.columns("gain", "gain_")}
        lost = None if train is self._set else loss
        said = _verdict(found["lo"], found["hi"], lost, gain)
        # A direction found in noise is a direction still: far off it may rank every text right, or every one wrong.
        return found | {"verdict": said if learnt or train is self._set else "nothing learnt"}

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


def _scores(detector: str, train: DataSet, test: DataSet) -> np.ndarray | str:
    """(text,) probabilities of the test texts, from a fit to all training texts; or why there are none."""
    source = DETECTORS[detector]
    if source == _TEXT:
        if train.completions is None or test.completions is None:
            return "no texts"
        counts = counted([*train.completions, *test.completions])[0].tocsr()
        border = len(train.completions)
        return fit(detector, counts[:border], train.labels, train.groups).probabilities(counts[border:])
    if source not in train.inputs.matrices or source not in test.inputs.matrices:
        return train.inputs.missing.get(source) or test.inputs.missing[source]
    keys = train.inputs.keys[source]
    if source == "residual" and keys.layers != test.inputs.keys[source].layers:
        return f"residuals of other layers: {_listed(keys.layers)} and {_listed(test.inputs.keys[source].layers)}"
    try:
        matrix = keyed_matrix(keys, test.texts, test.views, test.inputs)
    except InputError as error:
        return str(error)
    return fit(detector, train.inputs.matrices[source], train.labels, train.groups).probabilities(matrix)


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))


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
