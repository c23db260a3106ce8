"""What a token detector may look at: a row a token, of the texts of a run with ``--position tokens``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from bluffscope.detectors.folds import FEWEST_GROUPS
from bluffscope.detectors.inputs import Keys, known_items, sampled
from bluffscope.detectors.linear import On
from bluffscope.detectors.texts import texts_of
from bluffscope.errors import InputError
from bluffscope.stats.study import numbered
from bluffscope.table.atomic import table_errors
from bluffscope.table.reader import Run

MOST_TOKENS: Final = 20_000
"""Tokens that a detector sees, whole groups of texts at random: fits then take seconds a layer."""


@dataclass(frozen=True)
class Tokens:
    """Tokens with a label, text after text in the texts' order."""

    frame: pl.DataFrame
    """text_id, token_index, label, start, end, logprob, completion and `row`, from 0."""
    labels: np.ndarray
    """(token,) 1 inside a span, else 0."""
    texts: np.ndarray
    """(token,) numbers of their texts, from 0 without gaps, ascending."""
    groups: np.ndarray
    """(token,) numbers from 0 without gaps of their texts' groups; folds part none."""
    stretches: np.ndarray
    """(token,) numbers from 0 without gaps, ascending: a span, or as much as a usual span between spans."""
    unknown: int
    """False texts of which no span is known: their tokens are not here."""
    left_out: int
    """Tokens with a label that the sample leaves out."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def refused(self) -> str | None:
        """Why they are too few to train and test on."""
        if len(self) == 0:
            return "no token has a label"
        if (number := int(self.groups.max()) + 1) < FEWEST_GROUPS:
            return f"{number} groups of texts, fewer than {FEWEST_GROUPS}"
        for label, where in ((1, "in spans"), (0, "outside of spans")):
            if (number := len(np.unique(self.groups[self.labels == label]))) < FEWEST_GROUPS:
                return f"tokens {where} in {number} groups of texts, fewer than {FEWEST_GROUPS}"
        return None

    @property
    def unit(self) -> str:
        """What detectors are judged by: "text" where enough texts have no span, else "token".

        Tokens can be told apart by where in a sentence they stand; which text has a span, that does not say.
        """
        without = np.setdiff1d(self.texts, self.texts[self.labels == 1])
        groups = np.unique(self.groups[np.isin(self.texts, without)])
        return "text" if len(groups) >= FEWEST_GROUPS else "token"

    def part(self, places: np.ndarray) -> Tokens:
        """Those of some whole texts.

        Args:
            places: ascending.
        """
        texts, groups, stretches = (numbered(one[places]) for one in (self.texts, self.groups, self.stretches))
        frame, labels = self.frame[places], self.labels[places]
        return Tokens(frame, labels, texts, groups, stretches, self.unknown, self.left_out)

    def spans(self) -> int:
        """Runs of tokens inside a span."""
        return len(np.unique(self.stretches[self.labels == 1]))


def labelled_tokens(run: Run, chosen: pl.Series, seed: int) -> Tokens:
    """The tokens of some texts of a run, or of a sample.

    Args:
        run: finished, with tokens.
        chosen: (row,) which rows of its table.
        seed: of the sample.

    Raises:
        InputError: tables that are damaged.
    """
    table = run.metrics.filter(chosen)
    texts, items = texts_of(table, known_items(run))
    if items is None:
        raise InputError(f"{run.path} has no texts.parquet: run the analysis again")
    known = pl.DataFrame({"text_id": table["text_id"], "text": np.arange(table.height), "group": texts.groups})
    known = known.with_columns(items["completion"])
    frame = run.tokens.join(known, on="text_id", how="inner").sort("text", "token_index")
    unknown = int(frame.filter(pl.col("label").is_null())["text"].n_unique())
    frame = frame.filter(pl.col("label").is_not_null())
    groups = numbered(frame["group"].to_numpy())
    rows = sampled(groups, MOST_TOKENS, np.random.default_rng([seed, 209])) if len(groups) else np.arange(0)
    left_out, frame = frame.height - len(rows), frame[rows].drop("group").with_row_index("row")
    labels = frame["label"].to_numpy().astype(np.int64)
    own = numbered(frame["text"].to_numpy())
    return Tokens(
        frame=frame.drop("text"),
        labels=labels,
        texts=own,
        groups=numbered(groups[rows]),
        stretches=stretches(own, labels),
        unknown=unknown,
        left_out=left_out,
    )


def stretches(texts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(token,) numbers of runs of tokens of one text and label; those outside of spans are cut to the median span."""
    if not len(labels):
        return np.zeros(0, dtype=np.int64)
    begins = np.concatenate([[True], (np.diff(texts) != 0) | (np.diff(labels) != 0)])
    starts = np.flatnonzero(begins)
    within = np.arange(len(labels)) - np.repeat(starts, np.diff(starts, append=len(labels)))
    lengths = np.diff(starts, append=len(labels))[labels[starts] == 1]
    usual = max(1, int(np.median(lengths))) if len(lengths) else 1
    return np.cumsum(begins | ((labels == 0) & (within % usual == 0))) - 1


