"""`bluffscope detect`: trained on the demo's known pairs, tried on the unseen; scores as the run's; what is refused."""

from __future__ import annotations

import errno
import io
import json
import re
import shutil
import sys

import numpy as np
import polars as pl
import pytest

import bluffscope
from bluffscope.cli.main import main
from bluffscope.detectors.files import read_detector
from bluffscope.table.reader import read_run
from faults import Fault, Injector
from made_runs import UNSOUND, make_run

KNOWN = ("--where", "known=true")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "demo"
    bluffscope.analyze("bluff200", preset="demo", logprob=False, out=str(out))
    return out


@pytest.fixture(scope="module")
def detector(demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detectors") / "known"
    assert main(["detect", "train", str(demo), "--out", str(folder), *KNOWN]) == 0
    return folder


def scored(call, folder, lines, tmp_path, *flags):
    """(exit code, the lines that come out)."""
    data, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    outcome = call("detect", "score", folder, "--data", data, "--out", out, *flags)
    return outcome.code, [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.thorough
def test_what_is_missing_is_named_at_once_and_in_order(refused, tmp_path):
    run, out = (
        "the folder of a run, or --activations FILE with --labels FILE",
        "--out DIR, a new folder for the detector",
    )
    refused("detect", "train", says=f"give {run}; and {out}")
    refused("detect", "train", "--out", tmp_path / "new", says=f"give {run}")
    refused("detect", "train", tmp_path, says=f"give {out}")


@pytest.mark.thorough
def test_trained_on_known_pairs_it_tells_held_out_ones_apart_and_unseen_ones_not_and_says_both(call, demo, tmp_path):
    outcome = call("detect", "train", demo, "--out", tmp_path / "d", *KNOWN)
    assert outcome.code == 0, outcome.err
    evaluation = json.loads((tmp_path / "d" / "detector.json").read_text())["evaluation"]
    own = next(row for row in evaluation["cross_validated"] if row["detector"] == "sae")
    assert own["auroc"] >= 0.85
    assert (own["n"], evaluation["left_out"]["n"]) == (152, 48)
    assert 0.35 <= evaluation["left_out"]["auroc"] <= 0.65
    assert evaluation["beats_baselines"]
    assert evaluation["ece"] < 0.05
    said = " ".join(outcome.out.split())
    held_out = re.search(r"Held-out pairs of the training with known=true: AUROC (\d\.\d\d) \(", said)
    others = re.search(r"Other pairs of the run \(48\): AUROC (\d\.\d\d) \(.* no better than chance", said)
    assert float(held_out[1]) == round(own["auroc"], 2)
    assert float(others[1]) == round(evaluation["left_out"]["auroc"], 2)
    assert "It beats the best baseline" in said
    for baseline in ("length 0.50", "text 0.50"):
        assert baseline in said
    assert said.count("--logprob") == 1  # what was not measured is said once
    assert sorted(file.name for file in (tmp_path / "d").iterdir()) == [
        "README.md",
        "detector.json",
        "weights.safetensors",
    ]
    card = (tmp_path / "d" / "README.md").read_text()
    assert f"AUROC {evaluation['left_out']['auroc']:.2f}" in card and "not shown to be better than chance" in card
    assert f"| sae | {own['auroc']:.2f} |" in card and "| length | 0.50 |" in card
    assert "152 pairs with known=true, 74 groups" in card and "the last token of a text" in card
    rows = [line.split(" | ") for line in card.split("## What carries over")[1].splitlines() if line.startswith("| ")]
    domains = json.loads((tmp_path / "d" / "detector.json").read_text())["trained"]["domains"]
    assert [row[0].removeprefix("| ") for row in rows[1:]] == [row["domain"] for row in domains] and len(domains) > 2
    assert rows[1][2] == f"{domains[0]['auroc']:.2f}" and rows[1][4] == f"{domains[0]['text']:.2f} |"
    assert sum(row["n"] for row in domains) == 152
    assert "It beats the best baseline" in card and "## When it misleads" in card
    assert str(demo) not in card and str(tmp_path) not in card


@pytest.mark.thorough
def test_on_the_demo_what_carries_over_is_the_first_line_and_the_report_shows_it(call, demo, detector, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(demo, run)
    page = tmp_path / "transfer.html"
    outcome = call("detect", "transfer", run, "--by", "known", "--repeats", "2", "--html", page)
    assert outcome.code == 0, outcome.err
    said = " ".join(outcome.out.split())
    assert re.match(
        r"SAE features: known=true found \(AUROC (1\.00|0\.9\d), .*\); known=false (not better than|at) chance "
        r"\(0\.[456]\d, .*\); from known=true to known=false: (chance|unclear) \(0\.[45]\d, ",
        said,
    ), said[:300]
    assert f"`bluffscope report {run}` puts it into the run's report." in said
    assert page.read_text().count("<figcaption>") == 3
    outcome = call("detect", "sweep", run, "--repeats", "1")
    assert outcome.code == 0 and outcome.out.startswith("Best: ")
    sweep = pl.read_parquet(run / "sweep.parquet")
    assert sweep.filter(detector="chosen")["auroc"].item() > 0.9
    assert call("report", run).code == 0
    shown = (run / "report.html").read_text()
    assert "What carries over to other data" in shown and "Which layer" in shown
    # Where it was trained on the texts that it is asked about, the saved detector is not.
    outcome = call("detect", "transfer", detector, run, "--by", "known", "--out", tmp_path / "saved")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("SAE features: detector known on known=false: ")
    assert "Not judged: it was trained on these texts" in " ".join(outcome.out.split())
    assert pl.read_parquet(tmp_path / "saved" / "transfer_matrix.parquet")["test"].to_list() == [
        "known=true",
        "known=false",
    ]


def test_transfer_refuses_what_it_cannot_compare(call, demo, detector, tmp_path):
    for arguments, says in (
        ([demo], "transfer takes two data sets or more: give further runs, or --by COLUMN"),
        ([detector], "transfer takes a run to test the detectors on"),
        ([demo, "--by", "position"], "was read at last alone; analyze with --position last completion-mean"),
        ([demo, "--by", "known", "--html", tmp_path / "page.txt"], "expected a name that ends in .html"),
        ([make_run(tmp_path / "other"), detector], "was trained with another model or its precision than"),
    ):
        outcome = call("detect", "transfer", *arguments)
        assert (outcome.code, outcome.out) == (2, ""), arguments
        assert says in " ".join(outcome.err.split()), arguments


@pytest.mark.thorough
def test_where_it_beats_nothing_it_is_not_kept_unless_told(call, demo, tmp_path):
    outcome = call("detect", "train", demo, "--out", tmp_path / "weak", "--where", "known=false")
    assert outcome.code == 1
    assert outcome.out.splitlines()[-1].startswith("Not saved: it does not beat the best baseline")
    assert not (tmp_path / "weak").exists()
    assert call("detect", "train", demo, "--out", tmp_path / "weak", "--where", "known=false", "--allow-weak").code == 0
    assert not read_detector(tmp_path / "weak").about["evaluation"]["beats_baselines"]


@pytest.mark.thorough
def test_a_log_probability_that_does_as_well_is_a_baseline_too(call, tmp_path):
    bluffscope.analyze("bluff200", preset="demo", logprob=True, out=str(tmp_path / "run"))
    outcome = call("detect", "train", tmp_path / "run", "--out", tmp_path / "d", *KNOWN)
    assert outcome.code == 1
    assert "does not beat the best baseline, logprob (AUROC 1.00)" in outcome.out


def of_the_run(demo, detector):
    """The scores that the run's own tables give: (2, pair), facts first."""
    run, kept = read_run(demo), read_detector(detector)
    texts = pl.concat(
        pl.DataFrame({"pair_id": run.metrics["pair_id"], "view": view}).with_row_index("text", offset=200 * side)
        for side, view in enumerate(("fact", "hall"))
    )
    frame = run.features.collect().join(texts, on=["pair_id", "view"])
    logits = kept.linear.scores(kept.keys.sparse(frame.select("text", "layer", "feature", "activation"), 400))
    return kept.calibration.probabilities(logits).reshape(2, -1)


@pytest.mark.thorough
@pytest.mark.parametrize("form", ["pair", "text"])
def test_scores_are_those_of_the_runs_features(call, demo, detector, tmp_path, form):
    pairs = read_run(demo).pairs
    lines = [
        {"prompt": row["prompt"], "completion": row[side]}
        if form == "pair"
        else {"text": f"{row['prompt']} {row[side]}"}
        for side in ("fact", "hallucination")
        for row in pairs.iter_rows(named=True)
    ]
    code, found = scored(call, detector, lines, tmp_path)
    assert code == 0
    expected = of_the_run(demo, detector).ravel()
    assert [line["probability"] for line in found] == pytest.approx(expected, abs=1e-6)
    known = np.tile(pairs["known"].to_numpy(), 2)
    hall = np.repeat([False, True], 200)
    assert (expected[known & hall] > 0.5).all()
    assert (expected[known & ~hall] < 0.5).all()
    assert all(line.items() <= out.items() for line, out in zip(lines, found, strict=True))


@pytest.mark.thorough
@pytest.mark.parametrize("on", ["metrics", "residual"])
def test_detectors_of_metrics_and_of_residuals_score_facts_as_the_run_does(call, demo, tmp_path, on):
    folder = tmp_path / on
    assert call("detect", "train", demo, "--out", folder, "--on", on, *KNOWN).code == 0
    run, kept = read_run(demo), read_detector(folder)
    pairs = run.pairs.head(20)
    if on == "metrics":
        columns = [
            f"{name}_fact" if f"{name}_fact" in run.metrics.columns else name.replace("_", "_fact_", 1)
            for name in kept.keys.metrics
        ]
        matrix = run.metrics.head(20).select(pl.col(columns).cast(pl.Float64).fill_null(np.nan)).to_numpy()
    else:
        facts = run.kept_residuals.filter(pl.col("view") == "fact").collect()
        matrix = np.hstack([np.array(facts.filter(layer=layer)["values"].to_list())[:20] for layer in kept.keys.layers])
    expected = kept.calibration.probabilities(kept.linear.scores(matrix))
    lines = [
        {"id": row["pair_id"], "prompt": row["prompt"], "completion": row["fact"]}
        for row in pairs.iter_rows(named=True)
    ]
    code, found = scored(call, folder, lines, tmp_path)
    assert code == 0
    assert [line["probability"] for line in found] == pytest.approx(expected, abs=1e-5)


def test_texts_on_the_command_line(call, detector):
    outcome = call(
        "detect", "score", detector, "--text", "The capital of France is Paris", "The capital of France is Rome"
    )
    assert outcome.code == 0, outcome.err
    true, false = outcome.out.splitlines()
    assert re.fullmatch(r'0\.0\d\d "The capital of France is Paris"', true)
    assert re.fullmatch(r'0\.9\d\d "The capital of France is Rome"', false)
    pair = call("detect", "score", detector, "--prompt", "The capital of France is", "--completion", "Rome")
    assert pair.out == false + "\n"


def test_lines_stream_from_standard_input_and_what_cannot_be_scored_has_its_reason(call, detector, monkeypatch):
    lines = [{"text": "The capital of France is Rome"}, {"text": "word " * 400}, {"text": ""}]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(line) + "\n\n" for line in lines)))
    outcome = call("detect", "score", detector, "--data", "-")
    assert outcome.code == 3
    first, long, empty = map(json.loads, outcome.out.splitlines())
    assert first["probability"] > 0.9
    assert long["probability"] is None
    assert "the model's context holds" in long["reason"]
    assert "has no tokens" in empty["reason"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: not valid JSON"),
        ("[1]", "line 2: no object"),
        ('{"text": 3}', "line 2: text is no text (int)"),
        ('{"prompt": "x"}', "line 2: completion is missing"),
        ("{}", "line 2: prompt is missing; give text, or prompt and completion"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_no_half_file_is_left(refused, detector, tmp_path, line, says):
    data = tmp_path / "in.jsonl"
    data.write_text('{"text": "fine"}\n' + line + "\n")
    refused("detect", "score", detector, "--data", data, "--out", tmp_path / "out.jsonl", says=says)


@pytest.mark.parametrize("moment", ["before", "half"])
def test_where_the_disk_is_full_the_scores_that_were_there_stay(refused, detector, tmp_path, moment):
    data, folder = tmp_path / "in.jsonl", tmp_path / "scores"
    data.write_text('{"text": "fine"}\n')
    folder.mkdir()
    (folder / "out.jsonl").write_text("earlier\n")
    command = ("detect", "score", detector, "--data", data, "--out", folder / "out.jsonl")
    with Injector(folder, Fault(error=errno.ENOSPC, call="write", moment=moment)).installed():
        refused(*command, says="out.jsonl: No space left on device")
    assert [path.read_text() for path in folder.iterdir()] == ["earlier\n"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda about: about["model"].update(weights="0" * 32),
            "the model's weights (or their precision) have the hash",
        ),
        (lambda about: about["model"].update(layers=11), "the model's layers is 10, not 11"),
        (lambda about: about["saes"]["5"].update(weights="0" * 32), "layer 5: the SAE's weights have the hash"),
        (
            lambda about: about["saes"]["8"].update(architecture="topk"),
            "layer 8: the SAE's architecture is jumprelu, not topk",
        ),
        (lambda about: about["config"]["model"].update(dtype="float64"), "precision"),
        (
            lambda about: about["metric_versions"].update(l2_fact_gini=7),
            "metric l2_fact_gini was of version 7 and is of 1",
        ),
        (lambda about: about["config"]["model"].update(nonsense=1), "no such option"),
        (lambda about: about.update(detector_version=99), "version 99"),
        (lambda about: about.pop("evaluation"), "no 'evaluation'"),
        (lambda about: about["weights"].update(sha256="0"), "another hash"),
        (lambda about: about["columns"].update(layers=None), "do not belong together"),
        (lambda about: about.update(on="nonsense"), "do not belong together"),
        (lambda about: about.update(on="metrics"), "do not belong together"),
        (lambda about: about.update(config=3), "damaged"),
    ],
)
def test_another_model_sae_or_version_is_refused_saying_what_differs(refused, copied, detector, change, says):
    folder = copied(detector)
    about = json.loads((folder / "detector.json").read_text())
    change(about)
    (folder / "detector.json").write_text(json.dumps(about))
    refused("detect", "score", folder, "--text", "x", says=says)


