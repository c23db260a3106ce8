"""The answer in plain words: of what the model knows and does not, of nothing, and of what is not sound."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bluffscope.config.presets import DEMO_NAME
from bluffscope.detectors.evaluate import DETECTORS_SCHEMA
from bluffscope.metrics import METRICS
from bluffscope.metrics.logprob import KNOWS
from bluffscope.report.answer import Answer, answer
from bluffscope.report.contents import read_contents
from bluffscope.report.labels import in_words, size
from bluffscope.report.results import Results
from bluffscope.report.sides import sided_statistics, words_of_statistics
from bluffscope.report.write import write_report
from bluffscope.stats import analyse_table
from made_runs import UNSOUND, make_run
from made_texts import make_texts
from studies import QUICK

DEMO = {"model": {"name": DEMO_NAME}}


def table(pairs: int = 120, shift: float = 1.0, **columns) -> pl.DataFrame:
    """The metric l5_elongation falls by so many standard deviations in hallucinations, l8_gini does not."""
    rng = np.random.default_rng(0)
    fact, noise = rng.normal(size=(2, pairs)), rng.normal(size=(2, pairs))
    lengths = rng.integers(4, 9, (2, pairs))
    moved = np.asarray(columns["known"] if "known" in columns else [True] * pairs) * shift
    return pl.DataFrame(
        {
            "fact_tokens": lengths[0],
            "hall_tokens": lengths[1],
            "l5_fact_elongation": fact[0],
            "l5_hall_elongation": fact[0] + noise[0] - moved,
            "l8_fact_gini": fact[1],
            "l8_hall_gini": fact[1] + noise[1],
            **columns,
        }
    )


def said(frame: pl.DataFrame, detectors: pl.DataFrame | None = None, **manifest) -> Answer:
    rows = analyse_table(frame, resampling=QUICK).rows
    words = words_of_statistics(rows)
    stats = sided_statistics(rows)
    return answer(
        Results(
            stats, words, Path("t.csv"), manifest=manifest, n=frame.height, tested=frame.height, detectors=detectors
        )
    )


def detected(*rows: tuple[str, str, float, float | None]) -> pl.DataFrame:
    """Detector, scope, AUROC and gain, each within 0.05."""
    found = [
        {"detector": name, "scope": scope, "n": 9, "auroc": area, "lo": area - 0.05, "hi": area + 0.05, "ece": 0.0}
        | ({} if gain is None else {"gain": gain, "gain_lo": gain - 0.05, "gain_hi": gain + 0.05})
        for name, scope, area, gain in rows
    ]
    return pl.DataFrame(found, schema=DETECTORS_SCHEMA)


def test_every_metric_has_words_of_its_own_for_more_and_for_less():
    named = [metric for metric in METRICS if metric.kind == "float"]
    words = [text for metric in named for text in (metric.higher, metric.lower)]
    assert len(named) > 20 and all(words)
    assert len(set(words)) == len(words)


@pytest.mark.parametrize(
    ("metric", "value", "words"),
    [
        ("l5_elongation", -1.0, "feature cloud less round at layer 5"),  # it is the second axis over the first
        ("l5_elongation", 1.0, "feature cloud rounder at layer 5"),
        ("l12_lens_rank", 1.0, "tokens of worse rank through the lens at layer 12"),
        ("logprob", -1.0, "completion less likely"),
        ("stability_s0.3", -1.0, "features less stable under noise of s = 0.3"),
        ("entropy", 1.0, "strongest features more even"),
        ("l5_entropy", 1.0, "mine higher at layer 5"),  # a column of the user's own with a built-in name
        ("mood", -1.0, "mine lower"),
    ],
)
def test_a_difference_is_said_in_words(metric, value, words):
    assert in_words(metric, value, "mine") == words


@pytest.mark.parametrize(
    ("value", "word"),
    [(0.0, "negligible"), (-0.19, "negligible"), (0.2, "small"), (-0.5, "medium"), (0.79, "medium"), (-0.8, "large")],
)
def test_sizes_have_cohens_words(value, word):
    assert size(value) == word


def test_over_all_pairs_the_strongest_effect_is_said_with_interval_and_size():
    found = said(table())
    (effect,) = found.effects
    assert found.sentence == (
        "Hallucinations differ from facts at equal length and wording, above all: feature cloud less round at "
        f"layer 5 (d_z {effect.value:+.2f}, 95 % {effect.lo:+.2f} to {effect.hi:+.2f}, large); "
        "1 of 2 metrics separate them."
    )
    assert (found.kind, found.where, effect.metric, effect.scope) == ("some", "all", "l5_elongation", "pooled")
    assert effect.lo < effect.value < effect.hi < 0
    assert found.ran == "t.csv: 120 pairs"


def test_known_and_unknown_are_said_apart_for_the_model_that_was_taught_them():
    frame = table(known=[True, True, False] * 40)
    found = said(frame, **DEMO)
    strongest, least = found.scopes[0].strongest, found.scopes[1].least
    assert found.sentence == (
        "Of what the model knows (80 pairs), hallucinations differ from facts at equal length and wording, above all: "
        f"feature cloud less round at layer 5 ({strongest.text}); of what it does not know (40 pairs), "
        f"nothing is shown to differ (d_z {least:.2f} would be found with 80 % power)."
    )
    assert [part.scope for part in found.scopes] == ["known=true", "known=false"]
    assert found.where == "known=true" and found.effects[0].scope == "known=true"
    assert abs(found.scopes[1].effects[0].value) < 0.5
    # Any other model was not taught those pairs.
    assert said(frame, model={"name": "gpt2"}).sentence.startswith("Of pairs with known=true (80 pairs), halluc")


def test_what_is_known_by_log_probability_says_nothing_of_log_probability():
    rng = np.random.default_rng(1)
    fact, hall = rng.normal(size=(2, 120))
    columns = {"logprob_fact": fact, "logprob_hall": hall - 1, KNOWS: fact > hall - 1}
    found = said(table(shift=0.0, **columns))
    assert found.sentence.startswith("Hallucinations differ from facts at equal length and wording, above all: comple")
    assert found.sentence.endswith("; of 3 metrics only log-probabilities separate them.")
    assert [part.scope for part in found.scopes] == ["knows=true", "knows=false"]
    assert [part.effects for part in found.scopes] == [(None,), (None,)]


def test_where_nothing_differs_it_is_said_what_could_have_been_found():
    found = said(table(shift=0.0))
    assert found.kind == "nothing"
    assert found.sentence.startswith(
        "Nothing is shown to tell facts from hallucinations: 2 metrics tested over 120 pairs (d_z 0.26 would be found "
        "with 80 % power)"
    )
    assert {effect.verdict for effect in found.effects} <= {"inconclusive", "equivalent"} and len(found.effects) == 2
    assert "2 shown to be negligible" in said(table(900, shift=0.0)).sentence
    found = said(table(shift=0.0), detected(("length", "pooled", 0.5, None), ("sae", "pooled", 0.9, 0.4)))
    assert found.sentence.startswith("No single metric is shown to tell facts from hallucinations: 2 metrics tested")
    assert found.sentence.endswith("; a detector does.")


def test_what_cannot_be_judged_is_not_said_to_be_nothing():
    found = said(table(4))
    assert found.kind == "none"
    assert found.sentence == (
        "Whether anything tells facts from hallucinations cannot be judged: 4 pairs with a value on both sides, fewer "
        "than 5."
    )


def test_the_scopes_in_which_an_effect_differs_most_stand_beside_it():
    frame = table(known=[True, False] * 60).rename({"known": "mood"}).with_columns(domain=pl.lit("x"))
    found = said(frame)
    assert {part.scope for part in found.scopes} == {"mood=true", "mood=false"}
    assert [part.name for part in found.scopes][0] == "mood=true"
    assert found.sentence.startswith("Hallucinations differ from facts")  # a mood is nothing that a model knows


def test_a_detector_is_set_beside_its_best_baseline_in_known_and_unknown():
    frame = table(known=[True, True, False] * 40)
    rows = [("length", "known=true", 0.5, None), ("text", "known=true", 0.52, None), ("sae", "known=true", 0.9, 0.38)]
    rows += [("length", "known=false", 0.5, None), ("sae", "known=false", 0.52, 0.02)]
    assert said(frame, detected(*rows), **DEMO).detector == (
        "Detector (SAE features): AUROC 0.90 (0.85 to 0.95) known, 0.52 (chance) unknown; completion text alone 0.52 "
        "(log-probability was not measured)."
    )
    rows = [("logprob", "pooled", 0.9, None), ("residual", "pooled", 0.91, 0.01)]
    assert said(frame, detected(*rows)).detector == (
        "Detector (residuals): AUROC 0.91 (0.86 to 0.96); not shown to beat log-probability alone 0.90."
    )


def test_an_unsound_run_says_what_is_wrong_and_what_to_do(tmp_path):
    run = make_run(tmp_path / "run", manifest={"health": UNSOUND})
    found = write_report(run).answer
    assert found.sentence == (
        "No verdict, because the measurement is not sound: mean L0 of layer 2 is 5 times the published one. "
        "The features are wrong. Compare the model's revision."
    )
    assert (found.kind, found.effects, found.detector) == ("withheld", (), None)
    assert found.next[0] == f"bluffscope doctor --config {run}/config.yaml"


def test_a_run_is_named_by_data_model_and_layers_and_what_was_left_out_stands_with_its_health(tmp_path):
    run = make_run(tmp_path / "a run", effect=1.0)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["counts"]["quarantined"] = 2
    manifest["lint"]["headline"] = "1 error (contradiction: 2 pairs), 2 warnings (few clusters; label imbalance)"
    (run / "manifest.json").write_text(json.dumps(manifest))
    write_report(run)
    results = Results.of(read_contents(run))
    found = answer(results)
    assert found.ran == "made-up pairs: 60 pairs; made-up, layers 2 5, SAEs given"
    assert found.health == ("Health: not checked; 2 pairs left out, see quarantine.parquet; lint: 1 error, 2 warnings")
    drawn = replace(results, n=200_000, tested=60)
    assert answer(drawn).ran.startswith("made-up pairs: 200,000 pairs (60 tested, drawn at random); made-up")
    many = replace(results, config={"model": {"layers": [0, 1, 2, 3, 7, 9, 10], "sae": "x"}}, manifest={})
    assert answer(many).ran == "pairs: 60 pairs; a model, layers 0-3 7 9 10, without SAEs"
    assert found.next == (
        f"bluffscope features '{run}' --tokens",
        f"bluffscope detect train '{run}' --out '{run}-detector'",
    )


def test_of_labelled_texts_false_ones_differ_and_of_a_models_own_answers_wrong_ones(tmp_path):
    run = make_texts(tmp_path / "run")
    contents = read_contents(run)
    assert "true texts" in answer(Results.of(contents)).sentence
    texts = pl.read_parquet(run / "texts.parquet")
    about = {name: pl.lit("judge") for name in ("verdict", "label_by", "judge_reason")}
    texts.with_columns(**about).write_parquet(run / "texts.parquet")
    found = answer(Results.of(read_contents(run)))
    assert "right answers" in found.sentence and "wrong answers" in found.sentence.lower()
    assert found.ran.startswith(f"{contents.manifest['data']['name']}: 30 true and 30 false texts")
