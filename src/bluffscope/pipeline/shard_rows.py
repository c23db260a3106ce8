"""The rows of a shard while they are being filled, and their frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch

from bluffscope.metrics.declaration import Values
from bluffscope.pipeline.plan.token_labels import TokenLabel
from bluffscope.records import Item, LayerState, PackedBatch, Shard, Tokenized
from bluffscope.table.schema import Column
from bluffscope.table.shards import (
    FEATURES_TYPE,
    FURTHER,
    FURTHER_TYPE,
    RESIDUALS_TYPE,
    TOKEN_FEATURES_TYPE,
    TOKENS_TYPE,
    shard_schema,
)


class ShardRows:
    """One row for each item of a shard, in input order; a cell nobody fills is null."""

    def __init__(
        self,
        shard: Shard,
        columns: Sequence[Column],
        *,
        keep_residuals: bool,
        by_token: bool = False,
        further: Sequence[str] = (),
    ) -> None:
        items = shard.items
        self._columns = columns
        self._arrangement = shard.arrangement
        self._keep_residuals, self._by_token, self._further = keep_residuals, by_token, further
        self._row = {item.index: row for row, item in enumerate(items)}
        self._reasons: list[str | None] = [None] * len(items)
        self._features = _Entries({"feature": np.int32, "activation": np.float32})
        self._residuals = _Entries({"token": np.int32, "values": np.float32})
        self._further_residuals = _Entries({"position": np.str_, "token": np.int32, "values": np.float32})
        self._token_features = _Entries({"token": np.int32, "feature": np.int32, "activation": np.float32})
        self._tokens: list[dict[int, dict[str, Any]]] = [{} for _ in items]
        named = [item.cells for item in items]
        self._cells: dict[str, Any] = {name: [cells[name] for cells in named] for name in named[0]}
        self._cells |= {"_index": [item.index for item in items], "group": list(shard.groups)}
        for column in columns:
            if column.section == "carried":
                self._cells[column.name] = [item.extra.get(column.name) for item in items]
            elif column.name not in self._cells:
                empty = np.full(len(items), np.nan) if column.kind == "float" else [None] * len(items)
                self._cells[column.name] = empty

    @property
    def quarantined(self) -> int:
        """Items that cannot be measured, as far as is known yet."""
        return len(self._reasons) - self._reasons.count(None)

    def quarantine(self, index: int, reason: str) -> None:
        """Say why the item cannot be measured; its metrics stay null."""
        self._reasons[self._row[index]] = reason

    def add(self, items: Sequence[Tokenized[Item]], values: Mapping[str, Values]) -> None:
        """Fill the columns of an analysis for the items of a batch, and what is known of their tokens."""
        rows = np.array([self._row[found.item.index] for found in items])
        for name, column in values.items():
            if isinstance(self._cells[name], np.ndarray):
                self._cells[name][rows] = column
            else:
                for row, value in zip(rows, column, strict=True):
                    self._cells[name][row] = value
        for row, found in zip(rows.tolist(), items, strict=True):
            for view, tokens, read in zip(self._arrangement.views, found.tokens, found.read_tokens, strict=True):
                self._cells[f"{view}_tokens"][row] = tokens
                self._cells[self._arrangement.of_view(view, "read_token")][row] = read

    def fill(self, index: int, values: Mapping[str, float | int | str | None]) -> None:
        """Fill columns of one item; None is undefined."""
        row = self._row[index]
        for name, value in values.items():
            if isinstance(self._cells[name], np.ndarray):
                self._cells[name][row] = np.nan if value is None else value
            else:
                self._cells[name][row] = value

    def add_features(
        self,
        items: Sequence[Tokenized[Item]],
        batch: PackedBatch,
        states: Mapping[int, LayerState],
        further: Mapping[int, torch.Tensor] | None = None,
    ) -> None:
        """Keep the sparse features (and the residuals, where asked for) of a batch.

        Args:
            items: of the batch.
            batch: where they were read.
            states: what was read, by layer.
            further: by layer, residuals (further, d_model) at further positions.
        """
        index = np.array([found.item.index for found in items])[batch.read_item]  # (read,)
        depth = batch.position_ids[batch.read_row, batch.read_slot]  # (read,) position in the text
        for layer, state in states.items():
            if state.encoded is not None:
                features = state.encoded.features
                self.add_reads(
                    index,
                    batch.read_view,
                    layer,
                    depth,
                    features.counts.cpu().numpy(),
                    features.indices.cpu().numpy(),
                    features.values.cpu().double().numpy(),
                )
            if self._keep_residuals:
                self.add_residuals(index, batch.read_view, layer, depth, state.residual.cpu().float().numpy())
        if further is not None and (reads := batch.further) is not None:
            index = np.array([found.item.index for found in items])[reads.item]  # (further,)
            depth = batch.position_ids[reads.row, reads.slot]
            for layer, residual in further.items():
                self.add_further(index, reads.view, layer, reads.position, depth, residual.cpu().float().numpy())

    def add_reads(
        self,
        index: np.ndarray,
        view: np.ndarray,
        layer: int,
        token: np.ndarray,
        counts: np.ndarray,
        features: np.ndarray,
        activations: np.ndarray,
    ) -> None:
        """Keep the features of reads at one layer: of a view with several reads, the mean activation over them.

        Where tokens are kept, those of each read as well.

        Args:
            index: (read,) each read's item, by its position in the input; all reads of an item come in one call.
            view: (read,) index into the views of its arrangement.
            layer: where they were read.
            token: (read,) their positions in the text.
            counts: (read,) active features.
            features: (active,) their indices, read after read, ascending in each.
            activations: (active,) their activations, float64.
        """
        key = self._keys(index, view, layer)
        if self._by_token:
            places = np.repeat(token, counts)
            self._token_features.add(key, counts, token=places, feature=features, activation=activations)
        cells, inverse, reads = np.unique(key, return_inverse=True, return_counts=True)
        if len(cells) < len(key):
            cell = np.repeat(inverse, counts)
            width = int(features.max(initial=0)) + 1
            found, place = np.unique(cell * width + features, return_inverse=True)
            activations = np.bincount(place, weights=activations / reads[cell], minlength=len(found))
            features, key = found % width, cells
            counts = np.bincount(found // width, minlength=len(cells))
        self._features.add(key, counts, feature=features, activation=activations)

    def add_residuals(
        self, index: np.ndarray, view: np.ndarray, layer: int, token: np.ndarray, values: np.ndarray
    ) -> None:
        """Keep residuals (read, d_model) of reads at one layer, with their positions in the text."""
        self._residuals.add(self._keys(index, view, layer), np.ones(len(index), np.int64), token=token, values=values)

    def add_further(
        self,
        index: np.ndarray,
        view: np.ndarray,
        layer: int,
        position: np.ndarray,
        token: np.ndarray,
        values: np.ndarray,
    ) -> None:
        """Keep residuals (read, d_model) of reads at further positions: the number of each, else as `add_residuals`."""
        keys, once = self._keys(index, view, layer), np.ones(len(index), np.int64)
        names = np.array(self._further)[position]
        self._further_residuals.add(keys, once, position=names, token=token, values=values)

    def add_tokens(self, index: int, labels: Iterable[TokenLabel]) -> None:
        """Keep what is known of the tokens that are read of an item's completion."""
        self._tokens[self._row[index]] = {label.token_index: label._asdict() for label in labels}

    def add_logprobs(self, index: np.ndarray, token: np.ndarray, values: np.ndarray) -> None:
        """Keep the log-probabilities of tokens: (token,) the items they are of, their places in its ids, in nats."""
        for item, place, value in zip(index.tolist(), token.tolist(), values.tolist(), strict=True):
            self._tokens[self._row[item]][place]["logprob"] = value

    def _keys(self, index: np.ndarray, view: np.ndarray, layer: int) -> np.ndarray:
        """One number for each read's row, view and layer, in the order in which they stand in the table."""
        rows = np.array([self._row[item] for item in index.tolist()], dtype=np.int64)
        return (rows * len(self._arrangement.views) + view) * _LAYERS + layer

    def frame(self) -> pl.DataFrame:
        """The shard's table: `shard_schema`'s columns, NaN as null."""
        schema = shard_schema(
            self._columns, self._keep_residuals, self._arrangement, self._by_token, bool(self._further)
        )
        views = self._arrangement.views
        series = [
            pl.Series(name, self._cells[name], dtype=kind, nan_to_null=True)
            for name, kind in schema.items()
            if name in self._cells
        ]
        series.append(pl.Series("_reason", self._reasons, dtype=pl.String))
        series.append(self._features.nested("_features", len(self._reasons), views, FEATURES_TYPE))
        if self._keep_residuals:
            series.append(self._residuals.nested("_residuals", len(self._reasons), views, RESIDUALS_TYPE))
        if self._further:
            rows = len(self._reasons)
            series.append(self._further_residuals.nested(f"_{FURTHER}", rows, views, FURTHER_TYPE))
        if self._by_token:
            tokens = [list(labels.values()) for labels in self._tokens]
            series.append(pl.Series("_tokens", tokens, dtype=TOKENS_TYPE))
            series.append(
                self._token_features.nested("_token_features", len(self._reasons), views, TOKEN_FEATURES_TYPE)
            )
        return pl.DataFrame(series).select(list(schema))


