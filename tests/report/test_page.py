"""report.html: what it says, that it needs nothing else, that no text in it can act, and that it stays usable."""

from __future__ import annotations

import json
import logging
import re
import struct
import time
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import altair as alt
import polars as pl
import pytest

import bluffscope.report.write
from bluffscope.api import run
from bluffscope.cli.main import main
from bluffscope.errors import InputError, RunFolderError
from bluffscope.report import charts, story
from bluffscope.report.contents import read_contents
from bluffscope.report.figures import figures
from bluffscope.report.page import page_data, render_page
from bluffscope.report.panels import figure
from bluffscope.report.result_files import STATS_VERSION, current_statistics
from bluffscope.report.write import write_report
from made_runs import DOMAINS, OBJECT_KEYS, STRANGE, UNSOUND, data_of, make_run, sweep_and_carry


class Parsed(HTMLParser):
    """The page as a browser reads it: text, scripts, attributes."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.words: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self._inside: str | None = None
        self.source = page.decode()
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        self._inside = tag if tag in ("script", "style") else self._inside
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            attributes, content = self.scripts[-1]
            self.scripts[-1] = (attributes, content + data)
        elif self._inside is None:
            self.words.append(data)

    @property
    def data(self) -> dict:
        """What the page's script is given."""
        return data_of(self.source)


def page_of(folder: Path) -> Parsed:
    return Parsed(write_report(folder).path.read_bytes())


@pytest.mark.thorough
def test_the_page_opens_with_the_negative_answer_where_there_is_no_other(tmp_path):
    page = page_of(make_run(tmp_path / "run"))
    opening = page.text.index("Does anything separate fact from hallucination?")
    assert page.text[opening:].startswith(
        "Does anything separate fact from hallucination? No single metric is shown to tell facts from hallucinations: "
    )
    assert "Nothing separates fact from hallucination at equal lengths: 5 metrics tested" in page.text


def test_a_planted_effect_leads_and_every_verdict_is_in_the_table(tmp_path):
    folder = make_run(tmp_path / "run", 90, effect=1.5)
    page = page_of(folder)
    assert "separate fact from hallucination at equal lengths" in page.text
    assert "strongest over all pairs: entropy" in page.text
    rows = pl.read_parquet(folder / "stats.parquet")
    cells = [value for tag, name, value in page.attributes if (tag, name) == ("button", "aria-label")]
    found = [cell.partition(",")[0] for cell in cells if "d_z" in cell]
    assert sorted(found) == sorted(rows["verdict"].to_list())
    assert page.data["first"] == "entropy"
    assert page.data["stats"]["verdict"] == rows["verdict"].to_list()


@pytest.mark.thorough
def test_a_failed_health_gate_withholds_the_verdicts_and_says_why(tmp_path):
    folder = make_run(tmp_path / "run", 90, effect=1.5, manifest={"health": UNSOUND})
    page = page_of(folder)
    assert set(pl.read_parquet(folder / "stats.parquet")["verdict"]) == {"withheld"}
    withheld = "No verdict, because the measurement is not sound: mean L0 of layer 2 is 5 times the published one. The "
    assert withheld in page.text
    assert "separate fact from hallucination at" not in page.text
    assert "Verdicts by metric and domain" not in page.text
    assert "The features are wrong. Compare the model's revision." in page.text
    # Statistics of before the gate, or of a run that was judged otherwise, do not bring the verdicts back.
    rows = pl.read_parquet(folder / "stats.parquet")
    rows.with_columns(verdict=pl.lit("separates")).write_parquet(folder / "stats.parquet")
    assert withheld in page_of(folder).text


@pytest.mark.thorough
def test_verdicts_that_were_asked_for_all_the_same_stand_below_a_banner(tmp_path):
    allowed = UNSOUND | {"allowed": True}
    page = page_of(make_run(tmp_path / "run", 90, effect=1.5, manifest={"health": allowed}))
    assert "The health gate failed: mean L0 of layer 2 is 5 times the published one. The verdicts below" in page.text
    assert "separate fact from hallucination at" in page.text
    assert "Verdicts by metric and domain" in page.text


@pytest.mark.thorough
def test_a_warning_of_a_healthy_run_is_a_doubt_and_a_clean_bill_is_said(tmp_path):
    warning = {"check": "norms", "severity": "warning", "message": "Norms are large."}
    health = {"status": "healthy", "allowed": False, "findings": [warning]}
    page = page_of(make_run(tmp_path / "run", manifest={"health": health}))
    assert "warning Norms are large." in page.text
    assert "health gate failed" not in page.text
    page = page_of(make_run(tmp_path / "clean", manifest={"health": health | {"findings": []}}))
    assert "The run passed its health gate, the linter found nothing wrong" in page.text


