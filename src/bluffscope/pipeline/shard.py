"""Steps 3 to 6 for one shard: token ids, packed batches, residuals, features, analyses, rows of the table."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count, islice

import numpy as np
import torch

from bluffscope.errors import InputError
from bluffscope.host.float64_guard import own_settings
from bluffscope.metrics import Analysis, Measurement
from bluffscope.metrics.geometry import Geometry, measure_geometry
from bluffscope.model import ResidualReader
from bluffscope.pipeline.plan import BatchLimits, pack, pad, plan_batches, with_questions
from bluffscope.pipeline.plan.token_labels import token_labels
from bluffscope.pipeline.shard_rows import ShardRows
from bluffscope.pipeline.worker import Advance, Parts, RunWorker
from bluffscope.records import (
    PAIRS,
    Activations,
    Arrangement,
    DistinctReads,
    Encoded,
    Features,
    Item,
    LayerState,
    PackedBatch,
    Shard,
    Tokenized,
)
from bluffscope.sae import Coder

logger = logging.getLogger(__name__)


@dataclass
class Ceiling:
    """The most pairs a forward, as learnt from running out of memory."""

    pairs: float = math.inf


@dataclass
class Work:
    """What was computed."""

    forwards: int = 0
    """Forward passes."""
    tokens: int = 0
    """Nodes of the tries (or tokens of the texts) that went through the model."""
    slots: int = 0
    """Slots of all rows, their padding included."""
    reads: int = 0
    """Residuals read at each layer."""


@dataclass(frozen=True)
class PreparedShard:
    """A shard's token ids, cut into batches."""

    rows: ShardRows
    batches: Sequence[Sequence[Tokenized[Item]]]


@dataclass(frozen=True, kw_only=True)
class ShardWorker(RunWorker):
    """Measures whole batches of texts at once."""

    reader: ResidualReader
    coders: Mapping[int, Coder]
    sae: str
    """The SAEs' name, for messages."""
    analyses: Sequence[Analysis]
    limits: BatchLimits
    decompose: Callable[[Features, torch.Tensor], Geometry] = measure_geometry
    """How geometry is computed."""
    ceiling: Ceiling = field(default_factory=Ceiling)
    work: Work = field(default_factory=Work)
    """Added to batch by batch."""

    @property
    def parts(self) -> Parts:
        """The model and SAEs."""
        bare = tuple(layer for layer in self.reader.points if layer not in self.coders)
        return Parts(self.reader.model, self.coders, self.sae, bare)

    @property
    def in_batches(self) -> ShardWorker:
        """Itself."""
        return self

    def computed(self) -> dict[str, int]:
        """How much work was done so far, for the manifest."""
        return asdict(self.work)

    def prepare(self, shard: Shard) -> PreparedShard:
        """Token ids and batches of a shard: what needs no model."""
        with self.stopwatch.stage("tokenise"):
            rows = self.loaded.rows(shard)
            tokenized: list[Tokenized[Item]] = []
            for item, result in zip(shard.items, self.tokenizer.tokenize(shard.items), strict=True):
                if isinstance(result, Tokenized):
                    tokenized.append(result)
                    if self.by_token:
                        own = result.sequences[-1]
                        labels = token_labels(self.tokenizer, item, own.reads, len(own.ids))
                        rows.add_tokens(item.index, labels)
                else:
                    rows.quarantine(item.index, str(result))
            if self.loaded.config.measure.p_true:
                tokenized = list(with_questions(self.tokenizer, tokenized))
            return PreparedShard(rows, list(plan_batches(tokenized, self.limits, packed=self.reader.packs)))

    @own_settings()
    def measure(self, prepared: PreparedShard, advance: Advance) -> ShardRows:
        """Forward, features and analyses of every batch; where memory runs out, of its halves: nothing is lost."""
        advance(prepared.rows.quarantined)
        waiting = deque(prepared.batches)
        while waiting:
            batch = waiting.popleft()
            if len(batch) > self.ceiling.pairs or not self._done(batch, prepared.rows):
                waiting.extendleft(reversed(_halves(batch)))
            else:
                advance(len(batch))
        return prepared.rows

    def lay_out(self, items: Sequence[Tokenized[Item]], *, packed: bool) -> PackedBatch:
        """The rows of a batch, within this worker's limits."""
        return lay_out(items, self.limits, packed=packed)

    def _done(self, batch: Sequence[Tokenized[Item]], rows: ShardRows) -> bool:
        """Measure a batch; False, with nothing kept of it, if its halves must be measured instead."""
        try:
            return self._measure(batch, rows)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        # Outside the handler, whose traceback holds the tensors that did not fit.
        self.reader.buffers.clear()
        if self.reader.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(batch) == 1:
            rows.quarantine(batch[0].item.index, "out of memory even in a batch of its own")
            return True
        self.ceiling.pairs = len(batch) // 2
        logger.warning("out of memory with %d pairs per forward pass: trying %d", len(batch), self.ceiling.pairs)
        return False

    def _measure(self, items: Sequence[Tokenized[Item]], rows: ShardRows) -> bool:
        """The residuals and all analyses of a batch; False where a residual of one of several items is not finite."""
        batch, activations = self._forward(items)
        further = activations.further or {}
        residuals = (*activations.residuals.values(), *further.values())
        if not all(bool(residual.isfinite().all()) for residual in residuals):
            # An item's infinities spread through the masked attention of its row: its halves tell whose they are.
            if len(items) > 1:
                return False
            rows.quarantine(items[0].item.index, "the residual stream is not finite (overflow in this dtype?)")
            return True
        lens = () if activations.lens is None else (part for reading in activations.lens.values() for part in reading)
        scored = [part for part in (activations.logprobs, activations.answers, *lens) if part is not None]
        if not all(bool(part.isfinite().all()) for part in scored):
            if len(items) > 1:
                return False
            rows.quarantine(items[0].item.index, "the log-probability is not finite (overflow in this dtype?)")
            return True
        with self.stopwatch.stage("sae"):
            shared = batch.distinct_reads
            states = {layer: self._encode(layer, read, shared) for layer, read in activations.residuals.items()}
        measurement = Measurement(
            item_ids=[found.item.id for found in items],
            arrangement=items[0].item.arrangement,
            read_item=batch.read_item,
            read_view=batch.read_view,
            states=states,
            encode=self._encode_only,
            options=self.loaded.config.measure,
            decompose=self.decompose,
            distinct=shared,
            targets=batch.targets,
            logprobs=_numbers(activations.logprobs),
            answers=batch.answers,
            answer_logprobs=_numbers(activations.answers),
            lens=activations.lens,
        )
        with self.stopwatch.stage("geometry"):
            columns = [analysis.function(measurement) for analysis in self.analyses]
        with self.stopwatch.stage("write"):  # nothing is kept before everything has been computed
            for values in columns:
                rows.add(items, values)
            rows.add_features(items, batch, states, further)
            if self.by_token and (targets := batch.targets) is not None and measurement.logprobs is not None:
                index = np.array([found.item.index for found in items])[targets.item]
                place = batch.position_ids[targets.row, targets.slot] + 1  # each is predicted by the one before it
                rows.add_logprobs(index, place, measurement.logprobs)
        return True

    def _forward(self, items: Sequence[Tokenized[Item]]) -> tuple[PackedBatch, Activations]:
        with self.stopwatch.stage("tokenise"):
            batch = self.lay_out(items, packed=self.reader.packs)
        with self.stopwatch.stage("forward"):
            activations = self.reader.read(batch)
        for rows in self.limits.lengths.forwards(batch):
            self.work.forwards += 1
            self.work.slots += len(rows) * int(batch.row_lengths[rows].max())
        self.work.tokens += batch.distinct_tokens
        self.work.reads += len(batch.read_item)
        return batch, activations

    @torch.inference_mode()
    def _encode(self, layer: int, residual: torch.Tensor, shared: DistinctReads | None = None) -> LayerState:
        residual = residual.to(torch.promote_types(residual.dtype, torch.float32))  # as SAEs are loaded
        if (coder := self.coders.get(layer)) is None:
            return LayerState(layer, _with_float64(residual))
        features, reconstruction = coder.encode_decode(residual if shared is None else residual[shared.first])
        features, reconstruction = _features_with_float64(features), _with_float64(reconstruction)
        if shared is not None:
            place = torch.from_numpy(shared.place).to(features.indptr.device)
            features, reconstruction = features.take(place), reconstruction[place]
        encoded = Encoded(features, reconstruction, coder.decoder)
        return LayerState(layer, _with_float64(residual), encoded)

    @torch.inference_mode()
    def _encode_only(self, layer: int, residual: torch.Tensor) -> Features:
        if layer not in self.coders:
            raise InputError(f"layer {layer} is measured without an SAE: nothing can be encoded there; see --sae")
        with self.stopwatch.stage("sae"):
            return _features_with_float64(self.coders[layer].encode(residual))


