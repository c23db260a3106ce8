"""`bluffscope doctor`: the machine, a batch size for it, and a table of batch sizes, without weights or network."""

from __future__ import annotations

import json
import re
import shutil

import pytest

import tiny
from bluffscope.cli import doctor
from bluffscope.cli.main import main
from bluffscope.config.demo import sae_dir
from bluffscope.host.machine import Accelerator, Machine
from bluffscope.pipeline import batch_size as sizing


def test_doctor_shows_the_machine_and_what_the_demo_takes(call):
    outcome = call("doctor", "--machine-only")
    assert (outcome.code, outcome.err) == (0, "")
    labels = [line.split(":")[0] for line in outcome.out.splitlines() if re.match(r"[\w ]+: ", line)]
    assert labels[:5] == ["Processor", "Cores", "Memory", "bfloat16 on the processor", "Accelerator"]
    assert "Model: bluffscope-demo, 10 blocks and 3 SAEs" in outcome.out
    assert re.search(r"^Batch size: \d+ pairs per forward pass, of 16 distinct tokens each", outcome.out, re.MULTILINE)
    assert re.search(r"^Peak memory: 0\.\d GB predicted, \d+\.\d GB free$", outcome.out, re.MULTILINE)


def test_the_guides_table_stands_beside_what_the_model_says(call):
    out = call("doctor", "--machine-only").out
    heads, *rows = (re.split(" {2,}", line.strip()) for line in out.splitlines() if re.search(" {2,}", line.strip()))
    assert heads == ["device", "memory", "guide", "float32", "bfloat16"]
    table = {(row[0], row[1]): row[2:] for row in rows}
    guide = {
        ("CPU", "8 GB"): "4",
        ("CPU", "16 GB"): "8",
        ("MPS (M1/M2)", "8 GB"): "8",
        ("MPS (M1/M2)", "16 GB"): "16",
        ("CUDA", "8 GB"): "16",
        ("CUDA", "16 GB"): "32",
    }
    assert {key: cells[0] for key, cells in table.items()} == guide
    assert table["CPU", "8 GB"][1].startswith("does not fit (10.")  # 8.9 GB of weights, 0.9 GB of SAEs
    assert re.fullmatch(r"\d+ \(1\d\.\d GB\)", table["CPU", "16 GB"][1])
    assert re.fullmatch(r"\d+ \(\d\.\d GB\)", table["CUDA", "8 GB"][2])


def test_doctor_reads_configurations_only(call, copied, tiny_model, tiny_saes):
    model, saes = copied(tiny_model), copied(tiny_saes)
    for weights in [*model.rglob("*.safetensors"), *saes.rglob("*.safetensors")]:
        weights.write_bytes(b"")
    outcome = call("doctor", "--machine-only", "--model", model, "--sae", saes, "--layers", 1, "--batch-size", 8)
    assert outcome.code == 0, outcome.err
    assert f"Model: {model}, 4 blocks and 1 SAEs" in outcome.out
    assert "With --batch-size 8: " in outcome.out


def test_gemma_scopes_archives_tell_their_widths_by_their_headers(call, tmp_path, tiny_model):
    saes = tiny.save_gemma_scope(tmp_path / "scope")
    assert "4 blocks and 3 SAEs" in call("doctor", "--machine-only", "--model", tiny_model, "--sae", saes).out


def test_a_release_tells_its_widths_without_its_weights():
    from bluffscope.sae import find_saes, read_sae_configs

    release = "gemma-scope-2b-pt-res-canonical:layer_{layer}/width_16k/canonical"
    found = read_sae_configs(find_saes(release, (5, 20)))
    assert [(sae.d_in, sae.d_sae, sae.hook_name) for sae in found.values()] == [
        (2304, 16384, "blocks.5.hook_resid_post"),
        (2304, 16384, "blocks.20.hook_resid_post"),
    ]


