"""The comprehensive analysis the way the field does it: TransformerLens and SAELens, one text at a time, float32.

`python bench/lens_saes.py WAY --model DIR --sae DIR --layers 2 5 9 --pairs 4 --out FILE.json` measures bundled pairs
one of two ways; `bench/field.py` runs both, each in a process of its own, since bridges patch transformers for the
whole process. The bridge holds the raw Hugging Face weights: nothing is folded, nothing centred.

guide:   the single pass as often written. 13 forwards a pair, each of the whole model with every hook cached: fact
         and hall for each of three layers; prompt, fact, hall for misalignment; fact and hall for stability; fact and
         hall for cross-layer. The SAE encodes each layer's residual of each of them anew.
careful: one forward a text that caches the layers' residuals only and stops after the last of them; every residual is
         encoded once.

Both encode all noise draws of a text in one call, and decompose the d x d matrix once for each layer and text (9).
Forwards and encodings are the two libraries'. The noise, a definition, and the mathematics of one read come from
`bluffscope.host.noise` and `bluffscope.reference.geometry`, the slow implementation that the engine is tested against.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
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
from bluffscope.reference import geometry as maths
from bluffscope.reference.geometry import Geometry

VIEWS = ("prompt", "fact", "hall")
COMPLETIONS = ("fact", "hall")
NOISE, DRAWS, SEED = 0.1, 8, 0
Row = dict[str, Any]
Pair = dict[str, Any]


@dataclass
class Counts:
    """Work done on the pairs that were timed."""

    forwards: int = 0
    encodes: int = 0
    eigendecompositions: int = 0
    tokens: int = 0
    """Fed to the model, BOS included."""


@dataclass(frozen=True)
class Read:
    """One layer of one text at its last token, float64."""

    residual: torch.Tensor
    """(d_model,) as the SAE gets it."""
    features: np.ndarray
    reconstruction: np.ndarray


@dataclass
class Lens:
    """A bridge and SAEs."""

    bridge: TransformerBridge
    saes: dict[int, SAE]
    counts: Counts = field(default_factory=Counts)

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
        self.counts.forwards += 1
        self.counts.tokens += tokens.shape[1]
        return {layer: cache[hook(layer)][0, -1] for layer in self.layers if hook(layer) in cache}

    def read(self, layer: int, residual: torch.Tensor) -> Read:
        """Encode and decode one residual."""
        sae = self.saes[layer]
        features = sae.encode(residual[None])
        self.counts.encodes += 1
        return Read(residual, features[0].double().numpy(), sae.decode(features)[0].double().numpy())

    def shape(self, layer: int, read: Read) -> Geometry:
        """Geometry of the active decoder rows, by the d x d matrix."""
        active = np.flatnonzero(read.features)
        directions = self.saes[layer].W_dec[torch.from_numpy(active)].double().numpy()  # (active, d_model)
        self.counts.eigendecompositions += len(active) >= 2
        return maths.geometry(read.features[active], directions)

    def noisy(self, pair: str, view: str, read: Read) -> list[np.ndarray]:
        """Features under every draw of noise, in one call."""
        layer = self.layers[0]
        width = len(read.residual)
        noise = [unit_noise(SEED, pair, view, layer, draw, tokens=1, d_model=width) for draw in range(DRAWS)]
        disturbed = read.residual + torch.from_numpy(NOISE * np.concatenate(noise)).float()  # (draw, d_model)
        self.counts.encodes += 1
        return list(self.saes[layer].encode(disturbed).double().numpy())


def hook(layer: int) -> str:
    """The residual stream after a block."""
    return f"blocks.{layer}.hook_resid_post"


def guide(lens: Lens, pair: Pair) -> Row:
    """The single pass as it is often written: 13 full forwards."""
    texts = texts_of(pair)
    first, middle, last = lens.layers[0], lens.layers[len(lens.layers) // 2], lens.layers[-1]
    prompt = lens.residuals(texts["prompt"])
    reads = {("prompt", layer): lens.read(layer, prompt[layer]) for layer in lens.layers}
    for layer in lens.layers:
        for view in COMPLETIONS:
            reads[view, layer] = lens.read(layer, lens.residuals(texts[view])[layer])
    shapes = {(view, layer): lens.shape(layer, read) for (view, layer), read in reads.items()}
    row = layer_metrics(reads, shapes)
    for view in COMPLETIONS:
        again = lens.read(first, lens.residuals(texts[view])[first])
        row |= misalignment(view, shapes["prompt", first], shapes[view, first], again, lens.saes[first])
    for view in COMPLETIONS:
        once_more = lens.read(first, lens.residuals(texts[view])[first])
        row |= stability_and_entropy(lens, pair["id"], view, once_more)
    for view in COMPLETIONS:
        both = lens.residuals(texts[view])
        row |= cross_layer(view, lens.read(middle, both[middle]), lens.read(last, both[last]))
    return with_differences(row)


def careful(lens: Lens, pair: Pair) -> Row:
    """What a careful user writes: three short forwards, nothing encoded twice."""
    wanted = [hook(layer) for layer in lens.layers]
    first, middle, last = lens.layers[0], lens.layers[len(lens.layers) // 2], lens.layers[-1]
    reads: dict[tuple[str, int], Read] = {}
    for view, text in texts_of(pair).items():
        residuals = lens.residuals(text, names_filter=wanted, stop_at_layer=max(lens.layers) + 1)
        reads |= {(view, layer): lens.read(layer, residual) for layer, residual in residuals.items()}
    shapes = {(view, layer): lens.shape(layer, read) for (view, layer), read in reads.items()}
    row = layer_metrics(reads, shapes)
    for view in COMPLETIONS:
        read = reads[view, first]
        row |= misalignment(view, shapes["prompt", first], shapes[view, first], read, lens.saes[first])
        row |= stability_and_entropy(lens, pair["id"], view, read)
        row |= cross_layer(view, reads[view, middle], reads[view, last])
    return with_differences(row)


WAYS: dict[str, Callable[[Lens, Pair], Row]] = {"guide": guide, "careful": careful}


def texts_of(pair: Pair) -> dict[str, str]:
    """By view."""
    prompt = pair["prompt"]
    return {"prompt": prompt, "fact": f"{prompt} {pair['fact']}", "hall": f"{prompt} {pair['hallucination']}"}


def layer_metrics(reads: dict[tuple[str, int], Read], shapes: dict[tuple[str, int], Geometry]) -> Row:
    """Analysis 1."""
    row: Row = {}
    for (view, layer), read in reads.items():
        x = read.residual.double().numpy()
        metrics = maths.layer_metrics(x[None], read.reconstruction[None], read.features[None], [shapes[view, layer]])
        row |= {f"l{layer}_{view}_{name}": value for name, value in metrics.items()}
    return row


def misalignment(view: str, prompt: Geometry, shape: Geometry, read: Read, sae: SAE) -> Row:
    """Analysis 2; the centroid is computed anew, as the pattern has it."""
    active = np.flatnonzero(read.features)
    directions = sae.W_dec[torch.from_numpy(active)].double().numpy()
    return {
        f"centroid_drift_{view}": maths.angle(prompt.centroid, maths.centroid(read.features[active], directions)),
        f"axis_twist_{view}": maths.line_angle(prompt.axis, shape.axis),
    }


def stability_and_entropy(lens: Lens, pair: str, view: str, read: Read) -> Row:
    """Analyses 3 and 4."""
    top = maths.top_features(read.features)
    draws = map(maths.top_features, lens.noisy(pair, view, read))
    return {
        f"stability_{view}": maths.mean(maths.jaccard(top, other) for other in draws),
        f"entropy_{view}": maths.magnitude_entropy(read.features[read.features > 0]),
    }


def cross_layer(view: str, middle: Read, last: Read) -> Row:
    """Analysis 5."""
    return {
        f"cross_layer_consistency_{view}": maths.cosine(middle.features, last.features),
        f"cross_layer_alignment_{view}": maths.cosine(middle.reconstruction, last.reconstruction),
    }


def with_differences(row: Row) -> Row:
    """Add hall - fact of the metrics that have no layer in their name."""
    for name in [name.removesuffix("_fact") for name in row if name.endswith("_fact")]:
        fact, hall = row[f"{name}_fact"], row[f"{name}_hall"]
        row[f"{name}_diff"] = None if fact is None or hall is None else hall - fact
    return row


def bundled_pairs(count: int) -> list[Pair]:
    """So many of bluff200, spread evenly over it."""
    lines = resources.files("bluffscope.pairs").joinpath("data", "bluff200.jsonl").read_text("utf-8").splitlines()
    return [json.loads(lines[number * len(lines) // count]) for number in range(count)]


@torch.no_grad()
def measure(way: Callable[[Lens, Pair], Row], lens: Lens, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Rows and seconds of every pair; the first is done once before, untimed, to warm up."""
    way(lens, pairs[0])
    lens.counts = Counts()
    rows: list[Row] = []
    seconds: list[float] = []
    for pair in pairs:
        start = time.perf_counter()
        row = way(lens, pair)
        seconds.append(time.perf_counter() - start)
        rows.append({"pair_id": pair["id"], **row})
    return {"seconds": seconds, "rows": rows, "counts": asdict(lens.counts)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--model", type=Path, required=True, help="folder in Hugging Face layout")
    parser.add_argument("--sae", type=Path, required=True, help="folder with layer_K/ as SAELens saves them")
    parser.add_argument("--layers", type=int, nargs="+", required=True)
    parser.add_argument("--pairs", type=int, default=4, help="pairs that are timed")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    lens = Lens.load(args.model, args.sae, args.layers)
    result = measure(WAYS[args.way], lens, bundled_pairs(args.pairs))
    result |= {
        "way": args.way,
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("transformer-lens", "sae-lens", "transformers", "torch")},
    }
    args.out.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
