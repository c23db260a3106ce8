"""How fast questions are asked beside transformers' own generate, question by question, in one run.

    python bench/ask.py MODEL --questions 20 [--shots 12]

asks questions of bluffqa as `bluffscope ask` does, and calls `generate` with as many returned sequences for some of
them; prints both, the ratio, and how many greedy answers are token for token the same.
"""

from __future__ import annotations

import time

import torch
import tyro

from bluffscope.host.chat import Chat
from bluffscope.host.machine import peak_rss
from bluffscope.model import load_model
from bluffscope.runs.ask.asking import Asked, Asking
from bluffscope.runs.ask.draw import GREEDY, Drawing, Prompt, batched, draw
from bluffscope.runs.ask.questions import BLUFFQA, read_questions


@torch.inference_mode()
def main(
    model: tyro.conf.Positional[str],
    questions: int = 20,
    samples: int = 10,
    tokens: int = 32,
    shots: int = 0,
    chat: bool = False,
    some: int = 5,
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
    """
    loaded = load_model(model, revision=None, blocks=None, device=torch.device("cpu"), dtype=torch.float32, head=True)
    read = [Asked(one.id, one.text, one.golds[0]) for one in read_questions(BLUFFQA, limit=questions + shots)]
    template = Chat.of(model, loaded.tokenizer, None) if chat else None
    drawing = Drawing(samples, 1.0, tokens, 0)
    asking = Asking(loaded, drawing, template, read[:shots])
    prompts, stops = asking.prompts(read[shots:])[0], asking.stops()
    size = asking.questions_a_batch(prompts)

    def ours(how: Drawing) -> tuple[float, dict[str, list[tuple[int, ...]]]]:
        started, found = time.perf_counter(), dict[str, list[tuple[int, ...]]]()
        for places in batched(prompts, size):
            batch = [prompts[place] for place in places]
            for one, answers in zip(batch, draw(loaded, batch, how, stops), strict=True):
                found[one.id] = [answer.tokens for answer in answers]
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
    drawn, _ = ours(drawing)
    chosen = prompts[:: max(1, len(prompts) // some)][:some]
    how = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "num_return_sequences": samples}
    generated = theirs(chosen, **how)[0] * len(prompts) / len(chosen)
    greedy = ours(Drawing(1, GREEDY, tokens, 0))[1]
    same = 0
    for one, found in zip(prompts, theirs(prompts, do_sample=False)[1], strict=True):
        stop = next((at for at, token in enumerate(found) if token in stops), len(found))
        same += greedy[one.id][0] == tuple(found[:stop])
    longest = max(len(one.ids) for one in prompts)
    print(f"{len(prompts)} questions x {samples} samples, {longest} tokens in the longest prompt")
    print(f"{size} questions a batch; peak memory {peak_rss() / 1e9:.1f} GB")
    print(f"ours      {drawn:8.1f} s")
    print(f"generate  {generated:8.1f} s   {generated / drawn:.2f} times as long ({len(chosen)} questions, scaled)")
    print(f"greedy answers equal token for token: {same} of {len(prompts)}")


if __name__ == "__main__":
    tyro.cli(main)
