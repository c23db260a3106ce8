"""The command line from the option dataclasses, by tyro, and the options of a saved run."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from inspect import cleandoc
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Final, Literal, Self, Union, get_args, get_origin, get_type_hints

import tyro
from tyro import _errors as failures  # no public module yet, hence the narrow range of versions: docs/dependencies.md
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, StructConstructorSpec, StructFieldSpec

from bluffscope.config import (
    MeasureOptions,
    OutputOptions,
    RunConfig,
    Switch,
    from_words,
    refuse_endless,
    takes_several,
)
from bluffscope.config.layers import LayerSlice
from bluffscope.errors import InputError

_METAVARS = {int: "INT", float: "FLOAT", Path: "PATH", LayerSlice: "START:STOP:STEP|all|spread"}
_SHORT = ("quiet", "verbose")
"""Options that their first letter stands for too."""
_MARKERS = (
    tyro.conf.OmitArgPrefixes,
    tyro.conf.OmitSubcommandPrefixes,
    tyro.conf.HelptextFromCommentsOff,
    tyro.conf.PositionalMetavarFromFieldName,
)


class Command:
    """A command: a dataclass of its options, and what it does."""

    def execute(self) -> int:
        """Do it; returns the exit code."""
        raise NotImplementedError


@dataclass(frozen=True)
class CommandGroup:
    """Commands under one name."""

    description: str
    commands: Mapping[str, type[Command] | CommandGroup]


@dataclass(frozen=True, kw_only=True)
class ScreenOptions:
    """How much is printed."""

    full: bool = False
    """Print all tables."""
    quiet: bool = False
    """Print only where the result is; errors and warnings stay."""
    verbose: bool = False
    """Also print timings, and warnings in full."""

    def check(self) -> None:
        """Refuse what contradicts itself."""
        if self.quiet and (self.full or self.verbose):
            raise InputError(f"--quiet and --{'full' if self.full else 'verbose'} contradict each other: give one")


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """Options of an earlier run."""

    config: Path | None = None
    """Start from the options in this file, a run's config.yaml; other flags override them."""


@dataclass(frozen=True, kw_only=True)
class RunCommand(RunConfig, Command):
    """A command that takes the options of a run."""

    replay: ReplayOptions = field(default_factory=ReplayOptions)
    """Options of an earlier run."""
    fixed: ClassVar[Mapping[str, str]] = {}
    """Flags that the command refuses, and why."""

    @property
    def config(self) -> RunConfig:
        """The options of the run alone."""
        return RunConfig(**{part.name: getattr(self, part.name) for part in fields(RunConfig)})

    def starting_from(self, saved: RunConfig) -> Self:
        """These options with a saved run's in their place."""
        return replace(self, **vars(saved))


def parse(
    kind: type[Command] | CommandGroup,
    arguments: Sequence[str],
    program: str,
    description: str | None = None,
    default: Command | None = None,
) -> Any:
    """The command and options on a command line; the file or run of --config or --resume sets the defaults.

    Args:
        kind: a command, or a choice of commands.
        arguments: what stands after the program's name.
        program: what is called, for --help and messages.
        description: what it does, for --help (default: its docstring).
        default: holds for flags that are not given.

    Raises:
        InputError: a flag is wrong, or the file given with --config cannot be used.
        SystemExit: 0, for --help and completion scripts.
    """
    arguments = list(_switched(arguments))
    flags = [argument.partition("=")[0].replace("_", "-") for argument in arguments if argument.startswith("--")]
    if repeated := next((flag for flag in flags if flags.count(flag) > 1), None):
        raise InputError(f"{repeated}: given twice; give it once, followed by all its values")
    parsing = partial(_parsed, kind, arguments, program, description)
    command = parsing(default)
    if isinstance(command, RunCommand):
        if refused := next((flag for flag in flags if flag in command.fixed), None):
            raise InputError(f"{refused}: {command.fixed[refused]}; leave it out")
        base = default if isinstance(default, RunCommand) else type(command)()
        saved = _saved(command, base, flags)
        if saved is not None:
            command = parsing(base.starting_from(saved))
    return command