@pytest.mark.thorough
def test_what_could_make_it_wrong_names_lint_quarantine_and_precision(tmp_path):
    finding = {
        "severity": "warning",
        "code": "same-last-word",
        "message": "3 pairs end in <b>one</b> word.",
        "pairs": ["p1"],
    }
    folder = make_run(tmp_path / "run", manifest={"lint": {"findings": [finding]}, "dtype": "bfloat16"})
    gone = {"pair_id": ["lost"], "prompt": ["x"], "fact": ["y"], "hallucination": ["z"], "reason": ["too long"]}
    pl.DataFrame(gone).write_parquet(folder / "quarantine.parquet")
    page = page_of(folder)
    for words in ("3 pairs end in <b>one</b> word.", "1 pair could not be measured", "too long", "lost", "bfloat16"):
        assert words in page.text
    assert "found nothing wrong" not in page.text
    clean = page_of(make_run(tmp_path / "clean"))
    assert "The linter found nothing wrong with the pairs, and no pair was left out." in clean.text


def test_the_page_fetches_nothing_and_names_the_only_scripts_that_may_run(tmp_path):
    page = page_of(make_run(tmp_path / "run", optional=True))
    assert not [(tag, name) for tag, name, _ in page.attributes if name in ("src", "srcset", "action", "data")]
    links = {value for _, name, value in page.attributes if name == "href"}
    assert {link for link in links if not link.startswith("#")} == {"data:,"} | {
        link for link in links if link.startswith("https://neuronpedia.org/gemma-2-2b/2-res/")
    }
    policy = next(
        value for tag, name, value in page.attributes if tag == "meta" and name == "content" and "default" in value
    )
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.partition("style-src")[0]
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_texts_of_every_kind_are_text_and_come_back_whole(tmp_path):
    page = page_of(make_run(tmp_path / "run", texts=STRANGE))
    # The bundle, the page's own script and the data: no text has become an element.
    assert len(page.scripts) == 3
    assert "img" not in {tag for tag, _, _ in page.attributes}
    pairs = page.data["pairs"]
    assert pairs["prompt"][: len(STRANGE)] == list(STRANGE)
    assert set(pairs["fact"]) == set(pairs["hallucination"]) == set(STRANGE)
    assert pairs["cut"] is None


@pytest.mark.thorough
def test_strange_domains_names_and_reasons_are_escaped_too(tmp_path):
    folder = make_run(tmp_path / "run", manifest={"model": {"name": "<script>window.hacked = 4</script>"}})
    metrics = pl.read_parquet(folder / "metrics.parquet")
    strange = pl.Series([STRANGE[i % 4] for i in range(metrics.height)])
    metrics = metrics.with_columns(domain=strange)
    metrics.write_parquet(folder / "metrics.parquet", metadata={"schema_version": "1"})
    page = page_of(folder)
    assert len(page.scripts) == 3
    assert "<script>window.hacked = 4</script>" in page.text
    assert "<img src=x onerror='w" in page.text


def test_the_data_of_the_page_are_those_of_the_run(tmp_path):
    folder = make_run(tmp_path / "run", optional=True)
    data = page_of(folder).data
    metrics = pl.read_parquet(folder / "metrics.parquet")
    entropy = next(metric for metric in data["metrics"] if metric["name"] == "entropy")
    assert entropy["fact"][3] is None
    assert entropy["hall"] == pytest.approx(metrics["entropy_hall"].to_list(), rel=1e-3)
    assert entropy["doc"].startswith("Entropy of the top-50 active magnitudes")
    assert data["pairs"]["tokens"]["hall_tokens"] == metrics["hall_tokens"].to_list()
    assert data["pairs"]["carried"]["source"][5] == "book 5"
    features = pl.read_parquet(folder / "features.parquet").filter(pair_id="pair-00007", layer=5)
    sides = [
        features.filter(view=view).select("feature", pl.col("activation").cast(pl.Float64).alias(view))
        for view in ("fact", "hall")
    ]
    moved = sides[0].join(sides[1], on="feature", how="full", coalesce=True).fill_null(0)
    moved = moved.sort((pl.col("hall") - pl.col("fact")).abs(), descending=True).head(story.MOST_FEATURES)
    told = data["features"]["pairs"][7][data["features"]["layers"].index(5)]
    assert told[::3] == moved["feature"].to_list()
    assert told[1::3] == pytest.approx(moved["fact"].to_list(), rel=0.01)
    assert told[2::3] == pytest.approx(moved["hall"].to_list(), rel=0.01)
    dose = pl.DataFrame(data["dose"])
    assert set(dose["scope"]) == {"pooled", *DOMAINS}
    row = dose.filter(scope="logical", view="fact", s=0.3).row(0, named=True)
    values = metrics.filter(domain="logical")["stability_s0.3_fact"]
    assert row["mean"] == pytest.approx(values.mean(), rel=1e-3)
    assert row["hi"] - row["mean"] == pytest.approx(1.96 * values.std() / len(values) ** 0.5, rel=0.01)


