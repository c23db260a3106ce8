"""`bluffscope presets`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.table import Table

from bluffscope.cli.console import output_console
from bluffscope.errors import InputError
from bluffscope.presets import PRESETS


def main(arguments: Sequence[str]) -> int:
    """Print the presets."""
    if arguments and arguments[0] in ("-h", "--help"):
        sys.stdout.write("usage: bluffscope presets\n\nList the named sets of model, SAEs and layers.\n")
        return 0
    if arguments:
        raise InputError(f"{arguments[0]}: this command takes no options")
    table = Table("preset", "model", "layers")
    table.add_column("SAEs", overflow="fold")  # a name that is cut off is no name
    table.add_column("note")
    for name, preset in PRESETS.items():
        table.add_row(name, preset.model, " ".join(map(str, preset.layers)), preset.sae, preset.note)
    output_console().print(table)
    return 0
