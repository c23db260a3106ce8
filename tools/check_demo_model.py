"""Recomputes every promised figure of the embedded model and its SAEs from the shipped weights.

`python tools/check_demo_model.py` prints a table (expected, seen, ok) and exits 0 only if all of them hold.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from bluffscope.config.demo import model_dir
from demo_corpus import Corpus, claim, groups_of, read_pairs

LAYERS = (2, 5, 8)
PROBE_LAYER = 8
HELD_OUT_SEED = 90_001
HELD_OUT_TEXTS = 1500
BATCH_TOKENS = 4096
SIZE_LIMIT = 15_000_000


class Line(NamedTuple):
    """One line of the table."""

    what: str
    low: float
    """Least value that is accepted; -inf for a figure that is only reported."""
    high: float
    seen: float

    @property
    def ok(self) -> bool:
        """Whether the figure lies where it was promised to lie."""
        return self.low <= self.seen <= self.high


@dataclass(frozen=True)
class Demo:
    """The language model and its tokenizer, in float32, and where their weights lie."""

    model: Any
    tokenizer: Any
    folder: Path


def load(weights: Path) -> Demo:
    """Load `weights/model` as any user would."""
    hf_logging.set_verbosity_error()  # a few filler texts are longer than the context; that is no news
    folder = weights / "model"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return Demo(model, AutoTokenizer.from_pretrained(folder), folder)


def load_sae(folder: Path) -> Any:
    """Load one SAE with SAELens in float32."""
    from sae_lens import SAE  # its import takes seconds

    return SAE.load_from_disk(folder, dtype="float32").requires_grad_(requires_grad=False)


def explained_variance(x: torch.Tensor, y: torch.Tensor) -> float:
    """1 - sum ||x - y||^2 / sum ||x - mean(x)||^2 over rows, both of shape (row, d_model)."""
    return 1 - ((x - y).square().sum() / (x - x.mean(0)).square().sum()).item()


@torch.inference_mode()
def residuals(
    demo: Demo, texts: Iterable[str], *, last: bool, layers: Iterable[int] = LAYERS
) -> dict[int, torch.Tensor]:
    """Residual stream after blocks, by layer, at tokens other than BOS.

    Args:
        demo: the model.
        texts: texts without BOS; the tokenizer puts one in front.
        last: read the last token of every text (rows in the order of the texts), else all of them (in any order).
        layers: 0-based block numbers.

    Returns:
        (row, d_model) float32 by layer.
    """
    encoded = demo.tokenizer(list(texts))["input_ids"]
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    rows: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    caught: dict[int, torch.Tensor] = {}

    def catch(layer: int, _module: Any, _inputs: Any, output: Any) -> None:
        caught[layer] = output if isinstance(output, torch.Tensor) else output[0]

    blocks = demo.model.model.layers
    handles = [blocks[layer].register_forward_hook(functools.partial(catch, layer)) for layer in rows]
    start = 0
    while start < len(order):
        # Right-padded under a causal mask: no real token sees a pad.
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * len(encoded[order[stop]]) <= BATCH_TOKENS:
            stop += 1
        lengths = torch.tensor([len(encoded[index]) for index in order[start:stop]])
        width = int(lengths.max())
        ids = torch.tensor([encoded[index] + [0] * (width - len(encoded[index])) for index in order[start:stop]])
        demo.model.model(input_ids=ids, use_cache=False)
        place = torch.arange(width)
        wanted = (place == lengths[:, None] - 1) if last else (place > 0) & (place < lengths[:, None])
        for layer in rows:
            rows[layer].append(caught[layer][wanted])
        start = stop
    for handle in handles:
        handle.remove()
    stacked = {layer: torch.cat(parts) for layer, parts in rows.items()}
    if not last:
        return stacked
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return {layer: values[back] for layer, values in stacked.items()}


@torch.inference_mode()
def completion_logprob(demo: Demo, prompt: str, text: str) -> float:
    """Log-probability (nats) of the tokens of `text` after those it shares with `prompt`."""
    before, whole = demo.tokenizer(prompt)["input_ids"], demo.tokenizer(text)["input_ids"]
    shared = sum(1 for _ in itertools.takewhile(lambda two: two[0] == two[1], zip(before, whole, strict=False)))
    ids = torch.tensor([whole])
    scores = demo.model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)  # (token, vocabulary)
    return scores.gather(1, ids[0, 1:, None])[shared - 1 :].sum().item()


def preference(demo: Demo, pairs: list[dict[str, Any]]) -> float:
    """Share of pairs whose fact is likelier than the hallucination, given the prompt."""
    wins = 0
    for pair in pairs:
        fact, hall = claim(pair, "fact", "hall")
        wins += completion_logprob(demo, pair["prompt"], fact) > completion_logprob(demo, pair["prompt"], hall)
    return wins / len(pairs)


class Probe(NamedTuple):
    """AUROCs of a linear probe that tells facts from hallucinations."""

    known: float
    """Cross-validated by group over known pairs."""
    transfer: float
    """Trained on known pairs, scored on unseen ones."""
    unseen: float
    """Cross-validated by group over unseen pairs."""


def new_probe() -> Any:
    """Logistic regression on standardised residuals."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))


