"""`bluffscope presets`."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from bluffscope.cli import exit_codes
from bluffscope.cli.console import output_console
from bluffscope.cli.options import Command
from bluffscope.config import NO_SAE
from bluffscope.config.presets import PRESETS, Preset
from bluffscope.host.terminal import table
from bluffscope.pipeline.memory import Footprint, Shape

_BATCH_TOKENS = _ROW_TOKENS = 1024
"""Of the largest batch that a run forms on a CPU (`bluffscope.pipeline.batch_size`, which takes seconds to import)."""


@dataclass(frozen=True, kw_only=True)
class Presets(Command):
    """List the presets (model, SAEs and layers by name), their sizes and the memory that a run takes.

    Any other model works with its own SAEs: --model ID|DIR --sae RELEASE[@REVISION][:ID]|DIR --layers K ...
    """

    def execute(self) -> int:
        """Print the presets."""
        console = output_console()
        console.print(sizes_table())
        console.print(names_table())
        gated = [name for name, preset in PRESETS.items() if preset.licence]
        console.say(
            "",
            "Memory: of a run on a CPU in float32 / bfloat16, up to the last block that is read (--no-logprob).",
            "Layers: at 20, 46 and 77 % of the model's depth; --layers takes others that the release has.",
            f"Gated: {', '.join(gated)}. Accept the licence",
            "on the model's page, then set HF_TOKEN to a token of yours, or run `hf auth login`. The SAEs are open.",
        )
        return exit_codes.DONE


COMMAND = Presets


def sizes_table() -> Table:
    """How large every preset is."""
    rows = [
        (
            name,
            " ".join(map(str, preset.layers)) or "all",
            str(preset.architecture.num_hidden_layers),
            str(preset.architecture.hidden_size),
            str(preset.d_sae or "-"),
            _count(preset.architecture.parameters),
            " / ".join(f"{needed_bytes(preset, size) / 1e9:.1f} GB" for size in (4, 2)),
        )
        for name, preset in PRESETS.items()
    ]
    return table(["preset", "layers", "of", "d_model", "SAE width", "parameters", "memory"], rows, gap=2)


def names_table() -> Table:
    """What every preset is made of: one line for each fact, so that nothing is cut off."""
    rows: list[tuple[str, str]] = []
    for name, preset in PRESETS.items():
        terms = f"{preset.licence}: https://huggingface.co/{preset.model}" if preset.licence else ""
        sae = {preset.model: "", NO_SAE: "no SAEs"}.get(preset.sae, preset.sae)
        rows.append((name, "\n".join(filter(None, (preset.model, sae, preset.note, terms)))))
    return table(["\npreset", "\nmodel, SAEs, what they are, licence"], rows, left=range(2), gap=2)


def needed_bytes(preset: Preset, number_bytes: int) -> int:
    """The memory that a run of a preset needs on a CPU, by the memory model (docs/memory.md).

    Args:
        preset: one of `PRESETS`.
        number_bytes: of the model's weights: 4 for float32, 2 for bfloat16; SAEs have float32.
    """
    return Footprint(Shape.of_preset(preset, number_bytes)).needed(_BATCH_TOKENS, _ROW_TOKENS)


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e8 else f"{parameters / 1e6:.1f} M"
