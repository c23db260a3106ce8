"""A kept detector: detector.json says what it is and needs, weights.safetensors holds its numbers. No pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import polars as pl

from bluffscope.detectors.keyed_inputs import Keys
from bluffscope.detectors.linear import Calibration, Linear
from bluffscope.detectors.train import Trained
from bluffscope.errors import InputError
from bluffscope.table.atomic import unreadable, unwritable, write_bytes
from bluffscope.table.folder import plain
from bluffscope.table.links import refuse_links
from bluffscope.table.manifest import package_versions
from bluffscope.table.reader import Run

DETECTOR_VERSION: Final = 1
"""Version of both files' layout."""
_NAMES: Final = ("detector.json", "weights.safetensors")
_PACKAGES: Final = ("bluffscope", "numpy", "scipy", "scikit-learn", "torch", "transformers", "sae-lens")
_NEEDED: Final = ("on", "model", "saes", "config", "metric_versions", "columns", "weights", "evaluation")
_MAPPINGS: Final = tuple(name for name in _NEEDED if name != "on")
_IDENTITY: Final = ("model", "saes", "dtype", "quantize")


@dataclass(frozen=True)
class Detector:
    """A kept detector, read back."""

    path: Path
    about: Mapping[str, Any]
    """detector.json."""
    keys: Keys
    linear: Linear
    calibration: Calibration

    @property
    def position(self) -> str:
        """Where texts are read, as `bluffscope analyze --position` has it."""
        measure: object = self.about["config"].get("measure")
        return str(cast("dict[str, Any]", measure).get("position", "last")) if isinstance(measure, dict) else "last"


def check_new(folder: Path) -> None:
    """Refuse a folder that holds a detector already, or that is a file.

    Raises:
        InputError: saying so.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: a file; give a folder")
    refuse_links(folder)
    if there := next((name for name in _NAMES if (folder / name).exists()), None):
        raise InputError(f"--out {folder}: there is a {there} already; give another folder")


def write_detector(folder: Path, trained: Trained, run: Run, where: tuple[str, ...]) -> tuple[Path, Path]:
    """Write both files; gives their paths. detector.json comes last: without it there is no detector.

    Args:
        folder: made if need be.
        trained: what is kept.
        run: whose model and SAEs it needs.
        where: the conditions that chose its pairs.

    Raises:
        RunFolderError: the operating system refused.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    content = _packed(trained)
    manifest, keys = run.manifest, trained.keys
    names = {f"{name}_{side}" for name in keys.metrics for side in ("fact", "hall")}
    names |= {_layered(name, side) for name in keys.metrics for side in ("fact", "hall")}
    versions = {name: version for name, version in manifest.get("metric_versions", {}).items() if name in names}
    document = {
        "detector_version": DETECTOR_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "on": keys.on,
        **{name: manifest.get(name) for name in _IDENTITY},
        "config": {name: run.config.get(name) for name in ("data", "model", "measure")},
        "metric_versions": versions,
        "columns": {"metrics": list(keys.metrics), "layers": list(keys.layers), "features": keys.features.height},
        "trained": {"run": str(run.path), "where": list(where), **trained.about},
        "evaluation": {
            "cross_validated": trained.rows.to_dicts(),
            "ece": trained.ece,
            "beats_baselines": trained.beats,
            "left_out": trained.left_out,
        },
        "weights": {"file": _NAMES[1], "sha256": hashlib.sha256(content).hexdigest()},
        "packages": package_versions(_PACKAGES),
    }
    paths = (folder / _NAMES[0], folder / _NAMES[1])
    write_bytes(paths[1], content)
    text = json.dumps(plain(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(paths[0], text.encode("utf-8", "backslashreplace"))
    return paths


def _layered(metric: str, side: str) -> str:
    """The column of a layer's metric: l5_gini is l5_fact_gini."""
    layer, _, name = metric.partition("_")
    return f"{layer}_{side}_{name}"


def _packed(trained: Trained) -> bytes:
    from safetensors.numpy import save  # imports no torch

    linear, features = trained.linear, trained.keys.features
    return save(
        {
            "weights": linear.weights,
            "medians": linear.medians,
            "missing": linear.missing,
            "intercept": np.array([linear.intercept]),
            "calibration": np.array(trained.calibration, dtype=np.float64),
            "layer": features["layer"].to_numpy().copy(),
            "feature": features["feature"].to_numpy().copy(),
        }
    )


def read_detector(folder: str | Path) -> Detector:
    """Read a kept detector.

    Raises:
        InputError: there is none, a file of it is missing or damaged, it is of a later version, or its files do not
            belong together.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is {'a file' if folder.exists() else 'missing'}: expected a detector's folder")
    refuse_links(folder)
    path = folder / _NAMES[0]
    if not path.exists():
        raise InputError(
            f"{folder} holds no detector (no {path.name}): give a folder that bluffscope detect train wrote"
        )
    try:
        about: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{unreadable(path, error)}: train the detector again") from error
    if not isinstance(about, dict) or "detector_version" not in about:
        raise InputError(f"{path} was not written by bluffscope detect train: give another folder")
    content = cast("dict[str, Any]", about)
    version = content["detector_version"]
    if not isinstance(version, int) or version > DETECTOR_VERSION:
        raise InputError(f"{path} is of version {version}, this bluffscope knows up to {DETECTOR_VERSION}: update")
    if lacking := [name for name in _NEEDED if name not in content]:
        raise InputError(f"{path} is damaged (no {lacking[0]!r} in it): train the detector again")
    if strange := [name for name in _MAPPINGS if not isinstance(content[name], dict)]:
        raise InputError(f"{path} is damaged ({strange[0]!r} is not an object): train the detector again")
    try:
        return _unpacked(folder, content)
    except (KeyError, TypeError, ValueError, AttributeError, pl.exceptions.PolarsError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: its files do not belong together ({reason}): train the detector again") from error


def _unpacked(folder: Path, about: dict[str, Any]) -> Detector:
    """The detector behind detector.json; whatever error Python gives where something in it is of another type."""
    arrays = _arrays(folder / _NAMES[1], about["weights"]["sha256"])
    columns, on = about["columns"], about["on"]
    if on not in ("sae", "metrics", "residual"):
        raise ValueError(f"it looks at {on!r}")
    keys = Keys(
        on,
        metrics=tuple(map(str, columns["metrics"])),
        features=pl.DataFrame({name: arrays[name].astype(np.int64) for name in ("layer", "feature")}),
        layers=tuple(map(int, columns["layers"])),
    )
    linear = Linear(arrays["weights"], arrays["medians"], arrays["missing"], float(arrays["intercept"][0]))
    width = len(linear.weights)
    expected = {"sae": keys.features.height, "metrics": len(keys.metrics), "residual": width}[on]
    if width != expected or any(array.shape != (width,) for array in (linear.medians, linear.missing)):
        raise ValueError(f"{width} weights for {expected} columns")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("weights that are not finite")
    slope, offset = map(float, arrays["calibration"])
    return Detector(folder, about, keys, linear, Calibration(slope, offset))


def _arrays(path: Path, digest: str) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load  # imports no torch

    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise InputError(
                f"{path} is not the file that detector.json names (another hash): train the detector again"
            )
        return load(content)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{unreadable(path, error)}: train the detector again") from error


__all__ = ["DETECTOR_VERSION", "Detector", "check_new", "read_detector", "write_detector"]
