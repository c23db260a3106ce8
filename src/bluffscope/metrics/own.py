"""Analyses of the user's own: made from a function of one layer's reads, loaded from a file, checked in every batch."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from bluffscope.errors import InputError
from bluffscope.metrics.declaration import AnalysisFunction, Column, Values
from bluffscope.metrics.measurement import Measurement
from bluffscope.records import PAIRS, VIEWS, Arrangement

ReadFunction = Callable[[Measurement, int], Any]
"""Takes a batch's `Measurement` and a layer; returns (read,) numbers, NaN where undefined: an array or a tensor."""

ROUNDING: Final = 1e-9
"""Share of a bound (of 1 for smaller ones) by which rounding may take a value beyond it: such a value is the bound."""
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_OF_LAYER: Final = re.compile(rf"l(\d+)_(?:{'|'.join(VIEWS)})_.+")


@dataclass(frozen=True)
class UserAnalysis:
    """An analysis of the user's own, for `bluffscope.analyze(added=[...])` (docs/own-analysis.md)."""

    function: AnalysisFunction
    """Called once a batch with its `Measurement`; returns, by column, one value a pair in the batch's order: numbers,
    NaN where undefined, or text, None where undefined."""
    columns: tuple[Column, ...] | Callable[[tuple[int, ...]], tuple[Column, ...]]
    """Every column that the function returns, or a function that returns them for the layers that are measured. A run
    ends with an `InputError` where a column is missing, not declared, of another length or outside its range."""
    name: str = ""
    """What messages call it; the function's name where empty."""
    source: str = ""
    """The FILE.py:NAME of ``--analysis`` that it was loaded from; empty for one that was made in Python."""

    @property
    def title(self) -> str:
        """What messages call it."""
        return self.name or getattr(self.function, "__name__", "added")

    def declared(self, layers: tuple[int, ...], arrangement: Arrangement = PAIRS) -> tuple[Column, ...]:
        """Its columns in a run over these layers and texts.

        Raises:
            InputError: a column is of a layer that is not measured.
        """
        if isinstance(self.columns, _OfReads):
            columns = self.columns(layers, arrangement)
        else:
            columns = self.columns(layers) if callable(self.columns) else tuple(self.columns)
        for column in columns:
            if (match := _OF_LAYER.fullmatch(column.name)) and int(match[1]) not in layers:
                measured = " ".join(map(str, layers))
                raise InputError(
                    f"analysis {self.title!r}: column {column.name!r} is of layer {match[1]}, which is not measured "
                    f"(measured: {measured}); add the layer with --layers, or leave the column out"
                )
        return columns

    def __call__(self, measurement: Measurement) -> dict[str, Values]:
        """Its columns for a batch, found to be what it declares.

        Raises:
            InputError: they are not.
        """
        returned = self.function(measurement)
        declared = {column.name: column for column in self.declared(measurement.layers, measurement.arrangement)}
        who = f"analysis {self.title!r}"
        if strange := [name for name in returned if name not in declared]:
            raise InputError(f"{who} returned the column {strange[0]!r}, which it did not declare")
        if missing := [name for name in declared if name not in returned]:
            raise InputError(f"{who} declared the column {missing[0]!r}, but did not return it")
        pairs = measurement.item_ids
        for name, values in returned.items():
            if len(values) != len(pairs):
                raise InputError(f"{who}: column {name!r} has {len(values)} values for {len(pairs)} pairs")
        return {name: _in_range(who, declared[name], values, pairs) for name, values in returned.items()}


def _in_range(who: str, column: Column, values: Values, pairs: Sequence[str]) -> Values:
    """The values of a column, what rounding took out of its range put back.

    Raises:
        InputError: a value lies outside.
    """
    if column.kind not in ("float", "int") or (column.low is None and column.high is None):
        return values
    numbers = np.asarray(values, dtype=np.float64)  # None is NaN
    low, high = (-np.inf if column.low is None else column.low), (np.inf if column.high is None else column.high)
    slack = [ROUNDING * max(1.0, abs(bound)) if np.isfinite(bound) else 0.0 for bound in (low, high)]
    outside = np.flatnonzero((numbers < low - slack[0]) | (numbers > high + slack[1]))
    if len(outside):
        first = int(outside[0])
        span = f"{'...' if column.low is None else f'{low:g}'} to {'...' if column.high is None else f'{high:g}'}"
        raise InputError(
            f"{who}, pair {pairs[first]!r}: {column.name} is {numbers[first]:g}, outside its declared range {span}"
        )
    return numbers.clip(low, high) if column.kind == "float" else values