def test_damaged_and_foreign_folders_are_refused(refused, copied, detector, demo, tmp_path):
    refused("detect", "score", tmp_path / "nowhere", "--text", "x", says="missing")
    refused("detect", "score", demo, "--text", "x", says="holds no detector")
    folder = copied(detector)
    (folder / "detector.json").write_text("{")
    refused("detect", "score", folder, "--text", "x", says="detector.json is damaged")
    (folder / "detector.json").write_text('{"a": 1}')
    refused("detect", "score", folder, "--text", "x", says="not written by bluffscope detect train")
    shutil.copy(detector / "detector.json", folder / "detector.json")
    (folder / "weights.safetensors").write_bytes((detector / "weights.safetensors").read_bytes()[:-8])
    refused("detect", "score", folder, "--text", "x", says="another hash")
    (folder / "weights.safetensors").unlink()
    refused("detect", "score", folder, "--text", "x", says="weights.safetensors is missing")


def test_a_seed_below_zero_and_a_run_that_failed_its_gate_are_refused(refused, tmp_path):
    run = make_run(tmp_path / "run", 12, features=4, manifest={"health": UNSOUND})
    refused("detect", "train", run, "--out", tmp_path / "d", "--seed", "-1", says="--seed -1: give a number from 0")
    says = ("run failed its health gate (mean L0 of layer 2 is 5 times", "see bluffscope doctor, or --allow-unsound")
    refused("detect", "train", run, "--out", tmp_path / "d", says=says)


def test_usage(refused, copied, detector, demo, tmp_path):
    refused("detect", says="bluffscope detect --help")
    refused("detect", "nonsense", says=("nonsense", "bluffscope detect --help"))
    refused("detect", "score", detector, says="give one of --text")
    refused("detect", "score", detector, "--prompt", "x", says="give both")
    refused("detect", "score", detector, "--text", "x", "--out", tmp_path / "x", says="only with --data")
    refused("detect", "train", demo, "--out", detector, says="there is a detector.json already")
    refused("detect", "train", demo, "--out", tmp_path / "d", "--where", "known=maybe", says="no pair has it")
    parted = copied(demo)
    config = (parted / "config.yaml").read_text().replace("position: last", "position: divergence")
    (parted / "config.yaml").write_text(config)
    refused(
        "detect", "train", parted, "--out", tmp_path / "d", says="does not have; run analyze with another --position"
    )
    few = ("--where", "pair_id=entity-001")
    refused("detect", "train", demo, "--out", tmp_path / "d", *few, says="fewer than 10: too few to train and test on")
