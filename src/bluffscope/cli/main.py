"""`bluffscope COMMAND ...`: finds the command and turns errors into one line and an exit code.

Commands are imported when they are called: `bluffscope --help` answers at once.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from bluffscope import __version__
from bluffscope.cli import exit_codes
from bluffscope.cli.streams import OutputError, lasting_streams
from bluffscope.errors import BluffscopeError, InputError, RunStopped
from bluffscope.host.exclusive import exclusive
from bluffscope.host.own_process import settle
from bluffscope.host.redaction import redacted

if TYPE_CHECKING:
    from bluffscope.cli.options import CommandGroup

MOST_SAID = 1_500
"""Characters of a message; of a longer one beginning and end are shown."""
COMMANDS = (
    "analyze",
    "ask",
    "study",
    "report",
    "view",
    "stats",
    "features",
    "detect",
    "compare",
    "lint",
    "doctor",
    "verify",
    "bench",
    "presets",
    "schemas",
)
_DESCRIPTION = """See what happens inside a language model when a sentence is false.

First steps: bluffscope analyze (the bundled benchmark on the embedded model).
bluffscope COMMAND --help shows the options of a command, bluffscope --version the version."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0 done, 1 failed, 2 wrong usage or input, 3 done with quarantined pairs, 4 done but unsound: verdicts are withheld.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    named = bool(arguments) and arguments[0] in COMMANDS
    return guarded(f"bluffscope {arguments[0]}" if named else "bluffscope", lambda: _dispatch(arguments))


def guarded(program: str, action: Callable[[], int]) -> int:
    """Run a command; returns its exit code, having turned what may go wrong into one line on standard error.

    Args:
        program: what messages begin with.
        action: the command; returns its exit code.
    """
    settle()
    with lasting_streams():
        return _outcome(program, action)


def _outcome(program: str, action: Callable[[], int]) -> int:
    try:
        try:
            code = action()
        except SystemExit as stop:  # --help
            code = stop.code if isinstance(stop.code, int) else exit_codes.DONE
        sys.stdout.flush()
        return code
    except BluffscopeError as error:
        _say(f"{program}: {redacted(str(error))}")
        return exit_codes.USAGE
    except RunStopped as stop:
        again = "" if stop.resume is None else f"; resume with: {stop.resume}"
        _say(f"{program}: stopped; committed shards are kept{again}")
        return stop.exit_code
    except KeyboardInterrupt:
        _say(f"{program}: stopped before it finished")
        return exit_codes.STOPPED
    except BrokenPipeError:
        return exit_codes.FAILED
    except OutputError as error:
        _say(f"{program}: standard output cannot be written ({error.strerror}); redirect it to a file with free space")
        return exit_codes.FAILED


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] in (["--version"], ["-V"]):
        sys.stdout.write(f"bluffscope {__version__}\n")
        return exit_codes.DONE
    from bluffscope.cli.options import CommandGroup, parse  # tyro: not needed for --version

    # The modules of other commands stay unread unless help or a completion script lists them all.
    names = arguments[:1] if arguments and arguments[0] in COMMANDS else COMMANDS
    commands = {name: import_module(f"bluffscope.cli.{name}").COMMAND for name in names}
    group = CommandGroup(_DESCRIPTION, commands)
    if arguments and arguments[0].startswith("--tyro-"):
        return _completion(group, arguments)
    if not arguments or arguments[0] == "help":
        with contextlib.suppress(SystemExit):
            parse(group, ["--help"], "bluffscope", _DESCRIPTION)
        return exit_codes.DONE if arguments else exit_codes.USAGE
    command = parse(group, arguments, "bluffscope", _DESCRIPTION)
    with exclusive():
        return command.execute()


def _completion(group: CommandGroup, arguments: list[str]) -> int:
    """Print or write a script for shell completion."""
    from bluffscope.cli.options import parse

    try:
        return parse(group, arguments, "bluffscope", _DESCRIPTION).execute()
    except (OutputError, BrokenPipeError):
        raise
    except (AssertionError, OSError) as error:
        wrong = error.strerror if isinstance(error, OSError) else "no such shell"
        raise InputError(
            f"{' '.join(arguments)}: {wrong}; give bash, zsh or fish, and with --tyro-write-completion a file"
        ) from error


def _say(line: str) -> None:
    line = _one_line(line)
    if len(line) > MOST_SAID:  # a path or value of thousands of characters
        line = f"{line[: MOST_SAID // 2]} ... {line[-MOST_SAID // 2 :]}"
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _one_line(text: str) -> str:
    """The text with line breaks and control characters (of a file's name, say) escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
