"""One pair or labelled text as the analyses of the reference see it: what it is, and its readings.

The second part of `bluffscope.reference.analyses`, under the same rule: no code in common with the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float

from bluffscope.errors import PairError
from bluffscope.records import Item, View
from bluffscope.reference import geometry as maths
from bluffscope.reference.geometry import Geometry
from bluffscope.reference.model import Counts, ReferenceOptions, Text, forward

SAE: TypeAlias = Any
"""SAELens's, or anything with its `encode`, `decode`, `cfg` and weights."""

Row = dict[str, float | int | str | None]
"""Column name to value; None is undefined."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One layer of one text at its reads."""

    x: Float[torch.Tensor, "read d_model"]
    """Residual as given to the SAE, in the SAE's dtype."""
    a: Float[np.ndarray, "read d_sae"]
    """Features, float64."""
    y: Float[np.ndarray, "read d_model"]
    """Reconstruction, float64."""


Readings = Mapping[View, Mapping[int, Reading]]
"""By view, then layer."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One pair or labelled text and all that an analysis of it needs; made by `prepare`."""

    item: Item
    texts: Mapping[View, Text]
    model: torch.nn.Module
    saes: Mapping[int, SAE]
    options: ReferenceOptions
    counts: Counts
    questions: Mapping[View, tuple[list[int], list[int], int]] = field(default_factory=dict)
    """Of each completion that the model can be asked about: ids with the answer True, with False, and where they
    part."""
    geometries: dict[tuple[int, View], list[Geometry]] = field(default_factory=dict)
    """Geometry of each layer and view that was decomposed already, one for each read."""
    readings: dict[tuple[int, View], Reading] = field(default_factory=dict)
    """The last reading of each layer and view: for the record, never used in place of another."""

    @property
    def views(self) -> tuple[View, ...]:
        """All its texts: prompt, fact and hallucination of a pair."""
        return self.item.arrangement.views

    @property
    def completions(self) -> tuple[View, ...]:
        """All but the prompt."""
        return self.item.arrangement.completions

    def at(self, layer: int, view: View, values: Mapping[str, float | int | str | None]) -> Row:
        """Values of one layer and view by the names of their columns."""
        return {self.item.arrangement.at_layer(layer, view, name): value for name, value in values.items()}

    def read(self, view: View, layers: Iterable[int]) -> dict[int, Reading]:
        """One forward of one text; its residuals at these layers, encoded and decoded."""
        readings: dict[int, Reading] = {}
        for layer, residual in self.residuals(view, layers).items():
            sae = self.saes[layer]
            x = residual[self.texts[view].reads].to(device=sae.W_dec.device, dtype=sae.W_dec.dtype)
            with torch.no_grad(), self.counts.stopwatch.stage("sae"):
                a = sae.encode(x)
                y = sae.decode(a)  # follows its own encode: normalising SAEs keep the scale in between
            self.counts.encodes += 1
            readings[layer] = Reading(x=x, a=a.double().cpu().numpy(), y=y.double().cpu().numpy())
            self.readings[layer, view] = readings[layer]
        return readings

    def residuals(self, view: View, layers: Iterable[int]) -> dict[int, torch.Tensor]:
        """One forward of one text; (token, d_model) at the hook point of each layer, without an SAE behind its block.

        Raises:
            PairError: they are not finite where the text is read.
        """
        names = {k: self._sae_says(k, "hook_name") or f"blocks.{k}.hook_resid_post" for k in layers}
        found = forward(self.model, self.texts[view], names, self.counts)
        for layer, residual in found.items():
            if not bool(torch.isfinite(residual[self.texts[view].reads]).all()):
                raise PairError(f"pair {self.item.id}: the {view} text's activation at layer {layer} is not finite")
            if layer in self.saes and not names[layer].endswith("z") and _centres(self.model, self.saes[layer]):
                found[layer] = residual - residual.mean(dim=1, keepdim=True)
        return found

    def _sae_says(self, layer: int, name: str) -> Any:
        return self.saes[layer].cfg.metadata.get(name) if layer in self.saes else None

    def geometry(self, layer: int, view: View, reading: Reading) -> list[Geometry]:
        """Geometry at each read of a layer and view, decomposed the first time it is asked for."""
        if (layer, view) not in self.geometries:
            self.geometries[layer, view] = [self._geometry(layer, a) for a in reading.a]
        return self.geometries[layer, view]

    def _geometry(self, layer: int, features: np.ndarray) -> Geometry:
        magnitudes, directions = self.active(layer, features)
        self.counts.eigendecompositions += len(magnitudes) >= 2
        with self.counts.stopwatch.stage("geometry"):
            return maths.geometry(magnitudes, directions)

    def active(self, layer: int, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Magnitudes (active,) of a read's active features and their decoder rows (active, d_model), float64."""
        active = np.flatnonzero(features > 0)
        decoder = self.saes[layer].W_dec.detach()
        return features[active], decoder[torch.from_numpy(active).to(decoder.device)].double().cpu().numpy()


def _centres(model: torch.nn.Module, sae: SAE) -> bool:
    """Whether an SAE is of a model with centred writing weights: its residual stream has mean 0 over d_model.

    TransformerLens centres models with LayerNorm only, whose norms take the mean off anyway.
    """
    asked: Any = sae.cfg.metadata.get("model_from_pretrained_kwargs")
    if not (asked or {}).get("center_writing_weights"):
        return False
    norms = [module for module in model.modules() if "Norm" in type(module).__name__]
    return all(isinstance(norm, torch.nn.LayerNorm) for norm in norms)
