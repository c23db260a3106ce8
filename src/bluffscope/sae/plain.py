"""SAEs of the usual architectures without SAELens, whose import takes seconds: the same files, the same numbers.

tests/sae/test_plain.py holds them to SAELens. A field or tensor that is not known here is never guessed at: the SAE is
left to SAELens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

_VERSION: Final = re.compile(r"6\.\d+\.\d+(-rc\.\d+)?")
"""Versions of SAELens whose cfg.json is known; earlier ones used other names."""
_BIASES: Final[dict[str, tuple[str, ...]]] = {
    "standard": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "topk": ("b_enc",),
    "gated": ("b_gate", "b_mag", "r_mag"),
}
"""The tensors of length d_sae, by architecture. BatchTopK SAEs are saved as JumpReLU ones."""
ARCHITECTURES: Final = tuple(_BIASES)
"""Those that are read."""
_NORMALISATIONS: Final = (
    "none",
    "expected_average_only_in",  # folded into the weights before they are saved
    "covariance_whitening",  # likewise
    "constant_norm_rescale",
    "layer_norm",
)
_OF_ALL: Final[dict[str, type]] = {"d_in": int, "d_sae": int, "apply_b_dec_to_input": bool}
_OF_TOPK: Final[dict[str, type]] = {"k": int, "rescale_acts_by_decoder_norm": bool}
_OTHERS: Final = frozenset({"architecture", "normalize_activations", "reshape_activations", "metadata"})
_IGNORED: Final = frozenset({"dtype", "device", "sae_lens_version"})
"""Fields that decide nothing: the caller says in which precision and where."""
_EPSILON: Final = 1e-5
"""What SAELens adds to a standard deviation before it divides by it."""


@dataclass(frozen=True, kw_only=True)
class PlainConfig:
    """What decides an SAE's numbers, under SAELens's names."""

    name: str
    """The architecture."""
    d_in: int
    d_sae: int
    apply_b_dec_to_input: bool = True
    normalize_activations: str = "none"
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    reshape_activations: str = "none"
    """SAELens takes the outputs of attention heads apart where this is hook_z; here they lie one after the other."""
    k: int = 100
    rescale_acts_by_decoder_norm: bool = False

    def architecture(self) -> str:
        """A method, as in SAELens."""
        return self.name

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor of an SAE like this."""
        matrices = {"W_enc": (self.d_in, self.d_sae), "W_dec": (self.d_sae, self.d_in), "b_dec": (self.d_in,)}
        return matrices | {name: (self.d_sae,) for name in _BIASES[self.name]}


