"""The models that the benchmark runs on: the embedded one, and random Gemma 2 of two sizes with random SAEs.

Random weights cost what trained ones cost. They depend on the seed and the parameter's name only: they are the same in
every process, whatever is built beside them. The tokenizer is the embedded model's at every shape: its 2560 ids lie
below every vocabulary, and since it has few pieces a text has more tokens than a large tokenizer would give it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from bluffscope.config.demo import model_dir, sae_dir
from bluffscope.errors import InputError
from bluffscope.host.weights_digest import weights_digest
from bluffscope.model import LanguageModel, load_model
from bluffscope.model.hooks import find_blocks
from bluffscope.sae import Coder, find_saes, load_coders
from bluffscope.sae.formats import jumprelu
from bluffscope.sae.load import as_coder

if TYPE_CHECKING:
    from transformers import Gemma2Config

L0: Final = 70
"""Mean active features a read of the random SAEs, as those of Gemma Scope have."""
_NORM_SPREAD = 0.1
_BLOCK = 1 << 22
"""Random numbers drawn at once; fixed, since the numbers depend on it."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a Gemma 2 model and its SAEs."""

    name: str
    layers: tuple[int, ...]
    """Layers that have an SAE of their residual stream."""
    d_sae: int
    sizes: Mapping[str, Any] = field(default_factory=dict)
    """Of `Gemma2Config`, where they are not Gemma 2 2B's."""
    thresholds: tuple[float, ...] = ()
    """Of each layer's SAE, one for all its features, set by `tools/calibrate_shapes.py`."""
    seed: int = 0
    """Of the random weights."""
    embedded: bool = False
    """The model that comes with the package: trained, not random."""

    def config(self, blocks: int | None = None) -> Gemma2Config:
        """The model's configuration, of its first blocks (default: all).

        Raises:
            InputError: The shape has fewer blocks.
        """
        from transformers import Gemma2Config  # seconds-slow, as everywhere

        if self.embedded:
            config = Gemma2Config.from_pretrained(model_dir())
        else:
            config = Gemma2Config(**self.sizes, tie_word_embeddings=True)
        assert config.layer_types is not None  # the configuration fills it in
        there = config.num_hidden_layers
        if blocks is not None and not 1 <= blocks <= there:
            raise InputError(f"shape {self.name} has {there} blocks, not {blocks}; ask for 1 to {there}")
        config.num_hidden_layers = there if blocks is None else blocks
        config.layer_types = config.layer_types[: config.num_hidden_layers]
        return config


_MID: Final[dict[str, Any]] = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "head_dim": 64,
    "query_pre_attn_scalar": 64,
    "vocab_size": 32_000,
}
SHAPES: Final[dict[str, Shape]] = {
    "demo": Shape(name="demo", layers=(2, 5, 8), d_sae=2048, embedded=True),
    # python tools/calibrate_shapes.py mid
    "mid": Shape(name="mid", layers=(2, 5, 9), d_sae=8192, sizes=_MID, thresholds=(6.295, 8.536, 10.88)),
    # python tools/calibrate_shapes.py gemma-2-2b --pairs 25
    "gemma-2-2b": Shape(name="gemma-2-2b", layers=(5, 12, 20), d_sae=16_384, thresholds=(9.531, 13.77, 17.38)),
}
"""By the name that `bluffscope bench --shape` takes."""


def build_language_model(
    shape: Shape, *, blocks: int | None = None, head: bool = False, dtype: torch.dtype = torch.float32
) -> LanguageModel:
    """The shape's model on the CPU, in evaluation mode.

    Args:
        shape: One of `SHAPES`, or one of your own.
        blocks: Blocks to build, counted from the first; None for all. They are the same however many are built.
        head: With the LM head (tied to the embedding), as `AutoModelForCausalLM` gives it; the reference needs it.
        dtype: Of the weights and activations; random weights are drawn in float32 and rounded.

    Raises:
        InputError: The shape has fewer blocks.
    """
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
    from transformers.initialization import no_init_weights

    config, device, name = shape.config(blocks), torch.device("cpu"), f"random-{shape.name}"
    if shape.embedded:
        return load_model(str(model_dir()), revision=None, blocks=blocks, device=device, dtype=dtype, head=head)
    kind: Any = AutoModelForCausalLM if head else AutoModel
    with no_init_weights():  # its weights are allocated, but neither written nor so in memory yet
        network = kind.from_config(config, dtype=dtype, attn_implementation="eager")
    network.tie_weights()  # the initialisation left out would have done it
    _fill(network, shape.seed)
    network.eval().requires_grad_(False)
    return LanguageModel(
        name=name,
        network=network,
        blocks=find_blocks(network, config.num_hidden_layers),
        config=network.config,
        tokenizer=AutoTokenizer.from_pretrained(model_dir()),
        device=device,
        dtype=dtype,
        full_layers=shape.config().num_hidden_layers,
        identity={"name": name, "weights": weights_digest(network.state_dict().items())},
    )


