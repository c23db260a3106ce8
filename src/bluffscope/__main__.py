"""`python -m bluffscope`, and the entry point of the `bluffscope` command."""

from bluffscope.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
