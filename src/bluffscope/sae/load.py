"""Loading SAEs: those of the usual architectures as they lie in their files, all others through SAELens.

Importing sae_lens costs seconds and half a gigabyte, so it happens only inside the functions that need it.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import zipfile
import zlib
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluffscope.errors import InputError
from bluffscope.host.float64_guard import own_settings
from bluffscope.host.hub import as_input_error, cached_commit, cached_snapshot, gone, in_one_line, refusal
from bluffscope.host.quiet import libraries_quiet, replaced
from bluffscope.host.weights_digest import file_hashes, weights_digest
from bluffscope.sae.coder import AnySae, Coder
from bluffscope.sae.find import SaeSource, registry
from bluffscope.sae.formats import read_archive, read_sae
from bluffscope.sae.layouts import FILES, weights_file
from bluffscope.sae.plain import PlainSae, known_config, read_plain
from bluffscope.sae.releases import release_files, saelens_at

if TYPE_CHECKING:
    import torch
    from sae_lens import SAE

_L0_IN_PATH = re.compile(r"average_l0_(\d+)")
CENTRED = "center_writing_weights"
"""TransformerLens's option that centres every weight that writes to the residual stream; it is applied."""
REVISION = "revision"
"""The commit of the model; `--revision` must name the same."""
_HARMLESS = (
    # of TransformerLens: they change how the same residual stream is computed, or what reads it
    *("fold_ln", "center_unembed", "fold_value_biases", "refactor_factored_attn_matrices"),
    *("default_padding_side", "default_prepend_bos", "n_ctx", "n_devices", "device", "move_to_device"),
    # of transformers: where and how it is loaded
    *("dtype", "torch_dtype", "device_map", "attn_implementation", "low_cpu_mem_usage", "trust_remote_code"),
    *("cache_dir", "local_files_only", "token", "use_safetensors", "hf_model", "tokenizer"),
)
"""Options of `from_pretrained` under which the SAE reads what it reads here as well."""
_OF_HEADS = ("fold_value_biases", "refactor_factored_attn_matrices")
"""Those of them that change what the heads give, though not what they add to the residual stream."""
_GEMMA_SCOPE = re.compile(r"google/gemma-scope-(2b|9b|27b)-(pt|it)-res")
_SCOPE_LAYER = re.compile(r"layer_(\d+)/")
_UNSUITABLE = {
    "temporal": "it encodes a whole text at once, but single residuals are measured",
    "abstopk": "its features can be negative, but the analyses are defined for activations of 0 and more",
}


@own_settings()
def load_coders(source: SaeSource, *, device: str, dtype: torch.dtype) -> dict[int, Coder]:
    """Load the SAE of every layer, in the order of the source's layers.

    Args:
        source: what `find_saes` found.
        device: torch device name.
        dtype: float32 or float64.

    Raises:
        InputError: a file that is missing, damaged, a pickle, or of an unknown architecture; a hub that says no.
    """
    import torch

    coders: dict[int, Coder] = {}
    for layer, place in source.places.items():
        where = f"--sae {source.name}, layer {layer}"
        with libraries_quiet(), sae_errors(where, source.repository, place_of(source, place)):
            if isinstance(place, str):
                sae = _from_plain_release(source, place, device, dtype)
                if sae is None:
                    with saelens_at(source.revision, download=True):
                        sae = _from_release(source.release, place, device, dtype)
                origin = _registered(source, place)
                files = release_files(source.repository, origin["path"], source.revision)
            else:
                sae = read_sae(place, layer, where, device, dtype)
                origin = {"file" if place.is_file() else "folder": str(place)}
                files = {weights_file(place).name: weights_file(place)}
            hashes = file_hashes(files)
        coder = as_coder(sae, layer, origin, where)
        with sae_errors(where, source.repository), torch.no_grad():  # some fail only when they are used
            sae.decode(sae.encode(torch.zeros(1, coder.d_in, dtype=dtype, device=device)))
        coders[layer] = replace(coder, identity={**coder.identity, "files": hashes})
    return coders


def is_saelens(sae: AnySae) -> bool:
    """Whether an SAE is one of SAELens's own classes, not of our light reader."""
    return not isinstance(sae, PlainSae)


def as_saelens(sae: AnySae) -> Any:
    """An SAE as SAELens itself reads it from its files, in the same precision and place; imports SAELens."""
    if not isinstance(sae, PlainSae):
        return sae
    from sae_lens import SAE  # seconds-slow

    with tempfile.TemporaryDirectory(prefix="bluffscope-") as scratch:
        sae.save_model(Path(scratch))
        weights = sae.W_enc
        theirs = SAE.load_from_disk(
            Path(scratch), device=str(weights.device), dtype=str(weights.dtype).removeprefix("torch.")
        )
    return _flat(theirs)


def _flat(sae: AnySae) -> AnySae:
    """An SAE that takes the outputs of attention heads one after the other, whatever it was saved for."""
    if not isinstance(sae, PlainSae) and sae.cfg.reshape_activations == "hook_z":
        sae.turn_off_forward_pass_hook_z_reshaping()
    return sae