def layers_of(run: Run, on: On) -> list[int]:
    """The layers at which tokens can be looked at.

    Raises:
        InputError: none, or an input that has no value a token.
    """
    if on == "metrics":
        raise InputError("--on metrics: metrics have one value a text and none a token; use residual or sae")
    if on == "sae" and not run.has_features:
        raise InputError("--on sae: the run was measured without SAEs; use --on residual")
    frame = run.kept_residuals if on == "residual" else run.token_features
    with table_errors(run.path):
        return frame.select("layer").unique().sort("layer").collect()["layer"].to_list()


def matrix_of(run: Run, on: On, layer: int, tokens: Tokens) -> tuple[Any, Keys]:
    """(token, column) what is looked at of each token at a layer, and what the columns are.

    Raises:
        InputError: some tokens are not in the table.
    """
    source = run.kept_residuals if on == "residual" else run.token_features
    places = tokens.frame.select("text_id", "row", token=pl.col("token_index"))
    here = source.filter(pl.col("layer") == layer, pl.col("view") == run.arrangement.completions[0])
    with table_errors(run.path):
        found = here.join(places.lazy(), on=["text_id", "token"], how="inner").collect(engine="streaming")
    if on == "residual":
        found = found.sort("row")
        if found.height != len(tokens):
            raise InputError(f"residuals.parquet lacks {len(tokens) - found.height} of {len(tokens)} tokens")
        values = found["values"].explode().cast(pl.Float32).to_numpy().reshape(len(tokens), -1)
        return values, Keys("residual", layers=(layer,))
    features = found.select(pl.col("layer", "feature").cast(pl.Int64)).unique().sort("layer", "feature")
    keys = Keys("sae", features=features)
    return keys.sparse(found.rename({"row": "text"}), len(tokens)), keys


def words_of(tokens: Tokens) -> list[str]:
    """Each token's characters in the completion."""
    said: Sequence[tuple[str, int, int]] = tokens.frame.select("completion", "start", "end").rows()
    return [text[start:end] for text, start, end in said]


def baselines_of(tokens: Tokens) -> dict[str, Any]:
    """(token, column) what needs no look inside: place in the completion, words, and log-probability where known."""
    from sklearn.feature_extraction.text import CountVectorizer  # a second to import

    first = np.unique(tokens.texts, return_index=True)[1]
    counts = np.bincount(tokens.texts)
    place = np.arange(len(tokens)) - np.repeat(first, counts)
    size = np.repeat(counts, counts)
    words = words_of(tokens)
    before = [word if at else "" for at, word in zip(place.tolist(), ["", *words[:-1]], strict=True)]
    pairs = [(f"0{word.casefold()}", f"1{last.casefold()}") for word, last in zip(words, before, strict=True)]
    vectorizer: Any = CountVectorizer(analyzer=tuple)  # pyright: ignore[reportArgumentType] - or a function
    found: dict[str, Any] = {"length": np.column_stack([np.log1p(place), place / size, np.log(size)])}
    found["text"] = vectorizer.fit_transform(pairs).astype(np.float64)
    logprobs = tokens.frame["logprob"].cast(pl.Float64).to_numpy()
    if np.isfinite(logprobs).any():
        found["logprob"] = np.nan_to_num(logprobs)[:, None]  # nothing predicts the first token of a text
    return found