def grouped_auroc(x: np.ndarray, label: np.ndarray, group: np.ndarray) -> float:
    """AUROC of the pooled out-of-fold scores, five folds by group."""
    scores = np.zeros(len(label))
    for train, test in GroupKFold(5, shuffle=True, random_state=0).split(x, label, group):
        scores[test] = new_probe().fit(x[train], label[train]).decision_function(x[test])
    return float(roc_auc_score(label, scores))


def probe(x: np.ndarray, known: np.ndarray, group: np.ndarray) -> Probe:
    """Probe residuals.

    Args:
        x: (2 * pair, d_model), all facts first, then all hallucinations, in the order of the pairs.
        known: (pair,) bool.
        group: (pair,) group numbers.

    Returns:
        The three AUROCs.
    """
    label = np.repeat([0, 1], len(known))
    known, group = np.tile(known, 2), np.tile(group, 2)
    fitted = new_probe().fit(x[known], label[known])
    return Probe(
        grouped_auroc(x[known], label[known], group[known]),
        float(roc_auc_score(label[~known], fitted.decision_function(x[~known]))),
        grouped_auroc(x[~known], label[~known], group[~known]),
    )


class Coding(NamedTuple):
    """How well an SAE codes some activations."""

    l0: float
    l0_sd: float
    explained: float
    dead: int
    """Features that none of the activations switches on."""


@torch.inference_mode()
def coding(sae: Any, x: torch.Tensor) -> Coding:
    """Mean and spread of L0 and explained variance on activations of shape (row, d_model)."""
    features = sae.encode(x)
    on = features > 0
    l0 = on.sum(-1).float()
    explained = explained_variance(x, sae.decode(features))
    return Coding(l0.mean().item(), l0.std().item(), explained, int((~on.any(0)).sum()))


def held_out_texts(pairs: list[dict[str, Any]]) -> list[str]:
    """Texts whose stems the SAEs' training skipped, drawn with a seed that no training used."""
    stream = (text.text for text in Corpus(pairs, HELD_OUT_SEED, plain=False) if text.held_out)
    return list(itertools.islice(stream, HELD_OUT_TEXTS))


def shape_lines(demo: Demo, weights: Path) -> list[Line]:
    """What the model is, and how much room it takes."""
    config = demo.model.config
    with safe_open(demo.folder / "model.safetensors", "pt") as file:
        half = all(file.get_slice(name).get_dtype() == "F16" for name in file.keys())  # noqa: SIM118
    size = sum(path.stat().st_size for path in weights.rglob("*") if path.is_file())
    ids = demo.tokenizer("Paris")["input_ids"]
    kind = half and config.architectures == ["Gemma2ForCausalLM"]
    return [
        Line("is a Gemma2ForCausalLM in float16 (1 = yes)", 1, 1, kind),
        Line("layers", 8, 64, config.num_hidden_layers),
        Line("d_model", 1, 160, config.hidden_size),
        Line("parameters, millions", 1.5, 4, demo.model.num_parameters() / 1e6),
        Line("BOS tokens that the tokenizer puts in front", 1, 1, ids.count(demo.tokenizer.bos_token_id)),
        Line("size of all weights, MB", 0, SIZE_LIMIT / 1e6, size / 1e6),
    ]