def _from_plain_release(source: SaeSource, sae_id: str, device: str, dtype: torch.dtype) -> PlainSae | None:
    """An SAE of Gemma Scope's residual stream, or as SAELens 6 saves them; None where SAELens has to load it."""
    from huggingface_hub import hf_hub_download

    entry = registry().get(source.release)
    if entry is not None and entry.config_overrides:
        return None
    path, conversion = (sae_id, "") if entry is None else (entry.saes_map[sae_id], entry.conversion)
    pages = {} if entry is None else {"neuronpedia_id": entry.neuronpedia.get(sae_id)}

    def file(name: str) -> Path:
        return Path(hf_hub_download(source.repository, name, subfolder=path, revision=source.revision))

    scope, layer = _GEMMA_SCOPE.fullmatch(source.repository), _SCOPE_LAYER.match(path)
    if conversion == "gemma_2" and scope and layer:
        model = f"gemma-2-{scope[1]}{'-it' if scope[2] == 'it' else ''}"
        read = {"hook_name": f"blocks.{int(layer[1])}.hook_resid_post", "prepend_bos": True}
        return read_archive(file("params.npz"), read | {"model_name": model, **pages}, device, dtype)
    if conversion:
        return None
    said: Any = json.loads(file(FILES["SAELens"][0]).read_text(encoding="utf-8"))
    if not isinstance(said, dict) or known_config(said) is None:
        return None
    said["metadata"] |= pages
    return read_plain(said, file(FILES["SAELens"][1]), device, dtype)


def _from_release(release: str, sae_id: str, device: str, dtype: torch.dtype) -> SAE[Any]:
    from sae_lens import SAE

    with no_pickle(f"--sae {release}:{sae_id}"):
        return SAE.from_pretrained(release, sae_id, device=device, dtype=str(dtype).removeprefix("torch."))


@contextlib.contextmanager
def no_pickle(where: str) -> Generator[None, None, None]:
    """Within the block, `torch.load` refuses: SAELens opens the weights of some older releases with it.

    Args:
        where: how messages name the SAE.
    """
    import torch

    def refuse(*_: object, **__: object) -> None:
        raise InputError(
            f"{where}: its weights are a pickle, which can run code when opened and is refused; convert it where you "
            "trust it: SAE.from_pretrained(RELEASE, ID).save_model(DIR), of SAELens, writes safetensors"
        )

    with replaced(torch, load=refuse):
        yield


def as_coder(sae: AnySae, layer: int, origin: Mapping[str, Any], where: str) -> Coder:
    """An SAE behind the calls the pipeline needs, in evaluation mode.

    Args:
        sae: the SAE, ours or SAELens's.
        layer: the layer it stands for.
        origin: where it came from and what is published of it, for the manifest.
        where: how messages name it.

    Raises:
        InputError: it cannot be used: no hook_name, a transcoder, features that can be negative, weights not finite.
    """
    _flat(sae).eval().requires_grad_(False)
    metadata = sae.cfg.metadata
    hook_name = metadata.get("hook_name")
    if not isinstance(hook_name, str):
        raise InputError(
            f"{where}: its metadata names no hook_name; add the one it was trained on to cfg.json, "
            f'such as "blocks.{layer}.hook_resid_post"'
        )
    _refuse_transcoder(sae, where)
    if (head := metadata.get("hook_head_index")) is not None:
        raise InputError(f"{where}: it reads head {head} alone; give SAEs of all heads' outputs, hook_z")
    if reason := _UNSUITABLE.get(sae.cfg.architecture()):
        raise InputError(f"{where}: architecture {sae.cfg.architecture()}: {reason}; give SAEs of another one")
    _refuse_nonfinite(sae, where)
    asked = _processing(metadata.get("model_from_pretrained_kwargs"), hook_name, where)
    identity = {
        **origin,
        "architecture": sae.cfg.architecture(),
        "hook_name": hook_name,
        "d_in": sae.cfg.d_in,
        "d_sae": sae.cfg.d_sae,
        "published_l0": _published_l0(metadata, origin),
        "neuronpedia_id": metadata.get("neuronpedia_id"),
        "weights": weights_digest(sae.state_dict().items()),
        "trained_on": {
            "model_name": metadata.get("model_name"),
            "architecture": metadata.get("training_architecture"),
            "k": _trained_k(metadata),
            "processing": asked,
        },
    }
    prepend_bos = metadata.get("prepend_bos")
    return Coder(
        layer,
        sae,
        hook_name,
        True if prepend_bos is None else bool(prepend_bos),
        centred=bool(asked.get(CENTRED)),
        identity=identity,
    )


def _processing(asked: Any, hook_name: str, where: str) -> dict[str, Any]:
    """How the model was processed that an SAE was trained on, as far as it changes what the SAE reads.

    Raises:
        InputError: something in it changes the residual stream and cannot be applied here.
    """
    if asked is not None and not isinstance(asked, Mapping):
        raise InputError(f"{where}: model_from_pretrained_kwargs is not an object; copy or save the SAE again")
    chosen = {str(name): value for name, value in (asked or {}).items()}
    harmless = set(_HARMLESS) - (set(_OF_HEADS) if hook_name.endswith("hook_z") else set())
    effective = {name: value for name, value in chosen.items() if name not in harmless and value is not False}
    for name, value in effective.items():
        if name not in (CENTRED, REVISION):
            raise InputError(
                f"{where}: it was trained on a model loaded with {name}={value!r}, which cannot be applied here; give "
                "SAEs that were trained on the model as it is"
            )
    return {name: value for name, value in effective.items() if value is not None}