@pytest.mark.thorough
def test_features_link_to_neuronpedia_only_where_the_sae_names_a_page(tmp_path):
    page = page_of(make_run(tmp_path / "run"))
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href") and "feature/" in value]
    assert "#feature/2/0" in links  # fires in hallucinations alone
    assert page.data["neuronpedia"] == {"2": "https://neuronpedia.org/gemma-2-2b/2-res"}
    assert not [value for _, _, value in page.attributes if value and value.startswith("javascript")]


@pytest.mark.thorough
def test_sections_whose_numbers_are_not_there_are_left_out(tmp_path):
    ids = {value for _, name, value in page_of(make_run(tmp_path / "bare")).attributes if name == "id"}
    full = {value for _, name, value in page_of(make_run(tmp_path / "full", optional=True)).attributes if name == "id"}
    assert full - ids == {"dose", "dose-note"}


@pytest.mark.thorough
def test_the_answer_compares_a_detector_with_length_and_text_alone(tmp_path):
    folder = make_run(tmp_path / "run")
    page = page_of(folder)
    # Feature 0 of the made-up runs fires in hallucinations alone.
    assert re.search(
        r"A detector on SAE features reaches AUROC [01]\.\d\d \([01]\.\d\d to [01]\.\d\d\) for single texts; "
        r"length or completion text alone, 0\.\d\d\. Gain: \+0\.\d\d \(\+0\.\d\d to \+0\.\d\d\)\.",
        page.text,
    )
    rows = pl.read_parquet(folder / "detectors.parquet").with_columns(gain_lo=pl.lit(-0.01))
    rows.write_parquet(folder / "detectors.parquet")
    assert "not shown to be above 0." in page_of(folder).text


def test_a_long_run_is_closed_without_detectors_and_the_page_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr("bluffscope.detectors.evaluate.CLOSING_PAIRS", 50)
    folder = make_run(tmp_path / "a run")
    page = page_of(folder)
    assert not (folder / "detectors.parquet").exists()
    assert "bluffscope stats 'a run' --detectors bluffscope report 'a run'" in page.text
    assert "AUROC" not in page.text


@pytest.mark.thorough
def test_the_commands_that_repeat_the_page_have_the_choices_of_its_statistics(tmp_path):
    folder = make_run(tmp_path / "run")
    page_of(folder)
    about = json.loads((folder / "stats.json").read_text())
    (folder / "stats.json").write_text(json.dumps(about | {"by": ["a b"], "family": "all", "seed": 4}))
    assert "bluffscope stats run --by 'a b' --family all --seed 4 --detectors" in page_of(folder).text


@pytest.mark.thorough
def test_statistics_that_are_there_are_shown_and_not_computed_again(tmp_path):
    folder = make_run(tmp_path / "run")
    write_report(folder)
    file = folder / "stats.parquet"
    known = {name: text for name, text in pl.read_parquet_metadata(file).items() if "ARROW" not in name}
    assert known["stats_version"] == str(STATS_VERSION)
    rows = pl.read_parquet(file)
    changed = rows.with_columns(verdict=pl.lit("equivalent"))
    changed.write_parquet(file, metadata=known)
    assert set(page_of(folder).data["stats"]["verdict"]) == {"equivalent"}
    assert pl.read_parquet(file).equals(changed)


@pytest.mark.parametrize("version", [pytest.param(None, marks=pytest.mark.thorough), "1"])
@pytest.mark.thorough
def test_statistics_of_an_earlier_version_are_judged_anew(tmp_path, version):
    folder = make_run(tmp_path / "run")
    write_report(folder)
    file = folder / "stats.parquet"
    rows = pl.read_parquet(file)
    earlier = rows.select("metric", "scope", "n", "dz").with_columns(verdict=pl.lit("equivalent"))
    earlier.write_parquet(file, metadata={"stats_version": version} if version else None)
    assert not current_statistics(folder)
    page = page_of(folder)
    assert current_statistics(folder)
    assert pl.read_parquet(file).equals(rows)
    assert page.data["stats"]["verdict"] == rows["verdict"].to_list()
    file.unlink()
    assert not current_statistics(folder)


