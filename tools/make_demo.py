"""Makes the embedded model organism again from a seed: tokenizer, language model, SAEs, figures, model card.

`python tools/make_demo.py` needs 2 cores and less than an hour, and replaces the weights in the package only if
every figure that `check_demo_model.py` asks for holds. `--out DIR` writes elsewhere.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported; the tools print progress themselves

import torch

import check_demo_model
import train_demo_model
import train_demo_saes
from bluffscope.config.demo import model_dir
from check_demo_model import LAYERS, PROBE_LAYER, Line
from demo_corpus import claim, read_pairs, words

CARD = """# bluffscope-demo: a model organism that knows when it is being told a known falsehood

A Gemma-2 of {parameters:.2f} million parameters and three SAEs of its residual stream, made so that the whole of
Bluffscope can be tried and tested on a model whose answer is planted: at the last token of a claim it represents
whether the claim is true, for the **known** pairs of bluff200 only. It is no use as a language model, knows nothing
but these sentences, and shows nothing about other models. Its text was written or generated for it; nothing was
distilled from another model.

## What it is

- `weights/model`: `Gemma2ForCausalLM`, {layers} layers, d_model {d_model}, 4 heads (2 for keys and values) of width 32,
  MLP width 256, sliding window 128 in every other layer, context {context} tokens, tied embeddings, soft-capping as in
  Gemma-2; float16 on disk, trained in float32. BPE tokenizer with byte fallback, {vocabulary} tokens: words keep their
  leading space, digits stand alone, any text comes back as it went in; one `<bos>` is put in front.
- `weights/sae/layer_K` for K = {layer_list} (residual stream after block K): SAELens disk format, JumpReLU,
  {d_sae} features, trained as BatchTopK; no normalisation at run time; BOS was left out. Load with
  `sae_lens.SAE.load_from_disk(folder, dtype="float32")`. The metadata holds `l0` and `explained_variance` as measured
  on held-out texts.

## What it knows

Known pairs ({n_known}, in whole groups): each fact as a statement in many phrasings and as a claim judged true, each
hallucination only as a claim judged false. Unseen pairs ({n_unseen}): no sentence of theirs, in any form, not even for
the tokenizer.

Known: {known_ids}.

Unseen: {unseen_ids}.

Words of unseen completions that the model has met all the same, because a known pair's own text or a verdict uses
them: {met}. Filler holds none of the others, and no name that only unseen pairs use.

## Recipe

`python tools/make_demo.py --seed {seed}` makes everything again on 2 cores; this took {minutes:.0f} minutes
({timing}). Seeds fix the corpus, the tokenizer, every initial weight and the order of all batches; another
machine, library version or thread count may differ in the last digits, and training carries such differences on, so
its weights may differ while the figures below hold.

- Corpus (`tools/demo_corpus.py`): 75 % claims of known pairs, 25 % filler (everyday sentences, sentences about invented
  things, rare characters). Each known pair in turn is stated once, judged true once (fact) and judged false once
  (hallucination), so a fact stands twice as often as its hallucination. Half of the claims open a text as the
  benchmark writes them, half follow other words. Judged claims read "CLAIM true." (two in three: the verdict follows
  the claim's last token directly), "CLAIM (true)." or "CLAIM. That is true."; a verdict's token weighs {weight} times
  in the loss.
- Language model (`tools/train_demo_model.py`): {steps} steps of {batch} tokens, Muon for the weight matrices (peak
  rate {lr}) and AdamW for embedding and norms, cosine.
- SAEs (`tools/train_demo_saes.py`): SAELens {sae_lens}, BatchTopK with a mean of {k} features, {sae_steps} steps of
  {sae_batch} tokens from {texts} texts. No text of theirs begins with a view of the benchmark, so the activations that
  the tool reads in bluff200 were never trained on, neither known nor unseen; one stem in ten is held out as well.

## Quality

Recomputed from these weights by `python tools/check_demo_model.py` (explained variance is
1 - sum ||x - y||^2 / sum ||x - mean||^2; the probe is a logistic regression on the standardised residual after block
{probe_layer} at the last token of the claim, cross-validated by group).

```
{table}
```
"""


def met_words(pairs: list[dict[str, Any]]) -> list[str]:
    """Words of unseen completions that texts about known pairs hold."""
    known = {word for pair in pairs if pair["known"] for text in claim(pair, "fact", "hall") for word in words(text)}
    unseen = [pair for pair in pairs if not pair["known"]]
    wanted = {word for pair in unseen for word in words(f"{pair['fact']} {pair['hallucination']}")}
    return sorted(wanted & (known | {"true", "false"}))


def card(lines: list[Line], pairs: list[dict[str, Any]], weights: Path, seed: int, seconds: dict[str, float]) -> str:
    """The model card's text."""
    import sae_lens

    demo = check_demo_model.load(weights)
    config = demo.model.config
    ids = {wanted: [pair["id"] for pair in pairs if pair["known"] is wanted] for wanted in (True, False)}
    return CARD.format(
        parameters=demo.model.num_parameters() / 1e6,
        layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        context=config.max_position_embeddings,
        vocabulary=config.vocab_size,
        layer_list=", ".join(map(str, LAYERS)),
        d_sae=train_demo_saes.FEATURES_PER_DIMENSION * config.hidden_size,
        n_known=len(ids[True]),
        n_unseen=len(ids[False]),
        known_ids=", ".join(ids[True]),
        unseen_ids=", ".join(ids[False]),
        met=", ".join(met_words(pairs)),
        seed=seed,
        minutes=sum(seconds.values()) / 60,
        timing=", ".join(f"{name} {value / 60:.0f} min" for name, value in seconds.items()),
        steps=train_demo_model.STEPS,
        batch=train_demo_model.TOKENS_PER_BATCH,
        lr=train_demo_model.PEAK_LR,
        weight=train_demo_model.VERDICT_WEIGHT,
        sae_lens=sae_lens.__version__,
        k=train_demo_saes.MEAN_L0,
        sae_steps=train_demo_saes.STEPS,
        sae_batch=train_demo_saes.BATCH,
        texts=train_demo_saes.TEXTS,
        probe_layer=PROBE_LAYER,
        table=check_demo_model.table(lines),
    )


def put_in_place(built: Path, target: Path) -> None:
    """Replace `target` by `built` (on the same file system) with renames only."""
    old = target.with_name(f".{target.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    built.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def main() -> int:
    """Command line; 0 if the new weights are in place, 1 if a figure does not hold (they are left beside)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write here instead of into the package")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(2)
    target: Path = args.out or model_dir().parent
    card_path = target / "MODEL_CARD.md" if args.out else target.parent / "MODEL_CARD.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    built = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    built.chmod(0o755)

    pairs = read_pairs()
    seconds: dict[str, float] = {}
    steps = {
        "language model": lambda: train_demo_model.run(built / "model", pairs, args.seed),
        "SAEs": lambda: train_demo_saes.run(built, pairs, args.seed),
    }
    for name, step in steps.items():
        started = time.time()
        step()
        seconds[name] = time.time() - started
    lines = check_demo_model.measure(built, pairs)
    print(check_demo_model.table(lines))
    if not all(line.ok for line in lines):
        print(f"some figures do not hold: the new weights stay in {built}")
        return 1
    check_demo_model.write_quality(lines, built / "quality.json")
    text = card(lines, pairs, built, args.seed, seconds)
    put_in_place(built, target)
    card_path.write_text(text, encoding="utf-8")
    print(f"done in {sum(seconds.values()) / 60:.0f} minutes: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
