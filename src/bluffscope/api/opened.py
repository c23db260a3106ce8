"""A finished run as an object: what was measured, what came out of it, and its page and plots. Needs no model."""

from __future__ import annotations

import webbrowser
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from bluffscope.api.summary import run_html
from bluffscope.config import Position
from bluffscope.errors import InputError
from bluffscope.records import View
from bluffscope.table import reader
from bluffscope.table.atomic import write_bytes
from bluffscope.table.health import Health, read_health

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_array

    from bluffscope.api.plot import Plots


@dataclass(frozen=True)
class Run(reader.Run):
    """A finished run. Tables are read, and statistics made, when they are asked for; a notebook shows a summary."""

    @property
    def health(self) -> Health:
        """What the health gate found."""
        return read_health(self.manifest)

    @cached_property
    def stats(self) -> pl.DataFrame:
        """The verdicts, one row a metric and scope (docs/statistics.md): those in the folder, else made now.

        Raises:
            InputError: the run has nothing to test, or a table of it is damaged.
        """
        # Only now: scipy takes seconds to import.
        from bluffscope.report.contents import read_tables
        from bluffscope.report.result_files import current_statistics
        from bluffscope.report.write import statistics_of

        if current_statistics(self.path) and (kept := self.table("stats.parquet")) is not None:
            return kept
        return statistics_of(read_tables(self.path)).rows

    def report(self, path: str | Path | None = None, *, figures: bool = False, show: bool = False) -> Path:
        """Write the run's page, report.html in its folder, with statistics where they are missing.

        Args:
            path: where a copy of the page goes.
            figures: whether the charts are also drawn as PNG and SVG.
            show: whether a browser opens the page.

        Returns:
            The page.

        Raises:
            InputError: a file of the run is missing or damaged.
            RunFolderError: the folder or the copy cannot be written.
        """
        from bluffscope.report.write import write_report  # only now, as above

        page = write_report(self.path, figures=figures).path
        if path is not None:
            page, content = Path(path), page.read_bytes()
            write_bytes(page, content)
        if show:
            webbrowser.open(page.resolve().as_uri())
        return page

    @property
    def plot(self) -> Plots:
        """Charts: ``plot("gini", layer=5)``, ``plot.effects()``, ``plot.trajectory()``, ``plot.pair(ID)``."""
        from bluffscope.api.plot import Plots  # only now, as above

        return Plots(self, lambda: self.stats)

    def residuals(self, layer: int, view: View, position: Position | None = None) -> torch.Tensor:
        """The residual stream that a layer's SAE read, (pair or text, d_model), float32, in the order of `metrics`.

        At completion-mean, the mean over the completion's tokens.

        Args:
            layer: a layer of the run.
            view: "prompt", "fact" or "hall"; "prompt" or "text" of labelled texts.
            position: one of the run's `positions` (default: the first); a prompt is always read at its last token.

        Raises:
            InputError: the run kept none, or has no such layer, view or position.
        """
        import torch

        if not (self.path / "residuals.parquet").exists():
            raise InputError(f"{self.path}: the run kept no residuals; measure again with keep_residuals=True")
        rows = self._rows_of(self.residuals_at(position), "residuals", layer, view)
        values = rows["values"].explode().to_numpy().reshape(rows.height, -1)  # (read, d_model)
        sums = np.zeros((self.rows, values.shape[1]))
        np.add.at(sums, rows["row"].to_numpy(), values)
        reads = np.bincount(rows["row"].to_numpy(), minlength=self.rows)[:, None]
        return torch.from_numpy((sums / reads).astype(np.float32))

    def feature_matrix(self, layer: int, view: View) -> csr_array:
        """The SAE's activations, sparse (pair or text, d_sae), in the order of `metrics`.

        With ``position="completion-mean"``, their mean over the completion's tokens.

        Args:
            layer: a layer of the run.
            view: "prompt", "fact" or "hall"; "prompt" or "text" of labelled texts.

        Raises:
            InputError: the run has no features, or no such layer or view.
        """
        from scipy.sparse import csr_array

        if not self.has_features:
            raise InputError(f"{self.path}: the run has no features: it was measured without SAEs")
        rows = self._rows_of(self.features, "features", layer, view)
        width = int(self.manifest["saes"][str(layer)]["d_sae"])
        cells = (rows["activation"].to_numpy(), (rows["row"].to_numpy(), rows["feature"].to_numpy()))
        return csr_array(cells, shape=(self.rows, width))

    def _rows_of(self, table: pl.LazyFrame, what: str, layer: int, view: View) -> pl.DataFrame:
        """A layer's and view's rows of a table, with the item's place in `metrics` as `row`, in its order."""
        measured = self.manifest.get("saes", {}) if what == "features" else self.config["model"]["layers"]
        layers = [int(layer) for layer in measured]
        views = self.arrangement.views
        if layer not in layers or view not in views:
            there = f"layers {', '.join(map(str, layers))} and views {', '.join(views)}"
            raise InputError(f"{what}: the run has no layer {layer!r}, view {view!r}; it has {there}")
        order = self._scan("metrics.parquet").select(self.key).with_row_index("row")
        chosen = table.filter(pl.col("layer") == layer, pl.col("view") == view)
        return order.join(chosen, on=self.key, maintain_order="left_right").collect()

    def _repr_html_(self) -> str:
        """What ran, whether it is sound, and the strongest effects, for a notebook."""
        return run_html(self, vars(self).get("stats", self.table("stats.parquet")))


def read_run(path: str | Path) -> Run:
    """Open a finished run's folder; only the metadata of its table is read at once.

    Raises:
        InputError: No such folder, no run in it, a run that did not finish, a damaged table, or a table of a
            later version of Bluffscope; or a process in which polars cannot work.
    """
    return Run(reader.read_run(path).path)


__all__ = ["Run", "read_run"]
