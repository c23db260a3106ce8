"""`bluffscope COMMAND ...`: finds the command and turns errors into one line and an exit code.

Commands are imported when they are called: `bluffscope --help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from bluffscope import __version__
from bluffscope.errors import BluffscopeError

COMMANDS = {
    "analyze": "measure pairs and write a run's folder with tables and figures",
    "presets": "list the named sets of model, SAEs and layers",
}

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_QUARANTINED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit code (0 done, 1 failed, 2 wrong usage or input, 3 done with quarantined pairs)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        return EXIT_DONE if arguments else EXIT_USAGE
    name, *rest = arguments
    if name in ("--version", "-V"):
        sys.stdout.write(f"bluffscope {__version__}\n")
        return EXIT_DONE
    if name not in COMMANDS:
        sys.stderr.write(f"bluffscope: unknown command {name!r}; see bluffscope --help\n")
        return EXIT_USAGE
    try:
        return import_module(f"bluffscope.cli.{name}").main(rest)
    except BluffscopeError as error:
        sys.stderr.write(f"bluffscope {name}: {error}\n")
        return EXIT_USAGE
    except KeyboardInterrupt:
        sys.stderr.write(f"bluffscope {name}: stopped\n")
        return 130
    except BrokenPipeError:
        return EXIT_FAILED


def _help() -> str:
    lines = [
        "usage: bluffscope COMMAND [OPTIONS]",
        "",
        "See what happens inside a language model when a sentence is false.",
        "",
        "commands:",
        *(f"  {name:<10} {text}" for name, text in COMMANDS.items()),
        "",
        "bluffscope COMMAND --help shows a command's options; bluffscope --version the version.",
        "First steps: bluffscope analyze     (the bundled benchmark on the embedded model)",
    ]
    return "\n".join(lines) + "\n"