def _switched(arguments: Sequence[str]) -> Iterator[str]:
    """The words with `--name on` for a switch that stands alone, and `--name off` for `--no-name`."""
    hints = {**get_type_hints(MeasureOptions), **get_type_hints(OutputOptions)}
    named = {name for name, hint in hints.items() if hint == Switch}
    switches = {f"--{spelt}" for name in named for spelt in (name, name.replace("_", "-"))}
    for word, following in zip(arguments, (*arguments, "")[1:], strict=True):
        if word in switches and following not in get_args(Switch):
            yield from (word, "on")
        elif word.startswith("--no-") and f"--{word[5:]}" in switches:
            yield from (f"--{word[5:]}", "off")
        else:
            yield word


def _parsed(
    kind: type[Command] | CommandGroup,
    arguments: Sequence[str],
    program: str,
    description: str | None,
    default: Command | None,
) -> Command:
    with failures.on_parse_error(partial(_refuse, kind, arguments, program)):
        command: Command = tyro.cli(
            _subcommands(kind),
            prog=program,
            description=description,
            args=arguments,
            default=tyro.MISSING_NONPROP if default is None else default,
            config=_MARKERS,
            registry=_registry(),
        )
    refuse_endless(command)
    return command


def _subcommands(kind: type[Command] | CommandGroup) -> Any:
    if not isinstance(kind, CommandGroup):
        return kind
    choices: list[Any] = []
    for name, command in kind.commands.items():
        if isinstance(command, CommandGroup):
            make = partial(_subcommands, command)
            named = tyro.conf.subcommand(name, description=command.description, constructor_factory=make)
            choices.append(Annotated[Any, named])
        else:
            text = cleandoc(command.__doc__ or "")
            short = text.partition("\n\n")[0] if len(kind.commands) > 1 else text  # in a list, or alone
            choices.append(Annotated[command, tyro.conf.subcommand(name, description=short)])
    if len(choices) == 1:  # no union yet
        choices.append(Annotated[None, tyro.conf.Suppress])
    # Its own help spares tyro a search for some in the source of its classes: a tenth of a second.
    return Annotated[Union[tuple(choices)], tyro.conf.arg(name="", help="Choose one.")]  # noqa: UP007 - of a list


def _registry() -> ConstructorRegistry:
    """The way of tyro with dataclasses, but with our conversion, names of values and defaults in their help."""
    registry = ConstructorRegistry()
    inside = False

    def options_rule(info: Any) -> StructConstructorSpec | None:
        nonlocal inside
        if inside or not is_dataclass(info.type) or info.type.__module__.startswith("tyro"):
            return None
        inside = True
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            inside = False
        if not isinstance(spec, StructConstructorSpec):
            return None
        hints = get_type_hints(info.type)
        return replace(spec, fields=tuple(_argument(item, hints[item.name]) for item in spec.fields))

    registry.struct_rule(options_rule)
    return registry


def _argument(item: StructFieldSpec, hint: Any) -> StructFieldSpec:
    if is_dataclass(hint):
        return item
    short = (f"-{item.name[0]}",) if item.name in _SHORT else ()
    annotations: list[Any] = [tyro.conf.arg(help_behavior_hint=_default, aliases=short or None)]
    if hint is not bool:
        several = takes_several(hint)
        words, choices = _values(hint)
        annotations.append(
            PrimitiveConstructorSpec(
                nargs="*" if several else 1,
                metavar=f"[{words} ...]" if several else words,
                instance_from_str=partial(from_words, hint),
                is_instance=lambda _: True,
                str_from_instance=lambda value: [str(one) for one in (value if isinstance(value, tuple) else (value,))],
                choices=choices,
            )
        )
    return replace(item, type=Annotated[(item.type, *annotations)])


def _default(label: str) -> str:
    return "" if label in ("None", "False", "") else f"(default: {label})"


def _values(hint: Any) -> tuple[str, tuple[str, ...] | None]:
    """How an option's value is shown in help, and the choices where there are no other values."""
    kind = get_origin(hint)
    if kind is tuple:
        return _values(get_args(hint)[0])
    if kind is Literal:
        choices: tuple[str, ...] = get_args(hint)
        return f"{{{','.join(choices)}}}" if choices[1:] else "".join(choices), choices
    if kind in (Union, UnionType):
        found = [_values(choice) for choice in get_args(hint) if choice is not NoneType]
        words = dict.fromkeys(words for words, _ in found)
        return "|".join(words), found[0][1] if len(words) == 1 and takes_several(hint) else None
    return _METAVARS.get(hint, "TEXT"), None


