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
from bluffscope.features.ablation_effects import AblationEffects, Scored, ablation_effects
from bluffscope.features.effects import FeatureStudy
from bluffscope.host.exclusive import exclusive
from bluffscope.host.float64_guard import own_settings
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.model import HookPoint, ResidualReader
from bluffscope.pipeline.build import assemble_batched
from bluffscope.pipeline.plan import pad, plan_batches
from bluffscope.pipeline.reload import load_whole
from bluffscope.pipeline.shard import ShardWorker
from bluffscope.records import PAIRS, Arrangement, Item, LabelledText, PackedBatch, Pair, Tokenized, spread
from bluffscope.records import Sequence as TextSequence
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
    """The K with the largest |d_z|, or |g| of labelled texts."""
    random: tuple[tuple[int, ...], ...]
    """Sets of K active features that fire about as often."""
    effects: AblationEffects
    skipped: int
    """Pairs, or labelled texts, without a log-probability (too long, or nothing before them)."""

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
    items: pl.DataFrame,
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
        items: those of its pairs that are measured: `pair_id, group, prompt, fact, hallucination`; or of its labelled
            texts: `text_id, label, group, prompt, completion`.
        study: the features of these.
        count: K; with 0 nothing is removed.
        limit: at most so many pairs or texts, spread evenly.
        sets: of random features.
        device: "auto" or a torch device.
        seed: of the random features and the bootstrap.

    Raises:
        InputError: texts, model or SAEs that are not there or do not allow it; fewer features than are asked for.
    """
    of = run.arrangement
    if lacking := [name for name in of.sources if name not in items.columns]:
        raise InputError(f"--ablate: the run's {of.table}.parquet has no column {lacking[0]!r}")
    if limit is not None and limit < items.height:
        items = items[spread(items.height, limit)]
    layers = study.layers["layer"].to_list()
    chosen = {layer: _sets(study.rows.filter(layer=layer), layer, count, sets, seed) for layer in layers}
    worker = _loaded(run, layers, device)
    tokenized = _tokenized(worker, _items(run, items))
    if not tokenized:
        raise InputError("--ablate: no completion has a log-probability")
    kept = [found.item.index for found in tokenized]
    batches = list(_batches(worker, tokenized))
    texts = Scored(
        untouched=_logprobs(worker, batches, of, items.height)[kept].T.ravel(),
        false=_false(run, items)[kept].T.ravel(),
        groups=np.tile(label_numbers(items["group"].gather(kept)), of.per),
        paired=of == PAIRS,
    )
    if texts.false.all() or not texts.false.any():
        raise InputError("--ablate: all texts with a log-probability have one label; nothing to compare")
    found: list[Ablation] = []
    for layer in layers:
        coder, (top, random) = worker.coders[layer], chosen[layer]
        if not coder.affine:
            raise InputError(f"--ablate: the SAE of layer {layer} does not add its features up; nothing can be removed")
        point = worker.reader.points[layer]
        removals = [Removal(coder, point, features) for features in (top, *random)]
        changed = np.stack([_logprobs(worker, batches, of, items.height, one)[kept].T.ravel() for one in removals])
        removed = [removal.share for removal in removals]
        effects = ablation_effects(texts, changed, removed, np.random.default_rng([seed, layer, 1]))
        found.append(Ablation(layer, top, random, effects, items.height - len(tokenized)))
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
    sides = ("true", "false") if "fires_true" in rows.columns else ("fact", "hall")
    rates = np.log(rows.select(pl.sum_horizontal(f"fires_{side}" for side in sides)).to_series().to_numpy())
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


def _items(run: Run, rows: pl.DataFrame) -> list[Item]:
    """The rows as items, numbered in their order; a text's label plays no part in its log-probability."""
    of = run.arrangement
    texts = zip(rows[of.key], *(rows[name].fill_null("") for name in of.sources), strict=True)
    if of == PAIRS:
        return [Pair(number, name, "all", None, *sides) for number, (name, *sides) in enumerate(texts)]
    return [
        LabelledText(number, name, True, "all", None, *parts, arrangement=of)
        for number, (name, *parts) in enumerate(texts)
    ]


def _false(run: Run, rows: pl.DataFrame) -> np.ndarray:
    """(item, text of it) whether each text is hallucinated or false."""
    if run.arrangement == PAIRS:
        return np.tile([False, True], (rows.height, 1))
    return ~rows["label"].to_numpy().astype(bool)[:, None]


def _tokenized(worker: ShardWorker, items: Sequence[Item]) -> list[Tokenized[Item]]:
    """The items whose completions all have a log-probability."""
    return [
        found
        for found in worker.tokenizer.tokenize(items)
        if isinstance(found, Tokenized) and all(sequence.scored for sequence in _completions(found))
    ]


def _completions(found: Tokenized[Item]) -> Sequence[TextSequence]:
    return found.sequences[-found.item.arrangement.per :]


@dataclass(frozen=True)
class _Batch:
    packed: PackedBatch
    items: np.ndarray
    """(item of the batch,) its number."""
    mask: np.ndarray
    """(row, token) positions that predict or hold a token of the completion."""


def _batches(worker: ShardWorker, tokenized: Sequence[Tokenized[Item]]) -> Iterator[_Batch]:
    for found in plan_batches(tokenized, worker.limits, packed=False):
        slots = {one.item.index: slot for slot, one in enumerate(found)}
        numbers = np.array(list(slots))
        completions = [sequence for one in found for sequence in _completions(one)]
        for sequences in worker.limits.lengths.split(completions):  # one forward each, since the mask is of its rows
            packed = pad(sequences, slots)
            mask = np.zeros(packed.input_ids.shape, dtype=bool)
            for row, sequence in enumerate(sequences):
                mask[row, sequence.scored[0] - 1 : len(sequence.ids)] = True
            yield _Batch(packed, numbers, mask)


def _logprobs(
    worker: ShardWorker, batches: Sequence[_Batch], of: Arrangement, items: int, removal: Removal | None = None
) -> np.ndarray:
    """(item, text of it) log-probability of each completion; without a removal, or with none to remove, untouched."""
    model = worker.reader.model
    reader = ResidualReader(model, {}, None, head=worker.reader.head)
    found = np.zeros((items, of.per))
    for batch in batches:
        handle: Any = nullcontext()
        if removal is not None and len(removal.features):
            mask = torch.from_numpy(batch.mask).to(model.device)
            handle = removal.point.alter(model.blocks, removal.at(mask))
        with handle:  # a hook's handle removes it at the end of the block
            logprobs = reader.read(batch.packed).logprobs
        targets = batch.packed.targets
        assert logprobs is not None and targets is not None  # every sequence has scored tokens, and there is a head
        text = targets.view - (len(of.views) - of.per)
        np.add.at(found, (batch.items[targets.item], text), logprobs.cpu().double().numpy())
    return found
