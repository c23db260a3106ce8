"""The comprehensive analysis the way the field does it: TransformerLens and SAELens, one text at a time, float32.

`bench/field.py` measures bundled pairs in two ways, each in a process of its own, since bridges patch transformers for
the whole process. The bridge holds the raw Hugging Face weights: nothing is folded, nothing centred.

guide:   the single pass as often written. 13 forwards a pair, each of the whole model with every hook cached: fact
         and hall for each of three layers; prompt, fact, hall for misalignment; fact and hall for stability; fact and
         hall for cross-layer. The SAE encodes each layer's residual of each of them again.
careful: one forward a text that caches the layers' residuals only and stops after the last of them; every residual is
         encoded once.

Both encode all noise draws of a text in one call, and decompose the d x d matrix once for each layer and text (9).
Of this package only the noise is imported, which is a definition; the metrics are written out in numpy.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

with warnings.catch_warnings():  # of their start-up
    warnings.simplefilter("ignore")
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

from bluffscope.host.noise import unit_noise

VIEWS = ("prompt", "fact", "hall")
COMPLETIONS = ("fact", "hall")
NOISE, DRAWS, SEED = 0.1, 8, 0
Row = dict[str, Any]
Pair = dict[str, Any]


@dataclass(frozen=True)
class Read:
    """One layer of one text at its last token, float64."""

    residual: torch.Tensor
    """(d_model,) as the SAE gets it."""
    features: np.ndarray
    reconstruction: np.ndarray


@dataclass(frozen=True)
class Shape:
    """Geometry of one layer of one text; None is undefined."""

    metrics: Row
    centroid: np.ndarray | None
    axis: np.ndarray | None


@dataclass
class Lens:
    """A bridge and SAEs."""

    bridge: TransformerBridge
    saes: dict[int, SAE]
    counts: Counter[str] = field(default_factory=Counter)
    """Forwards, encodes, eigendecompositions, and the tokens fed to the model, BOS included."""

    @classmethod
    def load(cls, model: Path, sae: Path, layers: Iterable[int]) -> Lens:
        """Local folders, as `transformers` and SAELens save them."""
        bridge = TransformerBridge.boot_transformers(str(model), device="cpu", dtype=torch.float32)
        saes = {layer: SAE.load_from_disk(sae / f"layer_{layer}", device="cpu", dtype="float32") for layer in layers}
        return cls(bridge, saes)

    @property
    def layers(self) -> list[int]:
        """As the user gave them."""
        return list(self.saes)

    def residuals(self, text: str, **options: Any) -> dict[int, torch.Tensor]:
        """One forward of one text; (d_model,) by layer at its last token, for the layers that were cached."""
        tokens = self.bridge.to_tokens(text, prepend_bos=True)
        _, cache = self.bridge.run_with_cache(tokens, **options)
        self.counts["forwards"] += 1
        self.counts["tokens"] += tokens.shape[1]
        return {layer: cache[hook(layer)][0, -1] for layer in self.layers if hook(layer) in cache}

    def read(self, layer: int, residual: torch.Tensor) -> Read:
        """Encode and decode one residual."""
        sae = self.saes[layer]
        features = sae.encode(residual[None])
        self.counts["encodes"] += 1
        return Read(residual, features[0].double().numpy(), sae.decode(features)[0].double().numpy())

    def active(self, layer: int, read: Read) -> tuple[np.ndarray, np.ndarray]:
        """Magnitudes of the active features, and their decoder rows (active, d_model)."""
        active = np.flatnonzero(read.features)
        return read.features[active], self.saes[layer].W_dec[torch.from_numpy(active)].double().numpy()

    def shape(self, layer: int, read: Read) -> Shape:
        """Geometry of the active decoder rows, by the d x d matrix."""
        a, directions = self.active(layer, read)
        self.counts["eigendecompositions"] += len(a) >= 2
        return shape_of(a, directions)

    def noisy(self, pair: str, view: str, read: Read) -> list[np.ndarray]:
        """Features under every draw of noise, in one call."""
        layer = self.layers[0]
        width = len(read.residual)
        noise = [unit_noise(SEED, pair, view, layer, draw, tokens=1, d_model=width) for draw in range(DRAWS)]
        disturbed = read.residual + torch.from_numpy(NOISE * np.concatenate(noise)).float()  # (draw, d_model)
        self.counts["encodes"] += 1
        return list(self.saes[layer].encode(disturbed).double().numpy())


def hook(layer: int) -> str:
    """The residual stream after a block."""
    return f"blocks.{layer}.hook_resid_post"


def guide(lens: Lens, pair: Pair) -> Row:
    """The single pass as it is often written: 13 full forwards."""
    texts = texts_of(pair)
    first, middle, last = lens.layers[0], lens.layers[len(lens.layers) // 2], lens.layers[-1]

    def read(view: str, *layers: int) -> list[Read]:
        residuals = lens.residuals(texts[view])
        return [lens.read(layer, residuals[layer]) for layer in layers]

    reads = {("prompt", layer): one for layer, one in zip(lens.layers, read("prompt", *lens.layers), strict=True)}
    for layer in lens.layers:
        for view in COMPLETIONS:
            reads[view, layer] = read(view, layer)[0]
    again = [{view: read(view, *layers) for view in COMPLETIONS} for layers in ((first,), (first,), (middle, last))]
    return analysed(lens, pair, reads, *again)


def careful(lens: Lens, pair: Pair) -> Row:
    """What a careful user writes: three short forwards, nothing encoded twice."""
    wanted = [hook(layer) for layer in lens.layers]
    first, middle, last = lens.layers[0], lens.layers[len(lens.layers) // 2], lens.layers[-1]
    reads: dict[tuple[str, int], Read] = {}
    for view, text in texts_of(pair).items():
        residuals = lens.residuals(text, names_filter=wanted, stop_at_layer=max(lens.layers) + 1)
        reads |= {(view, layer): lens.read(layer, residual) for layer, residual in residuals.items()}
    at_first = {view: [reads[view, first]] for view in COMPLETIONS}
    both = {view: [reads[view, middle], reads[view, last]] for view in COMPLETIONS}
    return analysed(lens, pair, reads, at_first, at_first, both)


Several = dict[str, list[Read]]


def analysed(
    lens: Lens, pair: Pair, reads: dict[tuple[str, int], Read], aligned: Several, noised: Several, both: Several
) -> Row:
    """All metrics, of the reads that analysis 1, 2, 3 with 4, and 5 look at."""
    shapes = {(view, layer): lens.shape(layer, read) for (view, layer), read in reads.items()}
    row, first = layer_metrics(reads, shapes), lens.layers[0]
    for view in COMPLETIONS:
        active = lens.active(first, *aligned[view])
        row |= misalignment(view, shapes["prompt", first], shapes[view, first], active)
        row |= stability_and_entropy(lens, pair["id"], view, *noised[view])
        row |= cross_layer(view, *both[view])
    return with_differences(row)


WAYS: dict[str, Callable[[Lens, Pair], Row]] = {"guide": guide, "careful": careful}


def texts_of(pair: Pair) -> dict[str, str]:
    """By view."""
    prompt = pair["prompt"]
    return {"prompt": prompt, "fact": f"{prompt} {pair['fact']}", "hall": f"{prompt} {pair['hallucination']}"}


def layer_metrics(reads: dict[tuple[str, int], Read], shapes: dict[tuple[str, int], Shape]) -> Row:
    """Analysis 1."""
    row: Row = {}
    for (view, layer), read in reads.items():
        x = read.residual.double().numpy()
        error = float(np.linalg.norm(x - read.reconstruction))
        metrics = {
            "l0_norm": float(np.count_nonzero(read.features)),
            "reconstruction_error": error,
            "relative_error": error**2 / float(x @ x),
            "gini": gini(read.features[read.features > 0]),
            **shapes[view, layer].metrics,
        }
        row |= {f"l{layer}_{view}_{name}": value for name, value in metrics.items()}
    return row


def shape_of(a: np.ndarray, directions: np.ndarray) -> Shape:
    """Weighted inertia of directions (active, d_model) by its d x d matrix."""
    names = ("sphericity", "elongation", "dimensionality", "eigenvalue_entropy", "misalignment_angle", "shape_class")
    metrics: Row = dict.fromkeys(names)
    n = len(a)
    if n == 0:
        return Shape(metrics, None, None)
    w = a / a.sum()
    centroid = w @ directions
    if n < 2:
        return Shape(metrics, centroid, None)
    centred = directions - centroid
    values, vectors = np.linalg.eigh((centred.T * w) @ centred)
    values = values.clip(0)[::-1]
    p = values[values > 0] / values.sum()
    axis = vectors[:, -1] if values[0] - values[1] >= 1e-6 * values[0] else None
    metrics["dimensionality"] = float(values.sum() ** 2 / (values**2).sum())
    metrics["eigenvalue_entropy"] = float(-(p * np.log(p)).sum())
    metrics["misalignment_angle"] = line_angle(axis, centroid)
    if n >= 3:
        metrics["elongation"] = math.sqrt(values[1] / values[0])
    if n >= 4:
        metrics["sphericity"] = math.sqrt(values[2] / values[0])
        metrics["shape_class"] = class_of(metrics["elongation"], metrics["sphericity"])
    return Shape(metrics, centroid, axis)


def class_of(elongation: float, sphericity: float) -> str:
    """Of a shape."""
    if elongation > 0.9 and sphericity > 0.9:
        return "Spherical"
    if elongation > 0.8 and sphericity < 0.6:
        return "Oblate"
    return "Prolate" if elongation < 0.6 and sphericity < 0.6 else "Triaxial"


def misalignment(view: str, prompt: Shape, shape: Shape, active: tuple[np.ndarray, np.ndarray]) -> Row:
    """Analysis 2."""
    a, directions = active
    return {
        f"centroid_drift_{view}": angle(prompt.centroid, a / a.sum() @ directions if len(a) else None),
        f"axis_twist_{view}": line_angle(prompt.axis, shape.axis),
    }


def stability_and_entropy(lens: Lens, pair: str, view: str, read: Read) -> Row:
    """Analyses 3 and 4."""
    top = top_features(read.features)
    similarities = [
        len(top & other) / len(top | other)
        for other in map(top_features, lens.noisy(pair, view, read))
        if top and other
    ]
    largest = np.sort(read.features)[::-1][:50]
    p = largest[largest > 0] / largest.sum() if top else None
    return {
        f"stability_{view}": float(np.mean(similarities)) if similarities else None,
        f"entropy_{view}": None if p is None else float(-(p * np.log(p)).sum()),
    }


def cross_layer(view: str, middle: Read, last: Read) -> Row:
    """Analysis 5."""
    return {
        f"cross_layer_consistency_{view}": cosine(middle.features, last.features),
        f"cross_layer_alignment_{view}": cosine(middle.reconstruction, last.reconstruction),
    }


def with_differences(row: Row) -> Row:
    """Add hall - fact of the metrics that have no layer in their name."""
    for name in [name.removesuffix("_fact") for name in row if name.endswith("_fact")]:
        fact, hall = row[f"{name}_fact"], row[f"{name}_hall"]
        row[f"{name}_diff"] = None if fact is None or hall is None else hall - fact
    return row


def gini(a: np.ndarray) -> float | None:
    """Of the active magnitudes."""
    n = len(a)
    return float(2 * (np.arange(1, n + 1) @ np.sort(a)) / (n * a.sum()) - (n + 1) / n) if n else None


def top_features(features: np.ndarray) -> set[int]:
    """The ten most active; the lower index first."""
    order = np.argsort(-features, kind="stable")[:10]
    return {int(i) for i in order if features[i] > 0}


def cosine(u: np.ndarray, v: np.ndarray) -> float | None:
    """None where either is zero."""
    norms = float(np.linalg.norm(u) * np.linalg.norm(v))
    return float(u @ v) / norms if norms else None


def angle(u: np.ndarray | None, v: np.ndarray | None) -> float | None:
    """Degrees from 0 to 180, exact for small ones."""
    if u is None or v is None or not u.any() or not v.any():
        return None
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    return math.degrees(2 * math.atan2(float(np.linalg.norm(u - v)), float(np.linalg.norm(u + v))))


def line_angle(u: np.ndarray | None, v: np.ndarray | None) -> float | None:
    """Degrees from 0 to 90."""
    between = angle(u, v)
    return None if between is None else min(between, 180 - between)


def bundled_pairs(count: int) -> list[Pair]:
    """So many of bluff200, spread evenly over it."""
    lines = resources.files("bluffscope.pairs").joinpath("data", "bluff200.jsonl").read_text("utf-8").splitlines()
    return [json.loads(lines[number * len(lines) // count]) for number in range(count)]


@torch.no_grad()
def measured(way: str, model: Path, sae: Path, layers: Sequence[int], count: int) -> dict[str, Any]:
    """Rows and seconds of so many pairs; the first is done once before, untimed, to warm up.

    Args:
        way: one of `WAYS`.
        model: folder in Hugging Face layout.
        sae: folder with layer_K/ as SAELens saves them.
        layers: which are measured.
        count: pairs that are timed.
    """
    lens, pairs = Lens.load(model, sae, layers), bundled_pairs(count)
    WAYS[way](lens, pairs[0])
    lens.counts.clear()
    rows: list[Row] = []
    seconds: list[float] = []
    for pair in pairs:
        start = time.perf_counter()
        row = WAYS[way](lens, pair)
        seconds.append(time.perf_counter() - start)
        rows.append({"pair_id": pair["id"], **row})
    versions = {name: version(name) for name in ("transformer-lens", "sae-lens", "transformers", "torch")}
    found = {"seconds": seconds, "rows": rows, "counts": dict(lens.counts)}
    return found | {"threads": torch.get_num_threads(), "versions": versions}
