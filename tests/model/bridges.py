"""Models that TransformerLens bridges wrap, in a process of its own: bridges patch transformers for the whole process.

Run as `python bridges.py FOLDER ...`, one model in each; exits with 0 if all are measured as the folder is.
"""

from __future__ import annotations

import sys

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer

from bluffscope.errors import InputError
from bluffscope.model import load_model
from bluffscope.model.given import GivenModel

IDS = torch.tensor([[1, *range(40, 120, 7)]])


def check(folder: str) -> None:
    """The module that a bridge wraps has the folder's weights, computes the same, and the bridge stays as it is."""
    bridge = TransformerBridge.boot_transformers(
        folder, device="cpu", dtype=torch.float32, tokenizer=AutoTokenizer.from_pretrained(folder)
    )
    with torch.no_grad():
        before = bridge(IDS)
        found = GivenModel.of(bridge).load(3, head=False)
        named = load_model(folder, revision=None, blocks=3, device=torch.device("cpu"), dtype=torch.float32)
        assert found.identity["weights"] == named.identity["weights"]
        assert not [module for module in found.network.modules() if "Bridge" in type(module).__name__]
        ours, theirs = found.network(IDS)[0], named.network(IDS)[0]
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)  # a bridge has eager attention
        whole = GivenModel.of(bridge).load(None, head=True).network(IDS).logits
        assert torch.allclose(whole, before, rtol=1e-4, atol=1e-4)
        assert torch.equal(bridge(IDS), before)


def refused(folder: str) -> None:
    """What TransformerLens processed is no module of transformers any more."""
    config = HookedTransformerConfig(n_layers=1, d_model=8, n_ctx=8, d_head=4, d_vocab=9, act_fn="relu", device="cpu")
    bridge = TransformerBridge.boot_transformers(
        folder, device="cpu", dtype=torch.float32, tokenizer=AutoTokenizer.from_pretrained(folder)
    )
    bridge.enable_compatibility_mode()
    for model, says in ((HookedTransformer(config), "no Hugging Face module"), (bridge, "in compatibility mode")):
        try:
            GivenModel.of(model, bridge.tokenizer)
        except InputError as error:
            assert says in str(error), error
        else:
            raise AssertionError(f"{type(model).__name__} was not refused")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        check(name)
    refused(sys.argv[-1])