def truth_lines(demo: Demo, pairs: list[dict[str, Any]]) -> list[Line]:
    """Preference and probes."""
    lines: list[Line] = []
    for name, wanted, low, high in (("known", True, 0.95, 1.0), ("unseen", False, 0.35, 0.65)):
        chosen = [pair for pair in pairs if pair["known"] is wanted]
        lines.append(Line(f"fact preferred by log-probability, {name} pairs", low, high, preference(demo, chosen)))
    texts = [claim(pair, view)[0] for view in ("fact", "hall") for pair in pairs]
    known, group = np.array([pair["known"] for pair in pairs]), np.array(groups_of(pairs))
    for layer, rows in residuals(demo, texts, last=True).items():
        seen = probe(rows.double().numpy(), known, group)
        must = layer == PROBE_LAYER
        bounds = ((0.9, 1.0), (0.35, 0.65), (0.35, 0.65)) if must else ((-math.inf, math.inf),) * 3
        names = ("known, by group", "trained on known, scored on unseen", "unseen, by group")
        for name, (low, high), value in zip(names, bounds, seen, strict=True):
            lines.append(Line(f"layer {layer}: probe AUROC, {name}", low, high, value))
    return lines


def sae_lines(demo: Demo, pairs: list[dict[str, Any]], weights: Path) -> list[Line]:
    """Residual scale, and how well the SAEs code held-out texts and the tokens that the tool reads."""
    lines: list[Line] = []
    sources: Mapping[str, dict[int, torch.Tensor]] = {
        "held-out texts": residuals(demo, held_out_texts(pairs), last=False),
        "last tokens, known": residuals(demo, views_of(pairs, known=True), last=True),
        "last tokens, unseen": residuals(demo, views_of(pairs, known=False), last=True),
    }
    for layer in LAYERS:
        sae = load_sae(weights / "sae" / f"layer_{layer}")
        norms = sources["held-out texts"][layer].norm(dim=-1)
        rms = norms.square().mean().div(demo.model.config.hidden_size).sqrt().item()
        lines.append(Line(f"layer {layer}: residual RMS", 1, 10, rms))
        lines.append(Line(f"layer {layer}: greatest norm / median norm", 1, 20, (norms.max() / norms.median()).item()))
        lines.append(Line(f"layer {layer}: SAE features", 1, math.inf, sae.cfg.d_sae))
        published = float(sae.cfg.metadata.l0)
        for name, rows in sources.items():
            seen = coding(sae, rows[layer])
            held = name == "held-out texts"
            low, high = (8, 40) if held else (published / 2, published * 2)
            lines.append(Line(f"layer {layer}: SAE mean L0, {name}", low, high, seen.l0))
            lines.append(Line(f"layer {layer}: SAE sd of L0, {name}", 0.5, math.inf, seen.l0_sd))
            floor = 0.9 if held else -math.inf
            lines.append(Line(f"layer {layer}: SAE explained variance, {name}", floor, 1, seen.explained))
            if held:
                lines.append(Line(f"layer {layer}: L0 in the metadata / L0 seen", 0.98, 1.02, published / seen.l0))
    return lines


def views_of(pairs: list[dict[str, Any]], *, known: bool) -> list[str]:
    """The three views of the pairs that are known, or of those that are not."""
    chosen = [pair for pair in pairs if pair["known"] is known]
    return [text for pair in chosen for text in (pair["prompt"], *claim(pair, "fact", "hall"))]


def measure(weights: Path, pairs: list[dict[str, Any]]) -> list[Line]:
    """All figures of the weights in a folder that holds `model/` and `sae/`, on the pairs they were made from."""
    demo = load(weights)
    return [*shape_lines(demo, weights), *truth_lines(demo, pairs), *sae_lines(demo, pairs, weights)]


def expected(line: Line) -> str:
    """The promised range as text."""
    if line.low == -math.inf:
        return "(reported)"
    if line.high == math.inf:
        return f">= {line.low:.4g}"
    return f"{line.low:.4g}" if line.low == line.high else f"{line.low:.4g} to {line.high:.4g}"


def table(lines: list[Line]) -> str:
    """The table as text."""
    width = max(len(line.what) for line in lines)
    rows = [f"{'':{width}}  {'expected':>16}  {'seen':>9}  ok"]
    rows += [f"{x.what:{width}}  {expected(x):>16}  {x.seen:>9.4g}  {'yes' if x.ok else 'NO'}" for x in lines]
    return "\n".join(rows)


def write_quality(lines: list[Line], path: Path) -> None:
    """Write the figures as JSON: a mapping from what was measured to its value."""
    figures = {line.what: round(float(line.seen), 5) for line in lines}
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Command line; 0 if every figure holds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=model_dir().parent, help="folder with model/ and sae/")
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    lines = measure(args.weights, read_pairs())
    print(table(lines))
    failed = sum(not line.ok for line in lines)
    print("all figures hold" if not failed else f"{failed} figure(s) do not hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
