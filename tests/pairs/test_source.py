"""A source whose files change while they are in use says so, and gives no pair of the changed ones as the old."""

from __future__ import annotations

import json
import os

import pytest

import tiny
from bluffscope.config import DataOptions
from bluffscope.errors import InputError
from bluffscope.pairs import open_source
from bluffscope.pairs.readers import READERS


@pytest.fixture
def scanned(tmp_path):
    path = tiny.write_pairs(tmp_path / "pairs.jsonl", tiny.PAIRS)
    source = open_source(DataOptions(data=str(path)))
    source.scan()
    return path, source


def test_a_file_that_is_gone_is_named_and_one_that_grew_has_changed(scanned):
    path, source = scanned
    with path.open("a") as file:
        file.write(json.dumps(tiny.PAIRS[0] | {"id": "more"}) + "\n")
    with pytest.raises(InputError, match=r"pairs.jsonl: the data changed while it was in use; start again"):
        list(source.pairs())
    path.unlink()
    with pytest.raises(InputError, match=r"pairs.jsonl: cannot be read \(No such file or directory\); check the path"):
        list(source.pairs())


@pytest.mark.parametrize("kept", [3, 6])
def test_pairs_that_come_or_go_behind_the_back_of_size_and_time_are_noticed(scanned, kept, monkeypatch):
    path, source = scanned
    reader = READERS[".jsonl"]

    def other(*arguments, **options):
        records = list(reader(*arguments, **options))
        return iter([*records, *(records if kept > len(records) else [])][:kept])

    monkeypatch.setitem(READERS, ".jsonl", other)
    with pytest.raises(InputError, match="the data changed while it was in use"):
        list(source.pairs())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(scanned):
    path, _ = scanned
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        open_source(DataOptions(data=str(path)))