_LAYERS = 1 << 20
"""More layers than any model has."""


class _Entries:
    """Entries of a list column, collected in blocks that each belong to one row, view and layer."""

    def __init__(self, kinds: Mapping[str, type[np.generic]]) -> None:
        self._kinds = kinds
        self._keys: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        self._values: dict[str, list[np.ndarray]] = {name: [] for name in kinds}

    def add(self, keys: np.ndarray, counts: np.ndarray, **values: np.ndarray) -> None:
        """Blocks with their keys, their numbers of entries, and the entries block after block."""
        narrow = {name: values[name].astype(kind) for name, kind in self._kinds.items()}  # all before any is kept
        self._keys.append(keys)
        self._counts.append(counts)
        for name, value in narrow.items():
            self._values[name].append(value)

    def nested(self, name: str, rows: int, views: Sequence[str], kind: pl.DataType) -> pl.Series:
        """The list column: each row's entries in the order of view, layer and entry."""
        if not self._keys:
            return pl.Series(name, [[]] * rows, dtype=kind)
        keys, counts = np.concatenate(self._keys), np.concatenate(self._counts)
        order = np.argsort(keys, kind="stable")
        starts = np.cumsum(counts) - counts
        ordered = counts[order]
        ends = np.cumsum(ordered)
        taken = np.repeat(starts[order] - (ends - ordered), ordered) + np.arange(ordered.sum())
        cell = np.repeat(keys[order], ordered)
        fields = {
            "view": pa.array(views).take(pa.array(cell // _LAYERS % len(views))),
            "layer": pa.array((cell % _LAYERS).astype(np.int32)),
        }
        for value, parts in self._values.items():
            # matrices of several widths: hook_z may have its own
            fields[value] = pa.concat_arrays([_arrow(part) for part in parts]).take(pa.array(taken))
        lengths = np.bincount(cell // _LAYERS // len(views), minlength=rows)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        entries = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
        column = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), entries)
        return pl.Series(name, pl.from_arrow(column)).cast(kind)


def _arrow(values: np.ndarray) -> pa.Array:
    """Numbers, or one list for each row of a matrix."""
    if values.ndim == 1:
        return pa.array(values)
    offsets = np.arange(len(values) + 1, dtype=np.int64) * values.shape[1]
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)))
