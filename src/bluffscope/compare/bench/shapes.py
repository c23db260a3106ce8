"""The models that the benchmark runs on: the embedded one, and random Gemma 2 of two sizes with random SAEs.

Random weights cost what trained ones cost. They depend on the seed and the parameter's name only: they are the same in
every process, whatever is built beside them. The tokenizer is the embedded model's at every shape: its 2560 ids lie
below every vocabulary, and since it has few pieces a text has more tokens than a large tokenizer would give it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from bluffscope.config.demo import model_dir, sae_dir
from bluffscope.config.presets import DEMO_NAME
from bluffscope.errors import InputError
from bluffscope.host.weights_digest import weights_digest
from bluffscope.model import LanguageModel, load_model
from bluffscope.model.hooks import find_blocks
from bluffscope.sae import Coder, find_saes, load_coders
from bluffscope.sae.load import as_coder, jumprelu

if TYPE_CHECKING:
    from transformers import Gemma2Config, PreTrainedTokenizerBase

L0: Final = 70
"""Mean active features a read of the random SAEs, as those of Gemma Scope have."""
_NORM_SPREAD = 0.1
_BLOCK = 1 << 22
"""Random numbers drawn at once; fixed, since the numbers depend on it."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a Gemma 2 model and its SAEs."""

    name: str
    blocks: int
    d_model: int
    d_mlp: int
    heads: int
    kv_heads: int
    d_head: int
    """Width of a head; attention scores are divided by its root."""
    vocabulary: int
    layers: tuple[int, ...]
    """Layers that have an SAE of their residual stream."""
    d_sae: int
    thresholds: tuple[float, ...] = ()
    """Of each layer's SAE, one for all its features, set by `tools/calibrate_shapes.py`."""
    window: int = 4096
    """Width of the sliding window of every other block, in tokens."""
    context: int = 8192
    seed: int = 0
    """Of the random weights."""
    embedded: bool = False
    """The model that comes with the package: trained, not random."""


SHAPES: Final[dict[str, Shape]] = {
    shape.name: shape
    for shape in (
        Shape(
            name="demo",
            blocks=10,
            d_model=128,
            d_mlp=256,
            heads=4,
            kv_heads=2,
            d_head=32,
            vocabulary=2560,
            layers=(2, 5, 8),
            d_sae=2048,
            window=128,
            context=256,
            embedded=True,
        ),
        Shape(
            name="mid",
            blocks=12,
            d_model=512,
            d_mlp=2048,
            heads=8,
            kv_heads=4,
            d_head=64,
            vocabulary=32_000,
            layers=(2, 5, 9),
            d_sae=8192,
            # python tools/calibrate_shapes.py mid
            thresholds=(6.295, 8.536, 10.88),
        ),
        Shape(
            name="gemma-2-2b",
            blocks=26,
            d_model=2304,
            d_mlp=9216,
            heads=8,
            kv_heads=4,
            d_head=256,
            vocabulary=256_000,
            layers=(5, 12, 20),
            d_sae=16_384,
            # python tools/calibrate_shapes.py gemma-2-2b --pairs 25
            thresholds=(9.531, 13.77, 17.38),
        ),
    )
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
    blocks = shape.blocks if blocks is None else blocks
    if not 1 <= blocks <= shape.blocks:
        raise InputError(f"shape {shape.name} has {shape.blocks} blocks, not {blocks}; ask for 1 to {shape.blocks}")
    device = torch.device("cpu")
    if shape.embedded and not head:
        return load_model(str(model_dir()), revision=None, blocks=blocks, device=device, dtype=dtype)
    network = (_embedded if shape.embedded else _random)(_config(shape, blocks), head, dtype)
    if not shape.embedded:
        _fill(network, shape.seed)
    network.eval().requires_grad_(False)
    name = DEMO_NAME if shape.embedded else f"random-{shape.name}"
    return LanguageModel(
        name=name,
        network=network,
        blocks=find_blocks(network, blocks),
        config=network.config,  # pyright: ignore[reportArgumentType]
        tokenizer=_tokenizer(),
        device=device,
        dtype=dtype,
        full_layers=shape.blocks,
        identity={
            "name": name,
            "revision": None,
            "architecture": type(network).__name__,
            "layers": shape.blocks,
            "layers_loaded": blocks,
            "d_model": shape.d_model,
            "weights": weights_digest(network.state_dict().items()),
        },
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
            "b_dec": torch.zeros(shape.d_model),
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
    decoder = torch.empty(shape.d_sae, shape.d_model)
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


def _config(shape: Shape, blocks: int) -> Gemma2Config:
    from transformers import Gemma2Config  # seconds-slow, as everywhere

    if shape.embedded:
        config = Gemma2Config.from_pretrained(model_dir())
    else:
        config = Gemma2Config(
            vocab_size=shape.vocabulary,
            hidden_size=shape.d_model,
            intermediate_size=shape.d_mlp,
            num_hidden_layers=shape.blocks,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.d_head,
            query_pre_attn_scalar=shape.d_head,
            sliding_window=shape.window,
            max_position_embeddings=shape.context,
            attn_logit_softcapping=50.0,
            final_logit_softcapping=30.0,
            tie_word_embeddings=True,
        )
    assert config.layer_types is not None  # the configuration fills it in
    config.layer_types = config.layer_types[:blocks]
    config.num_hidden_layers = blocks
    return config


def _embedded(config: Gemma2Config, head: bool, dtype: torch.dtype) -> nn.Module:
    from transformers import AutoModel, AutoModelForCausalLM

    kind: Any = AutoModelForCausalLM if head else AutoModel
    return kind.from_pretrained(model_dir(), config=config, dtype=dtype, attn_implementation="eager")


def _random(config: Gemma2Config, head: bool, dtype: torch.dtype) -> nn.Module:
    """The model with its buffers computed and its weights allocated, but neither written nor so in memory yet."""
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    kind: Any = AutoModelForCausalLM if head else AutoModel
    with no_init_weights():
        network = kind.from_config(config, dtype=dtype, attn_implementation="eager")
    network.tie_weights()  # the initialisation left out would have done it
    return network


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


def _tokenizer() -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_dir())
