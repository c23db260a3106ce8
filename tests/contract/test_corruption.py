"""Files that were cut off or altered behind a run's back: found by their checksums, named, made again."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import crashing
import soak_table
from bluffscope.table.shards import committed_shards
from faults import killed


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def altered(path: Path) -> None:
    """One bit is another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: tuple[Callable[[Path], None], ...] = (cut, altered, emptied, Path.unlink)
FILES = ("metrics.parquet", "features.parquet", "pairs.parquet", "quarantine.parquet", "manifest.json", "checksums.txt")


@pytest.fixture(scope="module")
def unmerged(tmp_path_factory, options) -> Path:
    """A run that died when all its shards were committed."""
    folder = tmp_path_factory.mktemp("runs") / "unmerged"
    assert crashing.start(options, folder, killed("open", r"^\.metrics")).code == -signal.SIGKILL
    return folder


def heal_shard(call: Callable, unmerged: Path, whole: Path, folder: Path, number: int, damage: Callable) -> None:
    shutil.copytree(unmerged, folder)
    file = list(committed_shards(folder / "shards"))[number]
    damage(file.path)
    outcome = call("analyze", "--resume", folder)
    assert outcome.code == 3, outcome.said
    if damage is not Path.unlink:
        said = "".join(outcome.said.split())
        assert file.path.name in said and "measuredagain" in said
        assert file.path.name in (folder / "log.jsonl").read_text()
    first, second = crashing.manifest(folder)["sessions"]
    assert (first["pairs"], second["pairs"]) == (crashing.PAIRS - crashing.SHARD_PAIRS, crashing.SHARD_PAIRS)
    crashing.check_equal(folder, whole)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_named_and_measured_again_and_no_other(call, unmerged, whole, tmp_path, damage):
    number = DAMAGES.index(damage) + 1
    heal_shard(call, unmerged, whole.folder, tmp_path / "run", number, damage)


def heal_file(call: Callable, whole: Path, folder: Path, name: str, damage: Callable) -> None:
    shutil.copytree(whole, folder)
    damage(folder / name)
    outcome = call("analyze", "--resume", folder)
    assert outcome.code == 3, outcome.said
    assert name in (folder / "log.jsonl").read_text()
    assert name in outcome.said.replace("\n", "")
    crashing.check_equal(folder, whole)
    measured = crashing.manifest(folder)["sessions"][-1]["pairs"]
    assert measured == (crashing.PAIRS if name.endswith(".parquet") or name == "checksums.txt" else 0)
    again = call("analyze", "--resume", folder)
    assert again.code == 3 and again.out.startswith("Nothing to do: "), again


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [cut, altered])
def test_a_damaged_file_of_a_finished_run_is_named_and_made_again(call, whole, tmp_path, name, damage):
    heal_file(call, whole.folder, tmp_path / "run", name, damage)


def test_a_number_changed_by_hand_in_the_manifest_is_noticed(call, whole, tmp_path):
    folder = Path(shutil.copytree(whole.folder, tmp_path / "run"))
    changed = crashing.manifest(folder)
    changed["counts"]["measured"] += 1
    (folder / "manifest.json").write_text(json.dumps(changed))
    assert "manifest.json is altered" in " ".join(call("analyze", "--resume", folder).said.split())
    assert crashing.manifest(folder)["counts"]["measured"] == crashing.PAIRS - 1
    crashing.check_equal(folder, whole.folder)


def test_a_finished_run_is_checked_and_left_alone(call, whole, tmp_path):
    folder = Path(shutil.copytree(whole.folder, tmp_path / "run"))
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    outcome = call("analyze", "--resume", folder)
    assert outcome.code == 3
    assert outcome.out == f"Nothing to do: {folder} is complete, and its 4 tables match their checksums\n"
    assert outcome.said == ""
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_options_that_were_damaged_are_named(call, whole, tmp_path):
    folder = Path(shutil.copytree(whole.folder, tmp_path / "run"))
    (folder / "config.yaml").write_text("data: [")
    outcome = call("analyze", "--resume", folder)
    assert outcome.code == 2 and "config.yaml is damaged" in outcome.said


@pytest.mark.soak
def test_every_shard_damaged_in_every_way(call, unmerged, whole, tmp_path):
    started, injected, lost, again = time.perf_counter(), 0, 0, 0
    for number in range(crashing.PAIRS // crashing.SHARD_PAIRS):
        for damage in DAMAGES:
            injected += 1
            folder = tmp_path / f"run{injected}"
            heal_shard(call, unmerged, whole.folder, folder, number, damage)
            gone, twice = crashing.missing_and_repeated(folder)
            lost, again = lost + gone, again + twice
    seconds = time.perf_counter() - started
    soak_table.ROWS.append(
        soak_table.Row("damaged shard (cut off, one bit, emptied, gone)", injected, injected, lost, again, seconds)
    )


@pytest.mark.soak
def test_every_file_damaged_in_every_way(call, whole, tmp_path):
    started, injected, lost, again = time.perf_counter(), 0, 0, 0
    for name in FILES:
        for damage in DAMAGES:
            injected += 1
            folder = tmp_path / f"run{injected}"
            heal_file(call, whole.folder, folder, name, damage)
            gone, twice = crashing.missing_and_repeated(folder)
            lost, again = lost + gone, again + twice
    seconds = time.perf_counter() - started
    soak_table.ROWS.append(
        soak_table.Row("damaged table or manifest (the same)", injected, 2 * injected, lost, again, seconds)
    )
