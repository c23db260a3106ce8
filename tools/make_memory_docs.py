"""Writes docs/memory.md from the memory model: `python tools/make_memory_docs.py`.

`--check` only compares. `--measure` runs the analyses of the table of peaks again, each in a fresh process (minutes);
without it the peaks that the page holds are kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bluffscope.cli.doctor import guide_rows
from bluffscope.pipeline.batch_size import MOST_BATCH_TOKENS, SHARE, gigabytes
from bluffscope.pipeline.memory import GEMMA_2_2B, HEAD_BLOCK, SMALLEST_BATCH, TOKENS_A_PAIR, Footprint

TARGET = Path(__file__).resolve().parents[1] / "docs" / "memory.md"
HEADER = ("model", "options", "peak", "predicted")
RUNS = (
    ("embedded", {}),
    ("embedded", {"batch_size": 8}),
    ("embedded", {"position": "completion-mean"}),
    ("embedded", {"logprob": "off"}),
    ("wide, float32", {}),
    ("wide, float32", {"batch_size": 8}),
    ("wide, float32", {"batch_tokens": 4096, "row_tokens": 1024}),
    ("wide, float32", {"position": "completion-mean"}),
    ("wide, float32", {"logprob": "off"}),
)
"""What is measured: the model, and options of `bluffscope analyze`."""
_RUN = """import json, sys
from bluffscope.api import config_from
from bluffscope.api import run
run(config_from(**json.loads(sys.argv[1])), draw=False)"""
"""A run's peak is taken before its report is drawn."""


def page(peaks: Iterable[Sequence[str]]) -> str:
    """The whole page, given the rows of its table of peaks."""
    gemma = GEMMA_2_2B["float32"]
    run, tokens = Footprint(gemma), MOST_BATCH_TOKENS
    weights, saes = gigabytes(run.weights), gigabytes(run.saes)
    return f"""# Memory and batch size

This page is made from `src/bluffscope/pipeline/memory.py` by `python tools/make_memory_docs.py`: edit the tool,
not the page.

A run holds

- the model with its LM head, for log-probabilities (with `--no-logprob` only up to the last block measured), and its
  SAEs;
- Python with its libraries: {gigabytes(run.process)};
- the widest moment of one batch, and {gigabytes(run.working)} that the first batch adds whatever its size; for
  log-probabilities {gigabytes(HEAD_BLOCK)} of logits;
- after the last batch, {gigabytes(run.drawing)} to merge the tables.

All of it is predicted from the shapes in `config.json` and the SAEs' configurations; nothing needs to be loaded for
that.

    bluffscope doctor --machine-only         # this machine, and what the embedded model takes on it
    bluffscope doctor --machine-only --model ID --sae RELEASE_OR_FOLDER --layers 5 12 20 --dtype bfloat16

`--batch-size auto` (the default) takes as many distinct tokens a forward as bring speed on the device
(CPU {tokens["cpu"]}, MPS {tokens["mps"]}, CUDA {tokens["cuda"]}) or fit into {SHARE:.0%} of the memory that is
free, whichever is less. Limits of containers (control groups) count. A run is never refused: where even
{SMALLEST_BATCH} tokens do not fit, one line names the memory needed. What was chosen is frozen in `config.yaml`.
`--batch-size N` (pairs) and `--batch-tokens N` override it.

With `-v` a run closes with its peak beside the prediction, `Peak memory: 1.2 GB (predicted 1.2)`; the manifest has
both in bytes (`memory`). On CUDA they are tensors in the GPU's memory (the model passes through main memory on its way
there).
The strategies `sequential` and `separate` load the whole model and are not predicted.

## Measured against predicted

Runs of the 200 bundled pairs, each in a fresh process, on a CPU;
`python tools/make_memory_docs.py --measure` measures them again.

{table(HEADER, peaks)}
Wide: the shape `mid` of `bluffscope bench`, a random Gemma 2 of d 512, 10 of 12 blocks, a vocabulary of 32,000, three
SAEs of 8192 features. `tests/pipeline/test_batch_size.py` holds predictions to 15 % of the peak in bytes. Weights of
the run's own dtype are pages of their file until the system needs them elsewhere; where a file's dtype differs, both
copies are resident while it is loaded.

## Batch sizes by device and memory

From `bluffscope doctor --machine-only`: Gemma 2 2B, layers 5, 12 and 20, three 16k SAEs in float32. Pairs a forward
of {TOKENS_A_PAIR} distinct tokens (short questions and answers; texts of 160 tokens make it a tenth), and the memory
they need. "Guide" is what is often recommended. Taken as usable: on the CPU 2 GB less than there is, on MPS two thirds,
on CUDA 0.5 GB less.

{table(*_split(guide_rows()))}
The recommendations for 8 GB cannot hold: the weights of {gemma.blocks} blocks and the embeddings are {weights} in
float32, the SAEs {saes}. More than about {tokens["cpu"] // TOKENS_A_PAIR} pairs bring no speed on a CPU: its matrix
products are at their peak by then.
"""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("|  |", "| |")


def _split(rows: Iterator[Sequence[str]]) -> tuple[Sequence[str], Iterator[Sequence[str]]]:
    return next(rows), rows


def kept_peaks(text: str) -> list[list[str]]:
    """The rows of the table of peaks that a page holds."""
    _, _, after = text.partition(f"{table(HEADER, [])}")
    rows = after.partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def measured() -> Iterator[list[str]]:
    """The rows of the table of peaks, from runs."""
    from transformers import AutoModelForCausalLM

    from bluffscope.compare.bench.shapes import SHAPES, save_shape

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_shape(SHAPES["mid"], folder)
        half = AutoModelForCausalLM.from_pretrained(folder / "model", dtype="bfloat16")
        half.save_pretrained(folder / "half")
        for file in (folder / "model").glob("token*"):
            (folder / "half" / file.name).write_bytes(file.read_bytes())
        models = {
            "embedded": {},
            "wide, float32": {"model": str(folder / "model"), "sae": str(folder / "sae")},
            "wide, from a bfloat16 file": {"model": str(folder / "half"), "sae": str(folder / "sae")},
        }
        for number, (model, options) in enumerate(RUNS):
            out = folder / f"run-{number}"
            given = models[model] | options | {"device": "cpu", "out": str(out)}
            subprocess.run([sys.executable, "-c", _RUN, json.dumps(given)], check=True, timeout=600)
            memory = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["memory"]
            shown = [gigabytes(memory[name]) for name in ("peak_bytes", "predicted_bytes")]
            print(model, flags(options), *shown, flush=True)
            yield [model, flags(options), *shown]


def flags(options: Mapping[str, object]) -> str:
    """Options as they are given to `bluffscope analyze`."""
    words = [f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in options.items()]
    return f"`{' '.join(words)}`" if words else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page, or says whether it is current."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the page is out of date")
    parser.add_argument("--measure", action="store_true", help="measure the table of peaks again")
    chosen = parser.parse_args(arguments)
    current = TARGET.read_text(encoding="utf-8")
    made = page(measured() if chosen.measure else kept_peaks(current))
    if chosen.check:
        print(f"{TARGET.name} is {'current' if current == made else 'out of date: run tools/make_memory_docs.py'}")
        return 0 if current == made else 1
    TARGET.write_text(made, encoding="utf-8")
    print(f"wrote docs/{TARGET.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