def build_coders(shape: Shape, dtype: torch.dtype = torch.float32) -> dict[int, Coder]:
    """The shape's JumpReLU SAEs on the CPU, by layer.

    Random ones have decoder rows of length 1 in random directions, the transposed decoder as encoder, no biases, and
    one threshold for all features that gives a mean L0 near `L0` on the bundled pairs.

    Args:
        shape: One of `SHAPES`, or one of your own with its thresholds.
        dtype: float32 or float64; random weights are drawn in float32.

    Raises:
        InputError: A random shape without a threshold for each layer.
    """
    if shape.embedded:
        return load_coders(find_saes(str(sae_dir()), shape.layers), device="cpu", dtype=dtype)
    if len(shape.thresholds) != len(shape.layers):
        raise InputError(f"shape {shape.name} has {len(shape.layers)} SAEs but {len(shape.thresholds)} thresholds")
    coders: dict[int, Coder] = {}
    for layer, threshold in zip(shape.layers, shape.thresholds, strict=True):
        decoder = random_decoder(shape, layer)
        weights = {
            "W_enc": decoder.T.contiguous(),
            "W_dec": decoder,
            "b_enc": torch.zeros(shape.d_sae),
            "b_dec": torch.zeros(decoder.shape[1]),
            "threshold": torch.full((shape.d_sae,), threshold),
        }
        metadata = {
            "model_name": f"random-{shape.name}",
            "hook_name": f"blocks.{layer}.hook_resid_post",
            "prepend_bos": True,
            "l0": float(L0),
        }
        sae = jumprelu({name: weight.to(dtype) for name, weight in weights.items()}, metadata)
        coders[layer] = as_coder(sae, layer, {"shape": shape.name}, f"shape {shape.name}, layer {layer}")
    return coders


def random_decoder(shape: Shape, layer: int) -> torch.Tensor:
    """W_dec (d_sae, d_model) of a random SAE, float32, its rows of length 1."""
    decoder = torch.empty(shape.d_sae, shape.config().hidden_size)
    _draw(decoder, 1.0, f"sae.{layer}.W_dec", shape.seed)
    return nn.functional.normalize(decoder, dim=1)


def save_shape(shape: Shape, folder: Path) -> None:
    """Write a shape for other tools: `model/` in Hugging Face layout, `sae/layer_K/` in SAELens layout, float32.

    The larger one takes 11 GB.
    """
    model = build_language_model(shape, head=True)
    model.network.save_pretrained(folder / "model")  # pyright: ignore[reportCallIssue]
    model.tokenizer.save_pretrained(folder / "model")
    for layer, coder in build_coders(shape).items():
        coder.sae.save_model(folder / "sae" / f"layer_{layer}")


@torch.no_grad()
def _fill(network: nn.Module, seed: int) -> None:
    """Draw every weight in place.

    Matrices keep the scale of what passes through them, the embedding has a root mean square of 1 after Gemma's own
    scaling, and Gemma's norms multiply by 1 + weight. Every sublayer's output is normalised before it is added, so the
    residual stream's root mean square grows as sqrt(1 + 2 blocks), and logits stay near 1.
    """
    for name, weight in network.named_parameters():  # a tied head comes once, as the embedding
        name = name.removeprefix("model.")
        _draw(weight, _NORM_SPREAD if weight.ndim == 1 else weight.shape[1] ** -0.5, name, seed)


def _draw(weight: torch.Tensor, spread: float, name: str, seed: int) -> None:
    """Fill with normal numbers of this standard deviation, the same for one name and seed whatever the dtype."""
    digest = hashlib.blake2b(f"{seed}\x1f{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
    for block in weight.view(-1).split(_BLOCK):
        if block.dtype is torch.float32:
            block.normal_(0, spread, generator=generator)
        else:
            block.copy_(torch.empty(block.shape, dtype=torch.float32).normal_(0, spread, generator=generator))
