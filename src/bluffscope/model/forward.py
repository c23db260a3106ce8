"""One forward pass for all layers: residuals gathered at the read positions, inside the hooks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from bluffscope.errors import InputError
from bluffscope.host.buffers import Buffers
from bluffscope.host.float64_guard import computing_in
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.model.head import Head
from bluffscope.model.hooks import HookPoint
from bluffscope.model.lengths import LengthClasses
from bluffscope.model.lens import Lens
from bluffscope.model.load import LanguageModel
from bluffscope.model.masks import MaskStyle, attention_masks
from bluffscope.records import Activations, FurtherReads, LensReading, PackedBatch, Targets

logger = logging.getLogger(__name__)

PARITY_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.03}
"""Relative difference of residuals that packing may make; a wrong mask or position makes one near 1.

By the dtype of the activations: quantised weights are widened to it before they are multiplied."""

_WIDEST_TRIED = 1024
"""Slots between branches when packing is tried: rows are hardly ever longer."""


@dataclass(frozen=True)
class ResidualReader:
    """Runs packed batches through a model and returns the residuals at their reads."""

    model: LanguageModel
    points: Mapping[int, HookPoint]
    """Hook point of each measured layer."""
    style: MaskStyle | None
    """How the model takes custom masks; None where it ignores them, so that batches must be padded."""
    buffers: Buffers = field(default_factory=Buffers)
    """Where the masks live, from batch to batch."""
    head: Head | None = None
    """The whole model's LM head, if log-probabilities are requested."""
    lens: Lens | None = None
    """What turns residuals into predictions, if each layer's are requested; it has the head too."""
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    """Records the time of the lens."""

    @classmethod
    def create(
        cls, model: LanguageModel, points: Mapping[int, HookPoint], head: Head | None = None, **further: Any
    ) -> ResidualReader:
        """Find out how the model takes custom masks and positions, by trying two short texts packed and apart."""
        several_kinds = bool(getattr(model.config, "layer_types", None))
        styles: tuple[MaskStyle, ...] = ("by-kind", "single") if several_kinds else ("single",)
        for style in styles:
            reader = cls(model, points, style, head=head, **further)
            if reader._packs_exactly():
                return reader
        logger.warning(
            "%s ignores custom attention masks or positions: each text gets a row of its own (slower, same numbers)",
            model.name,
        )
        return cls(model, points, None, head=head, **further)

    @property
    def packs(self) -> bool:
        """Whether batches may hold tries; if not, `plan.pad` must lay them out."""
        return self.style is not None

    @torch.inference_mode()
    def read(self, batch: PackedBatch) -> Activations:
        """Residuals of every layer at the batch's reads, in the batch's read order, in the model's dtype.

        With targets in the batch, their log-probabilities too; the LM head is applied nowhere else. A batch of texts
        that may not share a forward (`LengthClasses`) takes several.
        """
        if (batch.targets is not None or batch.answers is not None) and self.head is None:
            raise ValueError("the batch asks for log-probabilities: give the reader the model's Head")
        forwards = LengthClasses.of(self.model.config).forwards(batch)
        if len(forwards) == 1:
            return self._forward(batch)
        parts = [self._forward(batch.rows(rows)) for rows in forwards]
        order = _on(self.model.device, _merged([np.isin(batch.read_row, rows) for rows in forwards]))
        residuals = {layer: torch.cat([part.residuals[layer] for part in parts])[order] for layer in self.points}
        answers, _ = self._merged_logprobs([part.answers for part in parts], batch.answers, forwards)
        logprobs, order = self._merged_logprobs([part.logprobs for part in parts], batch.targets, forwards)
        lenses = [part.lens for part in parts if part.lens is not None]
        further = self._merged_further([part.further for part in parts], batch.further, forwards)
        if not lenses:
            return Activations(residuals, logprobs, answers=answers, further=further)
        joined = {layer: LensReading.joined([lens[layer] for lens in lenses], order) for layer in self.points}
        return Activations(residuals, logprobs, joined, answers, further)

    def _merged_further(
        self,
        parts: Sequence[Mapping[int, torch.Tensor] | None],
        reads: FurtherReads | None,
        forwards: Sequence[np.ndarray],
    ) -> dict[int, torch.Tensor] | None:
        """Residuals of further reads of several forwards in the order of the batch's."""
        if reads is None:
            return None
        order = _on(self.model.device, _merged([np.isin(reads.row, rows) for rows in forwards]))
        known = [part for part in parts if part is not None]
        return {layer: torch.cat([part[layer] for part in known])[order] for layer in self.points}

    def _merged_logprobs(
        self, parts: Sequence[torch.Tensor | None], targets: Targets | None, forwards: Sequence[np.ndarray]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Log-probabilities of several forwards in the order of the batch's targets, and that order."""
        if targets is None:
            return None, None
        order = _on(self.model.device, _merged([np.isin(targets.row, rows) for rows in forwards]))
        return torch.cat([part for part in parts if part is not None])[order], order

    def _forward(self, batch: PackedBatch) -> Activations:
        device = self.model.device
        rows, slots = _on(device, batch.read_row), _on(device, batch.read_slot)
        gathered: dict[int, torch.Tensor] = {}
        further: dict[int, torch.Tensor] = {}
        more = batch.further
        places = None if more is None else (_on(device, more.row), _on(device, more.slot))
        predicting: dict[int, torch.Tensor] = {}
        targets = _targets_on(device, batch.targets)

        def receiver(layer: int):
            def receive(activations: torch.Tensor) -> None:
                gathered[layer] = activations[rows, slots]  # (read, d_model)
                if places is not None:
                    further[layer] = activations[places]  # (further, d_model)
                if self.lens is not None and targets is not None:
                    predicting[layer] = activations[targets[0], targets[1]]  # (target, d_model)

            return receive

        handles = [point.attach(self.model.blocks, receiver(layer)) for layer, point in self.points.items()]
        try:
            with computing_in(self.model.dtype):
                body = self.model.network if self.head is None else self.head.body
                hidden = body(**self._inputs(batch), use_cache=False)[0]  # (row, token, d_model), after the final norm
        finally:
            for handle in handles:
                handle.remove()
        residuals = {layer: gathered[layer] for layer in self.points}
        kept = None if places is None else {layer: further[layer] for layer in self.points}
        answers = self._scored(hidden, _targets_on(device, batch.answers))
        if self.lens is None or targets is None:
            return Activations(residuals, self._scored(hidden, targets), answers=answers, further=kept)
        row, slot, token = targets
        with self.stopwatch.stage("lens"), computing_in(self.model.dtype):
            states = {layer: predicting[layer] for layer in self.points}
            lens, logprobs = self.lens.read(states, hidden[row, slot], token)
        return Activations(residuals, logprobs, lens, answers, kept)

    def _scored(self, hidden: torch.Tensor, targets: tuple[torch.Tensor, ...] | None) -> torch.Tensor | None:
        """(target,) log-probabilities, from states (row, token, d_model) after the final norm."""
        if self.head is None or targets is None:
            return None
        row, slot, token = targets
        with computing_in(self.model.dtype):
            return self.head.logprobs(hidden[row, slot], token)

    def _inputs(self, batch: PackedBatch) -> dict[str, Any]:
        device = self.model.device
        input_ids = _on(device, batch.input_ids)
        if not batch.branching:
            # Padded on the right, so causal attention hides the pads already. Masking them as well would leave a pad
            # beyond the sliding window with nothing to attend to: NaN in float64, which spreads to the whole row.
            return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
        if self.style is None:
            raise InputError("this model takes no packed rows; lay the batch out with plan.pad")
        position_ids = _on(device, batch.position_ids)
        masks = attention_masks(
            self.style,
            _on(device, batch.subtree_end),
            position_ids,
            getattr(self.model.config, "sliding_window", None),
            self.model.dtype,
            self.buffers,
        )
        return {"input_ids": input_ids, "position_ids": position_ids, "attention_mask": masks}

    def _packs_exactly(self) -> bool:
        """Two short texts with a common beginning, packed in one row and each alone: the same residuals?"""
        vocabulary = self.model.network.get_input_embeddings().weight.shape[0]  # pyright: ignore
        # GPT-Neo counts its local windows in slots whatever the positions are: only beyond one does that show.
        window = getattr(self.model.config, "window_size", None)
        packed, alone = _check_batches(vocabulary, apart=min(window, _WIDEST_TRIED) if isinstance(window, int) else 0)
        if self.head is not None:  # layers behind the last one read must pack too
            packed, alone = (replace(batch, targets=_at_reads(batch)) for batch in (packed, alone))
        apart = self.read(alone)  # outside the try: a model that cannot run at all is no matter of masks
        try:
            together = self.read(packed)
        except (ValueError, TypeError, KeyError, RuntimeError, AttributeError, IndexError) as error:
            logger.debug("%s refuses %s masks: %s", self.model.name, self.style, error)
            return False
        tolerance = PARITY_TOLERANCE[self.model.dtype]
        for layer, residual in together.residuals.items():
            expected = apart.residuals[layer].double()
            difference = (residual.double() - expected).norm(dim=1)  # (read,)
            if not bool((difference <= tolerance * expected.norm(dim=1)).all()):
                return False
        if together.logprobs is None or apart.logprobs is None:
            return True
        return torch.allclose(together.logprobs.double(), apart.logprobs.double(), rtol=tolerance, atol=tolerance)


def _merged(chosen: Sequence[np.ndarray]) -> np.ndarray:
    """The order that brings parts of an array, one behind the other, back to where each part was chosen from it."""
    return np.argsort(np.concatenate([np.flatnonzero(part) for part in chosen]))


def _targets_on(device: torch.device, targets: Targets | None) -> tuple[torch.Tensor, ...] | None:
    """Row and slot of the node before each completion token, and the token's id: (target,) each."""
    return None if targets is None else tuple(_on(device, part) for part in (targets.row, targets.slot, targets.token))


def _on(device: torch.device, array: np.ndarray) -> torch.Tensor:
    """The array on the device. CUDA copies from pinned memory, so that the CPU need not wait for the copy to be made.

    They stand in the stream of the forward, before the kernels that read them; torch keeps the pinned block until then.
    """
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _at_reads(batch: PackedBatch) -> Targets:
    """Whatever token 0 is, asked for after each read."""
    token = np.zeros_like(batch.read_slot)
    return Targets(row=batch.read_row, slot=batch.read_slot, token=token, item=batch.read_item, view=batch.read_view)


def _check_batches(vocabulary: int, apart: int) -> tuple[PackedBatch, PackedBatch]:
    """Two texts of 8 and 7 tokens with 4 in common: as one trie, and as padded rows.

    In the trie, the branches are so many slots apart: other children of the fourth token fill them.
    """
    ids = [(number * 7919 + 11) % vocabulary for number in range(11)]
    first, second = ids[:8], ids[:4] + ids[8:]
    read, end = np.array([7, 6]), 11 + apart
    alone = PackedBatch(
        input_ids=np.array([first, [*second, 0]]),
        position_ids=np.array([range(8), [*range(7), 0]]),
        subtree_end=np.zeros((2, 8), dtype=np.int64),
        read_row=np.array([0, 1]),
        read_slot=read,
        read_item=np.array([0, 1]),
        read_view=np.array([0, 0]),
        row_lengths=np.array([8, 7]),
        branching=False,
    )
    packed = replace(
        alone,
        input_ids=np.array([[*ids[:8], *[ids[0]] * apart, *ids[8:]]]),
        position_ids=np.array([[*range(8), *[4] * apart, 4, 5, 6]]),
        subtree_end=np.array([[*[end] * 4, 8, 8, 8, 8, *range(9, 9 + apart), end, end, end]]),
        read_row=np.array([0, 0]),
        read_slot=np.array([7, end - 1]),
        row_lengths=np.array([end]),
        branching=True,
    )
    return packed, alone
