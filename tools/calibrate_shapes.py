"""Prints the thresholds of the benchmark's random SAEs: those of `bluffscope.compare.bench.shapes`.

`python tools/calibrate_shapes.py mid` reads the residuals of the bundled pairs' three texts, as an analysis does, and
takes for each layer the value that the wanted number of pre-activations exceeds, over all reads. At the larger shape
give `--pairs 25`: every eighth pair.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping

import torch

from bluffscope.compare.bench.shapes import L0, SHAPES, Shape, build_language_model, random_decoder
from bluffscope.config import DataOptions
from bluffscope.model import HookPoint, LanguageModel, ResidualReader
from bluffscope.pairs import open_source
from bluffscope.pipeline.plan import BatchLimits, TextTokenizer, pack, plan_batches
from bluffscope.records import Tokenized


def residuals(shape: Shape, model: LanguageModel, pairs: int) -> dict[int, torch.Tensor]:
    """(read, d_model) float32 by layer, at the last token of every text."""
    tokenizer = TextTokenizer(
        tokenizer=model.tokenizer, bos=model.tokenizer.bos_token_id, position="last", join=" ", context=model.context
    )
    every = list(open_source(DataOptions()).pairs())
    tokenized = [pair for pair in tokenizer.tokenize(every[:: len(every) // pairs]) if isinstance(pair, Tokenized)]
    reader = ResidualReader.create(model, {layer: HookPoint(layer, "hook_resid_post") for layer in shape.layers})
    limits = BatchLimits(batch_size="auto", batch_tokens=2048, row_tokens=512)
    found: dict[int, list[torch.Tensor]] = {layer: [] for layer in shape.layers}
    for batch in plan_batches(tokenized, limits):
        sequences = [sequence for pair in batch for sequence in pair.sequences]
        slots = {pair.item.index: slot for slot, pair in enumerate(batch)}
        for layer, residual in reader.read(pack(sequences, slots, limits.row_tokens)).residuals.items():
            found[layer].append(residual.float())
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def thresholds(shape: Shape, read: Mapping[int, torch.Tensor]) -> tuple[float, ...]:
    """Of each layer, in four digits."""
    chosen: list[float] = []
    for layer, residual in read.items():
        activations = (residual @ random_decoder(shape, layer).T).reshape(-1)  # (read * d_sae,)
        wanted = L0 * len(residual)
        threshold = float(f"{activations.topk(wanted).values[-1]:.4g}")
        active = (activations > threshold).reshape(len(residual), -1).sum(1).float()
        print(
            f"layer {layer}: threshold {threshold}, L0 {active.mean():.1f} ({int(active.min())} to "
            f"{int(active.max())}), RMS of the residuals {residual.square().mean().sqrt():.2f}"
        )
        chosen.append(threshold)
    return tuple(chosen)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=[name for name, shape in SHAPES.items() if not shape.embedded])
    parser.add_argument("--pairs", type=int, default=200)
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    start = time.perf_counter()
    model = build_language_model(shape, blocks=max(shape.layers) + 1)
    print(f"built in {time.perf_counter() - start:.1f} s")
    print(f"thresholds={thresholds(shape, residuals(shape, model, args.pairs))}")


if __name__ == "__main__":
    main()
