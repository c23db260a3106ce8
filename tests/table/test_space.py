"""The disk that a run will need, estimated before it starts."""

from __future__ import annotations

import pytest

from bluffscope.errors import InputError
from bluffscope.table.schema import table_columns
from bluffscope.table.space import bytes_a_pair, check_space

COLUMNS = table_columns([5, 12, 20])
SAES = {layer: {"published_l0": 80, "d_in": 2304} for layer in (5, 12, 20)}


def test_the_estimate_grows_with_what_is_kept():
    plain = bytes_a_pair(COLUMNS, SAES, reads=1)
    assert 3_000 < plain < 20_000
    assert bytes_a_pair(COLUMNS, SAES, reads=1, width=3 * 2304) == plain + 3 * 3 * 4 * 2304
    assert bytes_a_pair(COLUMNS, SAES, reads=4) > 2 * plain
    unknown = {layer: {"d_in": 2304, "published_l0": None} for layer in SAES}
    assert bytes_a_pair(COLUMNS, unknown, reads=1) > plain


def test_a_run_that_fits_passes_and_one_that_does_not_is_refused_with_figures(tmp_path, monkeypatch):
    usage = type("usage", (), {"total": 10**12, "free": 2_500_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    check_space(tmp_path / "not" / "there", 1000, 5000)
    check_space(tmp_path, 300_000, 5000, held=1_000_000_000)
    with pytest.raises(InputError, match=r"300,000 pairs need about 3.0 GB of disk \(5.0 kB per pair.*2.5 GB are free"):
        check_space(tmp_path, 300_000, 5000)


def test_sizes_are_shown_in_the_largest_unit_that_they_reach(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"total": 10**12, "free": 999}))
    with pytest.raises(InputError, match=r"need about 40.0 MB of disk \(2.0 MB per pair.*999 bytes are free"):
        check_space(tmp_path, 10, 2_000_000)
