"""How much memory a packed run needs, from the shapes of its model and SAEs alone, and so how large a batch may be.

The terms follow the code of a run: what is held from the start (the process with its libraries, weights, SAEs), and
the widest moment of a batch: the forward, the encoding, or the geometry. Constants were calibrated against the peak
of runs in fresh processes (docs/memory.md). Sizes are bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, Literal

from bluffscope.config.presets import PRESETS, Preset

Device = Literal["cpu", "mps", "cuda"]

DENSE_CELLS: Final = 1 << 24
"""Cells of the dense feature matrix held at once (as `bluffscope.sae.coder` bounds it)."""
STACKED_CELLS: Final[dict[str, int]] = {"cpu": 1 << 20, "mps": 1 << 20, "cuda": 1 << 25}
"""Cells of the stacked matrices of the geometry held at once (as `bluffscope.metrics.geometry` bounds them; MPS, which
has no float64, leaves metrics to the CPU)."""
GROUPED_CELLS: Final = 1 << 25
"""Cells of the matrices that are decomposed together on CUDA (the same)."""
HEAD_BLOCK: Final = 200 << 20
"""Most bytes of the logits of a slice of the vocabulary (as `bluffscope.model.head` bounds it)."""
HEAD_COPIES: Final = 3
"""Of these logits (the same)."""
LENS_BLOCK: Final[dict[str, int]] = {"cpu": 200 << 20, "mps": 400 << 20, "cuda": 1 << 30}
"""Bytes of the logits of a block of positions (as `bluffscope.model.lens` bounds it)."""
TOKENS_A_PAIR: Final = 16
"""Distinct tokens a pair, its three views together, where the texts are not known: short questions and answers."""
READS_A_TOKEN: Final = 3 / TOKENS_A_PAIR
"""Reads for each distinct token where each view is read at its last token."""

_PROCESS: Final = 550 << 20
"""Python with torch, transformers and sae_lens imported, and a tokenizer."""
_WORKING: Final = 160 << 20
"""What the first batch adds whatever its size: the libraries' own buffers, tables, and memory freed but kept."""
_DRAWING: Final = 130 << 20
"""Merging the tables, when batches are done but weights still there."""
_SHORTEST_USUAL_ROW: Final = 64
CELL_FLOPS: Final = 900
"""What a cell of one head's attention costs beyond its products (mask, softmax, capping), in their floating-point
operations; measured at the Gemma-2-2B shape."""
_VIEWS: Final = 3
_DENSE_COPIES: Final = 4
"""Of a dense block while SAELens encodes it: before and after the activation, the mask, their product. (SAEs with a
threshold are encoded in place and need hardly more than one; which they are, configurations do not tell.)"""
_UNGATED: Final = {"gpt2", "gpt_neox", "gpt_neo", "gptj", "opt", "bloom", "falcon", "phi", "codegen", "starcoder2"}
"""Model families whose MLP has two matrices; all others have a gate too."""
SMALLEST_BATCH: Final = 64
"""Distinct tokens below which a smaller batch saves no memory worth naming."""
_LARGEST_BATCH: Final = 1 << 24
_LINEAR_BYTES: Final = {"none": None, "int8": 1.0, "int4": 0.5}
_LEARNED_POSITIONS: Final = ("gpt2", "opt", "gpt_neo")


