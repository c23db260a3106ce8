"""What watching costs: the time of plain generation of the same tokens beside that of a watched one, in one run.

    python bench/watch.py DETECTOR [--tokens 128] [--prompts 1] [--rounds 5] [--cpu]

takes a detector whose model is where it was, and prints milliseconds a token for transformers' own `generate`, for the
same call with the detector attached, for our own decoder with no detector, and for `stream`; and the ratios, the
median over rounds that each do all four. The last line compares steps of one text, every second of which is watched:
it is the least disturbed by whatever else the machine does. `--steps-only` prints it alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import tyro

from bluffscope import load_detector
from bluffscope.config import WatchOptions
from bluffscope.detectors.stream import Watcher, open_watcher
from bluffscope.host.float64_guard import computing_in
from bluffscope.model.decode import prefilled

PROMPTS = ("The capital of France is", "Water boils at", "The first person on the Moon was", "A whale is")


def main(
    detector: tyro.conf.Positional[Path],
    tokens: int = 128,
    prompts: int = 1,
    rounds: int = 5,
    cpu: bool = False,
    steps_only: bool = False,
) -> None:
    """Measure and print.

    Args:
        detector: a folder of `bluffscope detect train`.
        tokens: that each text gets; none ends before.
        prompts: in a batch, up to 4.
        rounds: of all four ways, in turn.
        steps_only: no whole texts.
        cpu: count the process's own time on processors, for a machine that others use too.
    """
    clock = time.process_time if cpu else time.perf_counter
    kept = load_detector(detector)
    watcher = open_watcher(kept, device="cpu")
    network, config = watcher.model.network, watcher.model.network.generation_config  # pyright: ignore
    ids = [watcher.tokenizer.opening(prompt) for prompt in PROMPTS[:prompts]]
    longest = max(map(len, ids))
    inputs = {
        "input_ids": torch.tensor([[0] * (longest - len(one)) + list(one) for one in ids]),
        "attention_mask": torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in ids]),
    }
    config.eos_token_id, watcher.model.tokenizer.eos_token_id = None, None  # pyright: ignore

    def generate() -> None:
        network.generate(**inputs, max_new_tokens=tokens, do_sample=False, pad_token_id=0)  # pyright: ignore

    def attached() -> None:
        with kept.attach(network):
            started[0] = clock()  # not the comparison of weights
            generate()

    @torch.inference_mode()
    def plain() -> None:
        with computing_in(watcher.model.dtype):
            state, logits = prefilled(watcher.model, ids)
            for _ in range(tokens):
                drawn = logits.argmax(1)
                drawn.tolist()  # as the stream knows each token
                logits = state.next(drawn)

    def stream() -> None:
        for _ in watcher.write(PROMPTS[:prompts], WatchOptions(max_new_tokens=tokens)):
            pass

    ways: dict[str, Callable[[], None]] = {
        "generate": generate,
        "attached": attached,
        "decoder": plain,
        "stream": stream,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    started = [0.0]
    for turn in range(rounds + 1):
        for name, way in () if steps_only else ways.items():
            started[0] = clock()
            way()
            if turn:  # the first warms up
                times[name].append(1e3 * (clock() - started[0]) / tokens)
    print(
        f"{kept.keys.on}, {len(kept.linear.weights):,} weights, {prompts} x {tokens} tokens, "
        f"{torch.get_num_threads()} threads"
    )
    _print(times)
    plain_step, watched_step = alternating(watcher, ids, tokens, clock)
    print(f"a step: plain {plain_step:.2f} ms, watched {watched_step:.2f} ms, ratio {watched_step / plain_step:.3f}")


def _print(times: dict[str, list[float]]) -> None:
    known = {name: some for name, some in times.items() if some}
    for name, some in known.items():
        print(f"{name:9} {statistics.median(some):7.2f} ms a token ({min(some):.2f} to {max(some):.2f})")
    for name, base in (("attached", "generate"), ("stream", "decoder"), ("stream", "generate")) if known else ():
        ratios = [one / other for one, other in zip(known[name], known[base], strict=True)]
        print(f"{name} / {base}: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


@torch.inference_mode()
def alternating(
    watcher: Watcher, ids: list[tuple[int, ...]], tokens: int, clock: Callable[[], float]
) -> tuple[float, float]:
    """Median milliseconds of the steps of one text that are not watched, and of those that are."""
    times: tuple[list[float], list[float]] = ([], [])
    with computing_in(watcher.model.dtype):
        state, logits = prefilled(watcher.model, ids)
        for step in range(tokens):
            drawn = logits.argmax(1)
            started = clock()
            if step % 2:
                with computing_in(watcher.model.dtype), watcher.probe.reading(watcher.model.blocks) as reads:
                    logits = state.next(drawn)
                    reads.scores().tolist()
            else:
                logits = state.next(drawn)
            times[step % 2].append(1e3 * (clock() - started))
    return statistics.median(times[0]), statistics.median(times[1])


if __name__ == "__main__":
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))
