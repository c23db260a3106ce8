"""Options and other plain values in YAML files, which may be anybody's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bluffscope.config.options import RunConfig, run_config
from bluffscope.errors import InputError

MOST_YAML = 1_000_000
MOST_DIGITS = 40
"""Of a whole number in a YAML file: far more than any option takes."""


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, by which a few lines can stand for more than any memory holds, and without endless digits.

    Python takes minutes for a number of a million digits, and refuses to print one of 4,301.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > MOST_DIGITS:
            problem = f"a whole number of {len(node.value):,} characters"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_yaml_int(node)


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_yaml_int)


def read_yaml(text: str) -> Any:
    """The value of a YAML text of plain values.

    Raises:
        yaml.YAMLError: no YAML, an alias in it, nested too deeply, a value that is none of its tag, or longer than
            `MOST_YAML` characters.
    """
    if len(text) > MOST_YAML:
        raise yaml.YAMLError(f"longer than {MOST_YAML:,} characters")
    try:
        return yaml.load(text, _PlainLoader)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise yaml.YAMLError(f"a value that cannot be read ({type(error).__name__})") from error  # `!!bool x`


def load_config(path: Path) -> RunConfig:
    """The options that a run's config.yaml holds.

    Raises:
        InputError: the file is missing, is not YAML, or holds an unknown option.
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