def _numbers(logprobs: torch.Tensor | None) -> np.ndarray | None:
    return None if logprobs is None else logprobs.cpu().double().numpy()


def _with_float64(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor where metrics can be computed: in place, but for MPS, which has no float64."""
    return tensor.cpu() if tensor.device.type == "mps" else tensor


def _features_with_float64(features: Features) -> Features:
    parts = (_with_float64(part) for part in (features.indptr, features.indices, features.values))
    return Features(*parts, d_sae=features.d_sae)


def lay_out(items: Sequence[Tokenized[Item]], limits: BatchLimits, *, packed: bool) -> PackedBatch:
    """The rows of a batch: token tries, or one padded row a text."""
    sequences = [sequence for found in items for sequence in (*found.sequences, *found.questions)]
    slots = {found.item.index: slot for slot, found in enumerate(items)}
    if packed:
        return pack(sequences, slots, limits.row_tokens, limits.cell_cost, limits.lengths)
    return pad(sequences, slots)


def _halves(items: Sequence[Tokenized[Item]]) -> list[Sequence[Tokenized[Item]]]:
    middle = len(items) // 2
    return [items[:middle], items[middle:]]


def _is_out_of_memory(error: Exception) -> bool:
    """Whether the system or a device had no memory left; torch says so in several ways."""
    said = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in said for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


def cut_shards(items: Iterable[tuple[Item, str]], size: int, arrangement: Arrangement = PAIRS) -> Iterator[Shard]:
    """Cut a stream of (item, group label) into shards of `size` items, all of one arrangement."""
    stream = iter(items)
    for number in count():
        held = tuple(islice(stream, size))
        if not held:
            return
        yield Shard(number, tuple(item for item, _ in held), tuple(group for _, group in held), arrangement)
