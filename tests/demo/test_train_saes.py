"""The tool that trains SAEs on texts: of a real pretrained model, and the analysis with what it gives."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from bluffscope.cli.main import main
from bluffscope.sae import find_saes, load_coders

ROOT = Path(__file__).resolve().parents[2]
STORIES = ROOT.parent / "shared" / "testdata" / "TinyStories-656K"
LAYERS = (0, 1)
PAIRS = [
    ("Once upon a time, there was a little girl named", "Lily.", "Tom."),
    ("Once upon a time, there was a", "big dog who liked to play", "cat"),
    ("The dog was very", "happy and ran to the park.", "sad."),
    ("The dog was very happy. He", "played with his friends all day long", "went home to his mom"),
    ("One day, Tim went to the park with his", "mom. They saw a big tree", "dad"),
]

pytestmark = pytest.mark.skipif(not STORIES.is_dir(), reason="no TinyStories-656K beside the checkout")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Stories that the model writes."""
    torch.manual_seed(0)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(STORIES), AutoTokenizer.from_pretrained(STORIES)
    prompt = torch.full((200, 1), tokenizer.bos_token_id)
    alike = {"attention_mask": torch.ones_like(prompt), "pad_token_id": tokenizer.eos_token_id, "do_sample": True}
    ids = model.generate(prompt, max_new_tokens=95, eos_token_id=None, **alike)
    file = tmp_path_factory.mktemp("texts") / "stories.jsonl"
    stories = tokenizer.batch_decode(ids, skip_special_tokens=True)
    file.write_text("".join(json.dumps({"text": story}) + "\n" for story in stories))
    return file


def train(texts, folder, *more):
    tool, files = ROOT / "tools" / "train_saes.py", ["--model", STORIES, "--texts", texts, "--out", folder]
    what = ["--layers", *LAYERS, "--width", "2048", "--k", "30", "--steps", "200", "--corpus", "stories, invented"]
    command = [sys.executable, tool, *files, *what, *more]
    process = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240)
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout


@pytest.fixture(scope="module")
def saes(texts, tmp_path_factory):
    """SAEs of both layers after a fifth of the tool's own steps."""
    folder = tmp_path_factory.mktemp("story-saes")
    said = train(texts, folder)
    figures = r"^(layer_\d): mean L0 \S+ \(sd \S+\), explained variance (0\.\d+), \d+ of 2048 features never active$"
    found = dict(re.findall(figures, said, re.MULTILINE))
    assert {name: float(value) for name, value in found.items()} == {
        f"layer_{layer}": pytest.approx(metadata(folder, layer)["explained_variance"], abs=1e-4) for layer in LAYERS
    }
    return folder


def metadata(saes, layer):
    return json.loads((saes / f"layer_{layer}" / "cfg.json").read_text())["metadata"]


@pytest.mark.parametrize("layer", LAYERS)
def test_the_saes_explain_stories_that_they_were_not_trained_on(saes, layer):
    cfg = json.loads((saes / f"layer_{layer}" / "cfg.json").read_text())
    assert (cfg["architecture"], cfg["d_in"], cfg["d_sae"]) == ("jumprelu", 128, 2048)
    found = metadata(saes, layer)
    assert (found["model_name"], found["hook_name"]) == (STORIES.name, f"blocks.{layer}.hook_resid_post")
    assert (found["prepend_bos"], found["dataset_path"]) == (True, "stories, invented")
    assert 10 < found["l0"] < 90
    assert found["explained_variance"] > 0.6


def test_a_real_model_is_analysed_with_its_own_saes(saes, tmp_path):
    pairs = [
        {"id": str(index), "prompt": prompt, "fact": fact, "hallucination": hallucination}
        for index, (prompt, fact, hallucination) in enumerate(PAIRS)
    ]
    data, run = tiny.write_pairs(tmp_path / "stories.jsonl", pairs), tmp_path / "run"
    given = ["--model", STORIES, "--sae", saes, "--data", data, "--out", run, "--position", "completion-mean"]
    assert main(["analyze", *map(str, given)]) == 0
    table = pl.read_parquet(run / "metrics.parquet")
    assert table.height == len(PAIRS)
    for layer in LAYERS:
        # as many features as on held-out stories, and most of the residual explained: the SAE reads its own hook point
        assert table[f"l{layer}_fact_l0_norm"].mean() == pytest.approx(metadata(saes, layer)["l0"], rel=0.5)
        assert table[f"l{layer}_fact_relative_error"].max() < 0.6
        assert table[f"l{layer}_fact_dimensionality"].null_count() == 0
    manifest = json.loads((run / "manifest.json").read_text())
    assert (manifest["health"]["status"], manifest["health"]["findings"]) == ("healthy", [])
    identity = manifest["saes"]
    assert [identity[str(layer)]["published_l0"] for layer in LAYERS] == [metadata(saes, k)["l0"] for k in LAYERS]


def test_texts_are_read_without_bos_where_that_is_asked_for(texts, tmp_path):
    train(texts, tmp_path, "--no-bos", "--tokens", "2000", "--steps", "2", "--width", "64")
    assert [metadata(tmp_path, layer)["prepend_bos"] for layer in LAYERS] == [False, False]


def test_topk_saes_are_trained_where_they_are_asked_for(texts, tmp_path):
    train(texts, tmp_path, "--architecture", "topk", "--tokens", "2000", "--steps", "2", "--width", "64")
    found = json.loads((tmp_path / "layer_1" / "cfg.json").read_text())
    assert (found["architecture"], found["metadata"]["training_architecture"], found["k"]) == ("topk", "topk", 30)
    assert load_coders(find_saes(str(tmp_path), LAYERS), device="cpu", dtype=torch.float32)[1].d_sae == 64


def test_texts_are_lines_paragraphs_or_records(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    read_texts = importlib.import_module("train_saes").read_texts
    lines, paragraphs, records = (tmp_path / name for name in ("lines.txt", "paragraphs.txt", "records.jsonl"))
    lines.write_text("One  text.\n\n\n")
    assert read_texts(lines) == ["One text."]
    lines.write_text("One text.\nAnother.\n")
    paragraphs.write_text("One\ntext.\n \nAnother.\n")
    records.write_text('{"text": "One\\ntext."}\n\n{"text": "Another."}\n')
    for file in (lines, paragraphs, records):
        assert read_texts(file) == ["One text.", "Another."]
