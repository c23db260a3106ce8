"""The command line from the option dataclasses, and the options of a saved run."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from bluffscope.config import RunConfig
from bluffscope.errors import InputError


@dataclass(frozen=True)
class _Replay:
    config: Path | None = None
    """Replay the options of this file (a run's config.yaml); flags given beside it take precedence."""


def parse_run(arguments: Sequence[str], command: str, description: str) -> RunConfig:
    """The options of a run from the command line.

    Raises:
        InputError: a flag is wrong, or the file given with --config cannot be used.
        SystemExit: 0, for --help.
    """
    arguments, path = _take_config(list(arguments))
    default = load_config(path) if path is not None else RunConfig()

    def gather(
        replay: Annotated[_Replay, tyro.conf.arg(name="")],
        run: Annotated[RunConfig, tyro.conf.arg(name="")] = default,
    ) -> RunConfig:
        del replay  # taken out before: its file gives the defaults of all others
        return run

    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                gather, prog=f"bluffscope {command}", description=description, args=arguments, config=config
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(f"{_first_sentence(said.getvalue())}; see bluffscope {command} --help") from stop


def _first_sentence(box: str) -> str:
    """What tyro's framed message says, without the frame and the help text below its first rule."""
    words: list[str] = []
    for line in box.splitlines()[1:]:
        text = line.strip("│ ")
        if not text or set(text) <= set("─╰╯"):
            break
        words.append(text)
    return " ".join(words) or "wrong usage"


def load_config(path: Path) -> RunConfig:
    """The options that a run's config.yaml holds.

    Raises:
        InputError: the file is missing, no YAML, or holds something that is no option.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: cannot be read ({error.strerror}); give a run's config.yaml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: not valid YAML; give a run's config.yaml") from error
    if not isinstance(content, dict):
        raise InputError(f"--config {path}: no options in it; give a run's config.yaml")
    config = RunConfig()
    known = {field.name for field in fields(config)}
    for part, values in content.items():
        if part not in known or not isinstance(values, dict):
            raise InputError(f"--config {path}: unknown section {part!r}; expected {', '.join(sorted(known))}")
        config = replace(config, **{part: _filled(getattr(config, part), values, f"--config {path}: {part}")})
    return config


def _filled(group: Any, values: dict[Any, Any], where: str) -> Any:
    known = {field.name: field for field in fields(group)}
    chosen: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(f"{where}.{name}: unknown option; expected some of {', '.join(known)}")
        if not isinstance(value, str | int | float | bool | list | None):
            raise InputError(f"{where}.{name}: expected text, a number or a list")
        chosen[name] = tuple(value) if isinstance(value, list) else value
    if chosen.get("out") is not None:
        chosen["out"] = Path(str(chosen["out"]))
    return replace(group, **chosen)


def _take_config(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Take --config FILE out of the arguments."""
    for index, argument in enumerate(arguments):
        if argument == "--config":
            if index + 1 == len(arguments):
                raise InputError("--config: give a run's config.yaml")
            return arguments[:index] + arguments[index + 2 :], Path(arguments[index + 1])
        if argument.startswith("--config="):
            return arguments[:index] + arguments[index + 1 :], Path(argument.partition("=")[2])
    return arguments, None