class PlainSae(nn.Module):
    """An SAE behind the names and calls of SAELens's own."""

    W_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter

    def __init__(self, cfg: PlainConfig, weights: Mapping[str, torch.Tensor]) -> None:
        """Put an SAE around tensors, which are not copied.

        Args:
            cfg: what it is.
            weights: a tensor for each of `cfg.shapes()`, of one dtype and on one device.
        """
        super().__init__()
        self.cfg = cfg
        for name in cfg.shapes():
            self.register_parameter(name, nn.Parameter(weights[name], requires_grad=False))
        self._scale: tuple[torch.Tensor, torch.Tensor] | None = None
        """What the last encoded residuals were multiplied by, and their mean; `decode` undoes both."""

    def process_sae_in(self, x: torch.Tensor) -> torch.Tensor:
        """Residuals (..., d_in) as the encoder takes them."""
        x = self._normalised(x.to(self.W_enc.dtype))
        return x - self.b_dec if self.cfg.apply_b_dec_to_input else x

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Features (..., d_sae), 0 or more, of residuals (..., d_in)."""
        weights: Any = self
        sae_in = self.process_sae_in(x)
        if self.cfg.name == "gated":
            gate = (sae_in @ self.W_enc + weights.b_gate > 0).to(self.W_enc.dtype)
            return gate * (sae_in @ (self.W_enc * weights.r_mag.exp()) + weights.b_mag).relu()
        hidden = sae_in @ self.W_enc + weights.b_enc
        if self.cfg.name == "topk":
            if self.cfg.rescale_acts_by_decoder_norm:
                hidden = hidden * self.W_dec.norm(dim=-1)
            values, indices = hidden.topk(self.cfg.k, dim=-1, sorted=False)
            return torch.zeros_like(hidden).scatter_(-1, indices, values.relu())
        active = hidden.relu()
        return active * (hidden > weights.threshold).to(active.dtype) if self.cfg.name == "jumprelu" else active

    def decode(self, feature_acts: torch.Tensor) -> torch.Tensor:
        """Reconstructions (..., d_in) of what `encode` returned last."""
        if self.cfg.rescale_acts_by_decoder_norm:
            feature_acts = feature_acts * (1 / self.W_dec.norm(dim=-1))
        x = feature_acts @ self.W_dec + self.b_dec
        match self._scale, self.cfg.normalize_activations:
            case (scale, _), "constant_norm_rescale":
                return x / scale
            case (scale, mean), "layer_norm":
                return x * scale + mean
            case _:
                return x

    def save_model(self, folder: Path) -> None:
        """Write cfg.json and sae_weights.safetensors into a folder, as SAELens 6 does."""
        from safetensors.torch import save_file

        cfg = self.cfg
        options = {name: getattr(cfg, name) for name in (*_OF_ALL, *(_OF_TOPK if cfg.name == "topk" else ()))}
        options |= {name: getattr(cfg, name) for name in ("normalize_activations", "reshape_activations")}
        options |= {"architecture": cfg.name, "dtype": str(self.W_enc.dtype).removeprefix("torch.")}
        options["metadata"] = {"sae_lens_version": "6.0.0", **cfg.metadata}
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / "sae_weights.safetensors")
        (folder / "cfg.json").write_text(json.dumps(options), encoding="utf-8")

    def _normalised(self, x: torch.Tensor) -> torch.Tensor:
        """The residuals scaled; how is kept for `decode`."""
        if self.cfg.normalize_activations == "constant_norm_rescale":
            scale = self.cfg.d_in**0.5 / x.norm(dim=-1, keepdim=True)
            self._scale = scale, scale
            return x * scale
        if self.cfg.normalize_activations == "layer_norm":
            mean = x.mean(dim=-1, keepdim=True)
            x = x - mean
            scale = x.std(dim=-1, keepdim=True)
            self._scale = scale, mean
            return x / (scale + _EPSILON)
        return x


def read_plain(said: Mapping[str, Any], file: Path, device: str, dtype: torch.dtype) -> PlainSae | None:
    """Read an SAE as SAELens 6 saves it.

    Args:
        said: its cfg.json.
        file: its sae_weights.safetensors.
        device: torch device name.
        dtype: of the weights.

    Returns:
        The SAE, or None where SAELens has to read it: another architecture, an earlier version, or anything unknown.

    Raises:
        SafetensorError: the file is damaged.
    """
    from safetensors import safe_open

    cfg = known_config(said)
    if cfg is None:
        return None
    shapes = cfg.shapes()
    with safe_open(file, framework="pt", device=device) as opened:
        headers = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        if {name: tuple(header.get_shape()) for name, header in headers.items()} != shapes:
            return None
        if not all(header.get_dtype() in ("F64", "F32", "F16", "BF16") for header in headers.values()):
            return None
        return PlainSae(cfg, {name: opened.get_tensor(name).to(dtype=dtype) for name in shapes})


def known_config(said: Mapping[str, Any]) -> PlainConfig | None:
    """What a cfg.json says, if every field of it is known and has a value that is; else None."""
    name, metadata = said.get("architecture"), said.get("metadata")
    if name not in _BIASES or not isinstance(metadata, Mapping):
        return None
    version = said.get("sae_lens_version", metadata.get("sae_lens_version"))
    if not (isinstance(version, str) and _VERSION.fullmatch(version)):
        return None
    types = _OF_ALL | (_OF_TOPK if name == "topk" else {})
    options = {option: said[option] for option in types if option in said}
    normalisation, reshaping = said.get("normalize_activations", "none"), said.get("reshape_activations", "none")
    known = (
        said.keys() <= types.keys() | _OTHERS | _IGNORED
        and {"d_in", "d_sae"} <= options.keys()
        and all(type(value) is types[option] and value >= 0 for option, value in options.items())
        and normalisation in _NORMALISATIONS
        and reshaping in ("none", "hook_z")
    )
    options |= {"normalize_activations": normalisation, "reshape_activations": reshaping}
    return PlainConfig(name=name, metadata=metadata, **options) if known else None
