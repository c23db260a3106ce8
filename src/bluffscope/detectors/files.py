"""A kept detector: detector.json says what it is and needs, weights.safetensors holds its numbers. No pickle.

README.md, its model card, tells a reader.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import polars as pl

from bluffscope.detectors.conformal import Alarm
from bluffscope.detectors.inputs import Keys
from bluffscope.detectors.linear import Calibration, Linear
from bluffscope.detectors.train import Source, Trained
from bluffscope.errors import InputError
from bluffscope.records import PAIRS, PROMPTED, STATEMENTS, Arrangement
from bluffscope.table.atomic import unreadable, write_bytes, writing
from bluffscope.table.damage import read_json
from bluffscope.table.folder import write_json
from bluffscope.table.links import refuse_links
from bluffscope.table.manifest import package_versions
from bluffscope.table.metric_pairs import metric_pairs

DETECTOR_VERSION: Final = 1
"""Version of both files' layout."""
_AGAIN: Final = "train the detector again"
_NAMES: Final = ("detector.json", "weights.safetensors", "README.md")
_PACKAGES: Final = ("bluffscope", "numpy", "scipy", "scikit-learn", "torch", "transformers", "sae-lens")
_NEEDED: Final = ("on", "model", "saes", "config", "metric_versions", "columns", "weights", "evaluation")
_IDENTITY: Final = ("model", "saes", "dtype", "quantize")
_ITEMS: Final = {"pairs": PAIRS, "prompted": PROMPTED, "statements": STATEMENTS}
"""What detector.json calls the items of the training's run; one of before labelled texts says nothing."""


@dataclass(frozen=True)
class Detector:
    """A kept detector, read back."""

    path: Path
    about: Mapping[str, Any]
    """detector.json."""
    keys: Keys
    linear: Linear
    calibration: Calibration
    alarm: Alarm | None
    """The threshold for alarms, where it was trained with one."""

    @property
    def arrangement(self) -> Arrangement:
        """What the items of the training's run were."""
        return _ITEMS[self.about.get("items", "pairs")]

    @property
    def position(self) -> str:
        """Where texts are read, as `bluffscope analyze --position` has it."""
        measure: object = self.about["config"].get("measure")
        return str(cast("dict[str, Any]", measure).get("position", "last")) if isinstance(measure, dict) else "last"

    @property
    def by_token(self) -> bool:
        """Whether it judges tokens, each by itself, and of a text its highest token."""
        return self.position == "tokens"

    @property
    def chat(self) -> bool:
        """Whether its texts were conversations by the model's chat template."""
        return bool(self._data.get("chat"))

    @property
    def system(self) -> str | None:
        """The system message in front of them."""
        return self._data.get("system")

    @property
    def _data(self) -> Mapping[str, Any]:
        data: object = self.about["config"].get("data")
        return cast("dict[str, Any]", data) if isinstance(data, dict) else {}

    @property
    def pairs_only(self) -> str:
        """Why a text that is not parted into prompt and completion cannot be scored; empty where it can."""
        if self.arrangement == STATEMENTS:
            return ""
        if self.keys.on == "metrics":
            return "uses metrics of prompt and completion"
        if self.position != "last":
            return "reads a completion's tokens" if self.by_token else f"reads at {self.position}"
        return "reads what the assistant says in a conversation" if self.chat else ""


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


