"""A Hugging Face cache as downloads leave it: random models and SAEs under real names, for runs without a network.

Everything is as on the hub, so that presets load by their own names with nothing patched. Only Gemma Scope's loader
fixes the widths by name; its SAEs are of full width here, nearly all zeros, and compressed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

import tiny

GEMMA_2_2B = "google/gemma-2-2b"
GEMMA_SCOPE_2B = "google/gemma-scope-2b-pt-res"
D_MODEL_2B = 2304
WIDTH_16K = 16384
ACTIVE = 72
"""Features of an SAE that are not zero: enough that an archive does not look like one made to fill the memory."""


def add_repository(home: Path, name: str, files: Path) -> str:
    """Put a folder's files into the cache as the branch main of a repository.

    Args:
        home: what HF_HOME is to be.
        name: ORGANISATION/NAME of the repository.
        files: folder whose files, at any depth, are the repository's; they are moved.

    Returns:
        The commit.
    """
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    commit = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "blobs").mkdir()
    for file in sorted(path for path in files.rglob("*") if path.is_file()):
        link = snapshot(home, name) / file.relative_to(files)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return commit


def snapshot(home: Path, name: str) -> Path:
    """The folder in which a cached repository's files are found."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    return repository / "snapshots" / (repository / "refs" / "main").read_text()


def add_model(
    home: Path, scratch: Path, name: str, architecture: str, *, shard_size: str = "5GB", **config: object
) -> str:
    """A random model under a real name, its configuration changed as given; in shards where it is larger than one."""
    folder = tiny.save_model(scratch / name, architecture, shard_size=shard_size, **config)
    return add_repository(home, name, folder)


def save_gemma_scope(folder: Path, paths: dict[int, str], *, d_in: int, d_sae: int, seed: int = 0) -> Path:
    """Gemma Scope SAEs of full width, `ACTIVE` features of which are not zero.

    Args:
        folder: where the repository's files go.
        paths: by layer, the folder of its params.npz.
        d_in: width of the residual stream.
        d_sae: features of an SAE.
        seed: another for every set of SAEs.
    """
    places = np.linspace(0, d_sae - 1, ACTIVE, dtype=int)
    for layer, path in paths.items():
        small = {name: tensor.numpy() for name, tensor in tiny.sae_weights(seed + layer, d_in, ACTIVE).items()}
        arrays = {"b_dec": small["b_dec"]}
        for name in ("W_enc", "W_dec", "b_enc", "threshold"):
            axis = 1 if name == "W_enc" else 0
            shape = [d_sae if place == axis else size for place, size in enumerate(small[name].shape)]
            arrays[name] = np.zeros(shape, np.float32)
            arrays[name][(slice(None), places) if axis else places] = small[name]
        (folder / path).mkdir(parents=True)
        np.savez_compressed(folder / path / "params.npz", **arrays)
    return folder


def add_gemma_2_2b(home: Path, scratch: Path, layers: tuple[int, ...] = (5, 12, 20)) -> dict[str, str]:
    """`google/gemma-2-2b` (its depth, width and three shards, the rest tiny) and its canonical 16k SAEs.

    Beside each canonical SAE lies one of another L0 that cannot be opened: taking it ends a run.

    Returns:
        The commit of each repository.
    """
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    table = get_pretrained_saes_directory()["gemma-scope-2b-pt-res-canonical"].saes_map
    paths = {layer: table[f"layer_{layer}/width_16k/canonical"] for layer in layers}
    scope = save_gemma_scope(scratch / GEMMA_SCOPE_2B, paths, d_in=D_MODEL_2B, d_sae=WIDTH_16K)
    for layer in layers:
        other = scope / f"layer_{layer}" / "width_16k" / "average_l0_999" / "params.npz"
        other.parent.mkdir()
        other.write_bytes(b"not to be opened")
    model = add_model(
        home, scratch, GEMMA_2_2B, "gemma2", shard_size="8MB", hidden_size=D_MODEL_2B, num_hidden_layers=26
    )
    return {GEMMA_2_2B: model, GEMMA_SCOPE_2B: add_repository(home, GEMMA_SCOPE_2B, scope)}


def offline(home: Path) -> dict[str, str]:
    """The environment of a process that has this cache and no network."""
    away = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_TOKEN", "HF_ENDPOINT")
    kept = {name: value for name, value in os.environ.items() if name not in away}
    return kept | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
