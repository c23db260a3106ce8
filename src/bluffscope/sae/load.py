"""Finding SAEs by release or folder, and loading them through SAELens.

Importing sae_lens costs seconds and half a gigabyte, so it happens only inside the functions that
load; finding SAEs in a folder needs no import at all.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import warnings
import zipfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bluffscope.errors import InputError
from bluffscope.identity import weights_digest
from bluffscope.sae.coder import Coder

if TYPE_CHECKING:
    import torch
    from sae_lens import SAE

logger = logging.getLogger(__name__)

SAELENS_FILES = ("cfg.json", "sae_weights.safetensors")
CANONICAL_L0 = 100
"""Gemma Scope calls the SAE with the mean L0 nearest to this the canonical one of its width."""
_LAYER_FOLDER = re.compile(r"layer_(\d+)")
_GEMMA_FOLDER = re.compile(r"width_(\d+)([km])/average_l0_(\d+)/params\.npz")


@dataclass(frozen=True)
class SaeSource:
    """Where the SAE of every layer is found."""

    name: str
    """The release or folder as the user gave it."""
    layers: tuple[int, ...]
    folders: Mapping[int, Path]
    """SAELens folders by layer."""
    archives: Mapping[int, Path]
    """Gemma Scope params.npz files by layer."""
    ids: Mapping[int, str]
    """SAELens ids by layer, for a release."""
    release: str = ""


def find_saes(spec: str, layers: tuple[int, ...]) -> SaeSource:
    """Find one SAE for every layer.

    Args:
        spec: a folder with `layer_K/` in it (SAELens or Gemma Scope layout), a SAELens release, or
            `RELEASE:ID` where ID holds `{layer}`.
        layers: the layers wanted; empty takes all that a folder has.

    Raises:
        InputError: nothing of that name, no SAE for a layer, or several that fit.
    """
    path = Path(spec).expanduser()
    if path.is_dir():
        return _find_in_folder(spec, path, layers)
    if spec.startswith((".", "/", "~")):
        raise InputError(f"--sae {spec}: no such folder; give a folder that holds layer_K/ or a SAELens release")
    if not layers:
        raise InputError(f"--sae {spec}: say which layers, as --layers 5 12 20")
    release, _, template = spec.partition(":")
    return SaeSource(spec, layers, {}, {}, {layer: _release_id(release, template, layer) for layer in layers}, release)


def _find_in_folder(spec: str, path: Path, layers: tuple[int, ...]) -> SaeSource:
    folders: dict[int, Path] = {}
    archives: dict[int, Path] = {}
    pickled: dict[int, Path] = {}
    for child in sorted(path.iterdir()):
        match = _LAYER_FOLDER.fullmatch(child.name)
        if not match or not child.is_dir():
            continue
        layer = int(match[1])
        if all((child / name).is_file() for name in SAELENS_FILES):
            folders[layer] = child
        elif archive := _canonical_archive(child):
            archives[layer] = archive
        elif found := next((f for f in sorted(child.iterdir()) if f.suffix in (".pt", ".bin", ".pkl", ".pth")), None):
            pickled[layer] = found
    available = sorted({*folders, *archives})
    if pickled and not available:
        first = next(iter(pickled.values()))
        raise InputError(
            f"--sae {spec}: {first.relative_to(path)} is a pickle, which can run code when opened and is refused; "
            "load it where you trust it and save it with SAELens's save_model (cfg.json + sae_weights.safetensors)"
        )
    if not available:
        raise InputError(
            f"--sae {spec}: no SAE in this folder; expected layer_K/ with {' + '.join(SAELENS_FILES)}, "
            "or layer_K/width_*/average_l0_*/params.npz"
        )
    wanted = layers or tuple(available)
    if missing := [layer for layer in wanted if layer not in available]:
        raise InputError(
            f"--sae {spec}: no SAE for layer {missing[0]}; the folder has layers {' '.join(map(str, available))}"
        )
    return SaeSource(
        spec,
        wanted,
        {layer: folders[layer] for layer in wanted if layer in folders},
        {layer: archives[layer] for layer in wanted if layer not in folders},
        {},
    )


def _canonical_archive(folder: Path) -> Path | None:
    """The SAE of a Gemma Scope layer folder: width 16k if it is there, else the smallest; then the canonical L0."""

    class Candidate(NamedTuple):
        not_16k: bool
        width: int
        from_canonical: int
        path: Path

    found: list[Candidate] = []
    for path in folder.glob("width_*/average_l0_*/params.npz"):
        if match := _GEMMA_FOLDER.search(path.as_posix()):
            width = int(match[1]) * (1 if match[2] == "k" else 1000)
            found.append(Candidate(width != 16, width, abs(int(match[3]) - CANONICAL_L0), path))
    return min(found).path if found else None


def _release_id(release: str, template: str, layer: int) -> str:
    """The id of a layer's SAE in a release."""
    if template:
        return template.format(layer=layer) if "{layer}" in template else template
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    directory = get_pretrained_saes_directory()
    if release not in directory:
        raise InputError(
            f"--sae {release}: neither a folder nor a SAELens release; see `bluffscope presets` and SAELens's table of "
            "pretrained SAEs, or name a hub repository and its id as REPO:ID"
        )
    ids = list(directory[release].saes_map)
    pattern = re.compile(rf"(?:^|[^0-9])(?:layer_|blocks\.|l|L)?{layer}(?:[^0-9]|$)")
    fitting = [name for name in ids if pattern.search(name.split("/")[0])]
    canonical = [name for name in fitting if name == f"layer_{layer}/width_16k/canonical"]
    if len(canonical or fitting) == 1:
        return (canonical or fitting)[0]
    shown = ", ".join((fitting or ids)[:4]) + (", ..." if len(fitting or ids) > 4 else "")
    what = "several SAEs fit" if fitting else "no SAE for"
    raise InputError(f"--sae {release}: {what} layer {layer} ({shown}); name one as {release}:ID with {{layer}} in ID")


