"""The comparison of two result tables as an assertion."""

from __future__ import annotations

from typing import Any

from bluffscope.compare.tables import Comparison, Precision, Table, compare


def assert_same(got: Table, expected: Table, precision: Precision, **options: Any) -> Comparison:
    """Fail, naming the worst cell, unless the tables say the same; see `compare`."""
    result = compare(got, expected, precision, **options)
    assert result.holds, str(result)
    assert result.compared > 4 * result.left_out, f"hardly anything was compared: {result}"
    return result
