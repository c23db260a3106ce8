"""`bluffscope stats --detectors` on the demo, and verdicts that a failed health gate withholds."""

from __future__ import annotations

import json
import re

import polars as pl
import pytest

import bluffscope
from bluffscope.report.write import write_report


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A run of the embedded model on the bundled pairs, residuals kept, log-probabilities measured."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    bluffscope.analyze("bluff200", preset="demo", logprob=True, keep_residuals=True, out=str(out))
    return out


def test_on_the_demo_known_pairs_are_told_apart_from_sae_features_and_unseen_pairs_are_not(call, demo, tmp_path):
    outcome = call("stats", demo, "--detectors", "--by", "known", "--out", tmp_path / "out", "--full")
    assert outcome.code == 0, outcome.err
    rows = pl.read_parquet(tmp_path / "out" / "detectors.parquet")
    of = {(row["detector"], row["scope"]): row for row in rows.iter_rows(named=True)}
    known = of["sae", "known=true"]
    assert known["surface_gain_lo"] > 0.3
    # Shown beside it: what reads the residual or the log-probability does as well, and nothing is gained over that.
    assert of["residual", "known=true"]["auroc"] > 0.95
    assert of["logprob", "known=true"]["auroc"] > 0.95
    assert abs(known["gain"]) < 0.05
    for name in ("mean_difference", "residual", "metrics", "sae"):
        unseen = of[name, "known=false"]
        assert unseen["gain_lo"] <= 0, unseen
        assert unseen["surface_gain_lo"] <= 0, unseen
        assert abs(unseen["auroc"] - 0.5) < 0.15, unseen
    for scope in ("known=true", "known=false"):
        # Counterbalanced: neither length nor text says anything.
        assert of["text", scope]["auroc"] == pytest.approx(0.5, abs=0.02)
        assert of["length", scope]["auroc"] == pytest.approx(0.5, abs=0.02)
    transfer = pl.read_parquet(tmp_path / "out" / "transfer.parquet").filter(detector="sae")
    assert transfer.filter(train="known=true", test="known=false")["auroc"].item() == pytest.approx(0.5, abs=0.15)
    assert dict(transfer.filter(pl.col("train") == pl.col("test")).select("train", "learnt").iter_rows()) == {
        **dict.fromkeys(("entity", "temporal", "logical", "adversarial", "known=true"), True),
        "known=false": False,
    }
    assert transfer.filter(train="entity", test="logical")["auroc"].item() > 0.8
    said = " ".join(outcome.out.split())
    assert "Detectors: can a single text be recognised as hallucinated?" in said
    assert "Transfer between values of known" in said
    for name in ("length", "logprob", "text", "residual", "sae"):
        assert re.search(rf"known=true, n = 152 .*{name} +[01]\.\d\d", said), name
    about = json.loads((tmp_path / "out" / "stats.json").read_text())
    detecting = ["detectors.parquet", "detector_gains.parquet", "detector_curves.parquet", "transfer.parquet"]
    assert about["files"] == ["stats.parquet", "ladder.parquet", *detecting]
    gains = pl.read_parquet(tmp_path / "out" / "detector_gains.parquet")
    assert gains.row(0)[:2] == ("sae", "residual")
    first = gains.filter(detector="sae", against="residual", scope="known=true").row(0, named=True)
    assert first["gain"] == pytest.approx(known["auroc"] - of["residual", "known=true"]["auroc"], abs=1e-9)
    assert f"SAE features against residuals, known=true: {first['gain']:+.2f}" in said
    curves = pl.read_parquet(tmp_path / "out" / "detector_curves.parquet").filter(detector="sae", scope="pooled")
    assert curves.filter(curve="reliability")["n"].sum() == pytest.approx(400, abs=10)
    assert about["detectors"]["rows"] == rows.to_dicts()
    assert (about["detectors"]["pairs"], about["detectors"]["folds"]) == (200, 5)


def test_the_demos_null_control_holds_with_whole_groups_flipped(call, demo, tmp_path):
    outcome = call("stats", demo, "--by", "known", "--control", "null", "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    control = json.loads((tmp_path / "stats.json").read_text())["control_rows"]
    assert {row["flipped"] for row in control} == {"pair", "group"}
    assert len(control) == 18  # domains, pooled, known, and knows where there are log-probabilities
    assert max(row["rate_lo"] for row in control) <= 0.05


def test_detectors_of_an_earlier_call_do_not_outlive_its_statistics(call, demo, copied):
    run = copied(demo)
    write_report(run)
    assert (run / "detectors.parquet").exists()  # a run of so few pairs is closed with them
    outcome = call("stats", run, "--by", "known", "--full")
    assert outcome.code == 0, outcome.err
    assert not [*run.glob("detector*.parquet")]
    assert not (run / "transfer.parquet").exists()
    assert "No detectors were fitted; use --detectors." in outcome.out
    assert f"report.html is out of date; run `bluffscope report {run}`." in outcome.out
    assert "None were fitted here." in write_report(run).path.read_text("utf-8")
    call("stats", run, "--by", "known", "--detectors")
    assert (run / "detectors.parquet").exists()
    assert "None were fitted here." not in write_report(run).path.read_text("utf-8")


def test_without_detectors_the_ladder_is_written_all_the_same(call, demo, tmp_path):
    assert call("stats", demo, "--out", tmp_path).code == 0
    ladder = pl.read_parquet(tmp_path / "ladder.parquet")
    assert set(ladder["rung"]) == {"raw", "length", "length_logprob", "equal_length", "held_out_domain"}
    assert json.loads((tmp_path / "stats.json").read_text())["files"] == ["stats.parquet", "ladder.parquet"]
    assert not (tmp_path / "detectors.parquet").exists()


FAILED = {
    "status": "unsound",
    "allowed": False,
    "findings": [
        {
            "check": "l0",
            "severity": "error",
            "expected": "68",
            "seen": "1000",
            "means": "Pad tokens were read.",
            "do": "Compare the tokenizer.",
            "message": "mean L0 is 1000 where 68 is published",
        }
    ],
}


@pytest.mark.parametrize(
    ("health", "flags", "code", "withheld"),
    [
        (FAILED, (), 4, True),
        (FAILED, ("--allow-unsound",), 0, False),
        (FAILED | {"allowed": True}, (), 0, False),
        ({"status": "unsound", "allowed": False, "findings": []}, (), 4, True),
        ({"status": "healthy", "findings": [{"severity": "warning", "message": "large norms"}]}, (), 0, False),
        ({"status": "healthy", "allowed": False, "findings": []}, (), 0, False),
        ({}, (), 0, False),
    ],
)
def test_a_failed_health_gate_withholds_verdicts(call, demo, copied, tmp_path, health, flags, code, withheld):
    run = copied(demo)
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"health": health}))
    outcome = call("stats", run, *flags, "--full")
    assert outcome.code == code
    rows = pl.read_parquet(run / "stats.parquet")
    assert (set(rows["verdict"]) == {"withheld"}) == withheld
    assert rows["dz"].is_not_null().any()
    said = " ".join(outcome.out.split())
    assert ("No verdict: the run failed its health gate" in said) == withheld
    failed = health.get("status") == "unsound"
    assert said.startswith("The run failed its health gate") == failed
    if health is FAILED:
        assert "mean L0 is 1000 where 68 is published" in said
