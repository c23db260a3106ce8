"""`bluffscope COMMAND ...`: finds the command and turns errors into one line and an exit code.

Commands are imported when they are called: `bluffscope --help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from bluffscope import __version__
from bluffscope.cli import exit_codes
from bluffscope.cli.streams import OutputError, lasting_streams
from bluffscope.errors import BluffscopeError, RunStopped
from bluffscope.host.exclusive import exclusive
from bluffscope.host.redaction import redacted

MOST_SAID = 1_500
"""Characters of a message; of a longer one beginning and end are shown."""
COMMANDS = {
    "analyze": "measure pairs and write a run's folder with tables and a report",
    "bench": "time every step from the old pattern to the engine, and compare with the machine's limit",
    "detect": "train a detector on a run and keep it (train), or score texts with one (score)",
    "doctor": "check that model, SAEs and reading belong together, and what the machine can do",
    "features": "see which SAE features differ, what they promote, and what removing them changes",
    "lint": "find what is wrong or doubtful with pairs, before any model runs",
    "report": "write a run's report.html again, from its folder alone",
    "stats": "test whether any metric of a run or table separates fact from hallucination",
    "compare": "see which effects of runs over the same pairs agree, and how far they differ",
    "presets": "list the named sets of model, SAEs and layers",
    "verify": "prove on your model and pairs that every strategy gives the same numbers",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit code.

    0 done, 1 failed, 2 wrong usage or input, 3 done with quarantined pairs, 4 done but unsound: verdicts are withheld.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(f"bluffscope {arguments[0]}" if arguments else "bluffscope", lambda: _dispatch(arguments))


def guarded(program: str, action: Callable[[], int]) -> int:
    """Run a command; gives its exit code, having turned what may go wrong into one line on standard error.

    Args:
        program: what messages begin with.
        action: the command; gives its exit code.
    """
    with lasting_streams():
        return _outcome(program, action)


def _outcome(program: str, action: Callable[[], int]) -> int:
    try:
        try:
            with exclusive():
                code = action()
        except SystemExit as stop:  # --help
            code = stop.code if isinstance(stop.code, int) else exit_codes.DONE
        sys.stdout.flush()
        return code
    except BluffscopeError as error:
        _say(f"{program}: {redacted(str(error))}")
        return exit_codes.USAGE
    except RunStopped as stop:
        again = "" if stop.resume is None else f"; go on with: {stop.resume}"
        _say(f"{program}: stopped; what is committed is kept{again}")
        return stop.exit_code
    except KeyboardInterrupt:
        _say(f"{program}: stopped before it was done")
        return exit_codes.STOPPED
    except BrokenPipeError:
        return exit_codes.FAILED
    except OutputError as error:
        _say(f"{program}: standard output cannot be written ({error.strerror}); give it a file or pipe that has room")
        return exit_codes.FAILED


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        return exit_codes.DONE if arguments else exit_codes.USAGE
    name, *rest = arguments
    if name in ("--version", "-V"):
        sys.stdout.write(f"bluffscope {__version__}\n")
        return exit_codes.DONE
    if name not in COMMANDS:
        _say(f"bluffscope: unknown command {name!r}; see bluffscope --help")
        return exit_codes.USAGE
    return import_module(f"bluffscope.cli.{name}").main(rest)


def _say(line: str) -> None:
    line = _one_line(line)
    if len(line) > MOST_SAID:  # a path or value of thousands of characters
        line = f"{line[: MOST_SAID // 2]} ... {line[-MOST_SAID // 2 :]}"
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _one_line(text: str) -> str:
    """The text with line breaks and control characters (of a file's name, say) escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


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