def write_detector(
    folder: Path, trained: Trained, run: Source, where: tuple[str, ...], card: str = ""
) -> tuple[Path, Path]:
    """Write both files; gives their paths. detector.json comes last: without it there is no detector.

    Args:
        folder: made if need be.
        trained: what is kept.
        run: what it was trained on, whose model and SAEs it needs.
        where: the conditions that chose its pairs.
        card: its model card, README.md, in Markdown.

    Raises:
        RunFolderError: the operating system refused.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    content = _packed(trained)
    manifest, keys = run.manifest, trained.keys
    versions: dict[str, int] = manifest.get("metric_versions", {})
    pairs = [pair for pair in metric_pairs(list(versions)) if pair.name in keys.metrics]
    used = {name for pair in pairs for name in (pair.fact, pair.hall)}
    if trained.arrangement != PAIRS:
        used = set(keys.metrics)
    document = {
        "detector_version": DETECTOR_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "on": keys.on,
        "items": next(name for name, items in _ITEMS.items() if items == trained.arrangement),
        **{name: manifest.get(name) for name in _IDENTITY},
        **({"model": {}, "saes": {}} if keys.given else {}),
        "config": {name: _read_there(run.config.get(name), trained) for name in ("data", "model", "measure")},
        "metric_versions": {name: version for name, version in versions.items() if name in used},
        "columns": {
            "metrics": list(keys.metrics),
            "layers": list(keys.layers),
            "features": keys.features.height,
            "given": keys.given,
        },
        "trained": {
            "run": str(run.path),
            "data": (manifest.get("data") or {}).get("digest"),
            "where": list(where),
            **trained.about,
        },
        "evaluation": {
            "cross_validated": trained.rows.to_dicts(),
            "ece": trained.ece,
            "beats_baselines": trained.beats,
            "left_out": trained.left_out,
        },
        "alarm": None if trained.alarm is None else trained.alarm.as_dict(),
        "weights": {"file": _NAMES[1], "sha256": hashlib.sha256(content).hexdigest()},
        "packages": package_versions(_PACKAGES),
    }
    paths = (folder / _NAMES[0], folder / _NAMES[1])
    write_bytes(paths[1], content)
    if card:
        write_bytes(folder / _NAMES[2], card.encode("utf-8", "backslashreplace"))
    write_json(paths[0], document)
    return paths


def _read_there(options: Any, trained: Trained) -> Any:
    """A part of the run's options, with the one position at which the detector reads."""
    return {**options, "position": trained.position} if isinstance(options, dict) and "position" in options else options


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
    content = read_json(path, _AGAIN)
    if "detector_version" not in content:
        raise InputError(f"{path} was not written by bluffscope detect train: give another folder")
    version = content["detector_version"]
    if not isinstance(version, int) or version > DETECTOR_VERSION:
        raise InputError(f"{path} is of version {version}, this bluffscope knows up to {DETECTOR_VERSION}: update")
    if lacking := [name for name in _NEEDED if name not in content]:
        raise InputError(f"{path} is damaged (no {lacking[0]!r} in it): {_AGAIN}")
    if strange := [name for name in _NEEDED if name != "on" and not isinstance(content[name], dict)]:
        raise InputError(f"{path} is damaged ({strange[0]!r} is not an object): {_AGAIN}")
    try:
        return _unpacked(folder, content)
    except (KeyError, TypeError, ValueError, AttributeError, pl.exceptions.PolarsError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: its files do not belong together ({reason}): {_AGAIN}") from error


def _unpacked(folder: Path, about: dict[str, Any]) -> Detector:
    """The detector behind detector.json; whatever error Python gives where something in it is of another type."""
    arrays = _arrays(folder / _NAMES[1], about["weights"]["sha256"])
    columns, on = about["columns"], about["on"]
    if about.get("items", "pairs") not in _ITEMS:
        raise ValueError(f"its items are {about['items']!r}")
    if on not in ("sae", "metrics", "residual"):
        raise ValueError(f"it looks at {on!r}")
    keys = Keys(
        on,
        metrics=tuple(map(str, columns["metrics"])),
        features=pl.DataFrame({name: arrays[name].astype(np.int64) for name in ("layer", "feature")}),
        layers=tuple(map(int, columns["layers"])),
        given=tuple((str(name), int(width)) for name, width in columns.get("given", ())),
    )
    linear = Linear(arrays["weights"], arrays["medians"], arrays["missing"], float(arrays["intercept"][0]))
    width = len(linear.weights)
    of_vectors = sum(part for _, part in keys.given) or width
    expected = {"sae": keys.features.height, "metrics": len(keys.metrics), "residual": of_vectors}[on]
    if width != expected or any(array.shape != (width,) for array in (linear.medians, linear.missing)):
        raise ValueError(f"{width} weights for {expected} columns")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("weights that are not finite")
    slope, offset = map(float, arrays["calibration"])
    alarm = about.get("alarm")
    kept = None if alarm is None else Alarm(float(alarm["alpha"]), float(alarm["threshold"]), int(alarm["clusters"]))
    return Detector(folder, about, keys, linear, Calibration(slope, offset), kept)


def _arrays(path: Path, digest: str) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load  # imports no torch

    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise InputError(f"{path} is not the file that detector.json names (another hash): {_AGAIN}")
        return load(content)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{unreadable(path, error)}: {_AGAIN}") from error
