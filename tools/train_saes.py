"""Trains SAEs of a causal language model on texts, with SAELens's own trainer.

`python tools/train_saes.py --model FOLDER --texts FILE --width 1024 --k 48 --layers 6 14 23 --out DIR` gives a folder
for `bluffscope analyze --sae DIR`. The texts are read once, for all layers. BatchTopK in training, JumpReLU on disk, as
SAELens saves it; or TopK. Left out are what says nothing of a text: BOS, the first token, and
tokens whose residual is a multiple of the usual length ("sinks", which would be all that an SAE learns). One text in
ten is held out: the L0, the explained variance and the dead features that are printed, and kept in each SAE's metadata,
are measured on those.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported

import torch

from bluffscope.health.fit import SINK
from bluffscope.model.hooks import HookPoint
from bluffscope.model.load import LanguageModel, load_model
from train_demo_saes import Kind, save_sae, train_sae

CONTEXT = 128
"""Tokens of a text, BOS included; what is longer is cut."""
BATCH_TOKENS = 4096


def read_texts(path: Path) -> list[str]:
    """The texts of a .jsonl file with a field `text`; the paragraphs of a text file, or its lines if it has none."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        texts = [json.loads(line)["text"] for line in content.splitlines() if line.strip()]
    else:
        texts = re.split(r"\n\s*\n", content) if re.search(r"\n\s*\n\s*\S", content) else content.splitlines()
    return [" ".join(text.split()) for text in texts if text.strip()]


def encoded(model: LanguageModel, texts: Sequence[str], *, bos: bool, tokens: int, seed: int) -> list[list[int]]:
    """Token ids of texts in random order until there are enough tokens, each with BOS in front where there is one."""
    tokenizer: Any = model.tokenizer
    lead = [tokenizer.bos_token_id] if bos and tokenizer.bos_token_id is not None else []
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen: list[list[int]] = []
    for start in range(0, len(order), 1000):
        given = [texts[index] for index in order[start : start + 1000]]
        for ids in tokenizer(given, add_special_tokens=False)["input_ids"]:
            chosen.append([*lead, *ids][:CONTEXT])
            tokens -= len(chosen[-1])
            if tokens <= 0:
                return chosen
    return chosen


def batches(sequences: list[list[int]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ids (row, token), right-padded (no token sees a pad: attention looks back), and which to learn from."""
    order = sorted(sequences, key=len)
    while order:
        size = max(1, BATCH_TOKENS // len(order[-1]))
        order, rows = order[:-size], order[-size:]
        lengths = torch.tensor([len(row) for row in rows])
        width = int(lengths.max())
        place = torch.arange(width)
        yield torch.tensor([row + [0] * (width - len(row)) for row in rows]), (place > 0) & (place < lengths[:, None])


@torch.inference_mode()
def residuals(model: LanguageModel, sequences: list[list[int]], layers: Sequence[int]) -> dict[int, torch.Tensor]:
    """Residuals (row, d_model) by layer, after the block, at every token but the first."""
    found: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    caught: dict[int, torch.Tensor] = {}
    for layer in layers:
        HookPoint(layer, "hook_resid_post").attach(model.blocks, lambda x, layer=layer: caught.update({layer: x}))
    for ids, wanted in batches(sequences):
        model.network(input_ids=ids.to(model.device), use_cache=False)
        for layer in layers:
            found[layer].append(caught[layer][wanted.to(model.device)].cpu())
    return {layer: torch.cat(rows) for layer, rows in found.items()}


def without_sinks(rows: torch.Tensor, layer: int) -> torch.Tensor:
    """The rows (row, d_model) whose norm is nothing out of the ordinary; the health checks leave out the same."""
    norms = rows.norm(dim=-1)
    usual = norms <= SINK * norms.median()
    print(f"layer {layer}: {len(rows)} tokens, median norm {norms.median():.0f}, {int((~usual).sum())} sinks left out")
    return rows[usual]


def activations(args: argparse.Namespace) -> dict[str, dict[int, torch.Tensor]]:
    """Residuals by layer of the texts to train on and of those held out; kept in a file if one is named."""
    asked = {name: str(getattr(args, name)) for name in ("model", "texts", "no_bos", "tokens", "seed")}
    if args.activations and args.activations.is_file():
        kept = torch.load(args.activations, mmap=True)
        if kept["asked"] == asked and kept["train"].keys() >= set(args.layers):
            return kept
    model = load_model(
        args.model, revision=None, blocks=max(args.layers) + 1, device=torch.device(args.device), dtype=torch.float32
    )
    texts = read_texts(args.texts)
    sequences = encoded(model, texts, bos=not args.no_bos, tokens=args.tokens, seed=args.seed)
    held_out = len(sequences) // 10
    print(f"{len(sequences)} texts of {len(texts)}, {held_out} of them held out", flush=True)
    parts = {"held_out": sequences[:held_out], "train": sequences[held_out:]}
    found = {name: residuals(model, part, args.layers) for name, part in parts.items()}
    if args.activations:
        torch.save({"asked": asked, **found}, args.activations)
    return found


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder in Hugging Face layout, or a name on the hub")
    parser.add_argument("--texts", type=Path, required=True, help=".jsonl with a field `text`, or .txt")
    parser.add_argument("--layers", type=int, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=1024, help="features")
    parser.add_argument("--k", type=float, default=48, help="features active at a time, on average")
    parser.add_argument("--architecture", choices=get_args(get_type_hints(Kind)["architecture"]), default="batchtopk")
    parser.add_argument("--no-bos", action="store_true", help="read the texts without BOS")
    parser.add_argument("--tokens", type=int, default=70_000, help="read so many; the texts are taken in random order")
    parser.add_argument("--steps", type=int, default=1000, help="batches of 1024 tokens")
    parser.add_argument("--corpus", help="name, version and licence of the texts, for the metadata")
    parser.add_argument("--name", help="of the model, for the metadata; else its folder's")
    parser.add_argument("--activations", type=Path, help="file that keeps the activations for the next call")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Command line."""
    args = arguments()
    name = args.name or Path(args.model).name
    kind = Kind(name, args.width, args.k, CONTEXT, not args.no_bos, args.corpus, args.architecture)
    found = activations(args)
    for layer in args.layers:
        train, held_out = (without_sinks(found[part][layer], layer) for part in ("train", "held_out"))
        save_sae(train_sae(train, kind, layer, args.seed, args.steps), args.out / f"layer_{layer}", held_out)


if __name__ == "__main__":
    main()
