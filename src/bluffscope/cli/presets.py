"""`bluffscope presets`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.table import Table

from bluffscope.cli import exit_codes
from bluffscope.cli.console import output_console
from bluffscope.config.presets import PRESETS, Preset
from bluffscope.errors import InputError
from bluffscope.pipeline.plan.memory import Footprint, Shape

_BATCH_TOKENS = _ROW_TOKENS = 1024
"""Of the largest batch that a run forms on a CPU (`bluffscope.pipeline.batch_size`, which takes seconds to import)."""
_HELP = """usage: bluffscope presets

List the named sets of model, SAEs and layers, with their sizes and the memory that a run takes.
Any other model goes with any other SAEs: --model ID|DIR --sae RELEASE[@REVISION][:ID]|DIR --layers K ...
"""


def main(arguments: Sequence[str]) -> int:
    """Print the presets."""
    if arguments and arguments[0] in ("-h", "--help"):
        sys.stdout.write(_HELP)
        return exit_codes.DONE
    if arguments:
        raise InputError(f"{arguments[0]}: this command takes no options")
    console = output_console()
    for table in (sizes_table(), names_table()):
        console.print(table)
    gated = [name for name, preset in PRESETS.items() if preset.licence]
    for line in (
        "Memory: of a run on a CPU in float32 / bfloat16, up to the last block that is read, no LM head.",
        "Layers: at 20, 46 and 77 % of the model's depth; --layers takes others that the release has.",
        f"Gated: {', '.join(gated)}. Accept the licence on the model's page,",
        "then set HF_TOKEN to a token of yours, or run `hf auth login`. The SAEs are open.",
    ):
        console.print(line, highlight=False, soft_wrap=True)
    return exit_codes.DONE


def sizes_table() -> Table:
    """How large every preset is."""
    table = Table("preset", "layers", "of", "d_model", "SAE width", "parameters", "memory", highlight=False)
    for name, preset in PRESETS.items():
        architecture = preset.architecture
        table.add_row(
            name,
            " ".join(map(str, preset.layers)),
            str(architecture.num_hidden_layers),
            str(architecture.hidden_size),
            str(preset.d_sae),
            _count(architecture.parameters),
            " / ".join(f"{needed_bytes(preset, size) / 1e9:.1f} GB" for size in (4, 2)),
        )
    return table


def names_table() -> Table:
    """What every preset is made of: one line for each fact, so that nothing is cut off."""
    table = Table("preset", highlight=False)
    table.add_column("model, SAEs, what they are, licence", overflow="fold")  # a name that is cut off is no name
    for name, preset in PRESETS.items():
        terms = f"{preset.licence}: https://huggingface.co/{preset.model}" if preset.licence else ""
        sae = preset.sae if preset.sae != preset.model else ""
        table.add_row(name, "\n".join(filter(None, (preset.model, sae, preset.note, terms))))
        table.add_section()
    return table


def needed_bytes(preset: Preset, number_bytes: int) -> int:
    """The memory that a run of a preset needs on a CPU, by the memory model (docs/memory.md).

    Args:
        preset: one of `PRESETS`.
        number_bytes: of the model's weights: 4 for float32, 2 for bfloat16; SAEs have float32.
    """
    return Footprint(Shape.of_preset(preset, number_bytes)).needed(_BATCH_TOKENS, _ROW_TOKENS)


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e8 else f"{parameters / 1e6:.1f} M"
