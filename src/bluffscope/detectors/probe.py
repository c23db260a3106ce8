"""A kept detector beside a running model: hooks read each token's residual, one product gives its score."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from bluffscope.detectors.files import Detector
from bluffscope.errors import InputError
from bluffscope.model import HookPoint
from bluffscope.pipeline.build import points_of
from bluffscope.pipeline.worker import Parts
from bluffscope.sae import Coder


class Reads:
    """What hooks have read of one forward."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._held: dict[int, torch.Tensor] = {}
        self.last = 1
        """How many of a forward's tokens are read, from its end; 0 for none."""

    def receive(self, layer: int, activations: Float[torch.Tensor, "row token d_model"]) -> None:
        """Keep what is read at a layer: a copy of these tokens alone, so that the forward's memory is free to go."""
        if self.last:
            self._held[layer] = activations[:, -self.last :].detach().clone()

    def scores(self) -> Float[torch.Tensor, "row token"]:
        """The log odds of each token read, on the model's device; the next forward begins with nothing held."""
        held, self._held = self._held, {}
        return self._probe.score(held)


@dataclass(frozen=True)
class Probe:
    """A detector's weights on a device."""

    points: Mapping[int, HookPoint]
    """Where each layer is read, in the order of the weights."""
    weights: Mapping[int, Float[torch.Tensor, " column"]]
    """By layer: of the residual's dimensions, or of the SAE's features."""
    coders: Mapping[int, Coder]
    """By layer; none where residuals themselves are looked at."""
    intercept: float

    @classmethod
    def of(cls, detector: Detector, parts: Parts) -> Probe:
        """The weights as the model's device takes them.

        Raises:
            InputError: the model has another width than that of the training.
        """
        device = parts.model.device
        # MPS has no float64
        dtype = torch.float32 if device.type == "mps" else torch.float64
        points, keys, linear = points_of(parts), detector.keys, detector.linear
        by_layer: dict[int, np.ndarray] = {}
        if keys.on == "sae":
            layers, features = (keys.features[name].to_numpy() for name in ("layer", "feature"))
            for layer in np.unique(layers).tolist():
                by_layer[layer] = np.zeros(parts.coders[layer].d_sae)
                by_layer[layer][features[layers == layer]] = linear.weights[layers == layer]
        else:
            widths = [points[layer].width or parts.model.d_model for layer in keys.layers]
            if sum(widths) != len(linear.weights):
                raise InputError(
                    f"{detector.path}: it has {len(linear.weights):,} weights, and the model's layers {sum(widths):,} "
                    "dimensions; give the model that it was trained on"
                )
            parted = np.split(linear.weights, np.cumsum(widths)[:-1])
            by_layer = dict(zip(keys.layers, parted, strict=True))
        return cls(
            points={layer: points[layer] for layer in by_layer},
            weights={layer: torch.tensor(part, dtype=dtype, device=device) for layer, part in by_layer.items()},
            coders={layer: parts.coders[layer] for layer in by_layer} if keys.on == "sae" else {},
            intercept=linear.intercept,
        )

    @contextmanager
    def reading(self, blocks: nn.ModuleList, last: int = 1) -> Generator[Reads, None, None]:
        """Within the block, forwards of these blocks are read; afterwards their hooks are gone, whatever happened.

        Args:
            blocks: of the model.
            last: how many tokens of a forward are read, from its end.
        """
        reads = Reads(self)
        reads.last = last
        with ExitStack() as stack:
            for layer, point in self.points.items():
                stack.callback(point.attach(blocks, lambda found, at=layer: reads.receive(at, found)).remove)
            yield reads

    @torch.inference_mode()  # SAEs keep buffers, which must not be of one mode in one call and of another in the next
    def score(self, held: Mapping[int, Float[torch.Tensor, "row token _"]]) -> Float[torch.Tensor, "row token"]:
        """The log odds of residuals, by layer."""
        some = next(iter(held.values()))
        shape = some.shape[:2]
        with torch.autocast(some.device.type, enabled=False):
            if not self.coders:
                found = torch.cat([held[layer] for layer in self.weights], dim=-1)  # (row, token, all widths)
                weights = torch.cat(list(self.weights.values()))
                return found.to(weights.dtype) @ weights + self.intercept
            total = sum(self._of_features(layer, held[layer].flatten(0, 1)) for layer in self.weights)
            return torch.as_tensor(total).view(shape) + self.intercept

    def _of_features(self, layer: int, residual: Float[torch.Tensor, "read _"]) -> Float[torch.Tensor, " read"]:
        weights = self.weights[layer]
        features = self.coders[layer].encode(residual)
        # (active,) each active feature's read
        reads = torch.repeat_interleave(torch.arange(len(residual), device=weights.device), features.counts)
        parts = features.values.to(weights.dtype) * weights[features.indices]
        return torch.zeros(len(residual), dtype=weights.dtype, device=weights.device).index_add_(0, reads, parts)
