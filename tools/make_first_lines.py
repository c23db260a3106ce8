"""Puts what `bluffscope analyze` prints on the demo into README and quick start: `python tools/make_first_lines.py`.

`--check` compares. `tests/cli/test_brief.py` holds the pages to be current.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from generated_page import write_or_check

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "quick-start.md")
COMMAND = ("bluffscope", "analyze", "--preset", "demo", "--out", "demo")
_BLOCK = re.compile(rf"(    \$ {re.escape(' '.join(COMMAND))}\n\n)((?:    .*\n)+)")


def printed() -> str:
    """What the command prints in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", *COMMAND]
        return subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, text=True, check=True, timeout=600).stdout


def shown(page: str) -> str:
    """What a page shows of it."""
    found = _BLOCK.search(page)
    assert found is not None, "the page does not show the command"
    return "".join(line[4:] for line in found[2].splitlines(keepends=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the block into both pages, or compare it with --check."""
    block = "".join(f"    {line}" for line in printed().splitlines(keepends=True))

    def current(page: Path) -> str:
        return _BLOCK.sub(lambda found: found[1] + block, page.read_text("utf-8"))

    return max([write_or_check(page, partial(current, page), __doc__, arguments) for page in PAGES])


if __name__ == "__main__":
    raise SystemExit(main())
