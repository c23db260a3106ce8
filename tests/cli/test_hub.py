"""Downloads from a hub, refusals of it, and a hub that is not there: over loopback, in processes of their own."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tiny
from loopback_hub import TOKEN, LoopbackHub, calls, environment

LAYERS = ("0", "3")
WEIGHTS = "model.safetensors"
KEPT = 10 << 20
"""Bytes of a download that huggingface_hub writes at once: what came of a further part is lost where it breaks off."""
# huggingface_hub goes on by itself five times where nothing more comes, a second apart; then it gives up.
ATTEMPTS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hub(folder):
    """Models and SAEs; some of them for those alone who have the token, some not at all."""
    model = tiny.save_model(folder / "repositories" / "model", "gemma2")
    flaky = tiny.save_model(folder / "repositories" / "flaky", "llama", intermediate_size=16384)
    saes = tiny.save_saes(folder / "repositories" / "saes", (0, 3))
    with LoopbackHub(
        repositories={"org/model": model, "org/flaky": flaky, "org/gated": model, "org/saes": saes},
        private={"org/gated": TOKEN},
        refusals={"org/forbidden": (403, ""), "org/locked": (403, "GatedRepo")},
    ) as hub:
        yield hub


@pytest.fixture(scope="module")
def base(folder):
    data = str(tiny.write_pairs(folder / "pairs.jsonl", tiny.PAIRS))
    return ["--layers", *LAYERS, "--data", data, "--limit", "2"]


def analyze(base, folder, name, model, *flags, sae="org/saes:layer_{layer}"):
    where = ["--out", str(folder / name), "--model", model, "--sae", sae]
    return ["analyze", *base, *where, "--allow-unsound", "--full", *flags]  # random SAEs fit no model


@pytest.fixture(scope="module")
def outcomes(hub, base, folder):
    """What each command did that has no token, by name."""
    commit = hub.commit("org/saes")
    runs = {
        "download": analyze(base, folder, "download", "org/model"),
        "again": [
            *("analyze", "--config", str(folder / "download" / "config.yaml")),
            *("--out", str(folder / "again"), "--allow-unsound"),
        ],
        "pinned": analyze(
            base,
            folder,
            "pinned",
            "org/model",
            *("--revision", hub.commit("org/model")),
            sae=f"org/saes@{commit}:layer_{{layer}}",
        ),
        "no revision": analyze(base, folder, "x", "org/model", "--revision", "v9"),
        "no SAE revision": analyze(base, folder, "x", "org/model", sae="org/saes@v9:layer_{layer}"),
        "no SAE": analyze(base, folder, "x", "org/model", sae="org/saes:layer_{layer}/nothing"),
    }
    for name in ("nothing", "gated", "locked", "forbidden"):
        runs[name] = analyze(base, folder, "x", f"org/{name}")
    return calls(runs, folder / "home", hub.url)


def test_a_model_and_saes_are_downloaded_and_nothing_but_progress_is_said(outcomes, hub, folder):
    code, out, err = outcomes["download"]
    assert code == 0, err
    assert out.startswith("Summary of 2 pairs")
    (line,) = err.splitlines()  # no bar of any download: this is no terminal
    assert line.startswith("Progress: 2/2 samples")
    asked = [request.range for request in hub.downloads(WEIGHTS) if request.path.startswith("/org/model/")]
    assert asked[0] is None
    assert all(request.authorization is None for request in hub.downloads(WEIGHTS)[:1])


def test_the_manifest_names_commits_and_the_hashes_of_the_files(outcomes, hub, folder):
    manifest = json.loads((folder / "download" / "manifest.json").read_text())
    assert manifest["model"]["revision"] == hub.commit("org/model")
    assert set(manifest["model"]["files"]) == {WEIGHTS}
    said = dict(manifest["model"]["files"])
    for layer in LAYERS:
        sae = manifest["saes"][layer]
        assert (sae["repository"], sae["revision"]) == ("org/saes", hub.commit("org/saes"))
        assert list(sae["files"]) == [f"layer_{layer}/sae_weights.safetensors"]
        said |= sae["files"]
    for name, file in said.items():
        repository = "model" if name == WEIGHTS else "saes"
        path = folder / "repositories" / repository / name
        assert file == {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def test_a_run_is_replayed_at_the_commits_it_had(outcomes, hub, folder):
    assert outcomes["again"][0] == 0, outcomes["again"]
    assert outcomes["pinned"][0] == 0, outcomes["pinned"]
    config = (folder / "download" / "config.yaml").read_text()
    assert f"revision: {hub.commit('org/model')}" in config
    assert f"org/saes@{hub.commit('org/saes')}:layer_{{layer}}" in config
    first, pinned = (json.loads((folder / name / "manifest.json").read_text()) for name in ("download", "pinned"))
    assert first["saes"]["0"]["files"] == pinned["saes"]["0"]["files"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", "--model org/nothing: {hub} has none of this name, or it is private; check the name, set HF_TOKEN"),
        ("gated", "--model org/gated: it is gated: accept its licence at {hub}/org/gated, then set HF_TOKEN"),
        ("locked", "--model org/locked: it is gated: accept its licence at {hub}/org/locked, then set HF_TOKEN"),
        ("forbidden", "--model org/forbidden: {hub} refuses it (403); set HF_TOKEN to a token that may read it"),
        ("no revision", "--model org/model: it has no such revision; give --revision a branch, tag or commit of it"),
        ("no SAE revision", "layer 0: it has no such revision; give --sae RELEASE@REVISION a branch, tag or commit"),
        ("no SAE", "layer 0: {hub} answers with error 404; check the name, try again later, or give a folder"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(outcomes, hub, folder, name, says):
    code, out, err = outcomes[name]
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("bluffscope analyze: --")
    assert says.format(hub=hub.url) in line
    assert not (folder / "x").exists()


def test_with_the_token_a_gated_model_is_had_and_the_token_is_written_nowhere(hub, base, folder):
    runs = {
        "token": analyze(base, folder, "token", "org/gated"),
        "broken": analyze(base, folder, "broken", "org/flaky"),
        "resumed": analyze(base, folder, "resumed", "org/flaky"),
        "refused": analyze(base, folder, "x", "org/forbidden"),
    }
    before = len(hub.requests)
    hub.breaks[f"org/flaky/{WEIGHTS}"] = [KEPT + 1000] + [0] * (ATTEMPTS - 1) + [KEPT + 1000]
    said = calls(runs, folder / "home-token", hub.url, HF_TOKEN=TOKEN)
    assert [said[name][0] for name in runs] == [0, 2, 0, 2], said
    assert any(request.authorization == f"Bearer {TOKEN}" for request in hub.requests[before:])
    for name in runs:
        assert TOKEN not in "".join(said[name][1:])
    written = [path for run in ("token", "resumed") for path in (folder / run).rglob("*") if path.is_file()]
    assert {"manifest.json", "config.yaml"} <= {path.name for path in written}
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]

    (line,) = said["broken"][2].splitlines()
    assert line.startswith("bluffscope analyze: --model org/flaky: ")
    assert f"the download from {hub.url} broke off: run it again to continue" in line
    ranges = [request.range for request in hub.downloads(WEIGHTS) if request.path.startswith("/org/flaky/")]
    # What a run has got it does not ask for again; the next one has to, of a file that was not complete.
    assert ranges == [None] + [f"bytes={KEPT}-"] * (ATTEMPTS - 1) + [None, f"bytes={KEPT}-"]
    assert len([request for request in hub.requests[before:] if request.path.endswith("layer_0/cfg.json")]) > 1
    assert len([request for request in hub.downloads("layer_0/cfg.json") if request in hub.requests[before:]]) == 1
    manifest = json.loads((folder / "resumed" / "manifest.json").read_text())
    path = folder / "repositories" / "flaky" / WEIGHTS
    assert manifest["model"]["files"][WEIGHTS]["sha256"] == _sha256(path)


def test_a_hub_that_is_not_there_is_one_line_and_the_cache_serves(outcomes, base, folder):
    with LoopbackHub() as gone:
        address = gone.url
    runs = {
        "cached": analyze(base, folder, "cached", "org/model"),
        "absent": analyze(base, folder, "x", "org/absent"),
    }
    said = calls(runs, folder / "home", address)
    assert said["cached"][0] == 0, said
    assert f"warning: {address} does not answer: used the local cache of org/model and org/saes" in said["cached"][2]
    assert said["absent"][:2] == (2, "")
    (line,) = said["absent"][2].splitlines()
    assert line.startswith("bluffscope analyze: --model org/absent: no such folder here, and not (wholly) in the")
    assert f"{address} does not answer: check the name and the network, or give a folder" in line


def test_a_terminal_shows_how_far_a_download_is(hub, base, folder):
    """The bar says so while it pulses; nothing else is drawn across it."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "bluffscope", *analyze(base, folder, "terminal", "org/model")]
    process = subprocess.Popen(
        command,
        env=environment(folder / "home-terminal", hub.url, TERM="xterm", COLUMNS="140"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=follower,
        cwd=folder,
    )
    os.close(follower)
    try:
        shown = _read(leader, 120)
        assert process.wait(timeout=30) == 0, shown[-2000:]
    finally:
        process.kill()
        process.wait(timeout=30)
        os.close(leader)
    assert "Downloading" in shown
    assert "|" not in shown.partition("Progress:")[0]  # tqdm's own bar


def _read(leader: int, seconds: float) -> str:
    """What a terminal shows until its other end is closed, or so many seconds have passed."""
    shown, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([leader], [], [], 1)[0]:
            try:
                part = os.read(leader, 65536)
            except OSError:  # closed
                break
            if not part:
                break
            shown += part
    return shown.decode("utf-8", "replace")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