def per_read(
    name: str,
    function: ReadFunction,
    *,
    unit: str,
    low: float | None = None,
    high: float | None = None,
    doc: str = "",
    label: str = "",
    layers: Sequence[int] | None = None,
    version: int = 1,
) -> UserAnalysis:
    """An analysis of your own from a function of one layer's reads: one metric of every layer and view.

    Its columns are ``l{layer}_{view}_{name}``. Where a view has several reads, with ``position="completion-mean"``, the
    column holds the mean over those at which the value is defined.

    Args:
        name: of the metric: letters, digits and underscores.
        function: takes the `Measurement` of a batch and a layer; returns one number for each read, NaN where it is
            undefined, such as ``lambda m, layer: m.features(layer).max()``. A value must depend on its own pair only.
        unit: of the values, such as "degrees", "nats", "activation units" or "dimensionless".
        low: smallest possible value; None without a bound. A value outside ends the run.
        high: largest possible value, likewise.
        doc: one sentence that defines the metric, for the report; the first line of the function's docstring unless
            given.
        label: what the report calls it; `name` unless given.
        layers: the layers it is measured at; all that the run measures unless given.
        version: of the definition: raise it when you change what the function computes.

    Returns:
        What `bluffscope.analyze(added=[...])` and ``--analysis FILE.py:NAME`` take.

    Raises:
        InputError: the name cannot be a column's, or the range is empty.

    Example:
        >>> import bluffscope
        >>> peak = bluffscope.per_read("peak", lambda m, layer: m.features(layer).max(), unit="activation units", low=0)
        >>> bluffscope.analyze(limit=4, added=[peak])["l5_hall_peak"].len()
        4
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"analysis {name!r}: give a name of letters, digits and underscores that begins with a letter")
    if low is not None and high is not None and low >= high:
        raise InputError(f"analysis {name!r}: its range {low:g} to {high:g} is empty")
    doc = doc or (getattr(function, "__doc__", None) or "").strip().partition("\n")[0] or "A metric of the user's own"
    column = Column(name, "float", unit, low, high, doc.rstrip(".") + ".", version, label=label)
    chosen = None if layers is None else tuple(layers)
    return UserAnalysis(
        function=partial(_of_reads, name, function, chosen), columns=_OfReads(column, chosen), name=name
    )


@dataclass(frozen=True)
class _OfReads:
    """The columns of a function of one layer's reads: one a layer and text."""

    column: Column
    chosen: tuple[int, ...] | None

    def __call__(self, layers: tuple[int, ...], arrangement: Arrangement = PAIRS) -> tuple[Column, ...]:
        return tuple(
            replace(self.column, name=arrangement.at_layer(layer, view, self.column.name))
            for layer in (layers if self.chosen is None else self.chosen)
            for view in arrangement.views
        )


def _of_reads(
    name: str, function: ReadFunction, chosen: tuple[int, ...] | None, measurement: Measurement
) -> dict[str, Values]:
    columns: dict[str, Values] = {}
    reads = len(measurement.read_view)
    for layer in measurement.layers if chosen is None else chosen:
        returned = function(measurement, layer)
        if hasattr(returned, "detach"):  # a tensor, wherever it lies
            returned = returned.detach().cpu().double().numpy()
        values = np.asarray(returned, dtype=np.float64)
        if values.shape != (reads,):
            raise InputError(
                f"analysis {name!r}, layer {layer}: returned shape {values.shape}; expected one value for each of the "
                f"{reads} reads"
            )
        by_view, arrangement = measurement.by_view(values), measurement.arrangement
        for index, view in enumerate(arrangement.views):
            columns[arrangement.at_layer(layer, view, name)] = by_view[:, index]
    return columns


def load_analyses(names: Sequence[str]) -> tuple[UserAnalysis, ...]:
    """The analyses that ``--analysis FILE.py:NAME`` names. The files are run: they are code.

    Raises:
        InputError: a file that is missing or fails, or that has no such analysis.
    """
    files: dict[Path, ModuleType] = {}
    found: list[UserAnalysis] = []
    for text in names:
        file, _, name = text.rpartition(":")
        if not file.endswith(".py"):
            raise InputError(f"--analysis {text}: expected FILE.py:NAME, such as own.py:peak")
        path = Path(file).expanduser().resolve()
        if path not in files:
            files[path] = load_module(f"--analysis {text}", path)
        there: Mapping[str, Any] = vars(files[path])
        analysis = there.get(name)
        if not isinstance(analysis, UserAnalysis):
            known = ", ".join(key for key, value in there.items() if isinstance(value, UserAnalysis)) or "none"
            raise InputError(f"--analysis {text}: {file} has no analysis {name!r} (it has: {known}); see per_read")
        found.append(replace(analysis, source=text))
    return tuple(found)


def load_module(flag: str, path: Path) -> ModuleType:
    """The module that a file of the user's makes, known to other processes by a name that nothing else has.

    Raises:
        InputError: there is no such file, or it fails; the line begins with `flag`.
    """
    if not path.is_file():
        raise InputError(f"{flag}: no such file")
    name = f"bluffscope_analysis_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # its name ends in .py
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        raise InputError(f"{flag}: the file fails with {type(error).__name__}: {error}") from error
    return module
