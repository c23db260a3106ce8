"""A page of the documentation that a tool makes: written, or compared with what stands there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def write_or_check(target: Path, made: Callable[[], str], about: str | None, arguments: Sequence[str] | None) -> int:
    """Writes the page, or with --check says whether it is current and exits with 1 where it is not.

    Args:
        target: the page.
        made: its text.
        about: what the tool's help says.
        arguments: of the command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the page is out of date")
    checking, text = parser.parse_args(arguments).check, made()
    if checking:
        current = target.exists() and target.read_text(encoding="utf-8") == text
        print(f"{target.name} is {'current' if current else f'out of date: run tools/{Path(sys.argv[0]).name}'}")
        return 0 if current else 1
    target.write_text(text, encoding="utf-8")
    print(f"wrote {target.name}")
    return 0
