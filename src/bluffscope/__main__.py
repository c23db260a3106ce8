"""`python -m bluffscope`, and the entry point of the `bluffscope` command."""

from __future__ import annotations

import gc

from bluffscope.cli.main import main as run_command

__all__ = ["main"]


def main() -> int:
    """Run the command that the process was started with; returns its exit code."""
    code = run_command()
    gc.freeze()  # or Python would look through all that was imported for garbage as it exits, for more than a second
    return code


if __name__ == "__main__":
    raise SystemExit(main())
