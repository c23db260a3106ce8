"""The rows of a shard while they are being filled, and their frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from bluffscope.metrics.measurement import Values
from bluffscope.records import VIEWS, LayerState, PackedBatch, Shard, TokenizedPair
from bluffscope.table.schema import Column
from bluffscope.table.shards import FEATURES_TYPE, RESIDUALS_TYPE, shard_schema

_VIEW_NAMES = pl.Series(VIEWS, dtype=pl.String)


class ShardRows:
    """One row for each pair of a shard, in input order; a cell nobody fills is null."""

    def __init__(self, shard: Shard, columns: Sequence[Column], *, keep_residuals: bool) -> None:
        pairs = shard.pairs
        self._columns = columns
        self._keep_residuals = keep_residuals
        self._row = {pair.index: row for row, pair in enumerate(pairs)}
        self._reasons: list[str | None] = [None] * len(pairs)
        self._features: list[pl.DataFrame] = []
        self._residuals: list[pl.DataFrame] = []
        self._cells: dict[str, Any] = {
            "_index": [pair.index for pair in pairs],
            "pair_id": [pair.id for pair in pairs],
            "domain": [pair.domain for pair in pairs],
            "complexity": [pair.complexity for pair in pairs],
            "prompt": [pair.prompt for pair in pairs],
            "fact": [pair.fact for pair in pairs],
            "hallucination": [pair.hallucination for pair in pairs],
            "group": list(shard.groups),
        }
        for column in columns:
            if column.section == "carried":
                self._cells[column.name] = [pair.extra.get(column.name) for pair in pairs]
            elif column.name not in self._cells:
                empty = np.full(len(pairs), np.nan) if column.kind == "float" else [None] * len(pairs)
                self._cells[column.name] = empty

    def quarantine(self, index: int, reason: str) -> None:
        """Say why the pair cannot be measured; its metrics stay null."""
        self._reasons[self._row[index]] = reason

    def add(self, pairs: Sequence[TokenizedPair], values: Mapping[str, Values]) -> None:
        """Fill the columns of an analysis for the pairs of a batch, and what is known of their tokens.

        Raises:
            ValueError: an analysis gives a column it did not declare, or another number of values.
        """
        rows = np.array([self._row[pair.pair.index] for pair in pairs])
        for name, column in values.items():
            if name not in self._cells:
                raise ValueError(f"an analysis gave the column {name!r}, which it did not declare")
            if len(column) != len(rows):
                raise ValueError(f"column {name!r} has {len(column)} values for {len(rows)} pairs")
            if isinstance(self._cells[name], np.ndarray):
                self._cells[name][rows] = column
            else:
                for row, value in zip(rows, column, strict=True):
                    self._cells[name][row] = value
        for row, pair in zip(rows, pairs, strict=True):
            self._cells["prompt_tokens"][row] = pair.prompt_tokens
            self._cells["fact_tokens"][row], self._cells["hall_tokens"][row] = pair.completion_tokens
            for view, token in zip(VIEWS, pair.read_tokens, strict=True):
                self._cells[f"{view}_read_token"][row] = token

    def add_features(
        self, pairs: Sequence[TokenizedPair], batch: PackedBatch, states: Mapping[int, LayerState]
    ) -> None:
        """Keep the sparse features (and the residuals, where asked for) of a batch."""
        index = np.array([pair.pair.index for pair in pairs])[batch.read_pair]  # (read,)
        cell = batch.read_pair * len(VIEWS) + batch.read_view
        reads = np.bincount(cell)[cell]  # (read,) reads of the same pair and view
        for layer, state in states.items():
            counts = state.features.counts.cpu().numpy()
            self._features.append(
                pl.DataFrame(
                    {
                        "_index": np.repeat(index, counts),
                        "_view": np.repeat(batch.read_view, counts),
                        "layer": np.full(int(counts.sum()), layer, dtype=np.int32),
                        "feature": state.features.indices.cpu().numpy().astype(np.int32),
                        "activation": state.features.values.cpu().double().numpy() / np.repeat(reads, counts),
                    }
                )
            )
            if self._keep_residuals:
                depth = batch.position_ids[batch.read_row, batch.read_slot]  # (read,) position in the text
                self._residuals.append(
                    pl.DataFrame(
                        {
                            "_index": index,
                            "_view": batch.read_view,
                            "layer": np.full(len(index), layer, dtype=np.int32),
                            "token": depth.astype(np.int32),
                            "values": state.residual.cpu().float().numpy(),
                        },
                        schema_overrides={"values": pl.Array(pl.Float32, state.residual.shape[1])},
                    ).with_columns(pl.col("values").cast(pl.List(pl.Float32)))
                )

    def frame(self) -> pl.DataFrame:
        """The shard's table: `shard_schema`'s columns, NaN as null."""
        schema = shard_schema(self._columns, self._keep_residuals)
        frame = pl.DataFrame(
            [
                pl.Series(name, self._cells[name], dtype=kind, nan_to_null=True)
                for name, kind in schema.items()
                if name in self._cells
            ]
        ).with_columns(pl.Series("_reason", self._reasons, dtype=pl.String))
        frame = self._nested(frame, "_features", self._feature_table(), FEATURES_TYPE)
        if self._keep_residuals:
            residuals = pl.concat(self._residuals) if self._residuals else None
            frame = self._nested(frame, "_residuals", residuals, RESIDUALS_TYPE)
        return frame.select(list(schema))

    def _feature_table(self) -> pl.DataFrame | None:
        """Features of every pair, view and layer; where a view has several reads, the mean activation over them."""
        if not self._features:
            return None
        key = ("_index", "_view", "layer", "feature")
        return pl.concat(self._features).group_by(key).agg(pl.col("activation").sum()).sort(key)

    def _nested(self, frame: pl.DataFrame, name: str, table: pl.DataFrame | None, kind: pl.DataType) -> pl.DataFrame:
        """Add a list column that holds, for each pair, its rows of the table."""
        if table is None or table.is_empty():
            return frame.with_columns(pl.lit([], dtype=kind).alias(name))
        nested = (
            table.with_columns(view=pl.lit(_VIEW_NAMES).gather(pl.col("_view")))
            .group_by("_index", maintain_order=True)
            .agg(pl.struct([field.name for field in kind.inner.fields]).cast(kind.inner).alias(name))  # pyright: ignore
        )
        joined = frame.join(nested, on="_index", how="left", maintain_order="left")
        return joined.with_columns(pl.col(name).fill_null(pl.lit([], dtype=kind)))
