"""Trains the embedded model's tokenizer and language model on the sentences of `demo_corpus` (2 cores, ten minutes)."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as hf_logging

from demo_corpus import Corpus, Text, read_pairs

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")
PAD, EOS, BOS, UNK = range(4)
VOCABULARY = 2560
CONTEXT = 256
N_LAYERS = 10
D_MODEL = 128

TOKENIZER_TEXTS = 30_000
STEPS = 1500
WARM_UP = 60
TOKENS_PER_BATCH = 1024
PEAK_LR = 2e-3
"""Of the weight matrices, which Muon trains. AdamW learnt the facts in as many steps but not the verdicts (AUROC of
the verdict on known pairs after 1500 steps: 0.78, against 1.00)."""
EMBEDDING_LR = 3e-3
VERDICTS = (" true", " false", "true", "false")
VERDICT_WEIGHT = 6
"""Weight of a verdict's token in the loss: it is one token in a text of twenty, and the one that asks for truth."""
POOL = 4096
"""Texts that are sorted by length together before they are cut into batches."""


def train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """Byte-fallback BPE whose words keep their leading space and whose digits stand alone, so decoding is exact."""
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    words = Regex(r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    split = pre_tokenizers.Split(words, behavior="isolated")
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = split
    merges_wanted = VOCABULARY - len(SPECIAL) - len(bytes_)
    trainer = trainers.BpeTrainer(vocab_size=merges_wanted, limit_alphabet=110, min_frequency=5, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    learnt = json.loads(learner.to_str())["model"]
    # Ids as in Gemma: special tokens, the 256 bytes, then what was learnt, in order.
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *bytes_))}
    for token in sorted(learnt["vocab"], key=learnt["vocab"].__getitem__):
        vocabulary.setdefault(token, len(vocabulary))
    merges = [(left, right) for left, right in learnt["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token=SPECIAL[UNK]))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    bos = SPECIAL[BOS]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, BOS)]
    )
    return tokenizer


def wrap_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The same tokenizer as transformers loads it."""
    pad, eos, bos, unk = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        eos_token=eos,
        bos_token=bos,
        unk_token=unk,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )


def new_model(vocabulary: int) -> Gemma2ForCausalLM:
    """A freshly initialised Gemma-2 of 1.8 million parameters."""
    config = Gemma2Config(
        vocab_size=vocabulary,
        hidden_size=D_MODEL,
        intermediate_size=256,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=128,
        max_position_embeddings=CONTEXT,
        initializer_range=0.04,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=BOS,
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    return Gemma2ForCausalLM(config)


def batches(corpus: Corpus, tokenizer: Tokenizer, seed: int) -> Iterator[torch.Tensor]:
    """Right-padded batches of token ids (text, token), each text with its one BOS and an EOS, for ever."""
    stream: Iterator[Text] = iter(corpus)
    shuffler = random.Random(seed)
    while True:
        texts = [text.text for text in itertools.islice(stream, POOL)]
        rows = [[*encoding.ids[: CONTEXT - 1], EOS] for encoding in tokenizer.encode_batch(texts)]
        rows.sort(key=len)
        pool: list[list[list[int]]] = [[]]
        for row in rows:
            if (len(pool[-1]) + 1) * len(row) > TOKENS_PER_BATCH:
                pool.append([])
            pool[-1].append(row)
        shuffler.shuffle(pool)
        for batch in pool:
            width = max(map(len, batch))
            yield torch.tensor([row + [PAD] * (width - len(row)) for row in batch])


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to a fiftieth of the peak, as a factor of it."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.02 + 0.49 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, steps - WARM_UP)))


def losses(model: Gemma2ForCausalLM, ids: torch.Tensor, verdicts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss to minimise, and for the log the mean loss of all tokens and of verdicts (nan without any).

    Every token of a text counts, verdicts `VERDICT_WEIGHT` times, pads not. `ids` (text, token); `verdicts` token ids.
    """
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    wanted = ids[:, 1:].flatten()  # (text token,)
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted, reduction="none")
    verdict, real = torch.isin(wanted, verdicts), wanted != PAD
    weight = real + (VERDICT_WEIGHT - 1) * verdict
    return (weight * each).sum() / weight.sum(), torch.stack([each[real].mean(), each[verdict].mean()]).detach()


def train_model(corpus: Corpus, tokenizer: Tokenizer, seed: int, steps: int = STEPS) -> Gemma2ForCausalLM:
    """Train on next-token prediction in float32: weight matrices with Muon, embedding and norms with AdamW."""
    torch.manual_seed(seed)
    model = new_model(tokenizer.get_vocab_size()).train()
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim < 2 or "embed" in name]
    optimizers = (
        torch.optim.Muon(matrices, lr=PEAK_LR, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=EMBEDDING_LR, weight_decay=0.0, betas=(0.9, 0.98), fused=True),
    )
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps))
        for optimizer in optimizers
    ]
    verdicts = torch.tensor([tokenizer.encode(word, add_special_tokens=False).ids[-1] for word in VERDICTS])
    source, started, recent = batches(corpus, tokenizer, seed), time.time(), []
    for step in range(1, steps + 1):
        loss, shown = losses(model, next(source), verdicts)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        for schedule in schedules:
            schedule.step()
        recent.append(shown)
        if step % 100 == 0 or step == steps:
            every, verdict = torch.stack(recent).nanmean(0).tolist()
            passed = time.time() - started
            timing = f"{passed:.0f} s, {passed / step * (steps - step):.0f} s left"
            print(f"language model: {step}/{steps}  loss {every:.3f}, of verdicts {verdict:.3f}  {timing}", flush=True)
            recent.clear()
    return model.eval()


def save_model(model: Gemma2ForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write model (float16) and tokenizer in Hugging Face layout; an existing folder is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    hf_logging.disable_progress_bar()
    model.to(torch.float16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes files that only their owner can read
    wrap_tokenizer(tokenizer).save_pretrained(folder)


def run(folder: Path, pairs: list[dict[str, Any]], seed: int, steps: int = STEPS) -> None:
    """Train tokenizer and model from a seed and write them to a folder."""
    sample = itertools.islice(Corpus(pairs, seed + 1), TOKENIZER_TEXTS)
    tokenizer = train_tokenizer(text.text for text in sample)
    print(f"tokenizer: {tokenizer.get_vocab_size()} tokens", flush=True)
    save_model(train_model(Corpus(pairs, seed), tokenizer, seed, steps), tokenizer, folder)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the model is written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    torch.set_num_threads(2)
    run(args.folder, read_pairs(), args.seed, args.steps)


if __name__ == "__main__":
    main()
