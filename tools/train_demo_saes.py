"""Trains the embedded SAEs with SAELens on residuals of the embedded model (2 cores, about five minutes an SAE).

BatchTopK in training, JumpReLU on disk (SAELens turns one into the other): activations differ in how many features
they use, and the mean is set. The activations are computed here and fed to SAELens's own trainer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("TQDM_DISABLE", "1")  # read when SAELens imports tqdm; the data source prints progress

import torch
from safetensors.torch import load_file, save_file

from check_demo_model import LAYERS, Demo, coding, held_out_texts, load, load_sae, residuals
from demo_corpus import Corpus, read_pairs
from train_demo_model import CONTEXT

MODEL_NAME = "bluffscope-demo"
FEATURES_PER_DIMENSION = 16
MEAN_L0 = 30
TEXTS = 30_000
STEPS = 3000
BATCH = 1024
LR = 1e-3


def activations(demo: Demo, pairs: list[dict[str, Any]], seed: int) -> dict[int, torch.Tensor]:
    """Residuals (row, d_model) by layer at every token but BOS of texts that are not held out.

    No text begins with a view of the benchmark, so the SAEs never meet the very activations that the tool reads.
    """
    stream = (text.text for text in Corpus(pairs, seed, plain=False) if not text.held_out)
    return residuals(demo, itertools.islice(stream, TEXTS), last=False)


def batches(rows: torch.Tensor, seed: int, steps: int, name: str) -> Iterator[torch.Tensor]:
    """Shuffled batches (row, d_model), epoch after epoch; prints how far the training is."""
    generator, started, done = torch.Generator().manual_seed(seed), time.time(), 0
    while True:
        order = torch.randperm(len(rows), generator=generator)
        for start in range(0, len(rows) - BATCH + 1, BATCH):
            yield rows[order[start : start + BATCH]]
            done += 1
            if done % 250 == 0:
                print(f"{name}: step {done}/{steps}  {time.time() - started:.0f} s", flush=True)


@dataclass(frozen=True)
class Kind:
    """What the SAEs of a model are, whatever their layer; their metadata say all of it."""

    model_name: str
    d_sae: int
    k: float
    """Mean active features."""
    context: int
    """Tokens of a text at most, BOS included."""
    prepend_bos: bool = True
    corpus: str | None = None
    """Name, version and licence of the texts."""
    architecture: Literal["batchtopk", "topk"] = "batchtopk"
    """Of the training; BatchTopK SAEs are JumpReLU on disk."""

    def config(self, d_in: int, **shared: Any) -> Any:
        """SAELens's training configuration."""
        from sae_lens import BatchTopKTrainingSAEConfig, TopKTrainingSAEConfig

        shared |= {"d_in": d_in, "d_sae": self.d_sae}
        if self.architecture == "topk":
            return TopKTrainingSAEConfig(**shared, k=int(self.k))
        return BatchTopKTrainingSAEConfig(**shared, k=self.k)


def train_sae(rows: torch.Tensor, kind: Kind, layer: int, seed: int, steps: int) -> Any:
    """Train one SAE on activations of shape (row, d_model)."""
    from sae_lens import LoggingConfig, SAETrainer
    from sae_lens.config import SAETrainerConfig
    from sae_lens.registry import get_sae_training_class
    from sae_lens.saes.sae import SAEMetadata

    torch.manual_seed(seed + layer)
    d_model = rows.shape[1]
    metadata = SAEMetadata(
        model_name=kind.model_name,
        hook_name=f"blocks.{layer}.hook_resid_post",
        prepend_bos=kind.prepend_bos,
        context_size=kind.context,
        exclude_special_tokens=True,
        **({} if kind.corpus is None else {"dataset_path": kind.corpus}),
    )
    config = kind.config(
        d_model,
        normalize_activations="expected_average_only_in",  # SAELens folds the factor into the weights at the end
        apply_b_dec_to_input=False,
        metadata=metadata,
    )
    sae: Any = get_sae_training_class(kind.architecture)[0](config)
    with torch.no_grad():
        # Start from the mean, in the units of training (mean norm sqrt(d_model)).
        sae.b_dec.copy_(rows.mean(0) * d_model**0.5 / rows.norm(dim=-1).mean())
        sae.b_enc.copy_(-(sae.b_dec @ sae.W_enc))
    cfg = SAETrainerConfig(
        total_training_samples=steps * BATCH,
        train_batch_size_samples=BATCH,
        lr=LR,
        lr_end=LR / 20,
        lr_warm_up_steps=50,
        lr_decay_steps=steps // 2,
        dead_feature_window=300,
        n_batches_for_norm_estimate=100,
        logger=LoggingConfig(log_to_wandb=False),
    )
    source = batches(rows, seed + layer, steps, f"SAE of layer {layer}")
    return SAETrainer(cfg=cfg, sae=sae, data_provider=source).fit()


