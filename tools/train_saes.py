"""Trains SAEs of any small language model the way the embedded ones are trained, on texts that it writes itself.

`python tools/train_saes.py MODEL_DIR --layers 0 1 --out SAES` gives a folder for `bluffscope analyze --sae SAES`. The
model writes stories from its own BOS; nine in ten are trained on, the rest measure the L0 and explained variance that
go into each SAE's metadata.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from train_demo_saes import save_sae, train_sae

LENGTH = 96
"""Tokens of a story."""


@torch.inference_mode()
def written(folder: Path, layers: Sequence[int], stories: int, seed: int) -> dict[int, torch.Tensor]:
    """Residuals (row, d_model) by layer at every token but BOS of stories that the model writes."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    bos = AutoTokenizer.from_pretrained(folder).bos_token_id
    rows: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    for start in range(0, stories, 128):
        prompt = torch.full((min(128, stories - start), 1), bos)
        ids = model.generate(prompt, max_new_tokens=LENGTH, do_sample=True, eos_token_id=None, pad_token_id=bos)
        states = model(ids, output_hidden_states=True).hidden_states
        for layer in layers:
            # the last state is behind the final norm: take the block's own output there
            hidden = states[layer + 1] if layer + 2 < len(states) else _last_block(model, ids)
            rows[layer].append(hidden[:, 1:].reshape(-1, hidden.shape[-1]))
    return {layer: torch.cat(parts) for layer, parts in rows.items()}


def _last_block(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    caught: list[torch.Tensor] = []

    def catch(_module: torch.nn.Module, _args: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        caught.append(output if isinstance(output, torch.Tensor) else output[0])

    handle = model.model.layers[-1].register_forward_hook(catch)
    try:
        model(ids)
    finally:
        handle.remove()
    return caught[0]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of the model, in Hugging Face layout")
    parser.add_argument("--layers", type=int, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stories", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    hf_logging.set_verbosity_error()  # it takes the BOS that opens every story for a pad
    for layer, rows in written(args.model, args.layers, args.stories, args.seed).items():
        held_out = len(rows) // 10
        sae = train_sae(rows[held_out:], layer, args.seed, args.steps, args.model.name)
        save_sae(sae, args.out / f"layer_{layer}", rows[:held_out])


if __name__ == "__main__":
    main()
