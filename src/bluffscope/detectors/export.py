"""A kept detector's weights as one safetensors file, complete enough to be applied with a few lines of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from bluffscope.detectors.files import Detector
from bluffscope.errors import InputError
from bluffscope.table.atomic import write_bytes, writing
from bluffscope.table.links import refuse_links

EXPORT_VERSION: Final = 1
"""Version of the file's layout."""


def export(detector: Detector, path: Path) -> Path:
    """Write a linear detector's weights; docs/detect.md says what the file holds.

    Args:
        detector: of residuals or SAE features.
        path: ends in .safetensors.

    Raises:
        InputError: a detector of metrics, another ending, or a file that is there already.
        RunFolderError: the operating system refused.
    """
    from safetensors.numpy import save  # imports no torch

    if detector.keys.on == "metrics":
        raise InputError(f"{detector.path}: it weighs metrics, which only Bluffscope computes; export one of residuals")
    if path.suffix != ".safetensors":
        raise InputError(f"--out {path}: expected a name that ends in .safetensors")
    if path.exists():
        raise InputError(f"--out {path}: there is a file already; give another name")
    refuse_links(path.parent)
    config: dict[str, Any] = detector.about["config"]
    data, points = config.get("data") or {}, _points(detector)
    metadata = {
        "format": "bluffscope-detector",
        "version": EXPORT_VERSION,
        "on": detector.keys.on,
        "model": detector.about["model"].get("name"),
        "position": detector.position,
        "hook_points": points,
        "centred": [int(layer) for layer in points if _centred(detector, layer)],
        "join": data.get("join"),
        "chat": detector.chat,
    }
    content = {**_weights(detector, points), "bias": np.array([detector.linear.intercept])}
    content["calibration"] = np.array(detector.calibration, dtype=np.float64)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save(content, {name: _said(value) for name, value in metadata.items()}))
    return path


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _points(detector: Detector) -> dict[str, str]:
    """Where each layer is read, by layer."""
    layers = detector.keys.layers or detector.keys.features["layer"].unique().sort().to_list()
    saes: dict[str, Any] = detector.about["saes"]
    return {
        str(layer): (saes.get(str(layer)) or {}).get("hook_name") or f"blocks.{layer}.hook_resid_post"
        for layer in layers
    }


def _weights(detector: Detector, points: dict[str, str]) -> dict[str, np.ndarray]:
    """The weights of each layer; of SAE features, their numbers too."""
    weights, features = detector.linear.weights, detector.keys.features
    found: dict[str, np.ndarray] = {}
    if detector.keys.on == "sae":
        layers = features["layer"].to_numpy()
        for layer in points:
            here = layers == int(layer)
            found[f"layer.{layer}.weight"] = weights[here].copy()
            found[f"layer.{layer}.feature"] = features["feature"].to_numpy()[here].copy()
        return found
    if given := detector.keys.given:
        parts = np.split(weights, np.cumsum([width for _, width in given])[:-1])
        return {f"{name}.weight": part.copy() for (name, _), part in zip(given, parts, strict=True)}
    saes: dict[str, Any] = detector.about["saes"]
    widths = [(saes.get(layer) or {}).get("d_in") or detector.about["model"]["d_model"] for layer in points]
    parts = np.split(weights, np.cumsum(widths)[:-1])
    return {f"layer.{layer}.weight": part.copy() for layer, part in zip(points, parts, strict=True)}


def _centred(detector: Detector, layer: str) -> bool:
    """Whether the SAE read a residual stream whose mean was taken off."""
    trained: Mapping[str, Any] = (detector.about["saes"].get(layer) or {}).get("trained_on") or {}
    return bool((trained.get("processing") or {}).get("center_writing_weights"))
