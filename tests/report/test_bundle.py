"""Vega's script is bundled once, and no fault of the cache keeps a page from its charts."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from bluffscope.errors import InputError
from bluffscope.report import bundle

SCRIPT = "var a = '</script>';"


@pytest.fixture
def bundled(monkeypatch, tmp_path):
    """The times that the script was bundled, with an empty cache."""
    times = []

    def javascript_bundle(snippet, vl_version):
        times.append(vl_version)
        return SCRIPT

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "vl_convert", SimpleNamespace(javascript_bundle=javascript_bundle))
    return times


def script() -> str:
    """As a new process would get it."""
    return bundle.javascript.__wrapped__()


def test_it_is_bundled_once_and_cannot_end_the_element_it_stands_in(bundled):
    assert script() == script() == "var a = '<\\/script>';"
    assert bundled == [bundle.VEGA_LITE]


def test_with_the_script_in_the_cache_the_package_is_not_imported(bundled, monkeypatch):
    script()
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert script().startswith("var a")


@pytest.mark.parametrize("damage", [b"", b"cut o", b"0" * 64 + b"\nwindow.hacked = 1", b"\xff\xfe"])
def test_a_damaged_copy_is_bundled_again(bundled, tmp_path, damage):
    script()
    (kept,) = (tmp_path / "cache" / "bluffscope").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage)
    assert script().startswith("var a")
    assert kept.read_bytes() == whole
    assert len(bundled) == 2


def test_another_release_of_the_package_bundles_its_own(bundled, monkeypatch):
    script()
    monkeypatch.setattr(bundle, "version", lambda name: "99.0")
    script()
    assert len(bundled) == 2


@pytest.mark.parametrize("place", ["a file", "a folder in the script's place", "no home"])
def test_where_it_cannot_be_kept_it_is_bundled_each_time(bundled, monkeypatch, tmp_path, place):
    if place == "a file":
        (tmp_path / "cache").touch()
    elif place == "no home":
        monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
        monkeypatch.setattr(bundle.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    else:
        script()
        (kept,) = (tmp_path / "cache" / "bluffscope").iterdir()
        os.remove(kept)
        kept.mkdir()
        (kept / "full").touch()
        bundled.clear()
    assert script() == script() == "var a = '<\\/script>';"
    assert len(bundled) == 2


def test_many_at_once_leave_one_whole_copy(bundled, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        assert len({found.result(timeout=60) for found in [pool.submit(script) for _ in range(16)]}) == 1
    (kept,) = (tmp_path / "cache" / "bluffscope").iterdir()
    assert bundle._kept(kept) == script()


def test_without_the_package_and_without_a_copy_one_line_says_what_to_install(bundled, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(InputError, match=r"report.html: .* is not installed; run: pip install vl-convert-python"):
        script()