def load_coders(source: SaeSource, *, device: str, dtype: torch.dtype) -> dict[int, Coder]:
    """Load the SAE of every layer, in the order of the source's layers.

    Args:
        source: what `find_saes` found.
        device: torch device name.
        dtype: float32 or float64.

    Raises:
        InputError: a file that is missing, damaged, a pickle, or of an unknown architecture; a hub that says no.
    """
    coders: dict[int, Coder] = {}
    for layer in source.layers:
        where = f"--sae {source.name}, layer {layer}"
        with _quiet(), _as_input_error(where):
            if layer in source.folders:
                sae = _from_folder(source.folders[layer], device, dtype)
                origin = {"folder": str(source.folders[layer])}
            elif layer in source.archives:
                sae = _from_archive(source.archives[layer], layer, device, dtype)
                origin = {"file": str(source.archives[layer])}
            else:
                sae = _from_release(source.release, source.ids[layer], device, dtype)
                origin = {"release": source.release, "id": source.ids[layer]}
        coders[layer] = _coder(sae, layer, origin, where)
    return coders


def _from_folder(folder: Path, device: str, dtype: torch.dtype) -> SAE[Any]:
    from sae_lens import SAE

    return SAE.load_from_disk(folder, device=device, dtype=str(dtype).removeprefix("torch."))


def _from_release(release: str, sae_id: str, device: str, dtype: torch.dtype) -> SAE[Any]:
    from sae_lens import SAE

    return SAE.from_pretrained(release, sae_id, device=device, dtype=str(dtype).removeprefix("torch."))


def _from_archive(path: Path, layer: int, device: str, dtype: torch.dtype) -> SAE[Any]:
    """A Gemma Scope params.npz as SAELens's JumpReLU SAE (there is no disk loader for it)."""
    import numpy as np
    import torch
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    names = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
    with np.load(path, allow_pickle=False) as archive:
        if absent := [name for name in names if name not in archive]:
            raise ValueError(f"{path.name} has no array {absent[0]}; expected {', '.join(names)}")
        weights = {name: torch.from_numpy(archive[name]).to(device=device, dtype=dtype) for name in names}
    d_in, d_sae = weights["W_enc"].shape
    metadata = SAEMetadata(
        hook_name=f"blocks.{layer}.hook_resid_post",
        prepend_bos=True,
        l0=float(path.parent.name.removeprefix("average_l0_")),
    )
    config = JumpReLUSAEConfig(
        d_in=d_in,
        d_sae=d_sae,
        dtype=str(dtype).removeprefix("torch."),
        device="meta",
        apply_b_dec_to_input=False,
        normalize_activations="none",
        metadata=metadata,
    )
    sae = JumpReLUSAE(config)
    sae.load_state_dict(weights, assign=True)
    sae.cfg.device = device
    return sae.to(dtype=dtype, device=device)


def _coder(sae: SAE[Any], layer: int, origin: dict[str, str], where: str) -> Coder:
    sae.eval().requires_grad_(False)
    metadata = sae.cfg.metadata
    hook_name = metadata.get("hook_name")
    if not hook_name:
        raise InputError(f"{where}: its metadata names no hook_name; add e.g. blocks.{layer}.hook_resid_post to it")
    if asked := metadata.get("model_from_pretrained_kwargs"):
        logger.warning(
            "%s was trained on a model loaded with %s, which is not applied: its errors and L0 may be off", where, asked
        )
    identity = {
        **origin,
        "architecture": sae.cfg.architecture(),
        "hook_name": hook_name,
        "d_in": sae.cfg.d_in,
        "d_sae": sae.cfg.d_sae,
        "published_l0": metadata.get("l0"),
        "neuronpedia_id": metadata.get("neuronpedia_id"),
        "weights": weights_digest(sae.state_dict().items()),
    }
    prepend_bos = metadata.get("prepend_bos")
    return Coder(layer, sae, hook_name, True if prepend_bos is None else bool(prepend_bos), identity)


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
    """Keep the libraries' own start-up warnings from the user; ours come through logging."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _as_input_error(where: str) -> Generator[None, None, None]:
    """Say in one line what is wrong with an SAE on disk or on the hub."""
    from safetensors import SafetensorError

    try:
        yield
    except InputError:
        raise
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: cfg.json is not valid JSON (line {error.lineno}); save the SAE again") from error
    except (SafetensorError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{where}: the weights file is damaged ({_line(error)}); copy or save it again") from error
    except (KeyError, TypeError, ValueError, RuntimeError, ImportError) as error:
        raise InputError(
            f"{where}: not an SAE that this SAELens can load ({_line(error)}); check its cfg.json and id"
        ) from error
    except OSError as error:
        raise InputError(
            f"{where}: cannot be read or downloaded ({_line(error)}); check the name, the network and HF_TOKEN, "
            "or give a folder"
        ) from error


def _line(error: BaseException) -> str:
    """The first line of an error's text, shortened."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
