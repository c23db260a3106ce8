"""The judge that `--judge` names: a mode of ours, or a function of the user's in a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, get_args

from bluffscope.errors import InputError
from bluffscope.metrics.own import load_module
from bluffscope.runs.ask.judge import Judgement, Mode, judge, judge_with

Judge = Callable[[str, str, Sequence[str]], Judgement]
"""Takes question, answer and gold answers."""
MODES: Final[tuple[Mode, ...]] = get_args(Mode)


def judge_of(name: str) -> Judge:
    """The judge by its name: match, contains, numeric, or FILE.py:NAME, whose file is run.

    Raises:
        InputError: there is none; and, when it is called, where the user's function fails or answers otherwise than
            True, False or None.
    """
    for mode in MODES:
        if mode == name:
            return partial(judge, mode=mode)
    file, _, function = name.rpartition(":")
    if not file.endswith(".py"):
        raise InputError(f"--judge {name}: expected {', '.join(MODES)} or FILE.py:NAME")
    own = vars(load_module(f"--judge {name}", Path(file).expanduser().resolve())).get(function)
    if not callable(own):
        raise InputError(f"--judge {name}: {file} has no function {function!r}")

    def asked(question: str, answer: str, golds: Sequence[str]) -> bool | None:
        try:
            found: object = own(question, answer, list(golds))
        except Exception as error:  # whatever the user's code raises
            raise InputError(f"--judge {name}: fails with {type(error).__name__}: {error} ({question!r})") from error
        if found is not None and not isinstance(found, bool):
            raise InputError(f"--judge {name}: returned {found!r}; expected True, False or None ({question!r})")
        return found

    return partial(judge_with, asked)
