"""docs/sae-formats.md is current, its tests exist, and its refusals are what the code says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from bluffscope.sae.layouts import FILES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_sae_format_docs", ROOT / "tools" / "make_sae_format_docs.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_page_is_current(tool, capsys):
    assert tool.main(["--check"]) == 0, capsys.readouterr().out


def test_every_format_has_a_row_and_every_row_a_test_that_exists(tool):
    assert {row.kind for row in tool.READ} - {""} == FILES.keys()
    for row in (*tool.READ, *tool.REFUSED):
        file, _, name = row.test.partition("::")
        assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), row.test


def test_what_is_refused_is_refused_in_these_words(tool):
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "bluffscope" / "sae").glob("*.py"))
    said = re.sub(r'"\s*f?"', "", source)  # a message goes over several lines
    for row in tool.REFUSED:
        assert row.read_by in said, row.read_by
