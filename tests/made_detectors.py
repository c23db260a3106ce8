"""Detectors with random weights for models at hand, in the folder that `detect train` would write."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save
from transformers import AutoModelForCausalLM, AutoTokenizer

from bluffscope.config import DataOptions, MeasureOptions, ModelOptions, RunConfig
from bluffscope.detectors.files import read_detector
from bluffscope.pipeline.build import load_parts, points_of

PROMPTS = ("The capital of France is", "Water", "Ice is é, and the capital of Italy is Rome. It")
CLOSE = 1e-4
FEATURES = 30
"""Of each layer's SAE that a detector looks at."""


def make_detector(
    folder: Path,
    model: Path,
    *,
    saes: Path | None = None,
    layers: tuple[int, ...] = (0, 2),
    on: str = "residual",
    position: str = "last",
    items: str = "pairs",
    chat: bool = False,
    scale: float = 0.05,
) -> Path:
    """A detector of a model, and of SAEs where there are some."""
    options = ModelOptions(model=str(model), sae=str(saes or "none"), layers=layers, device="cpu", dtype="float32")
    data = replace(DataOptions(), chat=chat)
    config = RunConfig(data=data, model=options, measure=MeasureOptions(position=position))
    parts = load_parts(config)
    rng = np.random.default_rng(1)
    keys = np.zeros((0, 2), dtype=np.int64)
    if on == "sae":
        chosen = [rng.choice(parts.coders[layer].d_sae, FEATURES, replace=False) for layer in layers]
        keys = np.array([(layer, one) for layer, some in zip(layers, chosen, strict=True) for one in np.sort(some)])
    widths = [point.width or parts.model.d_model for point in points_of(parts).values()]
    width = {"residual": sum(widths), "sae": len(keys), "metrics": 1}[on]
    content = save(
        {
            "weights": rng.normal(size=width) * scale,
            "medians": np.zeros(width),
            "missing": np.zeros(width),
            "intercept": np.array([0.3]),
            "calibration": np.array([0.8, -0.1]),
            "layer": keys[:, 0].copy(),
            "feature": keys[:, 1].copy(),
        }
    )
    about = {
        "detector_version": 1,
        "on": on,
        "items": items,
        "model": parts.model.identity,
        "saes": {str(layer): identity for layer, identity in parts.sae_identities.items()},
        "dtype": "float32",
        "quantize": "none",
        "config": json.loads(
            json.dumps({"data": asdict(data), "model": asdict(options), "measure": asdict(config.measure)}, default=str)
        ),
        "metric_versions": {},
        "columns": {"metrics": ["entropy"] if on == "metrics" else [], "layers": list(layers), "features": len(keys)},
        "trained": {},
        "evaluation": {},
        "weights": {"file": "weights.safetensors", "sha256": hashlib.sha256(content).hexdigest()},
    }
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(content)
    (folder / "detector.json").write_text(json.dumps(about))
    return folder


class ByHand:
    """A text's scores from a full forward of plain transformers, without cache, and from SAELens."""

    def __init__(self, folder, model, saes=None):
        self.detector = read_detector(folder)
        self.network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.saes = saes

    @torch.no_grad()
    def tokens(self, ids):
        """(token,) the score of each token's residual."""
        read = {}
        blocks = next(m for m in self.network.modules() if isinstance(m, torch.nn.ModuleList) and len(m) > 1)
        layers = self.detector.keys.layers
        handles = [
            blocks[layer].register_forward_hook(
                lambda _m, _a, out, layer=layer: read.update({layer: out if torch.is_tensor(out) else out[0]})
            )
            for layer in layers
        ]
        self.network(torch.tensor([ids]), use_cache=False)
        for handle in handles:
            handle.remove()
        linear, keys = self.detector.linear, self.detector.keys
        if keys.on == "residual":
            return np.hstack([read[layer][0].numpy() for layer in layers]) @ linear.weights + linear.intercept
        total = np.full(len(ids), linear.intercept)
        for layer in layers:
            from sae_lens import SAE  # seconds that only detectors of features take

            dense = SAE.load_from_disk(self.saes / f"layer_{layer}").encode(read[layer][0]).detach().numpy()
            here = keys.features["layer"].to_numpy() == layer
            total += dense[:, keys.features["feature"].to_numpy()[here]] @ linear.weights[here]
        return total

    def generated(self, ids, most):
        """What transformers' own generate gives greedily, without the token that ends it."""
        found = self.network.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids)),
            do_sample=False,
            max_new_tokens=most,
            pad_token_id=0,
        )[0, len(ids) :].tolist()
        return found[: found.index(2)] if 2 in found else found

    def ids(self, prompt):
        return [1, *self.tokenizer(prompt, add_special_tokens=False)["input_ids"]]
