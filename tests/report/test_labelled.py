"""Runs over labelled texts: their summary and their page, which speak of texts and never of pairs."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from pathlib import Path

import altair as alt
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from bluffscope.detectors.evaluate import DETECTORS_SCHEMA, TRANSFER_SCHEMA
from bluffscope.report import charts, page, render_summary, shape_table, summarize
from bluffscope.report.contents import read_contents
from bluffscope.report.figures import figures
from bluffscope.report.labels import percent
from bluffscope.report.page import page_data
from bluffscope.report.panels import figure
from bluffscope.report.sides import two_sided
from bluffscope.report.verdicts import headline
from bluffscope.report.write import write_report
from bluffscope.stats.effects import hedges_factor
from made_runs import OBJECT_KEYS, STRANGE, UNSOUND, make_run
from made_texts import METRICS, make_texts, statistics

STORY = "document.getElementById('story')"
ROWS = "[...document.querySelectorAll('#pair-table tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
OF_PAIRS = re.compile(r"\bpairs?\b|hallucinat|\bhalluc\.|\bfacts?\b|d_z|&minus; fact", re.IGNORECASE)
"""What no labelled run says."""


def text_of(folder: Path) -> str:
    """What the page says without its scripts and styles."""
    content = write_report(folder).path.read_text()
    bare = re.sub(r"<(script|style).*?</\1>", "", content, flags=re.DOTALL)
    said = " ".join(re.sub(r"<[^>]*>", " ", bare).split())
    labels = re.findall(r'(?:title|aria-label)="([^"]*)"', bare)
    assert not [text for text in (said, *labels) if OF_PAIRS.search(text)]
    return said


def printed(metrics: pl.DataFrame, measured: Collection[str]) -> str:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(render_summary(metrics, measured))
    return captured.get()


# ---- the summary


def test_the_summary_gives_means_difference_and_g_of_true_and_false_texts(tmp_path):
    metrics = pl.read_parquet(make_texts(tmp_path / "run") / "metrics.parquet")
    rows = summarize(metrics, list(METRICS))
    assert rows["metric"].unique(maintain_order=True).to_list() == list(METRICS)
    for scope in ("entity", "pooled"):
        row = rows.filter(metric="entropy", domain=scope).row(0, named=True)
        table = metrics.filter(pl.col("entropy").is_not_null())
        table = table if scope == "pooled" else table.filter(domain=scope)
        true, false = (table.filter(label=label)["entropy"].to_numpy() for label in (True, False))
        n = len(true) + len(false)
        sd = np.sqrt(((len(true) - 1) * true.var(ddof=1) + (len(false) - 1) * false.var(ddof=1)) / (n - 2))
        assert row["n"] == n
        assert [row["mean_fact"], row["mean_hall"]] == pytest.approx([true.mean(), false.mean()])
        assert row["mean_diff"] == pytest.approx(false.mean() - true.mean())
        assert row["sd_diff"] == pytest.approx(sd)
        assert row["dz"] == pytest.approx(hedges_factor(n - 2) * row["mean_diff"] / sd)


def test_the_terminal_says_texts_true_and_false_and_nothing_of_pairs(tmp_path):
    metrics = pl.read_parquet(make_texts(tmp_path / "run") / "metrics.parquet")
    classes = pl.Series(["Prolate", "Oblate", None] * 20)
    text = printed(metrics.with_columns(l2_shape_class=classes), [*METRICS, "l2_shape_class"])
    assert "Summary of 60 texts (30 true, 30 false)" in text
    assert "false - true; g = diff / pooled sd" in text
    assert "Shape classes: labels in rows, classes in columns, texts of all domains" in text
    assert re.search(r"true +10 +10 +10 *\n", text)
    assert not OF_PAIRS.search(text)
    assert "score" not in text and "prompt" not in text


def test_metrics_are_found_by_name_and_type_where_nothing_says_which_they_are(tmp_path):
    metrics = pl.read_parquet(make_texts(tmp_path / "run") / "metrics.parquet").drop("score_fact", "score_hall")
    assert set(summarize(metrics)["metric"]) == set(METRICS)


def test_one_label_only_has_means_and_no_effect(tmp_path):
    metrics = pl.read_parquet(make_texts(tmp_path / "run", labels=(True,)) / "metrics.parquet")
    row = summarize(metrics, list(METRICS)).filter("pooled", metric="entropy").row(0, named=True)
    assert row["n"] == 59 and row["mean_fact"] is not None
    assert row["mean_hall"] is row["mean_diff"] is row["dz"] is None
    assert "60 texts (60 true, 0 false)" in printed(metrics, list(METRICS))


def test_two_texts_have_no_g_and_a_constant_metric_none_either():
    table = {"text_id": ["a", "b"], "label": [True, False], "x": [1.0, 2.0]}
    (row,) = summarize(pl.DataFrame(table)).filter("pooled").to_dicts()
    assert (row["mean_diff"], row["dz"]) == (1.0, None)
    many = pl.DataFrame({"text_id": [str(i) for i in range(8)], "label": [True, False] * 4, "x": [1.0] * 8})
    assert summarize(many)["dz"].to_list() == [None, None]
    assert shape_table(many).is_empty()


def test_a_table_of_pairs_is_left_as_it_is_and_a_two_sided_one_stays(tmp_path):
    pairs = pl.read_parquet(make_run(tmp_path / "pairs") / "metrics.parquet")
    assert two_sided(pairs) is pairs
    sided = two_sided(pl.read_parquet(make_texts(tmp_path / "texts") / "metrics.parquet"), list(METRICS))
    assert two_sided(sided) is sided
    assert not {"score_fact", "l2_fact_prompt_gini", "label"} & set(sided.columns)
    both = sided.filter(pl.col("entropy_fact").is_not_null() & pl.col("entropy_hall").is_not_null())
    assert both.is_empty()


# ---- the page


def test_the_page_opens_with_the_strongest_effect_its_interval_and_health(tmp_path):
    health = {"status": "healthy", "allowed": False, "findings": []}
    text = text_of(make_texts(tmp_path / "run", sweep=True, manifest={"health": health}))
    opening = text[text.index("Does anything separate true from false texts?") :]
    assert opening.startswith(
        "Does anything separate true from false texts? False texts differ from true texts at equal length and wording, "
        "above all: strongest features more even (g +1.18, 95 % +0.93 to +1.43, large); 1 of 5 metrics separate them."
    )
    assert "Health: healthy (0 checks)" in opening
    assert "strongest over all texts: entropy (g +1.23, 95 % +0.98 to +1.48); 4 inconclusive." in opening
    assert "30 true and 30 false texts; made-up, layers 2 5, " in text
    assert ". Every difference is false &minus; true; g counts it in standard deviations." in text
    assert "60 texts in 30 clusters (largest 2), by group" in text


def test_where_nothing_separates_or_nothing_can_be_judged_the_sentence_says_so():
    rows = statistics(60, ["entropy", "l2_gini"], ["entity"])
    none = rows.with_columns(verdict=pl.lit("inconclusive"))
    assert headline(none).startswith("Nothing separates true from false texts at equal lengths: 2 metrics tested over")
    barred = none.with_columns(q=pl.lit(None, pl.Float64), reason=pl.lit("only 3 texts of a label"))
    assert (
        headline(barred)
        == "Whether anything separates true from false texts cannot be judged: only 3 texts of a label."
    )


def test_a_failed_health_gate_withholds_verdicts_of_texts_too(tmp_path):
    text = text_of(make_texts(tmp_path / "run", manifest={"health": UNSOUND}))
    assert "No verdict, because the measurement is not sound: mean L0 of layer 2" in text
    assert "Verdicts by metric and domain" not in text and "Health: healthy" not in text


def test_a_run_without_statistics_or_with_one_label_has_a_page_that_says_why(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        text = text_of(make_texts(tmp_path / "run", labels=(False,), stats=False))
    assert re.search("No effect was tested|cannot be judged", text)
    assert "0 true and 60 false texts" in text
    empty = make_texts(tmp_path / "empty", stats=False)
    metrics = pl.read_parquet(empty / "metrics.parquet")
    known = pl.read_parquet_metadata(empty / "metrics.parquet")
    metrics.head(0).write_parquet(
        empty / "metrics.parquet", metadata={k: v for k, v in known.items() if "ARROW" not in k}
    )
    assert "0 true and 0 false texts" in text_of(empty)


def test_quarantined_texts_lint_and_precision_are_doubts(tmp_path):
    finding = {"severity": "warning", "code": "x", "message": "3 texts are there twice.", "pairs": ["text-00001"]}
    folder = make_texts(tmp_path / "run", manifest={"lint": {"findings": [finding]}, "dtype": "bfloat16"})
    gone = {"text_id": ["lost"], "prompt": [""], "completion": ["z"], "reason": ["too long"]}
    pl.DataFrame(gone).write_parquet(folder / "quarantine.parquet")
    text = text_of(folder)
    for words in ("3 texts are there twice. Texts: text-00001", "1 text could not be measured", "too long", "lost"):
        assert words in text


def test_the_data_of_the_page_are_those_of_the_texts(tmp_path):
    folder = make_texts(tmp_path / "run", said=STRANGE, sweep=True)
    write_report(folder)
    data, metrics = page_data(read_contents(folder)), pl.read_parquet(folder / "metrics.parquet")
    items = data["pairs"]
    assert items["id"] == metrics["text_id"].to_list()
    assert items["label"] == metrics["label"].to_list()
    assert items["completion"] == [STRANGE[i % 5] for i in range(60)]
    assert items["tokens"]["text_tokens"] == metrics["text_tokens"].to_list()
    assert items["carried"]["source"][5] == "book 5"
    assert not {"fact", "hallucination"} & set(items) and not {"label", "prompt"} & set(items["carried"])
    entropy = next(metric for metric in data["metrics"] if metric["name"] == "entropy")
    for i, (label, value) in enumerate(metrics.select("label", "entropy").iter_rows()):
        own, other = (entropy["fact"], entropy["hall"]) if label else (entropy["hall"], entropy["fact"])
        assert other[i] is None
        assert own[i] == (None if value is None else pytest.approx(value, rel=1e-3))
    features = pl.read_parquet(folder / "features.parquet").filter(text_id="text-00007", view="text", layer=5)
    story = data["features"]["pairs"][7][data["features"]["layers"].index(5)]
    assert story[::2] == features.sort("activation", descending=True)["feature"].head(8).to_list()
    dose = pl.DataFrame(data["dose"]).filter(scope="pooled", view="false texts", s=0.3).row(0, named=True)
    assert dose["mean"] == pytest.approx(metrics.filter(~pl.col("label"))["stability_s0.3"].mean(), rel=1e-3)
    lens = pl.DataFrame(data["trajectory"])
    assert set(lens["view"]) == {"true texts", "false texts"}
    assert set(lens["scope"]) == {"all texts"}
    row = lens.filter(view="true texts", layer=5).row(0, named=True)
    assert row["mean"] == pytest.approx(metrics.filter("label")["l5_lens_logprob"].mean(), rel=1e-3)


def test_of_more_texts_than_a_page_bears_it_holds_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_PAIRS", 20)
    folder = make_texts(tmp_path / "run")
    text = text_of(folder)
    assert (
        "This page holds 20 of 60 texts, drawn at random (seed 0); metrics.parquet and texts.parquet have all." in text
    )
    data = page_data(read_contents(folder))
    assert len(data["pairs"]["label"]) == len(data["metrics"][0]["fact"]) == len(data["features"]["pairs"]) == 20


def detected(folder: Path) -> None:
    """Detectors as `bluffscope stats --detectors` writes them."""
    numbers = {"n": 60, "auroc": 0.8, "lo": 0.7, "hi": 0.9, "ece": 0.1, "gain": 0.2, "gain_lo": 0.1, "gain_hi": 0.3}
    rows = [numbers | {"detector": name, "scope": "pooled"} for name in ("length", "text", "sae")]
    pl.DataFrame(rows, schema=DETECTORS_SCHEMA).write_parquet(folder / "detectors.parquet")
    crossed = [
        {"detector": "sae", "train": train, "test": test, "n": 20, "auroc": 0.8, "lo": 0.7, "hi": 0.9, "learnt": True}
        for train in ("entity", "logical")
        for test in ("entity", "logical")
    ]
    pl.DataFrame(crossed, schema=TRANSFER_SCHEMA).write_parquet(folder / "transfer.parquet")


def test_detectors_judge_single_texts(tmp_path):
    folder = make_texts(tmp_path / "run")
    assert "Detectors show whether a text can be recognised as false" in text_of(folder)
    detected(folder)
    text = text_of(folder)
    assert "Can a text be recognised as false?" in text
    assert "A detector on SAE features reaches AUROC 0.80 (0.70 to 0.90) for single texts" in text


def test_features_that_differ_are_named_by_layer(tmp_path):
    text = text_of(make_texts(tmp_path / "run"))
    assert "Features most different between true and false texts" in text
    # Feature 0 of the made-up runs fires in false texts alone.
    assert re.search(
        r"Layer 2: \d+ of \d+ tested features differ \(q &lt; 0.05\) feature true false g q 0\* 0 % 100 %", text
    )
    assert "1 ghost feature (in 5 or more false texts, in no true text); with labels drawn at random: " in text
    assert "Features most different" not in text_of(make_texts(tmp_path / "one", labels=(True,)))


def test_a_run_is_closed_with_statistics_ladder_and_detectors_of_its_texts(tmp_path):
    folder = make_texts(tmp_path / "run", 120, said=("one", "two", "three"), stats=False)
    text = text_of(folder)
    assert "What each control leaves of an effect" in text
    assert "Can a text be recognised as false?" in text
    rows = pl.read_parquet(folder / "stats.parquet").filter(metric="entropy", scope="pooled")
    assert rows["verdict"].to_list() == ["separates"]
    assert f"strongest over all texts: entropy (g {rows['g'][0]:+.2f}" in text


@pytest.mark.thorough
def test_all_charts_and_figures_of_texts_are_valid_and_say_nothing_of_pairs(tmp_path):
    folder = make_texts(tmp_path / "run", sweep=True)
    detected(folder)
    contents = read_contents(folder)
    for spec in page_data(contents)["specs"].values():
        alt.Chart.from_dict({**spec, "config": charts.CONFIG}, validate=True)
    drawn = {name: spec for name, spec in figures(contents).items() if spec is not None}
    assert set(drawn) == {"dashboard", "effects", "heatmaps", "scatters", "stability", "detectors", "transfer"}
    for spec in drawn.values():
        alt.Chart.from_dict(figure(spec), validate=True)
    for path in write_report(folder, figures=True).figures:
        if path.suffix == ".svg":
            assert not OF_PAIRS.search(re.sub(r"<[^>]*>", " ", path.read_text())), path


# ---- the page in a browser


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Path:
    folder = make_texts(tmp_path_factory.mktemp("runs") / "run", 70, said=STRANGE, sweep=True)
    detected(folder)
    return write_report(folder).path


@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.thorough), 390])
@pytest.mark.parametrize("dark", [False, pytest.param(True, marks=pytest.mark.thorough)], ids=["light", "dark"])
def test_it_opens_without_a_complaint_and_never_speaks_of_pairs(browser, opened, width, dark):
    browser.open(opened, width, dark=dark)
    assert browser.complaints == []
    assert browser.requests == [opened.resolve().as_uri()]
    assert browser.run("window.hacked") is None
    assert browser.run("document.documentElement.scrollWidth") <= width
    drawn = browser.run(
        "[...document.querySelectorAll('.chart')].map(chart => chart.querySelectorAll('svg path').length)"
    )
    assert len(drawn) == 10 and min(drawn) > 2
    said = browser.run(
        "[document.body.innerText, ...[...document.querySelectorAll('[aria-label], [title]')]"
        ".flatMap((node) => [node.getAttribute('aria-label'), node.getAttribute('title')])].join('\\n')"
    )
    assert not OF_PAIRS.search(said), OF_PAIRS.search(said)


def test_a_point_for_each_text_and_a_mean_for_each_label_and_domain(browser, opened):
    browser.open(opened)
    marks = [f"document.querySelectorAll('#scatter svg .layer_{layer}_marks path').length" for layer in (0, 1)]
    assert [browser.run(mark) for mark in marks] == [69, 6]


def test_texts_are_found_sorted_and_opened_beside_the_others_of_their_domain(browser, opened):
    browser.open(opened)
    heads = browser.run("[...document.querySelectorAll('#pair-table th')].map(head => head.dataset.key)")
    assert heads == ["id", "domain", "label", "prompt", "completion", "tokens", "value", "carried"]
    browser.run(
        "(() => { const box = document.getElementById('search'); box.value = 'false book 33'; "
        "box.dispatchEvent(new Event('input')); })()"
    )
    (row,) = browser.run(ROWS)
    assert (row[0], row[2]) == ("text-00033", "false")
    assert browser.run("document.getElementById('found').textContent") == "1 of 70 texts"
    browser.run("document.querySelector('#pair-table .open').click()")
    text = browser.run(f"{STORY}.innerText")
    metrics = pl.read_parquet(opened.parent / "metrics.parquet")
    others = metrics.filter(pl.col("text_id") != "text-00033", domain=metrics["domain"][33])
    true, false = (others.filter(label=label)["entropy"].drop_nulls() for label in (True, False))
    own = metrics["entropy"][33]
    below = " / ".join(percent((values < own).mean()) for values in (true, false))
    line = next(line for line in text.splitlines() if line.startswith("entropy"))
    name, *numbers, share = line.split("\t")
    assert [float(number) for number in numbers] == pytest.approx([own, true.mean(), false.mean()], rel=2e-3)
    assert share == below
    assert f"Beside the {len(true)} other true and {others.filter(label=False).height} other false texts" in text
    for words in ("false text", "read at", "source: book 33", "Layer 5", "Index and activation."):
        assert words in text
    assert not OF_PAIRS.search(text.replace("score_fact", "").replace("score_hall", ""))
    assert browser.run(f"{STORY}.querySelectorAll('script, img').length") == 0
    assert browser.complaints == []


@pytest.mark.thorough
def test_a_cell_of_the_verdicts_of_texts_opens_its_numbers(browser, opened):
    browser.open(opened)
    browser.run("document.querySelector('.cell.separates').click()")
    text = browser.run(f"{STORY}.innerText")
    for words in ("true texts\t35", "false texts\t35", "g\t+1.23", "g at equal lengths\t+1.18", "mean of false texts"):
        assert words in text
    assert not OF_PAIRS.search(text)


@pytest.mark.thorough
def test_statements_of_one_domain_and_names_that_every_object_has(browser, tmp_path):
    browser.open(write_report(make_texts(tmp_path / "one", domains=("all",), prompts=False)).path)
    heads = browser.run("[...document.querySelectorAll('#pair-table th')].map(head => head.dataset.key)")
    assert heads == ["id", "domain", "label", "text", "tokens", "value", "carried"]
    browser.run("document.querySelector('#pair-table .open').click()")
    said = browser.run(f"{STORY}.innerText")
    assert re.search("29 other true and 30 other false texts: their|30 other true and 29 other false", said)
    browser.open(write_report(make_texts(tmp_path / "keys", 120, domains=OBJECT_KEYS)).path)
    shown = browser.run("[...document.querySelectorAll('#scatter svg text')].map(text => text.textContent.trim())")
    assert set(OBJECT_KEYS) <= set(shown)
    assert browser.complaints == []