@dataclass(frozen=True, kw_only=True)
class SaeShape:
    """One SAE as far as memory is concerned; or a layer without one, whose residuals are read all the same."""

    d_sae: int
    """0 without an SAE."""
    d_in: int
    number_bytes: int = 4
    l0: float = 100
    """Active features a read, as published; where nothing is known, what SAEs of this kind are tuned to."""

    @property
    def weights(self) -> int:
        """Bytes of W_enc, W_dec and its vectors."""
        return self.number_bytes * (2 * self.d_sae * self.d_in + 2 * self.d_sae + self.d_in) if self.d_sae else 0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A truncated model and its SAEs as far as memory is concerned."""

    blocks: int
    """Blocks loaded."""
    d_model: int
    d_mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    saes: tuple[SaeShape, ...]
    number_bytes: int = 4
    """Bytes of a weight and of an activation: 4 for float32."""
    linear_bytes: float | None = None
    """Bytes of a weight of the blocks where they are quantised: 1 for int8."""
    file_bytes: int | None = None
    """Bytes of a weight in the file, where they have to be converted on loading."""
    positions: int = 0
    """Rows of a learned table of positions."""
    gated: bool = True
    """Whether the MLP has a gate."""
    experts: int = 1
    """Copies of the MLP in a block."""
    eager: bool = False
    """Whether attention scores are held as matrices, as where they are capped."""
    masks: int = 1
    """Kinds of attention mask: 2 with sliding windows."""
    head: bool = False
    """Whether the LM head is loaded, for log-probabilities."""
    lens: bool = False
    """Whether it is applied at every measured layer."""
    tied: bool = False
    """Whether the head has the weights of the embeddings."""
    counted: int | None = None
    """Weights of a block as loaded, norms and biases included; None where only the configuration is known."""

    @classmethod
    def of(
        cls,
        config: Any,
        *,
        blocks: int,
        number_bytes: int,
        saes: Iterable[tuple[int, int, float | None]] = (),
        stored_bytes: int | None = None,
        quantize: str = "none",
        head: bool = False,
    ) -> Shape:
        """The shape of a Hugging Face configuration.

        Args:
            config: of the model, whole or truncated.
            blocks: blocks that are loaded.
            number_bytes: of a weight; SAEs have 4 at least.
            saes: (d_in, d_sae, published L0 if known) of each layer's SAE.
            stored_bytes: of a weight in the file, if known.
            quantize: the option of this name.
            head: whether the LM head is loaded, for log-probabilities.
        """
        d_model, heads = int(config.hidden_size), int(config.num_attention_heads)
        family = str(getattr(config, "model_type", ""))
        experts = _first(config, 1, "num_local_experts", "num_experts", "n_routed_experts")
        names = ("moe_intermediate_size",) if experts > 1 else ()
        precision = max(4, number_bytes)
        return cls(
            blocks=blocks,
            d_model=d_model,
            d_mlp=_first(config, 4 * d_model, *names, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
            heads=heads,
            kv_heads=_first(config, heads, "num_key_value_heads"),
            head_dim=_first(config, d_model // heads, "head_dim"),
            vocabulary=int(config.vocab_size),
            saes=tuple(
                SaeShape(
                    d_in=d_in, d_sae=d_sae, number_bytes=precision, **({"l0": l0} if l0 else {} if d_sae else {"l0": 0})
                )
                for d_in, d_sae, l0 in saes
            ),
            number_bytes=number_bytes,
            linear_bytes=_LINEAR_BYTES[quantize],
            file_bytes=stored_bytes if stored_bytes != number_bytes else None,
            positions=_first(config, 0, "max_position_embeddings") if family in _LEARNED_POSITIONS else 0,
            gated=family not in _UNGATED,
            experts=experts,
            eager=getattr(config, "attn_logit_softcapping", None) is not None,
            masks=2 if getattr(config, "sliding_window", None) and getattr(config, "layer_types", None) else 1,
            head=head,
            tied=head and bool(getattr(config, "tie_word_embeddings", False)),
        )

    @classmethod
    def of_preset(cls, preset: Preset, number_bytes: int) -> Shape:
        """The shape of a preset's run: nothing is downloaded for it."""
        architecture = preset.architecture
        layers = preset.layers or range(architecture.num_hidden_layers)
        return cls.of(
            architecture,
            blocks=1 + max(layers),
            number_bytes=number_bytes,
            saes=[(architecture.hidden_size, preset.d_sae, l0) for l0 in preset.l0 or [None] * len(layers)],
            stored_bytes=architecture.stored_bytes,
        )

    @property
    def weights(self) -> int:
        """Bytes of the embeddings, of the blocks loaded, and of the LM head where it is loaded and has its own."""
        linear = self.number_bytes if self.linear_bytes is None else self.linear_bytes
        return int(self._embeddings * self.number_bytes + self._in_blocks * linear)

    @property
    def converted(self) -> int:
        """Bytes of the file's pages that are held beside the weights while these are converted."""
        return (self._embeddings + self._in_blocks) * (self.file_bytes or 0)

    @property
    def block_weights(self) -> int:
        """Weights of one block."""
        return self.counted or self._in_blocks // self.blocks

    @property
    def cell_cost(self) -> float:
        """Cost of one attention cell (query, key) of a block in all its heads, in tokens through its weights."""
        return self.heads * (4 * self.head_dim + CELL_FLOPS) / (2 * self.block_weights)

    @property
    def encoding(self) -> int:
        """Layers that have an SAE."""
        return sum(sae.d_sae > 0 for sae in self.saes)

    @property
    def _embeddings(self) -> int:
        heads = self.vocabulary if self.head and not self.tied else 0
        return (self.vocabulary + self.positions + heads) * self.d_model

    @property
    def _in_blocks(self) -> int:
        attention = self.d_model * self.head_dim * 2 * (self.heads + self.kv_heads)
        mlp = self.d_model * self.d_mlp * (3 if self.gated else 2) * self.experts
        return self.blocks * (attention + mlp)