def _refuse(
    kind: type[Command] | CommandGroup, arguments: Sequence[str], program: str, event: failures.ParseErrorEvent
) -> None:
    """Raise what tyro found wrong, as one line."""
    words = list(arguments)
    while isinstance(kind, CommandGroup) and words and words[0] in kind.commands:
        program, kind = f"{program} {words[0]}", kind.commands[words.pop(0)]
    raise InputError(f"{_complaint(kind, words, event)}; see {program} --help")


def _complaint(kind: type[Command] | CommandGroup, words: Sequence[str], event: Any) -> str:
    if isinstance(kind, CommandGroup):
        if not words:
            return f"give {' or '.join(kind.commands)}"
        return f"unknown command {words[0]!r}{_meant(words[0], kind.commands)}"
    if unknown := getattr(event, "tokens", ()) or getattr(event, "unrecognized_tokens", ()):
        if unknown[0] in _flags(kind, positional=True):
            return f"{unknown[0]}: no such option: give the value alone, without a flag"
        return f"{unknown[0]}: no such option{_meant(unknown[0], _flags(kind))}"
    if isinstance(event, failures.MissingArgs):
        missing = (item.arg for item in event.missing_arguments)
        names = (arg.lowered.metavar if arg.is_positional() else arg.display_name() for arg in missing)
        return f"give {' and '.join(map(str, names))}"
    argument = getattr(event, "argument", None)
    flag = f"{argument.display_name()}: " if argument is not None else ""
    if isinstance(event, failures.InstantiationFailure):
        return f"{flag}{event.message}"
    given = getattr(event, "value", None) or getattr(event, "offending_value", None)
    return flag + _why(argument, given)


def _why(argument: Any, given: str | None) -> str:
    try:
        argument.lowered.instance_from_str([] if given is None else [given])
    except ValueError as error:
        return str(error)
    return "cannot be used"


_POSITIONAL: Final = get_args(tyro.conf.Positional[str])[1]


def _flags(kind: Any, *, positional: bool = False) -> Iterator[str]:
    """Names of all options of a command; or those that its arguments without a flag would have."""
    hints = get_type_hints(kind, include_extras=True)
    for item in fields(kind):
        if is_dataclass(hint := hints[item.name]):
            yield from _flags(hint, positional=positional)
        elif positional == (_POSITIONAL in getattr(hint, "__metadata__", ())):
            yield f"--{item.name.replace('_', '-')}"


def _meant(word: str, known: Iterator[str] | Mapping[str, Any]) -> str:
    alike = difflib.get_close_matches(word, [name for name in known if name[0] != "-" or word[:1] == "-"], n=1)
    return f" (did you mean {alike[0]}?)" if alike else ""


def _saved(command: RunCommand, default: RunCommand, flags: Sequence[str]) -> RunConfig | None:
    """The options of the run that --config or --resume names, as the defaults of all other flags."""
    config, resume = command.replay.config, command.output.resume
    if config is not None and resume is not None:
        raise InputError(f"--config {config}: cannot be combined with --resume, which uses the options of its run")
    saved = default.config
    if config is not None:
        from bluffscope.config.yaml_file import load_config  # yaml: --help answers sooner without

        saved = load_config(config)
    if resume is not None:
        saved = _resumed(resume, saved, data_given="--data" in flags)
    if saved.engine.address not in (None, "auto") and "--address" not in flags:
        # A cluster can run code here, and the file may be anybody's.
        raise InputError(f"its options name a Ray cluster; if it is yours, add --address {saved.engine.address}")
    if saved.measure.analysis and "--analysis" not in flags:
        named = shlex.join(saved.measure.analysis)
        raise InputError(f"its options name an analysis, which is code; if it is yours, add --analysis {named}")
    if "--preset" in flags:
        # The file names model, SAEs and layers outright; a preset given with it would change nothing.
        saved = replace(saved, model=replace(saved.model, model=None, revision=None, sae=None, layers=()))
    return saved if config is not None or resume is not None else None


def _resumed(folder: Path, default: RunConfig, *, data_given: bool) -> RunConfig:
    """The options of the run in a folder; or those given, where it was killed before it wrote them."""
    # torch: seconds that no other command line should take
    from bluffscope.runs.resume import look_for_run, no_options, saved_options

    folder = folder.expanduser()
    look_for_run(folder)
    saved = saved_options(folder)
    if saved is None and not data_given:
        raise no_options(folder)
    saved = saved or default
    return replace(saved, output=replace(saved.output, resume=folder))