def save_sae(sae: Any, folder: Path, held_out: torch.Tensor) -> None:
    """Write an SAE in SAELens's disk layout, in float16, with its measured L0 and explained variance.

    `held_out` (row, d_model) are activations of texts that no SAE trained on; the rounded weights are measured.
    """
    shutil.rmtree(folder, ignore_errors=True)
    weights, cfg_path = sae.save_inference_model(folder)
    halves = {name: value.to(torch.float16).contiguous() for name, value in load_file(weights).items()}
    save_file(halves, weights)
    weights.chmod(0o644)  # safetensors writes files that only their owner can read
    seen = coding(load_sae(folder), held_out)
    cfg = json.loads(cfg_path.read_text(encoding="utf-8"))
    cfg["device"], cfg["dtype"] = "cpu", "float32"  # how it is used; the file's own tensors are float16
    cfg["metadata"] |= {"l0": round(seen.l0, 3), "explained_variance": round(seen.explained, 5)}
    cfg_path.write_text(json.dumps(cfg, indent=1) + "\n", encoding="utf-8")
    figures = (
        f"mean L0 {seen.l0:.1f} (sd {seen.l0_sd:.1f}), explained variance {seen.explained:.4f}, "
        f"{seen.dead} of {sae.cfg.d_sae} features never active"
    )
    print(f"{folder.name}: {figures}", flush=True)


def train_and_save(folder: Path, rows_file: Path, layer: int, seed: int, steps: int) -> None:
    """Train the SAE of one layer in a process of its own, on one thread, from activations in a file."""
    torch.set_num_threads(1)
    data = torch.load(rows_file, mmap=True)
    d_sae = FEATURES_PER_DIMENSION * data["train"].shape[1]
    kind = Kind(MODEL_NAME, d_sae, MEAN_L0, CONTEXT)
    save_sae(train_sae(data["train"], kind, layer, seed, steps), folder, data["held_out"])


def run(
    weights: Path, pairs: list[dict[str, Any]], seed: int, steps: int = STEPS, layers: tuple[int, ...] = LAYERS
) -> None:
    """Train the SAEs of the model in `weights/model`, beside each other, and write them to `weights/sae`."""
    demo = load(weights)
    train, held_out = activations(demo, pairs, seed + 2), residuals(demo, held_out_texts(pairs), last=False)
    print(f"activations: {len(train[LAYERS[0]])} tokens at {len(train)} layers", flush=True)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(len(layers), mp_context=context) as pool:
        jobs: list[Future[None]] = []
        for layer in layers:
            file = Path(scratch) / f"layer_{layer}.pt"
            torch.save({"train": train.pop(layer), "held_out": held_out[layer]}, file)
            folder = weights / "sae" / f"layer_{layer}"
            jobs.append(pool.submit(train_and_save, folder, file, layer, seed, steps))
        for job in jobs:
            job.result()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, help="folder with model/; sae/ is written beside it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--layers", type=int, nargs="*", default=LAYERS)
    args = parser.parse_args()
    torch.set_num_threads(2)
    run(args.weights, read_pairs(), args.seed, args.steps, tuple(args.layers))


if __name__ == "__main__":
    main()