def test_a_run_without_anything_to_test_is_reported_and_says_so(tmp_path, caplog):
    folder = make_run(tmp_path / "run")
    metrics = pl.read_parquet(folder / "metrics.parquet")
    bare = metrics.select("pair_id", "domain", "group")
    bare.write_parquet(folder / "metrics.parquet", metadata={"schema_version": "1"})
    with caplog.at_level(logging.WARNING):
        page = page_of(folder)
    assert "no statistics: " in caplog.text
    assert "No effect was tested: there is no stats.parquet." in page.text
    metrics.head(0).write_parquet(folder / "metrics.parquet", metadata={"schema_version": "1"})
    assert "0 pairs" in page_of(folder).text


@pytest.mark.thorough
def test_ten_thousand_pairs_with_long_texts_stay_within_a_browsers_reach(tmp_path):
    folder = make_run(tmp_path / "run", 10_000, texts=(*STRANGE, "short"), features=60)
    contents = read_contents(folder)
    page = render_page(contents)
    assert len(page) < 6_000_000
    data = page_data(contents)
    cut = data["pairs"]["cut"]
    assert story.SHORTEST_CUT <= cut < 10_000
    assert max(map(len, data["pairs"]["fact"])) == cut
    assert "short" in data["pairs"]["fact"]
    assert (
        sum(len(text) for view in ("prompt", "fact", "hallucination") for text in data["pairs"][view])
        <= story.TEXT_BUDGET
    )
    assert 1 <= data["features"]["most"] <= story.MOST_FEATURES


@pytest.mark.thorough
def test_all_charts_are_valid_vega_lite(tmp_path):
    folder = make_run(tmp_path / "run", optional=True)
    write_report(folder)
    sweep_and_carry(folder)
    contents = read_contents(folder)
    for spec in page_data(contents)["specs"].values():
        alt.Chart.from_dict({**spec, "config": charts.CONFIG}, validate=True)
    drawn = figures(contents)
    names = ["dashboard", "effects", "heatmaps", "scatters", "stability", "ladder", "detectors", "transfer"]
    names += ["reliability", "risk_coverage", "sweep", "transfer_matrix"]
    assert [name for name, spec in drawn.items() if spec is not None] == names
    for spec in drawn.values():
        alt.Chart.from_dict(figure(spec), validate=True)


@pytest.mark.thorough
def test_figures_are_sharp_png_and_svg_that_name_what_they_show_and_the_command_says_where(tmp_path, capsys):
    folder = make_run(tmp_path / "run", effect=1.0)
    assert main(["report", str(folder), "--figures"]) == 0
    *said, figures, page = capsys.readouterr().out.splitlines()
    sentence = re.search(r"Hallucinations differ .* separate them\.", " ".join(said))[0]
    written = list((folder / "figures").iterdir())
    assert sentence in Parsed((folder / "report.html").read_bytes()).text
    assert figures == f"Figures: {folder / 'figures'} ({len(written)} files)"
    assert page == f"Report: {folder / 'report.html'}"
    assert {path.name for path in written} == {
        f"{name}.{kind}"
        for name in (
            *("dashboard", "effects", "heatmaps", "ladder", "scatters"),
            *("detectors", "transfer", "reliability", "risk_coverage"),
        )
        for kind in ("png", "svg")
    }
    for path in written:
        content = path.read_bytes()
        if path.suffix == ".png":
            assert struct.unpack(">II", content[16:24])[0] > 1200, path
    text = "".join(ET.fromstring((folder / "figures" / "effects.svg").read_bytes()).itertext())
    assert "Effect sizes over all pairs" in text
    assert "entropy" in text


@pytest.mark.thorough
def test_the_report_tells_each_step_as_it_begins_and_draws_figures_only_when_asked(tmp_path):
    folder = make_run(tmp_path / "run")
    steps: list[str] = []
    report = write_report(folder, tell=steps.append)
    assert steps == [
        "Report: testing effects",
        "Report: fitting detectors",
        "Report: testing features",
        "Report: writing the page",
    ]
    assert report.figures == () and not (folder / "figures").exists()
    steps.clear()
    write_report(folder, tell=steps.append)
    assert steps == ["Report: testing features", "Report: writing the page"]


