"""Tokens that a direction promotes: the slope of the model's own logits, by automatic differentiation."""

from __future__ import annotations

import pytest
import torch

from bluffscope.errors import InputError
from bluffscope.features.logit_lens import promotions
from bluffscope.model import load_model


@pytest.mark.parametrize("any_model", ["gemma2", "llama", "gpt2", "gpt_neox"], indirect=True)
def test_it_is_how_fast_the_heads_logits_grow_along_the_direction_at_a_state_of_scale_one(any_model):
    model = load_model(
        str(any_model), revision=None, blocks=None, device=torch.device("cpu"), dtype=torch.float64, head=True
    )
    body, head = model.network.base_model, model.network.get_output_embeddings()
    norm = next(getattr(body, name) for name in ("norm", "ln_f", "final_layer_norm") if hasattr(body, name))
    with torch.no_grad():
        for parameter in norm.parameters():  # gains of 1 and biases of 0 would hide a wrong one
            parameter.normal_(0.3, 0.5, generator=torch.Generator().manual_seed(1))
    direction = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # A state orthogonal to the direction, of mean 0 and scale 1: there the norm's scale stands still to first order.
    state = torch.randn(16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    basis = torch.stack([torch.ones(16, dtype=torch.float64), direction - direction.mean()])
    state -= basis.T @ torch.linalg.solve(basis @ basis.T, basis @ state)
    state /= state.square().mean().sqrt()

    def logits(step):
        return head(norm((state + step * direction)[None, None]))[0, 0]

    if not isinstance(norm, torch.nn.LayerNorm):
        state -= direction * (state @ direction) / (direction @ direction)
        state /= state.square().mean().sqrt()
    expected = torch.autograd.functional.jacobian(logits, torch.zeros((), dtype=torch.float64))
    found = promotions(model, direction[None])[0]
    assert torch.allclose(found, expected, atol=1e-4 * expected.abs().max())


def test_a_model_without_its_head_is_refused(tiny_model):
    model = load_model(str(tiny_model), revision=None, blocks=2, device=torch.device("cpu"), dtype=torch.float32)
    with pytest.raises(InputError, match="no linear LM head"):
        promotions(model, torch.ones(1, 16))
