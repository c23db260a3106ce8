"""Which texts may share a forward pass in models whose rotary factors depend on the longest text of the forward.

LongRoPE (Phi-3, Phi-3.5, Phi-4-mini) has two sets of frequencies, and every text of a forward gets the long one as
soon as one of them is longer than the original context. Dynamic NTK stretches its frequencies with the longest text.
Both are right for a text alone, so texts share a forward only where they would get the same factors alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bluffscope.records import PackedBatch, Sequence


@dataclass(frozen=True)
class LengthClasses:
    """Texts by length: those of one class get the same position factors and may share a forward."""

    borders: tuple[int, ...] = ()
    """Tokens of the longest text of a class, its BOS included (LongRoPE: the original context)."""
    stretched_beyond: int | None = None
    """Tokens beyond which every length is a class of its own (dynamic NTK); None where there is no such limit."""

    @classmethod
    def of(cls, config: Any) -> LengthClasses:
        """The classes of a Hugging Face configuration, whichever way it writes its rotary parameters."""
        borders: set[int] = set()
        stretched: list[int] = []
        for rope in _rotary_parameters(config):
            kind = rope.get("rope_type") or rope.get("type") or "default"
            if "dynamic" in kind:
                stretched.append(int(config.max_position_embeddings))
            elif kind == "longrope" or (kind != "default" and "long_mscale" in rope):  # the latter: PhiMoE
                borders.add(int(rope.get("original_max_position_embeddings") or config.max_position_embeddings))
        return cls(tuple(sorted(borders)), min(stretched, default=None))

    @property
    def several(self) -> bool:
        """Whether there is more than one class, so that a text's whole length matters, not only what is read of it."""
        return bool(self.borders) or self.stretched_beyond is not None

    def of_length(self, tokens: int) -> int:
        """The class of a text, named by the length of its shortest text (0: the first)."""
        if self.stretched_beyond is not None and tokens > self.stretched_beyond:
            return tokens
        return max((border + 1 for border in self.borders if tokens > border), default=0)

    def split(self, sequences: Iterable[Sequence]) -> list[list[Sequence]]:
        """The sequences by class, shorter ones first."""
        classes: dict[int, list[Sequence]] = {}
        for sequence in sequences:
            classes.setdefault(self.of_length(len(sequence.computed)), []).append(sequence)
        return [classes[name] for name in sorted(classes)]

    def forwards(self, batch: PackedBatch) -> list[np.ndarray]:
        """The rows of each forward that a batch takes: one, or one for each class."""
        if not self.several:
            return [np.arange(len(batch.input_ids))]
        names = np.array([self.of_length(int(last) + 1) for last in batch.position_ids.max(axis=1)])
        return [np.flatnonzero(names == name) for name in np.unique(names)]


def _rotary_parameters(config: Any) -> Iterator[Mapping[str, Any]]:
    """Those of the whole model, or of each kind of layer."""
    given = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for rope in (given, *given.values()):
        if isinstance(rope, Mapping):
            yield rope