@pytest.mark.thorough
def test_the_page_gives_the_total_time_that_the_terminal_is_given(tmp_path):
    folder = make_run(tmp_path / "run", manifest={"fidelity": {"seconds": 0.5}})
    report = write_report(folder, started=time.perf_counter() - 100)
    text = Parsed(report.path.read_bytes()).text
    assert f"Speed {report.seconds:.1f} s in total" in text
    assert report.seconds > 100
    stages = re.search(r"fidelity (\S+) report (\S+)", text)
    # The run took 4.0 s by its manifest.
    assert 4.0 + float(stages[1]) + float(stages[2]) == pytest.approx(report.seconds, abs=0.02)
    again = write_report(folder)
    assert 4.0 < again.seconds < 100


@pytest.mark.thorough
def test_figures_of_what_is_no_longer_there_are_removed(tmp_path):
    folder = make_run(tmp_path / "run")
    write_report(folder, figures=True)
    (folder / "figures" / "mine.png").touch()
    (folder / "detectors.parquet").unlink()
    left = {path.name for path in write_report(folder, figures=True).figures}
    assert "detectors.png" not in left
    assert {path.name for path in (folder / "figures").iterdir()} == left | {"mine.png"}


@pytest.mark.thorough
def test_a_folder_that_is_no_run_is_refused_and_one_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="holds no run"):
        write_report(tmp_path)
    folder = make_run(tmp_path / "run")
    (folder / "report.html").mkdir()
    with pytest.raises(RunFolderError, match="cannot write .*report.html"):
        write_report(folder)
    (folder / "report.html").rmdir()
    (folder / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="manifest.json is damaged"):
        write_report(folder)


def test_a_report_that_cannot_be_made_does_not_lose_the_run(
    tiny_model, tiny_saes, pairs_file, tmp_path, monkeypatch, caplog
):
    from bluffscope.api import config_from

    def fails(contents, total):
        raise ValueError("no such mark")

    monkeypatch.setattr(bluffscope.report.write, "render_page", fails)
    config = config_from(model=tiny_model, sae=tiny_saes, data=str(pairs_file), out=tmp_path / "run")
    with caplog.at_level(logging.WARNING):
        result = run(config)
    assert result.report is None
    assert "the run is complete, but not its report: no such mark; `bluffscope report" in caplog.text
    assert result.metrics().height == 5
    monkeypatch.undo()
    assert write_report(tmp_path / "run").path.exists()


def test_templates_travel_with_the_package():
    folder = Path(bluffscope.report.write.__file__).with_name("templates")
    assert {path.name for path in folder.iterdir()} == {
        *("report.html.j2", "first_screen.html.j2", "transfer.html.j2", "transfer_table.html.j2", "report.css"),
        *("report.js", "stories.js", "items.js", "start.js"),
    }


@pytest.mark.thorough
def test_figures_of_strange_names_are_drawn(tmp_path):
    folder = make_run(tmp_path / "run")
    metrics = pl.read_parquet(folder / "metrics.parquet")
    metrics = metrics.with_columns(domain=pl.Series([STRANGE[i % 5] for i in range(metrics.height)]))
    metrics = metrics.rename({"entropy_fact": "a\x00<b>_fact", "entropy_hall": "a\x00<b>_hall"})
    metrics.write_parquet(folder / "metrics.parquet", metadata={"schema_version": "1"})
    assert len(write_report(folder, figures=True).figures) == 18


@pytest.mark.thorough
def test_figures_of_names_that_every_object_has_show_them_like_any_other(tmp_path):
    folder = make_run(tmp_path / "run", 120, domains=OBJECT_KEYS, optional=True)
    metrics = pl.read_parquet(folder / "metrics.parquet")
    renamed = {f"entropy_{side}": f"__proto___{side}" for side in ("fact", "hall")}
    renamed |= {f"l2_{side}_gini": f"l2_{side}_constructor" for side in ("fact", "hall")}
    metrics.rename(renamed).write_parquet(folder / "metrics.parquet", metadata={"schema_version": "1"})
    drawn = {
        path.name: path.read_text() for path in write_report(folder, figures=True).figures if path.suffix == ".svg"
    }
    for name in ("dashboard.svg", "heatmaps.svg", "scatters.svg", "transfer.svg"):
        shown = {text.text for text in ET.fromstring(drawn[name]).iter() if text.text}
        assert set(OBJECT_KEYS) <= shown, name
    assert "__proto__" in drawn["effects.svg"]
