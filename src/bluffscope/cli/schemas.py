"""`bluffscope schemas`."""

from __future__ import annotations

from dataclasses import dataclass

from bluffscope.cli import exit_codes
from bluffscope.cli.console import output_console
from bluffscope.cli.options import Command
from bluffscope.host.terminal import table


@dataclass(frozen=True, kw_only=True)
class Schemas(Command):
    """List the data sets that are recognised as they are published: their fields, and what is read from which.

    Any other data works with --columns KEY=NAME ...; its values may be paths, such as answers.wrong[*].
    """

    def execute(self) -> int:
        """Print the data sets."""
        from bluffscope.pairs.layout import KEYS_SHOWN, fields_taken  # polars: half a second of every --help
        from bluffscope.pairs.schemas import LAYOUTS  # polars

        rows: list[tuple[str, str]] = []
        for layout in LAYOUTS:
            read = fields_taken(layout, KEYS_SHOWN) or f"not read: {layout.holds}"
            rows.append((layout.schema, f"{layout.title}: {', '.join(layout.needs)}\n  {read}"))
        console = output_console()
        console.print(table(["schema", "fields, what is read"], rows, left=range(2), gap=2))
        console.say(
            "",
            "--schema NAME reads a data set; without it, one is recognised by these fields unless the data has the",
            "fields prompt, fact and hallucination. Lists become pairs of the k-th with the k-th; see --pairing.",
        )
        return exit_codes.DONE


COMMAND = Schemas
