"""Models and SAEs by their hub names: from a populated cache, without a network, and from a hub that refuses.

Each test is a process of its own, since huggingface_hub reads its environment when it is imported.
"""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

import tiny

COMMIT = "c5ebcd40d208330abc697524c919956e692655cf"
SCOPE_COMMIT = "fd571b47c1c64851e9b1989792367b9babb4af63"
L0 = {5: 68, 12: 82, 20: 71}
D_IN, D_SAE = 2304, 16384
"""What SAELens's loader of Gemma Scope insists on."""

COMMANDS = """
import json, sys, time
import bluffscope.hub, bluffscope.run
from bluffscope.cli.main import main
bluffscope.run._figures = lambda folder, config: ()
for arguments in json.loads(sys.argv[1]):
    started = time.perf_counter()
    print("code", main(arguments), flush=True)
    print("seconds", time.perf_counter() - started, flush=True)
    bluffscope.hub.ANSWER_SECONDS = 1  # one wait at full length is enough
"""


def commands(*each: list[object], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call `bluffscope` several times in one new process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps([[str(word) for word in words] for words in each])],
        cwd=cwd,
        env={**kept, "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def said(process, name):
    """The values of the lines `code` or `seconds`."""
    return [float(line.split()[1]) for line in process.stdout.splitlines() if line.startswith(f"{name} ")]


# --- a populated cache ---------------------------------------------------------------------------------------------


def snapshot(cache: Path, repository: str, commit: str) -> Path:
    """The folder of a commit of a repository in the cache, `main` pointing to it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    return folder / "snapshots" / commit


def save_gemma(folder: Path) -> None:
    """A Gemma 2 with the 26 layers and the width of the 2B, and next to nothing else."""
    config = Gemma2Config(
        vocab_size=tiny.VOCABULARY,
        hidden_size=D_IN,
        intermediate_size=8,
        num_hidden_layers=26,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=16,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    Gemma2ForCausalLM(config).save_pretrained(folder)
    tiny.save_tokenizer(folder)


def save_scope(snapshot: Path) -> None:
    """Canonical SAEs of three layers: one blob of a few dozen live features, linked to as the cache does."""
    blob = snapshot.parents[1] / "blobs" / "b0b0"
    blob.parent.mkdir()
    generator = np.random.default_rng(0)
    live = generator.standard_normal((64, D_IN)).astype(np.float32)
    live /= np.linalg.norm(live, axis=1, keepdims=True)
    decoder = np.zeros((D_SAE, D_IN), np.float32)
    decoder[:64] = live
    arrays = {
        "W_enc": decoder.T,
        "W_dec": decoder,
        "b_enc": np.zeros(D_SAE, np.float32),
        "b_dec": np.zeros(D_IN, np.float32),
        "threshold": np.full(D_SAE, 0.01, np.float32),
    }
    with zipfile.ZipFile(blob, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array))
    for layer, l0 in L0.items():
        link = snapshot / f"layer_{layer}" / "width_16k" / f"average_l0_{l0}" / "params.npz"
        link.parent.mkdir(parents=True)
        link.symlink_to(blob)


def test_the_gemma_2_2b_preset_loads_by_its_real_names_from_a_cache(tmp_path):
    home = tmp_path / "hf"
    save_gemma(snapshot(home / "hub", "google/gemma-2-2b", COMMIT))
    save_scope(snapshot(home / "hub", "google/gemma-scope-2b-pt-res", SCOPE_COMMIT))
    data = ["--data", tiny.write_pairs(tmp_path / "pairs.jsonl", tiny.PAIRS), "--limit", 2]
    named = ["--model", "google/gemma-2-2b"]
    process = commands(
        ["analyze", "--preset", "gemma-2-2b", *data, "--out", tmp_path / "preset"],
        ["analyze", *named, *data, "--layers", 5, "--out", tmp_path / "model"],
        [
            "analyze",
            *named,
            *data,
            "--sae",
            "gemma-scope-2b-pt-res-canonical",
            "--layers",
            5,
            "--out",
            tmp_path / "sae",
        ],
        ["analyze", "--config", tmp_path / "preset" / "config.yaml", "--layers", 5, "--out", tmp_path / "replayed"],
        ["analyze", "--preset", "gemma-2-2b", "--revision", "nosuchbranch", *data, "--out", tmp_path / "branch"],
        ["analyze", "--preset", "gemma-2-2b", "--layers", 6, *data, "--out", tmp_path / "layer"],
        cwd=tmp_path,
        HF_HOME=str(home),
        HF_HUB_OFFLINE="1",
    )
    assert said(process, "code") == [0, 0, 0, 0, 2, 2], process.stderr
    progress, refusals = process.stderr.splitlines()[:4], process.stderr.splitlines()[4:]
    assert all(line.startswith("Progress: 2/2 samples") for line in progress)
    assert len(refusals) == 2
    assert "--model google/gemma-2-2b: " in refusals[0]
    assert "--sae gemma-scope-2b-pt-res-canonical:layer_{layer}/width_16k/canonical, layer 6" in refusals[1]
    assert "HF_HUB_OFFLINE" in refusals[1]

    table = pl.read_parquet(tmp_path / "preset" / "metrics.parquet")
    assert table["pair_id"].to_list() == ["fr", "it"]
    assert [name for name in table.columns if name.endswith("fact_l0_norm")] == [
        f"l{layer}_fact_l0_norm" for layer in (5, 12, 20)
    ]
    assert table.select(pl.col("^l.*_fact_l0_norm$")).min_horizontal().min() > 1
    manifest = json.loads((tmp_path / "preset" / "manifest.json").read_text())
    assert manifest["model"]["name"] == "google/gemma-2-2b"
    assert manifest["model"]["revision"] == COMMIT
    assert (manifest["model"]["layers"], manifest["model"]["layers_loaded"]) == (26, 21)
    for layer, l0 in L0.items():
        found = manifest["saes"][str(layer)]
        assert found["release"] == "gemma-scope-2b-pt-res-canonical"
        assert found["id"] == f"layer_{layer}/width_16k/canonical"
        assert (found["repository"], found["published_l0"]) == ("google/gemma-scope-2b-pt-res", l0)
        assert found["path"] == f"layer_{layer}/width_16k/average_l0_{l0}"
        assert found["neuronpedia_id"] == f"gemma-2-2b/{layer}-gemmascope-res-16k"
        assert (found["d_in"], found["d_sae"]) == (D_IN, D_SAE)
    assert f"revision: {COMMIT}" in (tmp_path / "preset" / "config.yaml").read_text()
    model, sae, replayed = (
        pl.read_parquet(tmp_path / name / "metrics.parquet") for name in ("model", "sae", "replayed")
    )
    assert model.equals(sae)
    assert model.equals(replayed)
    assert model.columns == [name for name in table.columns if not name.startswith(("l12_", "l20_"))]


# --- no network ----------------------------------------------------------------------------------------------------


@pytest.fixture
def silent_hub():
    """An address at which nothing answers: connections are taken, and then nothing is said."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_hub_that_does_not_answer_is_given_up_after_seconds(tmp_path, silent_hub, tiny_model, tiny_saes):
    data = ["--data", tiny.write_pairs(tmp_path / "pairs.jsonl", tiny.PAIRS), "--out", tmp_path / "run"]
    sae = snapshot(tmp_path / "hf" / "hub", "someone/saes", COMMIT)
    (sae / "1").symlink_to(tiny_saes / "layer_1", target_is_directory=True)
    started = time.perf_counter()
    process = commands(
        ["analyze", "--model", "nobody/nothing", "--sae", tiny_saes, *data],
        ["analyze", "--model", tiny_model, "--sae", "nobody/nothing:{layer}", "--layers", 1, *data],
        ["analyze", "--model", tiny_model, "--sae", "someone/saes:{layer}", "--layers", 1, *data],
        cwd=tmp_path,
        HF_HOME=str(tmp_path / "hf"),
        HF_ENDPOINT=silent_hub,
    )
    assert said(process, "code") == [2, 2, 0], process.stderr
    assert said(process, "seconds")[0] < 30  # imports and ANSWER_SECONDS; the hub's own retries took 25 s a file
    assert time.perf_counter() - started < 60
    lines = process.stderr.splitlines()
    why = f"not (wholly) in the Hugging Face cache; {silent_hub} does not answer: check the name and the network"
    assert lines[0] == f"bluffscope analyze: --model nobody/nothing: no such folder here, and {why}, or give a folder"
    assert lines[1].startswith("bluffscope analyze: --sae nobody/nothing:{layer}, layer 1: no such folder here")
    assert why in lines[1]
    assert lines[2] == f"warning: {silent_hub} does not answer: used the local cache of someone/saes"
    assert lines[3].startswith("Progress: 5/5 samples")
    assert len(lines) == 4


# --- a hub that answers --------------------------------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """Says of every repository what its name asks for."""

    def do_HEAD(self):
        status, code = next(
            (answer for name, answer in REFUSALS.items() if f"/{name}/" in self.path),
            (200, ""),
        )
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", f"{code} it is")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *arguments):
        pass


REFUSALS = {
    "gated": (403, "GatedRepo"),
    "locked": (401, "GatedRepo"),
    "missing": (404, "RepoNotFound"),
    "private": (401, "RepoNotFound"),
    "old": (404, "RevisionNotFound"),
    "forbidden": (403, ""),
}


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_that_refuses_is_quoted_with_what_to_do(tmp_path, hub, tiny_model, tiny_saes):
    data = ["--data", tiny.write_pairs(tmp_path / "pairs.jsonl", tiny.PAIRS), "--out", tmp_path / "run"]
    names = [*REFUSALS]
    process = commands(
        *(["analyze", "--model", f"org/{name}", "--sae", tiny_saes, *data] for name in names),
        *(["analyze", "--model", tiny_model, "--sae", f"org/{name}:x", "--layers", 1, *data] for name in names),
        cwd=tmp_path,
        HF_HOME=str(tmp_path / "hf"),
        HF_ENDPOINT=hub,
    )
    assert set(said(process, "code")) == {2}, process.stderr
    lines = process.stderr.splitlines()
    assert len(lines) == 2 * len(names), process.stderr
    assert not (tmp_path / "run").exists()
    expected = {
        "gated": f"it is gated: accept its licence at {hub}/org/gated, then set HF_TOKEN (or run `hf auth login`)",
        "locked": f"it is gated: accept its licence at {hub}/org/locked, then set HF_TOKEN",
        "missing": f"{hub} has none of this name, or it is private; check the name, set HF_TOKEN",
        "private": f"{hub} has none of this name, or it is private; check the name, set HF_TOKEN",
        "old": "it has no such revision",
        "forbidden": f"{hub} refuses it (403); set HF_TOKEN to a token that may read it",
    }
    for name, model, sae in zip(names, lines, lines[len(names) :], strict=False):
        assert model.startswith(f"bluffscope analyze: --model org/{name}: {expected[name]}"), model
        assert sae.startswith(f"bluffscope analyze: --sae org/{name}:x, layer 1: {expected[name]}"), sae
