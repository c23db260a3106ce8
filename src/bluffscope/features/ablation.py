"""Features taken out of the residual: what the completions' log-probabilities make of it, against random ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl
import torch

from bluffscope.config import EngineOptions
from bluffscope.errors import InputError
from bluffscope.features.ablation_effects import AblationEffects, ablation_effects
from bluffscope.features.effects import FeatureStudy
from bluffscope.host.exclusive import exclusive
from bluffscope.host.float64_guard import own_settings
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.model import HookPoint, ResidualReader
from bluffscope.pipeline.build import assemble_batched
from bluffscope.pipeline.plan import pad, plan_batches
from bluffscope.pipeline.reload import load_whole
from bluffscope.pipeline.shard import ShardWorker
from bluffscope.records import VIEWS, PackedBatch, Pair, Tokenized, spread
from bluffscope.sae import Coder
from bluffscope.stats.study import label_numbers
from bluffscope.table.reader import Run
from bluffscope.table.schema import table_columns

_NEIGHBOURS: Final = 10
"""Features of the most similar firing rate, of which a random one is drawn."""


@dataclass(frozen=True)
class Ablation:
    """A layer's strongest features removed, and sets of random ones."""

    layer: int
    features: tuple[int, ...]
    """The K with the largest |d_z|."""
    random: tuple[tuple[int, ...], ...]
    """Sets of K active features that fire about as often."""
    effects: AblationEffects
    skipped: int
    """Pairs whose completions have no log-probability (too long, or nothing before them)."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "layer": self.layer,
            "features": list(self.features),
            "random": [list(chosen) for chosen in self.random],
            "skipped": self.skipped,
            **self.effects.as_dict(),
        }


@exclusive()
@own_settings()
def ablate(
    run: Run,
    pairs: pl.DataFrame,
    study: FeatureStudy,
    count: int,
    *,
    limit: int | None = None,
    sets: int = 5,
    device: str = "auto",
    seed: int = 0,
) -> list[Ablation]:
    """Remove the `count` strongest features of each layer of a study, and as many random ones that fire as often.

    A feature i is removed at every position that predicts or holds a token of the completion: x - a_i W_dec[i] in
    place of x, with a_i as the SAE encodes x there. What the SAE does not explain stays.

    Args:
        run: a finished run, whose whole model is loaded.
        pairs: those of its pairs that are measured: `pair_id, group, prompt, fact, hallucination`.
        study: the features of these pairs.
        count: K; with 0 nothing is removed.
        limit: at most so many pairs, spread evenly.
        sets: of random features.
        device: "auto" or a torch device.
        seed: of the random features and the bootstrap.

    Raises:
        InputError: texts, model or SAEs that are not there or do not allow it; fewer features than are asked for.
    """
    if lacking := [name for name in ("prompt", "fact", "hallucination") if name not in pairs.columns]:
        raise InputError(f"--ablate: the run's pairs.parquet has no column {lacking[0]!r}")
    if limit is not None and limit < pairs.height:
        pairs = pairs[spread(pairs.height, limit)]
    layers = study.layers["layer"].to_list()
    chosen = {layer: _sets(study.rows.filter(layer=layer), layer, count, sets, seed) for layer in layers}
    worker = _loaded(run, layers, device)
    tokenized = _tokenized(worker, pairs)
    if not tokenized:
        raise InputError("--ablate: no completion has a log-probability")
    scored = [pair.item.index for pair in tokenized]
    groups = label_numbers(pairs["group"].gather(scored))
    batches = list(_batches(worker, tokenized))
    untouched = _logprobs(worker, batches, pairs.height)[scored]
    found: list[Ablation] = []
    for layer in layers:
        coder, (top, random) = worker.coders[layer], chosen[layer]
        if not coder.affine:
            raise InputError(f"--ablate: the SAE of layer {layer} does not add its features up; nothing can be removed")
        point = worker.reader.points[layer]
        removals = [Removal(coder, point, features) for features in (top, *random)]
        changed = np.stack([_logprobs(worker, batches, pairs.height, removal)[scored] for removal in removals])
        removed = [removal.share for removal in removals]
        effects = ablation_effects(untouched, changed, groups, removed, np.random.default_rng([seed, layer, 1]))
        found.append(Ablation(layer, top, random, effects, pairs.height - len(tokenized)))
    return found


class Removal:
    """Takes features out of the residual at some positions of a batch, and notes how much of it they were."""

    def __init__(self, coder: Coder, point: HookPoint, features: Sequence[int]) -> None:
        self.coder = coder
        self.point = point
        self.features = torch.tensor(list(features), dtype=torch.long, device=coder.decoder.device)
        self._lengths: list[float] = []
        self._positions = 0

    @property
    def share(self) -> float:
        """Mean of |removed| / |x| over the positions."""
        return sum(self._lengths) / max(1, self._positions)

    def at(self, mask: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """What changes (row, token, d_model) activations where the (row, token) mask is true."""

        def change(activations: torch.Tensor) -> torch.Tensor:
            residual = activations[mask].to(self.coder.decoder.dtype)  # (position, d_model)
            removed = self._contribution(residual)
            lengths = removed.norm(dim=1) / residual.norm(dim=1).clamp_min(1e-12)
            self._lengths.append(float(lengths.sum()))
            self._positions += len(residual)
            altered = activations.clone()
            altered[mask] = (residual - removed).to(activations.dtype)
            return altered

        return change

    def _contribution(self, residual: torch.Tensor) -> torch.Tensor:
        """(position, d_model) sum of a_i W_dec[i] over the features."""
        read = residual - residual.mean(dim=1, keepdim=True) if self.point.centred else residual
        features = self.coder.encode(read)
        column = torch.full((self.coder.d_sae,), -1, dtype=torch.long, device=residual.device)
        column[self.features] = torch.arange(len(self.features), device=residual.device)
        position = torch.repeat_interleave(torch.arange(len(residual), device=residual.device), features.counts)
        place = column[features.indices]
        used = place >= 0
        dense = residual.new_zeros(len(residual), len(self.features))
        dense[position[used], place[used]] = features.values[used].to(dense.dtype)
        return dense @ self.coder.decoder[self.features]


def _sets(
    rows: pl.DataFrame, layer: int, count: int, sets: int, seed: int
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """The strongest features, and sets of others that are drawn among those that fire about as often."""
    if rows.height < 2 * count:
        raise InputError(
            f"--ablate {count}: layer {layer} has {rows.height} features that fire often enough; "
            f"at most {rows.height // 2} leave as many to compare with"
        )
    rates = np.log((rows["fires_fact"] + rows["fires_hall"]).to_numpy())
    names = rows["feature"].to_numpy()
    rng = np.random.default_rng([seed, layer, 0])
    random: list[tuple[int, ...]] = []
    for _ in range(sets):
        free = list(range(count, rows.height))
        drawn: list[int] = []
        for place in rng.permutation(count):
            nearest = sorted(free, key=lambda other: abs(rates[other] - rates[place]))[:_NEIGHBOURS]
            pick = int(rng.choice(nearest))
            free.remove(pick)
            drawn.append(int(names[pick]))
        random.append(tuple(drawn))
    return tuple(int(name) for name in names[:count]), tuple(random)


def _loaded(run: Run, layers: Sequence[int], device: str) -> ShardWorker:
    """A worker for padded batches with the LM head: a prompt may be the middle of another, so nothing is shared."""
    parts, config = load_whole(run, layers, device)
    config = replace(config, engine=EngineOptions(strategy="batched"), measure=replace(config.measure, position="last"))
    try:
        return assemble_batched(config, parts, (), lambda found: table_columns(found, analyses=()), Stopwatch())
    except InputError as error:
        raise InputError(str(error).replace("--logprob", "--ablate", 1)) from error


def _tokenized(worker: ShardWorker, pairs: pl.DataFrame) -> list[Tokenized[Pair]]:
    """The pairs whose completions have a log-probability, by their rows."""
    given = [
        Pair(number, row["pair_id"], "all", None, row["prompt"], row["fact"], row["hallucination"])
        for number, row in enumerate(pairs.iter_rows(named=True))
    ]
    return [
        found
        for found in worker.tokenizer.tokenize(given)
        if isinstance(found, Tokenized) and all(sequence.scored for sequence in found.sequences[1:])
    ]


@dataclass(frozen=True)
class _Batch:
    packed: PackedBatch
    pairs: np.ndarray
    """(pair of the batch,) its number."""
    mask: np.ndarray
    """(row, token) positions that predict or hold a token of the completion."""


def _batches(worker: ShardWorker, tokenized: Sequence[Tokenized[Pair]]) -> Iterator[_Batch]:
    for pairs in plan_batches(tokenized, worker.limits, packed=False):
        slots = {pair.item.index: slot for slot, pair in enumerate(pairs)}
        completions = [sequence for pair in pairs for sequence in pair.sequences[1:]]
        for sequences in worker.limits.lengths.split(completions):  # one forward each, since the mask is of its rows
            packed = pad(sequences, slots)
            mask = np.zeros(packed.input_ids.shape, dtype=bool)
            for row, sequence in enumerate(sequences):
                mask[row, sequence.scored[0] - 1 : len(sequence.ids)] = True
            yield _Batch(packed, np.array([pair.item.index for pair in pairs]), mask)


def _logprobs(worker: ShardWorker, batches: Sequence[_Batch], pairs: int, removal: Removal | None = None) -> np.ndarray:
    """(pair, 2) log-probability of fact and hallucination; without a removal, or with none to remove, untouched."""
    model = worker.reader.model
    reader = ResidualReader(model, {}, None, head=worker.reader.head)
    found = np.zeros((pairs, 2))
    for batch in batches:
        handle: Any = nullcontext()
        if removal is not None and len(removal.features):
            mask = torch.from_numpy(batch.mask).to(model.device)
            handle = removal.point.alter(model.blocks, removal.at(mask))
        with handle:  # a hook's handle removes it at the end of the block
            logprobs = reader.read(batch.packed).logprobs
        targets = batch.packed.targets
        assert logprobs is not None and targets is not None  # every sequence has scored tokens, and there is a head
        side = targets.view - VIEWS.index("fact")
        np.add.at(found, (batch.pairs[targets.item], side), logprobs.cpu().double().numpy())
    return found
