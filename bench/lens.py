"""How long the logit lens takes beside the LM head's own work at the same layers and positions, in one run.

    python bench/lens.py MODEL --positions 256

reads texts of the bundled pairs, and times at every layer what the lens reads there (log-probability, entropy,
divergence, rank), what the head's matrix product alone takes, and the log-probability of one token alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import tyro

from bluffscope.config import DataOptions
from bluffscope.model import Head, HookPoint, LanguageModel, load_model
from bluffscope.model.lens import Lens
from bluffscope.pairs import open_source


def states_of(model: LanguageModel, positions: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Hidden states (position, d_model) as transformers gives them, embedding first, and each position's next token."""
    states: list[tuple[torch.Tensor, ...]] = []
    tokens: list[torch.Tensor] = []
    for pair in open_source(DataOptions()).pairs():
        ids = torch.tensor([model.tokenizer(pair.text("fact", "auto"))["input_ids"]])
        found = model.network.base_model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        states.append(tuple(state[0, :-1] for state in found))
        tokens.append(ids[0, 1:])
        if sum(map(len, tokens)) >= positions:
            break
    return [torch.cat(each)[:positions] for each in zip(*states, strict=True)], torch.cat(tokens)[:positions]


def seconds(work: Callable[[], object]) -> float:
    """That it takes once."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@torch.inference_mode()
def main(model: tyro.conf.Positional[str], positions: int = 256, repeats: int = 5) -> None:
    """Measure and print.

    Args:
        model: a folder, or a name on the hub.
        positions: read in each layer.
        repeats: of each, in turn; the median counts.
    """
    loaded = load_model(model, revision=None, blocks=None, device=torch.device("cpu"), dtype=torch.float32, head=True)
    head = Head.create(loaded)
    layers = range(len(loaded.blocks))
    lens = Lens.create(loaded, head, {layer: HookPoint(layer, "hook_resid_post") for layer in layers})
    (_, *after, final), tokens = states_of(loaded, positions)
    states = {**dict(enumerate(after)), layers[-1]: final}  # the last is not read: it is the model's own prediction

    def finished(layer: int) -> torch.Tensor:
        return final if layer == layers[-1] else lens.finished(states[layer])

    work: dict[str, Callable[[], object]] = {
        "lens": lambda: lens.read(states, final, tokens),
        "logits": lambda: [head.logits(finished(layer)) for layer in layers],
        "log-probability": lambda: [head.logprobs(finished(layer), tokens) for layer in layers],
    }
    rounds = [{name: seconds(do) for name, do in work.items()} for _ in range(1 + repeats)][1:]  # the first warms up
    found = {name: statistics.median(each[name] for each in rounds) for name in work}
    print(
        f"{len(layers)} layers, {len(tokens)} positions, {len(head.weight):,} tokens, {torch.get_num_threads()} threads"
    )
    for name, each in found.items():
        ratio = "" if name == "lens" else f"   the lens takes {found['lens'] / each:.2f} times as long"
        print(f"{name:16}{each:8.2f} s{ratio}")


if __name__ == "__main__":
    tyro.cli(main)