@dataclass(frozen=True)
class Footprint:
    """What a run needs where its model is: main memory on the CPU, the GPU's on CUDA, both in one on MPS."""

    shape: Shape
    """Of the model and its SAEs."""
    device: Device = "cpu"
    """Where they are; metrics are computed there too."""
    reads_a_token: float = READS_A_TOKEN
    """Reads for each distinct token; at most 1, where all tokens of a completion are read."""
    further_a_token: float = 0.0
    """Likewise of reads of which only residuals are kept."""

    @property
    def weights(self) -> int:
        """Of the model."""
        return self.shape.weights

    @property
    def saes(self) -> int:
        """Of the SAEs' weights."""
        return sum(sae.weights for sae in self.shape.saes)

    @property
    def process(self) -> int:
        """Of Python and its libraries; 0 on CUDA, whose memory holds none of it."""
        return self._in_main_memory(_PROCESS)

    @property
    def working(self) -> int:
        """Of the first batch, whatever its size."""
        return self._in_main_memory(_WORKING)

    @property
    def drawing(self) -> int:
        """Of merging and drawing, once the batches are done."""
        return self._in_main_memory(_DRAWING)

    @property
    def loading(self) -> int:
        """Of loading the model, before the first batch: the file's pages where the weights are converted."""
        return self._in_main_memory(self.shape.converted)

    @property
    def usual_row(self) -> int:
        """Slots of the rows that the planner makes of short texts: attention takes at most a tenth of their time."""
        return max(_SHORTEST_USUAL_ROW, int(0.1 / self.shape.cell_cost))

    def peak(self, batch_tokens: int, row_tokens: int) -> int:
        """The most bytes resident at once.

        Args:
            batch_tokens: distinct tokens a forward.
            row_tokens: slots of a packed row; a batch never fills a row longer than itself.
        """
        held = self.weights + self.saes + self.process
        return max(held + self.loading, self.needed(batch_tokens, min(row_tokens, self.usual_row)))

    def needed(self, batch_tokens: int, row_tokens: int) -> int:
        """The bytes that must be free: the peak without a file's pages, which the system drops where memory is short.

        Args:
            batch_tokens: distinct tokens a forward.
            row_tokens: slots of a packed row.
        """
        batch = max(self._forward(batch_tokens, min(row_tokens, batch_tokens)), self._analysis(batch_tokens))
        return self.weights + self.saes + self.process + max(self.working + batch, self.drawing)

    def least_needed(self, row_tokens: int) -> int:
        """The bytes that the smallest batch worth forming needs."""
        return self.needed(SMALLEST_BATCH, row_tokens)

    def largest_batch_tokens(self, free_bytes: int, row_tokens: int) -> int:
        """The most distinct tokens a forward may have within so much memory; 0 where not even the smallest batch fits.

        Args:
            free_bytes: all that the run may have, from the start of its process.
            row_tokens: slots of a packed row.
        """
        if self.least_needed(row_tokens) > free_bytes:
            return 0
        sizes = range(SMALLEST_BATCH, _LARGEST_BATCH + 1)
        return sizes[bisect_right(sizes, free_bytes, key=lambda tokens: self.needed(tokens, row_tokens)) - 1]

    def _in_main_memory(self, size: int) -> int:
        return 0 if self.device == "cuda" else size

    def _forward(self, tokens: int, row: int) -> int:
        shape, number = self.shape, self.shape.number_bytes
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        # gate, up and their product (or the inner layer before and after), beside residual, norm and output
        mlp = number * ((3 if shape.gated else 2) * shape.d_mlp + 3 * shape.d_model)
        # queries before and after rotation, keys and values, both repeated for every head, and the output
        attention = number * (3 * shape.d_model + 5 * queries + 3 * keys)
        # Softmax's input and output: in float32 at least, to which half precision is converted first.
        scores = shape.heads * (2 * number if number >= 4 else number + 8) if shape.eager else 0
        batch = tokens * (max(mlp, attention + row * scores) + row * shape.masks * number)
        if not shape.head:
            return batch
        # of every token in the model's dtype; of the completions', at most as many, once more in float32
        precise = max(4, number)
        # About every other token belongs to a completion.
        logits = min(HEAD_BLOCK, precise * (HEAD_COPIES * tokens // 2 + shape.d_model) * shape.vocabulary)
        head = tokens * shape.d_model * (2 * number + precise) + logits
        if not shape.lens:
            return max(batch, head)
        kept = tokens * shape.d_model * number * len(shape.saes)  # the residuals that predict, layer by layer
        return kept + max(batch, head + LENS_BLOCK[self.device])

    def _analysis(self, tokens: int) -> int:
        shape, reads = self.shape, ceil(tokens * self.reads_a_token)
        coder = max([4, *(sae.number_bytes for sae in shape.saes)])
        double = 8
        noise = 2 * double * (_VIEWS - 1) // _VIEWS  # one draw of fact and hall, unscaled and scaled
        # residual twice and reconstruction, centroid and axis, of each layer
        read = shape.d_model * (len(shape.saes) * (shape.number_bytes + 2 * coder + 2 * double) + noise)
        widest = max((sae.d_sae for sae in shape.saes), default=0)
        encoding = _DENSE_COPIES * coder * min(DENSE_CELLS, reads * widest)
        # Of stacked decoder rows: as gathered; then in float64, and once more on the way to their products.
        stacked = coder + 2 * double
        most_active = max((sae.l0 for sae in shape.saes), default=0)  # 0 without SAEs, as the widest is
        shapes = min(stacked * STACKED_CELLS[self.device], reads * int(stacked * shape.d_model * most_active))
        if self.device == "cuda":  # the matrices as they are, shifted, factored, reduced, and a step of that
            shapes += 5 * double * min(GROUPED_CELLS, int(reads * most_active**2))
        further = ceil(tokens * self.further_a_token) * shape.d_model * len(shape.saes) * (shape.number_bytes + 4)
        return reads * read + further + max(encoding, shapes)


def pairs(batch_tokens: int, tokens_per_pair: float = TOKENS_A_PAIR) -> int:
    """Pairs a forward that so many distinct tokens hold, at least one."""
    return max(1, int(batch_tokens / tokens_per_pair))


def _first(config: Any, default: int, *names: str) -> int:
    """The first of the names that a configuration gives a number for; families name the same things differently."""
    values = (getattr(config, name, None) for name in names)
    return next((int(value) for value in values if value), default)


GEMMA_2_2B: Final = {
    "float32": Shape.of_preset(PRESETS["gemma-2-2b"], 4),
    "bfloat16": Shape.of_preset(PRESETS["gemma-2-2b"], 2),
}
"""Gemma 2 2B with its preset's SAEs, by dtype of the model."""