def test_what_does_not_fit_is_said_with_what_it_needs(call, monkeypatch):
    for place in ("host.machine", "pipeline.by_default"):
        monkeypatch.setattr(f"bluffscope.{place}.free_memory", lambda device: 200_000_000)
    outcome = call("doctor", "--machine-only")
    assert outcome.code == 0
    assert "Model: bluffscope-demo, 9 blocks and 3 SAEs" in outcome.out
    assert re.search(r"^By default log-probabilities left out: the whole model needs about \d", outcome.out, re.M)
    assert re.search(r"^Batch size: does not fit: needs about 0\.\d GB, and 0\.2 GB are free$", outcome.out, re.M)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "layer_1" / "cfg.json").write_text("{"), "cfg.json is not valid JSON (line 1)"),
        (lambda folder: (folder / "layer_1" / "cfg.json").write_text("[]"), "layer 1"),
        (lambda folder: (folder / "layer_1" / "cfg.json").write_text('{"d_in": 16}'), "layer 1"),
        (lambda folder: (folder / "layer_1" / "cfg.json").write_text('{"d_in": 17, "d_sae": 9}'), "17 dimensions"),
    ],
    ids=["no json", "a list", "no width", "another width"],
)
def test_saes_that_cannot_be_used_are_refused_in_one_line(call, copied, tiny_model, tiny_saes, change, says):
    saes = copied(tiny_saes)
    change(saes)
    outcome = call("doctor", "--machine-only", "--model", tiny_model, "--sae", saes)
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.err.splitlines()
    assert line.startswith("bluffscope doctor: --sae ")
    assert says in line


def test_a_model_that_is_not_there_is_refused(call, tiny_saes):
    outcome = call("doctor", "--machine-only", "--model", "/nowhere", "--sae", tiny_saes)
    assert outcome.code == 2
    assert "--model /nowhere: no such folder" in outcome.err


def test_limits_swap_and_accelerators_of_the_machine_are_named():
    gpu = Accelerator("Made-up GPU", 16 * 10**9, 10 * 10**9)
    told = list(doctor._machine_lines(Machine("A CPU", 4, 8, 1.5, 8 * 10**9, 10**9, 3 * 10**9, 2.25, True, (gpu,))))
    assert told == [
        "Processor: A CPU",
        "Cores: 4 (8 logical) for this process, limited to the time of 1.5",
        "Memory: 8.0 GB, 1.0 GB available; 3.0 GB in swap; load 2.2",
        "bfloat16 on the processor: fast (AVX512-BF16, AMX or Arm's BF16)",
        "Accelerator: Made-up GPU, 16.0 GB, 10.0 GB free",
    ]
    bare = list(doctor._machine_lines(Machine("A CPU", 1, 1, None, 10**9, 10**9, 0, None, False, ())))
    assert bare[1:] == [
        "Cores: 1 (1 logical) for this process",
        "Memory: 1.0 GB, 1.0 GB available",
        "bfloat16 on the processor: emulated, slower than float32",
        "Accelerator: none",
    ]


def test_gigabytes_are_of_ten_to_the_nine():
    assert sizing.gigabytes(1.25e9) == "1.2 GB"


def test_the_demo_is_healthy(call, tmp_path):
    outcome = call("doctor", "--json", tmp_path / "health.json")
    assert outcome.code == 0, outcome.out
    assert "Health: healthy (" in outcome.out
    found = json.loads((tmp_path / "health.json").read_text())
    assert (found["status"], found["findings"]) == ("healthy", [])
    assert len(found["checks"]) > 40
    assert "Gemma2ForCausalLM, 10 layers" in str(found["checks"])


def test_the_sae_of_another_layer_fails_and_the_layer_it_fits_is_named(call, tmp_path):
    """Also where a run would load too few blocks to see it."""
    folder = tmp_path / "saes" / "layer_2"
    shutil.copytree(sae_dir() / "layer_5", folder)
    (folder / "cfg.json").write_text((folder / "cfg.json").read_text().replace("blocks.5.", "blocks.2."))
    outcome = call("doctor", "--model", "bluffscope-demo", "--sae", tmp_path / "saes")
    assert outcome.code == 1
    assert "The SAE fits layer 5 (blocks.5.hook_resid_post) better than layer 2" in outcome.out
    assert "Health: UNSOUND: " in outcome.out


def test_analyze_withholds_verdicts_of_an_unsound_run_unless_allowed(tiny_flags, tmp_path, capsys):
    flags = [str(flag) for flag in tiny_flags]
    assert main(["analyze", *flags]) == 4
    said = capsys.readouterr().out
    assert "error: relative error, layer 3: " in said
    assert "warning: explained variance, layer 0: " in said  # five pairs are no evidence
    assert "verdicts are withheld" in said
    health = json.loads((tmp_path / "run" / "manifest.json").read_text())["health"]
    assert (health["status"], health["allowed"]) == ("unsound", False)
    flags[-1] = str(tmp_path / "again")
    assert main(["analyze", *flags, "--allow-unsound"]) == 0
    health = json.loads((tmp_path / "again" / "manifest.json").read_text())["health"]
    assert (health["status"], health["allowed"]) == ("unsound", True)
