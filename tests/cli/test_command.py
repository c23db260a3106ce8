"""The command itself: help at once, versions, the replay of a run, and what is printed at its end."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys

import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

import bluffscope
import tiny
from bluffscope.cli.main import COMMANDS

HEAVY = {"torch", "polars", "transformers", "sae_lens", "altair", "pyarrow", "sklearn", "scipy"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["analyze", "--help"], ["doctor", "--help"], ["presets"], ["--version"], ["analyze", "--modle", "x"]],
    ids=str,
)
def test_help_and_wrong_flags_answer_without_heavy_imports(arguments):
    names = HEAVY | ({"numpy", "yaml"} if "--help" in arguments else set())
    script = (
        "import sys; from bluffscope.cli.main import main; code = main(sys.argv[1:]); "
        f"heavy = {names} & set(sys.modules); sys.exit(str(heavy)) if heavy else sys.exit(code)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process.returncode == (2 if "--modle" in arguments else 0), process.stderr
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 2  # 0.3 s where nothing else runs


def test_help_names_every_command_and_what_to_try_first(call):
    outcome = call("--help")
    assert outcome.code == 0
    assert "First steps: bluffscope analyze" in outcome.out
    for name in COMMANDS:
        assert f"• {name} " in outcome.out
    assert call("help").out == call("-h").out == outcome.out
    assert (call().code, call().out) == (2, outcome.out)


def test_the_help_of_analyze_names_every_option(call):
    outcome = call("analyze", "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.index(" --data ") < outcome.out.index(" --model ") < outcome.out.index(" --config ")
    assert "None" not in outcome.out
    assert outcome.out.count("(default: the preset's).") == 1
    for flag in ["--data", "--columns", "--preset", "--sae", "--layers", "--noise-sweep", "--batch-size", "--config"]:
        assert f" {flag} " in outcome.out


def test_completion_scripts_know_commands_and_their_flags(call):
    script = call("--tyro-print-completion", "bash").out
    for word in ["bluffscope", "analyze", "--noise-sweep", "train", "--allow-weak", "completion-mean"]:
        assert word in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--tyro-print-completion", "nosh"], "no such shell"),
        (["--tyro-write-completion", "bash", "no/such/file"], "No such file or directory"),
        (["--tyro-print-completion"], "unknown command '--tyro-print-completion'"),
        ([""], "unknown command ''"),
        (["presets", ""], ": no such option"),
    ],
)
def test_wrong_words_in_place_of_a_command_are_answered_in_one_line(call, words, why):
    outcome = call(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert why in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_versions_and_unknown_commands(call):
    assert call("--version").out == f"bluffscope {bluffscope.__version__}\n"
    outcome = call("analyse")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "bluffscope: unknown command 'analyse' (did you mean analyze?); see bluffscope --help\n"
    assert call("presets", "--json").err == (
        "bluffscope presets: --json: no such option; see bluffscope presets --help\n"
    )
    assert call("detect", "trian").err == (
        "bluffscope detect: unknown command 'trian' (did you mean train?); see bluffscope detect --help\n"
    )
    assert call("detect", "train").err == (
        "bluffscope detect: give the folder of a run, or --activations FILE with --labels FILE; and --out DIR, a new "
        "folder for the detector; see bluffscope detect train --help\n"
    )


def test_presets_are_listed_with_their_whole_names(call):
    out = call("presets").out
    for word in ["demo", "gemma-2-2b", "google/gemma-2-2b", "5 12 20"]:
        assert word in out
    words = "".join(character for character in out if character not in " \n")
    assert "gemma-scope-2b-pt-res-can" in words


def test_a_run_says_only_progress_on_stderr_and_with_full_ends_with_timings_and_its_folder(
    call, drawn, tiny_flags, tmp_path
):
    outcome = call("analyze", *tiny_flags, "--full")
    assert outcome.code == 0
    (line,) = outcome.err.splitlines()  # what is being done otherwise is for terminals
    done, rate, left = line.split(" | ")
    assert (done, left) == ("Progress: 5/5 samples", "ETA: 0s")
    assert rate.startswith("Rate: ")
    assert rate.endswith(" samples/sec")
    assert outcome.out.startswith("Summary of 5 pairs")
    total, stages, memory, lint, health, hint, run, report = outcome.out.splitlines()[-8:]
    assert hint.startswith("Hint: stability is ")  # of random features
    assert lint == "Lint: 2 warnings (conflicting facts: 2 pairs; few clusters); see manifest.json"
    assert health.startswith("Health: UNSOUND: ") and health.endswith("verdicts are shown anyway (--allow-unsound)")
    assert total.startswith("Total time: ")
    assert total.endswith(" pairs/sec once loaded)")
    assert stages.startswith("Seconds by stage: load ")
    assert [part.split()[0] for part in stages.removeprefix("Seconds by stage: ").split(" | ")] == [
        "load",
        "data",
        "lint",
        "tokenise",
        "forward",
        "sae",
        "geometry",
        "write",
        "health",
        "report",
    ]
    assert re.fullmatch(r"Peak memory: \d+\.\d GB \(predicted \d+\.\d\)", memory)
    assert run == f"Run: {tmp_path / 'run'}"
    assert report == f"Report: {tmp_path / 'run' / 'report.html'}"
    assert "Whether anything separates fact from hallucination cannot be judged: only" in outcome.out
    assert (tmp_path / "run" / "report.html").stat().st_size > 500_000
    assert (tmp_path / "run" / "stats.parquet").exists()
    assert not (tmp_path / "run" / "figures").exists()
    # Page and terminal agree on the time.
    assert f"<p>{total.split()[2]} s in total" in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_the_config_of_a_run_is_complete_and_replays_it(call, tiny_flags, tmp_path, monkeypatch):
    flags = [
        "--layers",
        3,
        0,
        "--noise-sweep",
        0.3,
        1e-5,
        "--noise-draws",
        2,
        "--seed",
        7,
        "--limit",
        4,
        "--join",
        ": ",
    ]
    assert call("analyze", *tiny_flags, *flags, "--position", "completion-mean", "--keep-residuals").code == 0
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert set(saved) == {"data", "model", "measure", "engine", "output"}
    assert None not in (saved["engine"]["batch_tokens"], saved["engine"]["row_tokens"])
    assert (saved["model"]["device"], saved["model"]["dtype"]) == ("cpu", "float32")
    assert saved["measure"]["noise_sweep"] == [0.3, 1e-5]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    outcome = call("analyze", "--config", tmp_path / "run" / "config.yaml", "--out", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    for name in ("metrics", "features", "residuals", "pairs"):
        first, again = (pl.read_parquet(tmp_path / run / f"{name}.parquet") for run in ("run", "again"))
        assert_frame_equal(first, again, check_exact=True)
    assert yaml.safe_load((tmp_path / "again" / "config.yaml").read_text()) == saved


@pytest.mark.thorough
def test_a_run_by_relative_paths_replays_from_anywhere(call, tiny_flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_flags[1].parent)
    flags = ["--model", tiny_flags[1].name, *tiny_flags[2:]]
    assert call("analyze", *flags).code == 0
    monkeypatch.chdir(tmp_path)
    outcome = call(f"--config={tmp_path / 'run' / 'config.yaml'}")
    assert outcome.code == 2  # a flag is no command
    outcome = call("analyze", f"--config={tmp_path / 'run' / 'config.yaml'}", "--out", tmp_path / "again")
    assert outcome.code == 0, outcome.err


@pytest.mark.thorough
def test_flags_take_precedence_over_a_replayed_config(call, tiny_flags, tmp_path):
    assert call("analyze", *tiny_flags, "--keep-residuals").code == 0
    config = ["--config", tmp_path / "run" / "config.yaml"]
    more = ["--layers", 1, "--noise-std", 0, "--no-keep-residuals", "--batch-size", 1]
    assert call("analyze", *config, *more, "--out", tmp_path / "b").code == 0
    table = pl.read_parquet(tmp_path / "b" / "metrics.parquet")
    assert "l1_fact_gini" in table.columns
    assert "l0_fact_gini" not in table.columns
    assert set(table["stability_fact"]) == {1.0}
    assert not (tmp_path / "b" / "residuals.parquet").exists()
    saved = yaml.safe_load((tmp_path / "b" / "config.yaml").read_text())
    assert saved["engine"]["batch_size"] == 1
    assert saved["measure"]["noise_draws"] == 8


def test_a_preset_beside_a_replayed_config_replaces_its_model(call, tiny_flags, tmp_path):
    assert call("analyze", *tiny_flags).code == 0
    out = ["--out", tmp_path / "other"]
    outcome = call("analyze", "--config", tmp_path / "run" / "config.yaml", "--preset", "gemma-2-2b", *out)
    assert outcome.code == 2
    assert "--model google/gemma-2-2b: no such folder here" in outcome.err


def test_an_edited_config_needs_only_what_it_changes(call, tiny_flags, tmp_path):
    config = {"model": {"model": str(tiny_flags[1]), "sae": str(tiny_flags[3])}, "measure": {"seed": 3}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    assert call("analyze", "--config", tmp_path / "mine.yaml", *tiny_flags[4:]).code == 0
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["seeds"] == {"noise": 3}


def test_markup_and_slashes_in_the_data_are_printed_as_they_are(call, drawn, tiny_flags, tmp_path):
    names = ["[bold]a[/bold]", "[/]", "a/b\\c", "[link=x]y"]
    pairs = [pair | {"domain": domain} for pair, domain in zip(tiny.PAIRS, [*names, names[0]], strict=True)]
    data = tiny.write_pairs(tmp_path / "odd.jsonl", pairs)
    outcome = call("analyze", *tiny_flags[:4], "--data", data, "--out", tmp_path / "[red]a=b[/red]", "--full")
    assert outcome.code == 0
    run, report = outcome.out.splitlines()[-2:]
    assert run == f"Run: {tmp_path / '[red]a=b[/red]'}"
    assert report == f"Report: {tmp_path / '[red]a=b[/red]' / 'report.html'}"
    for name in names:
        assert name in outcome.out
    table = pl.read_parquet(tmp_path / "[red]a=b[/red]" / "metrics.parquet", glob=False)
    assert table["domain"].to_list() == [*names, names[0]]


@pytest.mark.thorough
def test_texts_of_ten_thousand_characters_are_measured_where_the_context_holds_them(call, tmp_path, tiny_saes):
    model = tiny.save_model(tmp_path / "model", "llama")
    config = json.loads((model / "config.json").read_text()) | {"max_position_embeddings": 16384}
    (model / "config.json").write_text(json.dumps(config))
    long = "The capital of France is Paris. " * 313
    pairs = [*tiny.PAIRS[:2], {"id": "long", "prompt": long, "fact": "Paris", "hallucination": "Rome"}]
    data = tiny.write_pairs(tmp_path / "long.jsonl", pairs)
    outcome = call("analyze", "--model", model, "--sae", tiny_saes, "--data", data, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    table = pl.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert table["prompt_tokens"].to_list()[2] > 1000
    assert table["l3_hall_l0_norm"].null_count() == 0
    assert pl.read_parquet(tmp_path / "run" / "pairs.parquet")["prompt"].to_list()[2] == long


@pytest.mark.thorough
def test_fidelity_is_printed_after_the_summary(call, tiny_flags, tmp_path):
    outcome = call("analyze", *tiny_flags, "--dtype", "bfloat16", "--fidelity", 2, "--full")
    assert outcome.code == 0, outcome.err
    assert outcome.out.index("Summary of 5 pairs") < outcome.out.index("Fidelity: bfloat16 against float32, 2 pairs")
    assert outcome.out.index("Active features") < outcome.out.index("Total time")
    assert (tmp_path / "run" / "fidelity.parquet").exists()
