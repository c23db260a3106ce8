"""Every strategy on the same pairs, one model in memory at a time, and how far their tables are apart."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import polars as pl
import torch

from bluffscope.compare.tables import Cell, Comparison, Flips, Precision, active_features, compare, with_views
from bluffscope.config import ModelOptions, OutputOptions, RunConfig
from bluffscope.errors import InputError
from bluffscope.host.machine import memory_available
from bluffscope.model.load import choose_device
from bluffscope.pipeline.batch_size import gigabytes, plan_run
from bluffscope.pipeline.memory import Footprint
from bluffscope.runs.options import homes_expanded
from bluffscope.runs.run import run
from bluffscope.table.reader import read_run

Strategy = Literal["sequential", "separate", "batched", "packed"]

REFERENCE: Final = "sequential"
"""The slow, obvious strategy, which the others are compared with."""
STRATEGIES: Final[tuple[Strategy, ...]] = (REFERENCE, "separate", "batched", "packed")
WORKING_BYTES: Final = 500_000_000
"""What a run of few pairs needs beside the weights: libraries, logits of one text, one geometry."""
_READ = ("pair_id", "layer", "view")


@dataclass(frozen=True)
class Measured:
    """What one strategy made of the pairs."""

    strategy: Strategy
    ran_as: str
    """The strategy that ran: another where the model takes no packed rows."""
    dtype: str
    seconds: float
    """Of the whole run, the loading of the model included."""
    metrics: pl.DataFrame
    features: pl.DataFrame
    quarantined: Mapping[str, str]
    """Reason by pair id."""


@dataclass(frozen=True)
class Agreement:
    """How a strategy's table compares with the reference's."""

    measured: Measured
    comparison: Comparison
    quarantine: tuple[str, ...]
    """Pairs that one of the two could not measure and the other could."""

    @property
    def holds(self) -> bool:
        """Whether the two say the same."""
        return self.comparison.holds and not self.quarantine


@dataclass(frozen=True)
class Phase:
    """All strategies in one precision."""

    dtype: str
    precision: Precision
    reference: Measured
    agreements: tuple[Agreement, ...]
    """The other strategies, in the order of `STRATEGIES`."""

    @property
    def decides(self) -> bool:
        """Whether anything is promised in this precision."""
        return self.precision != "reduced"

    @property
    def holds(self) -> bool:
        """Whether pairs were measured and the strategies agree on them, as far as something is promised."""
        agree = all(agreement.holds if self.decides else not agreement.quarantine for agreement in self.agreements)
        proof = self.reference.ran_as == REFERENCE  # a strategy compared with itself proves nothing
        return agree and proof and not self.reference.metrics.is_empty()

    @property
    def worst(self) -> Cell | None:
        """The cell that comes nearest to its tolerance, or exceeds it by most, in any strategy."""
        cells = [cell for agreement in self.agreements if (cell := agreement.comparison.worst) is not None]
        return max(cells, key=lambda cell: cell.ratio, default=None)


def verify(config: RunConfig, tell: Callable[[Measured], None] = lambda _: None) -> Iterator[Phase]:
    """Run all strategies in float64, then in the run's own precision; each phase is yielded once it is done.

    Args:
        config: the options of a run; strategy and output are disregarded, nothing is kept.
        tell: called with each strategy's result.

    Yields:
        The phase in float64, and the phase in the precision of `config` where that is another.

    Raises:
        InputError: options or data that cannot be used, or too little memory for the model in float64.
    """
    config = homes_expanded(config)
    device = choose_device(config.model.device).type
    exact = replace(config.model, dtype="float64", quantize="none", device="cpu" if device == "mps" else device)
    check_memory(exact)
    yield _phase(replace(config, model=exact), "float64", tell)
    dtype = "float32" if config.model.dtype == "auto" else config.model.dtype
    quantized = config.model.quantize != "none"
    if dtype == "float64" and not quantized:
        return
    precision: Precision = "float32" if dtype == "float32" and not quantized else "reduced"
    yield _phase(replace(config, model=replace(config.model, dtype=dtype)), precision, tell)


def _phase(config: RunConfig, precision: Precision, tell: Callable[[Measured], None]) -> Phase:
    measured: list[Measured] = []
    for strategy in STRATEGIES:
        measured.append(_measure(config, strategy))
        tell(measured[-1])
    reference, *others = measured
    agreements = tuple(_agreement(config, precision, other, reference) for other in others)
    return Phase(config.model.dtype, precision, reference, agreements)


def _measure(config: RunConfig, strategy: Strategy) -> Measured:
    """One run into a folder that is read and removed; the model is gone before the next is loaded."""
    with tempfile.TemporaryDirectory(prefix="bluffscope-verify-") as scratch:
        engine = replace(config.engine, strategy=strategy)
        output = OutputOptions(out=Path(scratch).resolve() / "run", keep_residuals="off")
        result = run(replace(config, engine=engine, output=output))
        folder = read_run(result.path)
        quarantine = folder.quarantine
        measured = Measured(
            strategy=strategy,
            ran_as=str(result.manifest.get("strategy", strategy)),
            dtype=config.model.dtype,
            seconds=float(result.manifest["timings"]["total"]),
            metrics=with_views(folder.metrics),
            features=with_views(folder.features.collect()),
            quarantined=dict(zip(quarantine[folder.key], quarantine["reason"], strict=True)),
        )
        del result, folder
    gc.collect()  # modules and hooks refer to each other: reference counts alone would keep the model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return measured


def _agreement(config: RunConfig, precision: Precision, measured: Measured, reference: Measured) -> Agreement:
    """Compare the pairs that both strategies could measure."""
    apart = measured.quarantined.keys() ^ reference.quarantined.keys()
    got, expected = (
        table.filter(~pl.col("pair_id").cast(pl.String).is_in(sorted(apart)))
        for table in (measured.metrics, reference.metrics)
    )
    comparison = compare(
        got,
        expected,
        precision,
        position=config.measure.first_position,
        draws=config.measure.noise_draws,
        flips=flips(measured.features, reference.features),
    )
    return Agreement(measured, comparison, tuple(sorted(apart)))


def check_memory(options: ModelOptions) -> None:
    """Refuse a whole model that does not fit, on its device or (where it is loaded first) in main memory.

    Configurations are read for that, weights are not.

    Args:
        options: those of the float64 runs, the device chosen.

    Raises:
        InputError: too little memory, or model or SAEs that cannot be found or do not fit each other.
    """
    found = Footprint(plan_run(options, whole=True).shape)
    total = found.weights + found.saes + WORKING_BYTES
    billions = found.weights / found.shape.number_bytes / 1e9
    places = [(memory_available(), "on this machine", "use a machine with more memory")]
    if options.device == "cuda":
        places.insert(0, (torch.cuda.mem_get_info()[0], "on the GPU", "use --device cpu, a larger GPU"))
    for free, where, instead in places:
        if total > free:
            raise InputError(
                f"float64 needs about {gigabytes(total)} for the whole model ({billions:.2f} billion parameters, "
                f"{gigabytes(found.weights)}) and its SAEs ({gigabytes(found.saes)}), but {gigabytes(free)} are free "
                f"{where}: {instead} or verify a smaller model; fewer --layers hardly help, since sequential runs all "
                "of the model"
            )


def flips(got: pl.DataFrame, expected: pl.DataFrame) -> Flips:
    """Features that are active in one of two tables only, counted by pair, layer and view.

    Args:
        got: pair_id, view, layer, feature; one row for each active feature.
        expected: the same of another run.
    """
    counts = active_features(got, expected, by=_READ)
    apart = counts.select(*_READ, pl.col("first") + pl.col("other") - 2 * pl.col("both"))
    return {(pair, layer, view): number for pair, layer, view, number in apart.iter_rows() if number}
