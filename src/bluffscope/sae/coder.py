"""A loaded SAE: residuals in, sparse features and reconstructions out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from bluffscope.host.buffers import Buffers
from bluffscope.records import Features

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from sae_lens import SAE

    from bluffscope.sae.plain import PlainSae

    AnySae = PlainSae | SAE[Any]
else:  # sae_lens takes seconds to import
    AnySae = Any

# Architectures whose decode is sum_i a_i W_dec[i] + b_dec, so that only active features need be touched.
_AFFINE_DECODERS = ("standard", "jumprelu", "topk", "gated", "batchtopk")
_DENSE_CELLS = 1 << 24
"""Cells of the dense feature matrix held at once: 64 MB in float32."""


@dataclass(frozen=True)
class Coder:
    """One layer's SAE behind the two calls that the pipeline needs."""

    layer: int
    sae: AnySae
    hook_name: str
    """Hook point it reads, in TransformerLens names: "blocks.5.hook_resid_post"."""
    prepend_bos: bool
    """Whether it was trained on texts with a BOS in front."""
    centred: bool = False
    """Whether it was trained on a residual stream whose mean over d_model had been taken off
    (`center_writing_weights`)."""
    identity: dict[str, Any] = field(default_factory=dict)
    """Where it came from (release and id, or folder), architecture, width, hash: for the manifest."""
    buffers: Buffers = field(default_factory=Buffers, repr=False)
    """Where the pre-activations live, from call to call."""

    @property
    def d_in(self) -> int:
        """Width of the residual it reads."""
        return self.sae.cfg.d_in

    @property
    def d_sae(self) -> int:
        """Features in its dictionary."""
        return self.sae.cfg.d_sae

    @property
    def decoder(self) -> Float[torch.Tensor, "d_sae d_model"]:
        """W_dec, the direction of every feature."""
        return self.sae.W_dec.detach()

    def encode(self, residual: Float[torch.Tensor, "read d_model"]) -> Features:
        """The active features (activation > 0) of every residual."""
        encode = self._encode_sparsely if self._thresholds else lambda block: _sparse(self.sae.encode(block))
        return _concatenate([encode(block) for block in self._blocks(residual)], self.d_sae)

    def encode_decode(
        self, residual: Float[torch.Tensor, "read d_model"]
    ) -> tuple[Features, Float[torch.Tensor, "read d_model"]]:
        """Features and reconstruction of every residual.

        Both come from one call, since an SAE that normalises its input keeps that input's scale
        between its own encode and decode.
        """
        if self.affine:
            features = self.encode(residual)
            return features, self._decode(features)
        parts: list[Features] = []
        reconstructions: list[torch.Tensor] = []
        for block in self._blocks(residual):
            dense = self.sae.encode(block)
            reconstructions.append(self.sae.decode(dense))
            parts.append(_sparse(dense))
        return _concatenate(parts, self.d_sae), torch.cat(reconstructions)

    @property
    def affine(self) -> bool:
        """Whether its reconstruction is b_dec plus each active feature's activation times its row of W_dec."""
        cfg = self.sae.cfg
        return (
            cfg.architecture() in _AFFINE_DECODERS
            and cfg.normalize_activations in ("none", "expected_average_only_in", None)
            and not getattr(cfg, "rescale_acts_by_decoder_norm", False)
        )

    def _decode(self, features: Features) -> Float[torch.Tensor, "read d_model"]:
        sums = torch.nn.functional.embedding_bag(
            features.indices,
            self.decoder,
            features.indptr[:-1],
            mode="sum",
            per_sample_weights=features.values.to(self.decoder.dtype),
        )
        return sums + self.sae.b_dec.detach()

    @cached_property
    def _thresholds(self) -> bool:
        """Whether features are what exceeds a threshold, so that the dense matrix need be looked through only once.

        So it is for JumpReLU and ReLU; a try says whether this SAE agrees, to the last bit.
        """
        if self.sae.cfg.architecture() not in ("jumprelu", "standard"):
            return False
        generator = torch.Generator().manual_seed(0)
        scale = self.sae.W_enc.detach().norm() / self.d_in**0.5
        probe = torch.randn(4, self.d_in, generator=generator).to(self.sae.W_enc) / scale.clamp_min(1e-6)
        probe = torch.cat([probe, 100 * probe])
        ours, theirs = self._encode_sparsely(probe), _sparse(self.sae.encode(probe))
        return torch.equal(ours.indices, theirs.indices) and torch.equal(ours.values, theirs.values)

    def _encode_sparsely(self, block: Float[torch.Tensor, "read d_model"]) -> Features:
        """Features straight from the pre-activations, which live in a buffer that is used again."""
        sae_in = self.sae.process_sae_in(block)
        shape = (len(sae_in), self.d_sae)
        hidden = self.buffers.take("hidden_pre", shape, self.sae.W_enc.dtype, self.sae.W_enc.device)
        bias: Any = self.sae.b_enc
        threshold: Any = getattr(self.sae, "threshold", None)
        torch.mm(sae_in, self.sae.W_enc.detach(), out=hidden).add_(bias.detach())
        return _gathered(hidden, hidden > (0 if threshold is None else threshold.detach().clamp_min(0)))

    def _blocks(self, residual: torch.Tensor) -> Sequence[torch.Tensor]:
        """The residuals, as many at a time as their dense features may take memory."""
        return residual.to(self.sae.W_dec).split(max(1, _DENSE_CELLS // self.d_sae))


def _sparse(dense: Float[torch.Tensor, "read d_sae"]) -> Features:
    return _gathered(dense, dense > 0)


def _gathered(dense: Float[torch.Tensor, "read d_sae"], active: Bool[torch.Tensor, "read d_sae"]) -> Features:
    """The entries of a dense matrix at which `active` is true."""
    rows, columns = active.nonzero(as_tuple=True)  # in row order, columns ascending
    counts = torch.bincount(rows, minlength=len(dense))
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Features(indptr=indptr, indices=columns, values=dense[rows, columns], d_sae=dense.shape[1])


def _concatenate(parts: list[Features], d_sae: int) -> Features:
    if len(parts) == 1:
        return parts[0]
    counts = torch.cat([part.counts for part in parts])
    return Features(
        indptr=torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        indices=torch.cat([part.indices for part in parts]),
        values=torch.cat([part.values for part in parts]),
        d_sae=d_sae,
    )