def _published_l0(metadata: Any, origin: Mapping[str, Any]) -> float | None:
    """The mean L0 that an SAE's metadata, its release, or the path it lies at states."""
    if stated := metadata.get("l0") or origin.get("published_l0"):
        return float(stated)
    path = str(Path(origin["folder"]).resolve()) if "folder" in origin else str(origin.get("path", ""))
    in_path = _L0_IN_PATH.search(path)
    return float(in_path[1]) if in_path else None


def _trained_k(metadata: Any) -> float | None:
    """How many features a TopK SAE was trained to have on."""
    details = metadata.get("training_architecture_details")
    k = details.get("k") if isinstance(details, Mapping) else None
    return float(k) if isinstance(k, int | float) and k > 0 else None


def _registered(source: SaeSource, sae_id: str) -> dict[str, Any]:
    """Where an SAE of a release lies on the hub, the commit that the cache holds of it, and its mean L0 as published.

    The L0 is of SAELens's table of pretrained SAEs, or from its path in Gemma Scope's layout.
    """
    entry = registry().get(source.release)
    return {
        "release": source.release,
        "id": sae_id,
        "repository": source.repository,
        "path": _path_of(source, sae_id),
        "revision": cached_commit(source.repository, source.revision),
        "published_l0": None if entry is None else registered_l0(source.release, sae_id),
    }


def _path_of(source: SaeSource, sae_id: str) -> str:
    """The folder or file of a release's SAE in its repository."""
    entry = registry().get(source.release)
    return sae_id if entry is None else entry.saes_map[sae_id]


def place_of(source: SaeSource, place: str | Path) -> Path | None:
    """Folder or file of a layer's SAE: of a release, where the cache has it, if it has any of it."""
    if isinstance(place, Path):
        return place
    snapshot = cached_snapshot(source.repository, source.revision)
    return None if snapshot is None else snapshot / _path_of(source, place)


def registered_l0(release: str, sae_id: str) -> float | None:
    """Mean L0 of an SAE in SAELens's table of pretrained SAEs; None where it says nothing."""
    entry = registry().get(release)
    if entry is None or sae_id not in entry.saes_map:
        return None
    in_path = _L0_IN_PATH.search(entry.saes_map[sae_id])  # of Gemma Scope's canonical SAEs, the table's column holds 0
    return entry.expected_l0.get(sae_id) or (float(in_path[1]) if in_path else None)


def _refuse_transcoder(sae: AnySae, where: str) -> None:
    """A transcoder reconstructs another place than it reads: its error and reconstruction would mean nothing here."""
    target = sae.cfg.metadata.get("hook_name_out")
    elsewhere = isinstance(target, str) and target != sae.cfg.metadata.get("hook_name")
    if elsewhere or "transcoder" in sae.cfg.architecture():
        raise InputError(
            f"{where}: a transcoder, which reconstructs {target or 'another hook point'} and not what it reads; "
            "give SAEs of the residual stream, mlp_out, attn_out or hook_z"
        )


def _refuse_nonfinite(sae: AnySae, where: str) -> None:
    for name, weights in sae.state_dict().items():
        # One pass for the usual case. A threshold may be infinite: that feature is switched off.
        if name == "threshold" and not bool(weights.isnan().any()):
            continue
        if not bool(weights.sum().isfinite()) and not bool(weights.isfinite().all()):
            raise InputError(f"{where}: {name} holds values that are not finite; copy or save the SAE again")


def sae_errors(where: str, repository: str, place: Path | None = None) -> contextlib.AbstractContextManager[None]:
    """`as_input_error` for the files of an SAE on disk or on the hub; `place` is where they should be, if known."""
    return as_input_error(where, lambda error: (gone(place) if place else None) or _meaning(error, repository))


def _meaning(error: BaseException, repository: str) -> str:
    """What is wrong with an SAE's files, and what to do."""
    from safetensors import SafetensorError

    if isinstance(error, json.JSONDecodeError):
        return f"cfg.json is not valid JSON (line {error.lineno}); save the SAE again"
    if isinstance(error, SafetensorError | zipfile.BadZipFile | zlib.error | EOFError):
        return f"the weights file is damaged ({in_one_line(error)}); copy or save it again"
    if isinstance(error, MemoryError):
        narrower = "use a narrower SAE or fewer --layers, or copy it again if its file is small"
        return f"it needs more memory than is available; {narrower}"
    if repository and (said := refusal(error, repository, "--sae RELEASE@REVISION")):
        return said
    kind = "cannot be read" if isinstance(error, OSError) else "not an SAE that this SAELens can load"
    return f"{kind} ({in_one_line(error)}); check its files, its cfg.json and its id"
