"""Reading one SAE from its folder, in the format that its files show."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bluffscope.errors import InputError
from bluffscope.sae.archive import archive_arrays, matrix_shape
from bluffscope.sae.coder import AnySae
from bluffscope.sae.layouts import FILES, POINTS, format_of, other_kind, stated, weights_file
from bluffscope.sae.plain import PlainConfig, PlainSae, read_plain

if TYPE_CHECKING:
    import torch

_SCOPE_REPOSITORY = re.compile(r"gemma-scope-[0-9]+b-(?:pt|it)-(res|mlp|att|transcoders)(?:-|$)")
_SCOPE_POINTS: Final = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}
_SCOPE_2_POINTS: Final = (
    (re.compile(r"model\.layers\.[0-9]+\.output"), "hook_resid_post"),
    (re.compile(r"model\.layers\.[0-9]+\.self_attn\.o_proj\.input"), "attn.hook_z"),
    (re.compile(r"model\.layers\.[0-9]+\.post_feedforward_layernorm\.output"), "hook_mlp_out"),
)
_SPARSIFY_MODULE = re.compile(r"(?:layers|h)\.[0-9]+(\.[\w.]+)?")
_SPARSIFY_FIELDS: Final = frozenset(
    ("activation", "d_in", "expansion_factor", "k", "num_latents", "normalize_decoder", "multi_topk")
)
"""Fields of sparsify's cfg.json that decide nothing, or are applied. The last two concern its training alone."""
_ONE_PLACE: Final = "give SAEs that read and reconstruct one place each"


class Described(NamedTuple):
    """What a folder's configuration says, as SAELens would."""

    config: PlainConfig
    tensors: Mapping[str, str]
    """Name in the file of each tensor; with `.T` behind it where it is stored the other way round."""


def read_sae(place: Path, layer: int, where: str, device: str, dtype: torch.dtype) -> AnySae:
    """The SAE of a folder or params.npz.

    Args:
        place: as `bluffscope.sae.layouts` finds it.
        layer: the one it stands for.
        where: put in front of messages.
        device: torch device name.
        dtype: of the weights.

    Raises:
        InputError: it is none that can be measured.
        Exception: whatever libraries raise for damaged files.
    """
    kind = format_of(place)
    if kind == "Gemma Scope":
        return read_archive(place, _scope_metadata(place, layer, where), device, dtype)
    if kind == "SAELens":
        return _read_saelens(place, where, device, dtype)
    cfg, tensors = (_sparsify if kind == "sparsify" else _scope_2)(place, layer, where)
    return PlainSae(cfg, _tensors(weights_file(place), cfg, tensors, device, dtype))


def read_config(place: Path, layer: int, where: str) -> dict[str, Any]:
    """What the SAE's configuration says, as SAELens's cfg.json would; no weights are read.

    Raises:
        InputError: it is none that can be measured.
        Exception: whatever libraries raise for damaged files.
    """
    kind = format_of(place)
    if kind == "SAELens":
        return _object(place / FILES[kind][0], where)
    if kind == "Gemma Scope":
        d_in, d_sae = matrix_shape(place)
        return {"d_in": d_in, "d_sae": d_sae, "metadata": _scope_metadata(place, layer, where)}
    cfg, _ = (_sparsify if kind == "sparsify" else _scope_2)(place, layer, where)
    return {"d_in": cfg.d_in, "d_sae": cfg.d_sae, "metadata": cfg.metadata}


def read_archive(path: Path, metadata: Mapping[str, Any], device: str, dtype: torch.dtype) -> PlainSae:
    """A Gemma Scope params.npz as a JumpReLU SAE."""
    weights = {name: array.to(device=device, dtype=dtype) for name, array in archive_arrays(path).items()}
    return jumprelu(weights, metadata)


