"""How fast questions are asked beside transformers' own generate, question by question, in one run.

    python bench/ask.py MODEL --questions 20 [--shots 12]

asks questions of bluffqa as `bluffscope ask` does, and calls `generate` with as many returned sequences for some of
them; prints both, the ratio, and how many greedy answers are token for token the same.

    python bench/ask.py MODEL --questions 20 --sizes 1 7

asks with these batch sizes too, instead of `generate`, and prints how many answers are the same, and how far the number
drawn was from a border between two tokens where the others part.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import torch
import tyro

from bluffscope.host.chat import Chat
from bluffscope.host.machine import peak_rss
from bluffscope.model import LanguageModel, load_model
from bluffscope.model.decode import GREEDY, LEVELS, drawn, uniforms
from bluffscope.runs.ask.asking import Asked, Asking
from bluffscope.runs.ask.draw import Answer, Drawing, Prompt, batched, draw
from bluffscope.runs.ask.questions import BLUFFQA, read_questions

Answers = dict[str, list[Answer]]
"""By the question's id."""


@torch.inference_mode()
def differences(
    model: LanguageModel, prompts: Sequence[Prompt], drawing: Drawing, one: Answers, other: Answers
) -> tuple[int, list[float]]:
    """How many answers there are, and of each that differs how near its number was to a border between two tokens.

    Args:
        model: asked for its probabilities once more, of one answer alone.
        prompts: of the questions.
        drawing: how the answers were drawn.
        one: answers to all of them.
        other: the same, drawn in other batches.
    """
    found: list[float] = []
    for prompt in prompts:
        for sample, (left, right) in enumerate(zip(one[prompt.id], other[prompt.id], strict=True)):
            if (left.tokens, left.ended) == (right.tokens, right.ended):
                continue
            shared = len(os.path.commonprefix([left.tokens, right.tokens]))
            ids = torch.tensor([[*prompt.ids, *left.tokens[:shared]]])
            logits = model.network(ids, logits_to_keep=1).logits[0, -1].double()
            numbers = uniforms(drawing.seed, prompt.id, sample, LEVELS * (shared + 1))[-LEVELS:]
            found.append(float(drawn(logits[None], torch.from_numpy(numbers)[None], drawing.temperature)[1]))
    return sum(map(len, one.values())), found


@torch.inference_mode()
def main(
    model: tyro.conf.Positional[str],
    questions: int = 20,
    samples: int = 10,
    tokens: int = 32,
    shots: int = 0,
    chat: bool = False,
    some: int = 5,
    sizes: tuple[int, ...] = (),
) -> None:
    """Measure and print.

    Args:
        model: a folder, or a name on the hub.
        questions: asked by ours.
        samples: of each.
        tokens: most of an answer.
        shots: examples in front.
        chat: ask by the chat template.
        some: questions that `generate` is given; its time is scaled to all.
        sizes: ask with these batch sizes, and compare the answers.
    """
    loaded = load_model(model, revision=None, blocks=None, device=torch.device("cpu"), dtype=torch.float32, head=True)
    read = [Asked(one.id, one.text, one.golds[0]) for one in read_questions(BLUFFQA, limit=questions + shots)]
    template = Chat.of(model, loaded.tokenizer, None) if chat else None
    drawing = Drawing(samples, 1.0, tokens, 0)
    asking = Asking(loaded, drawing, template, read[:shots])
    prompts, stops = asking.prompts(read[shots:])[0], asking.stops()
    size = asking.questions_a_batch(prompts)

    def ours(how: Drawing, size: int = size) -> tuple[float, Answers]:
        started, found = time.perf_counter(), Answers()
        for places in batched(prompts, size):
            batch = [prompts[place] for place in places]
            found |= zip((one.id for one in batch), draw(loaded, batch, how, stops), strict=True)
        return time.perf_counter() - started, found

    def theirs(asked: list[Prompt], **how: object) -> tuple[float, list[list[int]]]:
        started, found = time.perf_counter(), list[list[int]]()
        for one in asked:
            ids = torch.tensor([one.ids])
            more = {"attention_mask": torch.ones_like(ids), "eos_token_id": stops, "pad_token_id": stops[0]}
            made = loaded.network.generate(ids, max_new_tokens=tokens, **more, **how)  # pyright: ignore
            found.append(made[0, ids.shape[1] :].tolist())
        return time.perf_counter() - started, found

    ours(Drawing(1, GREEDY, 2, 0))  # the first warms up
    drawn, answers = ours(drawing)
    longest = max(len(one.ids) for one in prompts)
    print(f"{len(prompts)} questions x {samples} samples, {longest} tokens in the longest prompt")
    print(f"{size} questions a batch; peak memory {peak_rss() / 1e9:.1f} GB")
    print(f"ours      {drawn:8.1f} s")
    for other in sizes:
        total, far = differences(loaded, prompts, drawing, answers, ours(drawing, other)[1])
        print(
            f"{other} questions a batch: {total - len(far):,} of {total:,} answers equal ({1 - len(far) / total:.2%})"
        )
        print("  the others: " + (", ".join(f"{one:.1e}" for one in sorted(far)) or "none"))
    if sizes:
        return
    chosen = prompts[:: max(1, len(prompts) // some)][:some]
    how = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "num_return_sequences": samples}
    generated = theirs(chosen, **how)[0] * len(prompts) / len(chosen)
    greedy = ours(Drawing(1, GREEDY, tokens, 0))[1]
    same = 0
    for one, found in zip(prompts, theirs(prompts, do_sample=False)[1], strict=True):
        stop = next((at for at, token in enumerate(found) if token in stops), len(found))
        same += greedy[one.id][0].tokens == tuple(found[:stop])
    print(f"generate  {generated:8.1f} s   {generated / drawn:.2f} times as long ({len(chosen)} questions, scaled)")
    print(f"greedy answers equal token for token: {same} of {len(prompts)}")


if __name__ == "__main__":
    tyro.cli(main)
