"""The command line from the option dataclasses, and the options of a saved run."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
import yaml

from bluffscope.config import ForecastOptions, Options, RunConfig, expectation, read_yaml, refuse_endless, run_config
from bluffscope.errors import InputError

Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class _Replay:
    config: Path | None = None
    """Replay the options of this file (a run's config.yaml); flags given beside it take precedence."""


def parse_run(arguments: Sequence[str], program: str, description: str, default: RunConfig | None = None) -> RunConfig:
    """The options of a run from the command line.

    Args:
        arguments: the flags.
        program: what is called, for --help and messages.
        description: what it does, for --help.
        default: what holds for flags that are not given, in place of `RunConfig()`.

    Raises:
        InputError: a flag is wrong, or the file given with --config cannot be used.
        SystemExit: 0, for --help.
    """
    arguments, default = _defaults(arguments, default)

    def gather(
        replay: Annotated[_Replay, tyro.conf.arg(name="")],
        run: Annotated[RunConfig, tyro.conf.arg(name="")] = default,
    ) -> RunConfig:
        del replay  # taken out before: its file gives the defaults of all others
        return run

    return parsed(gather, arguments, program, description, expectation)


def parse_run_and(
    kind: type[Parsed], arguments: Sequence[str], program: str, description: str
) -> tuple[RunConfig, Parsed]:
    """The options of a run, and a command's own beside them.

    Raises:
        InputError: a flag is wrong, or the file given with --config cannot be used.
        SystemExit: 0, for --help.
    """
    arguments, default = _defaults(arguments, None)

    def gather(
        own: Any,
        replay: Annotated[_Replay, tyro.conf.arg(name="")],
        run: Annotated[RunConfig, tyro.conf.arg(name="")] = default,
    ) -> Any:
        del replay  # taken out before: its file gives the defaults of all others
        return run, own

    # Only here is it known what `kind` is; annotations of this module are texts that tyro would look up in it.
    gather.__annotations__["own"] = Annotated[kind, tyro.conf.arg(name="")]

    def expected(name: str) -> str | None:
        return expectation(name) or expectation(name, (kind,))

    return parsed(gather, arguments, program, description, expected)


def parse_analysis(arguments: Sequence[str], program: str, description: str) -> tuple[RunConfig, ForecastOptions]:
    """The options of a run, and whether it is only to be foretold; see `parse_run`."""
    arguments, default = _defaults(arguments, None)

    def gather(
        replay: Annotated[_Replay, tyro.conf.arg(name="")],
        foretold: Annotated[ForecastOptions, tyro.conf.arg(name="")],
        run: Annotated[RunConfig, tyro.conf.arg(name="")] = default,
    ) -> tuple[RunConfig, ForecastOptions]:
        del replay
        return run, foretold

    groups = (ForecastOptions, *get_type_hints(RunConfig).values())
    return parsed(gather, arguments, program, description, partial(expectation, groups=groups))


def _defaults(arguments: Sequence[str], default: RunConfig | None) -> tuple[list[str], RunConfig]:
    """The flags without --config and --resume, and what holds for those that are not given."""
    refuse_repeated(arguments)
    rest, path = _take(list(arguments), "--config", "a run's config.yaml")
    default = load_config(path) if path is not None else default or RunConfig()
    rest, resumed = _take(rest, "--resume", "the folder of a run that was started")
    if resumed is not None:
        if path is not None:
            raise InputError(f"--config {path}: not with --resume, which has the options of its run")
        default = _resumed(resumed, default, rest)
    flags = {argument.partition("=")[0] for argument in rest}
    if default.engine.address not in (None, "auto") and "--address" not in flags:
        # A cluster can run code here, and the file may be anybody's.
        raise InputError(f"its options name a Ray cluster: if it is yours, say so: --address {default.engine.address}")
    if default.measure.analysis and "--analysis" not in flags:
        named = shlex.join(default.measure.analysis)
        raise InputError(f"its options name an analysis, which is code: if it is yours, say so: --analysis {named}")
    if "--preset" in flags:
        # The file names model, SAEs and layers outright; a preset given beside it would change nothing.
        default = replace(default, model=replace(default.model, model=None, revision=None, sae=None, layers=()))
    return rest, default


def parse_options(kind: type[Options], arguments: Sequence[str], program: str, description: str) -> Options:
    """The options of a command other than a run, as a dataclass of option dataclasses.

    Raises:
        InputError: a flag is wrong.
        SystemExit: 0, for --help.
    """
    refuse_repeated(arguments)
    expected = partial(expectation, groups=tuple(get_type_hints(kind).values()))
    return parsed(kind, arguments, program, description, expected)


def parsed(
    gather: Callable[..., Parsed],
    arguments: Sequence[str],
    program: str,
    description: str,
    expected: Callable[[str], str | None],
) -> Parsed:
    """What a command's options come to, by tyro from the signature of `gather`.

    Args:
        gather: takes the options and gives what is wanted of them.
        arguments: the flags.
        program: what is called, for --help and messages.
        description: what it does, for --help.
        expected: what an option takes, in words, by its name; None for one that does not exist.


    Raises:
        InputError: a flag is wrong.
        SystemExit: 0, for --help.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = tyro.cli(
                gather,
                prog=program,
                description=description,
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(f"{_complaint(said.getvalue(), arguments, expected)}; see {program} --help") from stop
    refuse_endless(options)
    return options


_FRAME = re.compile(r"[│╭╮╰╯]")
_RULE = re.compile(r"[─-]{5,}")
_UNKNOWN = re.compile(r"Unrecognized options: ([^\s,]+)")
_MEANT = re.compile(r"Perhaps you meant:\s+(--[\w-]+)")
_FLAG = re.compile(r"--[a-z][a-z-]*")


def _complaint(box: str, arguments: Sequence[str], expected: Callable[[str], str | None]) -> str:
    """One line for what tyro says in a frame: a title, a paragraph, then suggestions and help text below rules."""
    parts = [" ".join(part.split()) for part in _RULE.split(_FRAME.sub(" ", box))]
    said = parts[1] if len(parts) > 1 else parts[0]
    if unknown := _UNKNOWN.match(said):
        meant = _MEANT.search(" ".join(parts))
        return f"{unknown[1]}: no such option" + (f" (did you mean {meant[1]}?)" if meant else "")
    flag = _FLAG.search(said)
    words = flag and expected(flag[0].removeprefix("--").replace("-", "_"))
    if not flag or not words:
        return said.rstrip(".") or "wrong usage"
    given = " ".join(_values_of(flag[0], arguments)) or "nothing"
    return f"{flag[0]}: expected {words}, got {given if len(given) <= 60 else given[:57] + '...'}"


def _values_of(flag: str, arguments: Sequence[str]) -> list[str]:
    """What stands behind a flag, its last mention."""
    values: list[str] = []
    inside = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument.startswith("--"):
            inside = name == flag
            values = ([value] if equals else []) if inside else values
        elif inside:
            values.append(argument)
    return values


def load_config(path: Path) -> RunConfig:
    """The options that a run's config.yaml holds.

    Raises:
        InputError: the file is missing, no YAML, or holds something that is no option.
    """
    where = f"--config {path}"
    try:
        content = read_yaml(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror}); give a run's config.yaml") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid YAML{_line_of(error)}; give a run's config.yaml") from error
    if not isinstance(content, dict):
        raise InputError(f"{where}: no options in it; give a run's config.yaml")
    return run_config(content, where)


def _line_of(error: Exception) -> str:
    """Where YAML breaks off, and why."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    why = "" if problem is None else f": {' '.join(str(problem).split())[:80]}"
    return "" if mark is None else f" (line {mark.line + 1}{why})"


def refuse_repeated(arguments: Sequence[str]) -> None:
    """Refuse an option given twice: the first would silently be lost."""
    flags = [argument.partition("=")[0].replace("_", "-") for argument in arguments if argument.startswith("--")]
    if repeated := next((flag for flag in flags if flags.count(flag) > 1), None):
        raise InputError(f"{repeated}: given twice; give it once, with all its values behind it")


def _resumed(folder: Path, default: RunConfig, flags: Sequence[str]) -> RunConfig:
    """The options of the run in a folder; or those given, where it was killed before it wrote them."""
    # torch: seconds that no other command line should take
    from bluffscope.runs.resume import look_for_run, no_options, saved_options

    folder = folder.expanduser()
    look_for_run(folder)
    saved = saved_options(folder)
    if saved is None and not any(flag.partition("=")[0] == "--data" for flag in flags):
        raise no_options(folder)
    default = saved or default
    return replace(default, output=replace(default.output, resume=folder))


def _take(arguments: list[str], flag: str, what: str) -> tuple[list[str], Path | None]:
    """Take a flag and its path out of the arguments."""
    rest: list[str] = []
    found: str | None = None
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, path = argument.partition("=")
        if name == flag:
            found = path if equals else next(waiting, "")
        else:
            rest.append(argument)
    if found is None:
        return rest, None
    if not found or found.startswith("--"):
        raise InputError(f"{flag}: give {what}")
    return rest, Path(found)