def jumprelu(weights: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> PlainSae:
    """A JumpReLU SAE around these tensors, which are not copied.

    Args:
        weights: W_enc, W_dec, b_enc, b_dec and threshold, on one device and of one dtype.
        metadata: hook_name, prepend_bos, l0...
    """
    d_in, d_sae = weights["W_enc"].shape
    cfg = PlainConfig(name="jumprelu", d_in=d_in, d_sae=d_sae, apply_b_dec_to_input=False, metadata=metadata)
    return PlainSae(cfg, weights)


def _scope_metadata(path: Path, layer: int, where: str) -> dict[str, Any]:
    """Of a Gemma Scope params.npz, whose repository's name says where it reads; without one, the residual stream."""
    named = next((match for part in path.absolute().parts if (match := _SCOPE_REPOSITORY.match(part))), None)
    point = _SCOPE_POINTS.get(named[1] if named else "res")
    if point is None:
        raise InputError(f"{where}: {path.parent} is of Gemma Scope's transcoders; {_ONE_PLACE}")
    l0 = path.parent.name.removeprefix("average_l0_")
    found: dict[str, Any] = {"hook_name": f"blocks.{layer}.{point}", "prepend_bos": True}
    return found | ({"l0": float(l0)} if l0.isdecimal() else {})


def _read_saelens(folder: Path, where: str, device: str, dtype: torch.dtype) -> AnySae:
    said = _object(folder / FILES["SAELens"][0], where)
    if not isinstance(said.get("metadata", {}), dict):
        raise InputError(f"{where}: cfg.json or its metadata is not a JSON object; save the SAE again")
    _refuse_layers(said, where)
    file = folder / FILES["SAELens"][1]
    if (sae := read_plain(said, file, device, dtype)) is not None:
        return sae
    for name, shape in _shapes(file).items():
        _refuse_stacked(name, shape, where)
    name = str(dtype).removeprefix("torch.")
    if "decoder_init_norm" in said:  # of every SAE in training, and of no other
        return _read_checkpoint(folder, said, where, device, name)
    from sae_lens import SAE  # seconds-slow, as its other imports here
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    architecture = said.get("architecture", "standard")
    if architecture not in SAE_CLASS_REGISTRY:
        if architecture in SAE_TRAINING_CLASS_REGISTRY:
            raise InputError(f"{where}: architecture {architecture} is of SAEs in training; {_EXPORT}")
        raise ValueError(f"unknown architecture {architecture!r}")
    return SAE.load_from_disk(folder, device=device, dtype=name)


_EXPORT: Final = "give what SAELens's save_inference_model(DIR) writes of it"


def _read_checkpoint(folder: Path, said: Mapping[str, Any], where: str, device: str, dtype: str) -> AnySae:
    """A checkpoint of SAELens's training, as SAELens exports it for inference.

    What scales the activations is folded into the weights at the end of training only: until then it lies beside them.
    """
    from sae_lens import TrainingSAE
    from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
    from sae_lens.training.activation_scaler import ActivationScaler

    if said.get("architecture") not in SAE_TRAINING_CLASS_REGISTRY:
        raise ValueError(f"unknown architecture {said.get('architecture')!r}")
    sae: Any = TrainingSAE.load_from_disk(folder, device=device, dtype=dtype)
    scaler, file = ActivationScaler(), folder / "activation_scaler.json"
    if file.is_file():
        scaler.load(file)
    elif said.get("normalize_activations") in ("expected_average_only_in", "covariance_whitening"):
        raise InputError(f"{where}: a checkpoint without the activation_scaler.json that belongs to it; {_EXPORT}")
    if scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    if scaler.whitening is not None:
        sae.fold_activation_whitening(
            mean=scaler.whitening.mean,
            whitening_matrix=scaler.whitening.matrix,
            unwhitening_matrix=scaler.whitening.inverse_matrix,
        )
    import torch

    with tempfile.TemporaryDirectory(prefix="bluffscope-") as scratch:
        sae.save_inference_model(Path(scratch))
        return _read_saelens(Path(scratch), where, device, getattr(torch, dtype))


def _scope_2(folder: Path, layer: int, where: str) -> Described:
    """Gemma Scope 2, as copied from the hub; its folder's name stands for a config.json that is not there."""
    said = _object(folder / "config.json", where) if (folder / "config.json").is_file() else {}
    shapes, parent = _shapes(weights_file(folder)), folder.absolute().parent.name
    typed = said.get("type", "sae")
    if kind := f"a {typed}" if typed != "sae" else other_kind(folder.name) or other_kind(parent):
        raise InputError(f"{where}: {folder.name} is {kind}; {_ONE_PLACE}")
    if said.get("architecture", "jump_relu") != "jump_relu":
        raise InputError(f"{where}: unknown architecture {said['architecture']!r} in config.json; give others")
    read = str(said.get("hf_hook_point_in", ""))
    point = next((point for pattern, point in _SCOPE_2_POINTS if pattern.fullmatch(read)), None)
    point = point or (None if read else POINTS.get(parent.removesuffix("_all")))
    if point is None:
        what = f"it reads {read}" if read else "neither config.json nor the folder above says what it reads"
        raise InputError(f"{where}: {folder.name}: {what}; give SAEs of {', '.join(POINTS)}")
    metadata: dict[str, Any] = {"hook_name": f"blocks.{layer}.{point}", "prepend_bos": True}
    if isinstance(said.get("l0"), int | float):
        metadata["l0"] = float(said["l0"])
    if isinstance(said.get("model_name"), str):
        metadata["model_name"] = _gemma_3(said["model_name"])
    names = {name: name.replace("W_", "w_") for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}
    d_in, d_sae = _matrix(shapes, names["W_enc"], where)
    cfg = PlainConfig(name="jumprelu", d_in=d_in, d_sae=d_sae, apply_b_dec_to_input=False, metadata=metadata)
    return Described(cfg, names)


def _gemma_3(name: str) -> str:
    """A model's name on the hub, of one in Gemma Scope 2's config.json: gemma-v3-4b-pt."""
    name = name.replace("-v3", "-3")
    name = name.replace("-pt", "") if "270m" in name else name
    return name if "google" in name else f"google/{name}"


def _sparsify(folder: Path, layer: int, where: str) -> Described:
    """EleutherAI's sparsify: TopK of what is left of the input after b_dec is taken off, whatever its decoder's norms.

    SAELens 6.54 cannot read these files (it transposes W_dec), and would take b_dec off only where `normalize_decoder`
    is false; sparsify's own encoder does always.
    """
    said = _object(folder / FILES["sparsify"][0], where)
    module = _SPARSIFY_MODULE.fullmatch(folder.absolute().name)
    if module and module[1]:
        raise InputError(
            f"{where}: {folder.name} reads the output of the module {module[1][1:]}, which in some models is not what "
            "it adds to the residual stream; give SAEs of a layer's output, layers.K"
        )
    for option, kind in (("transcode", "a transcoder"), ("skip_connection", "a transcoder with a skip connection")):
        if said.get(option):
            raise InputError(f"{where}: {option}: {kind}; {_ONE_PLACE}")
    if said.get("activation", "topk") != "topk":
        raise InputError(f"{where}: activation {said['activation']} is not read; give SAEs with activation topk")
    if said.get("signed"):
        raise InputError(f"{where}: signed: its features can be negative; give SAEs whose features are 0 or more")
    known = _SPARSIFY_FIELDS | {"transcode", "skip_connection", "signed"}
    if unknown := [name for name, value in said.items() if name not in known and value]:
        raise InputError(f"{where}: cfg.json has {unknown[0]}, which is not known here; give SAEs without it")
    k = said.get("k")
    if type(k) is not int or k < 1:
        raise InputError(f"{where}: cfg.json states no k; copy or save the SAE again")
    trained_on = stated(folder.absolute().parent / "config.json").get("model")
    metadata = {"hook_name": f"blocks.{layer}.hook_resid_post", "prepend_bos": True, "model_name": trained_on}
    names = {"W_enc": "encoder.weight.T", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"}
    d_sae, d_in = _matrix(_shapes(weights_file(folder)), "encoder.weight", where)
    return Described(PlainConfig(name="topk", d_in=d_in, d_sae=d_sae, k=k, metadata=metadata), names)


def _object(file: Path, where: str) -> dict[str, Any]:
    """A configuration file's JSON object."""
    try:
        said: Any = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: {file.name} is not valid JSON (line {error.lineno}); save the SAE again") from error
    if not isinstance(said, dict):
        raise InputError(f"{where}: {file.name} or its metadata is not a JSON object; save the SAE again")
    return said


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def _matrix(shapes: Mapping[str, tuple[int, ...]], name: str, where: str) -> tuple[int, int]:
    for tensor, shape in shapes.items():
        _refuse_stacked(tensor, shape, where)
    if len(shape := shapes.get(name, ())) != 2:
        raise InputError(f"{where}: its weights have no matrix {name}; copy or save the SAE again")
    return shape[0], shape[1]


def _tensors(
    file: Path, cfg: PlainConfig, names: Mapping[str, str], device: str, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """An SAE's tensors under SAELens's names; a file that has others is none of its format."""
    from safetensors import safe_open

    wanted = {name.removesuffix(".T") for name in names.values()}
    found: dict[str, torch.Tensor] = {}
    with safe_open(file, framework="pt", device=device) as opened:
        there = set(opened.keys())
        if odd := sorted(there ^ wanted):
            raise ValueError(f"{file.name} has {'no' if odd[0] in wanted else 'a'} tensor {odd[0]}")
        for name, shape in cfg.shapes().items():
            tensor = opened.get_tensor(names[name].removesuffix(".T")).to(dtype=dtype)
            found[name] = tensor.T.contiguous() if names[name].endswith(".T") else tensor
            if found[name].shape != shape:
                raise ValueError(f"{names[name]} has shape {tuple(tensor.shape)}, which does not go with the others")
    return found


def _refuse_layers(said: Mapping[str, Any], where: str) -> None:
    """Refuse a dictionary of several layers or models by its configuration."""
    metadata: Any = said.get("metadata") or {}
    hook = metadata.get("hook_name") or said.get("hook_name")
    several = isinstance(hook, list | tuple) or any(said.get(name) for name in ("hook_names", "hook_points"))
    if several or "crosscoder" in str(said.get("architecture", "")).lower():
        raise InputError(f"{where}: a crosscoder, which reads several layers or models at once; {_ONE_PLACE}")


def _refuse_stacked(name: str, shape: tuple[int, ...], where: str) -> None:
    """Refuse weights that are stacked over layers or models."""
    if len(shape) > 2:
        sizes = " x ".join(map(str, shape))
        raise InputError(
            f"{where}: {name} is {sizes}: a crosscoder, which reads several layers or models at once; {_ONE_PLACE}"
        )
