"""A run's folder: complete, free of leftovers, and true to its options."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import yaml

import bluffscope
import tiny
from bluffscope.api import config_from, run
from bluffscope.errors import InputError
from bluffscope.pairs import open_source
from bluffscope.pipeline import build
from bluffscope.records import VIEWS
from bluffscope.table.journal import Journal
from bluffscope.table.manifest import STAGES

TABLES = {"pairs.parquet", "metrics.parquet", "features.parquet", "residuals.parquet"}
STATED = {"config.yaml", "manifest.json", "checksums.txt", *TABLES}


@pytest.fixture
def config(tiny_model, tiny_saes, pairs_file, tmp_path):
    return config_from(model=tiny_model, sae=tiny_saes, data=str(pairs_file), out=tmp_path / "run")


class Told:
    """A progress that remembers."""

    def __init__(self):
        self.calls = []

    def start(self, total):
        self.calls.append(("start", total))

    def advance(self, pairs):
        self.calls.append(("advance", pairs))

    def finish(self):
        self.calls.append(("finish",))


def test_a_run_leaves_its_files_and_nothing_else(config, tmp_path):
    result = run(config, draw=False)
    assert result.path == tmp_path / "run"
    assert {path.name for path in result.path.iterdir()} == STATED
    assert result.report is None
    assert (result.merged.rows, result.merged.quarantined) == (5, 0)
    assert result.metrics().equals(pl.read_parquet(result.path / "metrics.parquet"))
    assert pl.read_parquet(result.path / "pairs.parquet")["prompt"].to_list() == [pair["prompt"] for pair in tiny.PAIRS]


def test_the_manifest_says_what_made_the_numbers(config, tmp_path):
    result = run(replace(config, measure=replace(config.measure, seed=5)), draw=False)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest == json.loads(json.dumps(result.manifest))
    counts = manifest["counts"]
    assert {name: counts[name] for name in ("pairs", "measured", "quarantined")} == {
        "pairs": 5,
        "measured": 5,
        "quarantined": 0,
    }
    assert (counts["forwards"], counts["reads"]) == (1, 15)
    assert 15 < counts["tokens"] <= counts["slots"]
    assert manifest["seeds"] == {"noise": 5}
    assert (manifest["device"], manifest["dtype"], manifest["strategy"]) == ("cpu", "float32", "packed")
    assert set(manifest["timings"]) == {*STAGES, "total"}
    parts = sum(seconds for stage, seconds in manifest["timings"].items() if stage != "total")
    assert 0.8 * manifest["timings"]["total"] < parts <= manifest["timings"]["total"] + 0.01
    assert manifest["packages"]["bluffscope"] == bluffscope.__version__
    assert set(manifest["saes"]) == {"0", "1", "3"}
    metadata = pl.read_parquet_metadata(tmp_path / "run" / "metrics.parquet")
    assert metadata["layers"] == "0 1 3"
    assert metadata["seed"] == "5"


def test_progress_is_told_every_pair_once_and_that_it_is_over(config):
    told = Told()
    run(replace(config, engine=replace(config.engine, batch_size=2)), progress=told, draw=False)
    assert told.calls[0] == ("start", 5)
    assert told.calls[-1] == ("finish",)
    assert sum(call[1] for call in told.calls[1:-1]) == 5


def test_progress_is_over_even_where_the_run_fails(config, monkeypatch):
    def fails(*arguments):
        raise OSError("the disk is gone")

    monkeypatch.setattr(Journal, "commit", fails)
    told = Told()
    with pytest.raises(OSError, match="the disk is gone"):
        run(config, progress=told, draw=False)
    assert told.calls[-1] == ("finish",)


def test_small_shards_give_the_table_of_one(config, tmp_path):
    whole = run(config, draw=False).metrics()
    small = replace(config.engine, shard_pairs=2, batch_size=1)
    other = replace(config, engine=small, output=replace(config.output, out=tmp_path / "small"))
    cut = run(other, draw=False).metrics()
    assert cut["pair_id"].to_list() == whole["pair_id"].to_list()
    assert cut["l0_fact_l0_norm"].to_list() == whole["l0_fact_l0_norm"].to_list()
    assert not (tmp_path / "small" / "shards").exists()


def test_the_saved_options_hold_whole_paths_and_no_folder_of_their_own(config, tmp_path, monkeypatch):
    model = Path(config.model.model)
    monkeypatch.chdir(model.parent)
    relative = replace(config, model=replace(config.model, model=model.name), data=replace(config.data))
    run(relative, draw=False)
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["model"]["model"] == str(model)
    assert saved["model"]["layers"] == [0, 1, 3]
    assert saved["model"]["revision"] is None
    assert saved["output"]["out"] is None
    assert Path(saved["data"]["data"]).is_absolute()


def test_the_bundled_benchmark_keeps_its_name(config, tmp_path):
    run(replace(config, data=replace(config.data, data="bluff200", limit=3)), draw=False)
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (saved["data"]["data"], saved["data"]["limit"]) == ("bluff200", 3)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["data"]["name"] == "bluff200"


def test_the_home_folder_of_nobody_is_refused(config):
    with pytest.raises(InputError, match=r"~nosuchuser/model: .*; give the whole path"):
        run(replace(config, model=replace(config.model, model="~nosuchuser/model")))


def test_data_in_the_home_folder_is_found(config, pairs_file, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(pairs_file.parent))
    result = run(replace(config, data=replace(config.data, data=f"~/{pairs_file.name}")), draw=False)
    assert result.merged.rows == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_refused_before_loading(config, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot be written"):
        run(replace(config, output=replace(config.output, out=tmp_path / "closed" / "run")))


def test_a_run_that_cannot_start_leaves_no_folder(config, tmp_path):
    wrong = replace(config, model=replace(config.model, layers=(2,)))
    with pytest.raises(InputError, match="no SAE for layer 2"):
        run(wrong)
    assert not (tmp_path / "run").exists()


class Counting:
    """A tokenizer that counts the texts it is given."""

    def __init__(self, tokenizer, seen):
        self._tokenizer, self._seen = tokenizer, seen

    def __call__(self, texts, **options):
        self._seen.update(texts)
        return self._tokenizer(texts, **options)

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


def test_no_text_is_tokenised_twice_for_linter_measuring_and_health(config, monkeypatch):
    seen = Counter()
    plain = build.TextTokenizer

    def counted(tokenizer, **options):
        return plain(tokenizer=Counting(tokenizer, seen), **options)

    monkeypatch.setattr(build, "TextTokenizer", counted)
    run(config, draw=False)
    texts = {text for pair in open_source(config.data).pairs() for text in (pair.text(view, "auto") for view in VIEWS)}
    assert seen == Counter(texts)
