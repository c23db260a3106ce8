"""The page in a headless Chromium: nothing fetched, nothing complained of, everything that can be pressed works."""

from __future__ import annotations

import csv
import io
import random
import xml.etree.ElementTree as ET
from pathlib import Path

import polars as pl
import pytest

from bluffscope.report.write import write_report
from fuzzing.values import LONG, SEED, TEXTS
from made_runs import OBJECT_KEYS, STRANGE, make_run, sweep_and_carry

STORY = "document.getElementById('story')"
ROWS = "[...document.querySelectorAll('#pair-table tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A report with every section, and texts that try to act."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "run", 70, effect=1.2, texts=STRANGE, optional=True)
    sweep_and_carry(folder, ["constructor", STRANGE[1]])
    return write_report(folder).path


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_opens_without_a_complaint_a_request_or_a_script_of_the_texts(browser, page, width, dark):
    browser.open(page, width, dark=dark)
    assert browser.complaints == []
    assert browser.requests == [page.resolve().as_uri()]
    assert browser.run("window.hacked") is None
    # Only what scrolls on its own may be wider than the window.
    assert browser.run("document.documentElement.scrollWidth") <= width
    charts = browser.run(
        "[...document.querySelectorAll('.chart')].map(chart => chart.querySelectorAll('svg path').length)"
    )
    assert len(charts) == 15
    assert min(charts) > 2
    ink = "getComputedStyle(document.body).color"
    paper = "getComputedStyle(document.body).backgroundColor"
    light = ("rgb(26, 29, 33)", "rgb(255, 255, 255)")
    assert ((browser.run(ink), browser.run(paper)) == light) is not dark


def searched(browser, words: str) -> list[list[str]]:
    browser.run(
        "((words) => { const box = document.getElementById('search'); box.value = words; "
        f"box.dispatchEvent(new Event('input')); }})({words!r})"
    )
    return browser.run(ROWS)


def test_search_finds_texts_ids_and_carried_columns(browser, page):
    browser.open(page)
    assert [row[0] for row in searched(browser, "PAIR-00012")] == ["pair-00012"]
    assert [row[0] for row in searched(browser, "book 33")] == ["pair-00033"]
    assert searched(browser, "nowhere to be found") == []
    assert browser.run("document.getElementById('found').textContent") == "0 of 70 pairs"


def test_sorting_goes_both_ways_with_undefined_values_last_and_pages_turn(browser, page):
    browser.open(page)
    press = "document.querySelector('[data-key=\"value, fact\"] button').click()"
    browser.run(press)
    up = browser.run(ROWS)
    values = [float(row[5]) for row in up]
    assert values == sorted(values)
    assert len(up) == 10
    browser.run(press)
    assert browser.run("document.querySelector('[data-key=\"value, fact\"]').getAttribute('aria-sort')") == "descending"
    down = [float(row[5]) for row in browser.run(ROWS)]
    assert down == sorted(down, reverse=True)
    for _ in range(6):
        browser.run("document.getElementById('next').click()")
    rest = browser.run(ROWS)
    assert len(rest) == 10
    assert (rest[-1][0], rest[-1][5]) == ("pair-00003", "-")
    assert browser.run("document.getElementById('page').textContent") == "page 7 of 7"


def test_the_largest_difference_comes_first(browser, page):
    browser.open(page)
    differences = [abs(float(row[7])) for row in browser.run(ROWS)]
    assert differences == sorted(differences, reverse=True)
    assert len(differences) == 10


def chosen(browser, name: str, value: str) -> None:
    browser.run(
        f"(() => {{ const box = document.getElementById({name!r}); box.value = {value!r}; "
        "box.dispatchEvent(new Event('change')); })()"
    )


def test_what_is_chosen_in_the_list_stays_in_the_link(browser, page):
    browser.open(page)
    searched(browser, "pair")
    chosen(browser, "pair-scope", "temporal")
    chosen(browser, "pair-side", "up")
    chosen(browser, "pair-metric", "l5_gini")
    browser.run("document.querySelector('[data-key=\"difference\"] button').click()")
    browser.run("document.getElementById('next').click()")
    rows, link = browser.run(ROWS), browser.run("location.hash")
    assert {row[1] for row in rows} == {"temporal"}
    assert all(float(row[7]) > 0 for row in rows)
    browser.open(page)
    browser.run(f"location.hash = {link!r}")
    browser.wait("document.getElementById('page').textContent.startsWith('page 2')")
    assert browser.run(ROWS) == rows
    assert browser.run("document.getElementById('search').value") == "pair"


def test_a_link_to_a_pair_opens_it_and_closing_it_leads_back(browser, page):
    browser.open(page)
    browser.run("location.hash = '#pair/pair-00012'")
    browser.wait(f"{STORY}.open")
    text = browser.run(f"{STORY}.textContent")
    for words in ("pair-00012", "By layer", "Features that moved", "Layer 5"):
        assert words in text
    browser.wait(f"{STORY}.querySelectorAll('.chart svg path').length > 2")
    browser.run(f"{STORY}.close()")
    browser.wait("location.hash === ''")
    browser.run("location.hash = '#pair/nowhere'")
    browser.wait(f"{STORY}.textContent.includes('This page holds no pair of that name')")
    browser.run(f"{STORY}.close()")
    assert browser.complaints == []


def test_a_link_to_a_feature_opens_its_part_of_the_page(browser, page):
    browser.open(page)
    browser.run("location.hash = '#feature/2/0'")
    browser.wait(f"{STORY}.open && {STORY}.querySelectorAll('.chart svg path').length > 2")
    text = browser.run(f"{STORY}.textContent")
    for words in (
        "Feature 0, layer 2",
        "Fires in 0 % of facts",
        "Fires most in",
        "By scope",
        "temporal",
        "Neuronpedia",
    ):
        assert words in text
    assert browser.run(f"{STORY}.querySelectorAll('.fires li.hall').length") == 5
    browser.run(f"{STORY}.querySelector('.fires a').click()")
    browser.wait(f"{STORY}.textContent.includes('Features that moved')")
    assert browser.complaints == []


def test_a_pair_is_a_card_on_a_phone(browser, page):
    browser.open(page, 390, 844)
    cell = "document.querySelector('#pair-table tbody td:nth-child(4)')"
    assert browser.run(f"getComputedStyle({cell}).display") == "block"
    assert browser.run(f"getComputedStyle({cell}, '::before').content") == '"fact: "'
    assert browser.run("getComputedStyle(document.querySelector('#pair-table thead')).display") == "none"


def test_tables_of_many_buttons_are_one_stop_of_the_keyboard(browser, page):
    browser.open(page)
    stops = "[...document.querySelectorAll('a, button, input, select, summary, [tabindex]')]"
    stops = f"{stops}.filter(one => one.tabIndex >= 0 && one.checkVisibility())"
    assert browser.run(f"{stops}.filter(one => !one.matches('.save > summary')).length") < 75
    assert browser.run(f"{stops}.filter(one => one.matches('.save > summary')).length") <= 15  # one a chart
    cells = "[...document.querySelectorAll('.verdicts summary, .verdicts .cell')]"
    assert browser.run(f"{cells}.filter(one => one.tabIndex >= 0).length") == 1
    browser.run(f"{cells}[0].focus()")
    for key in ("ArrowRight", "ArrowDown"):
        browser.ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=key)
    assert browser.run("document.activeElement.className").startswith("cell ")
    assert browser.run(f"{cells}.filter(one => one.tabIndex >= 0).length") == 1


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_has_no_serious_finding(browser, page, width, dark):
    axe = pytest.importorskip("axe_core_python", reason="axe-core-python is among the packages of [dev]")
    browser.open(page, width, dark=dark)
    browser.run(f"{(Path(axe.__file__).parent / 'axe.min.js').read_text('utf-8')};1")
    browser.run("document.querySelector('#pair-table .open').click()")
    browser.wait(f"{STORY}.open && {STORY}.querySelectorAll('.chart svg path').length > 2")
    found = "found => found.violations.map(one => [one.id, one.impact])"
    audit = f"axe.run(document, {{resultTypes: ['violations']}}).then({found})"
    for closed in (False, True):
        if closed:
            browser.run(f"{STORY}.close()")
        assert [one for one in browser.run(audit) if one[1] in ("serious", "critical")] == []


def test_a_pair_opens_by_keyboard_with_its_whole_story_and_closes(browser, page):
    browser.open(page)
    searched(browser, "pair-00000")
    browser.run("document.querySelector('#pair-table .open').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.ask("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    browser.wait(f"{STORY}.open")
    text = browser.run(f"{STORY}.textContent")
    for words in ("pair-00000", STRANGE[0], STRANGE[1], "read at", "source: book 0", "entropy", "Layer 5", "book 0"):
        assert words in text
    assert browser.run(f"{STORY}.querySelectorAll('script, img').length") == 0
    assert browser.run("window.hacked") is None
    for kind in ("keyDown", "keyUp"):
        browser.ask("Input.dispatchKeyEvent", type=kind, key="Escape", code="Escape", windowsVirtualKeyCode=27)
    browser.wait(f"!{STORY}.open")
    assert browser.complaints == []


@pytest.mark.parametrize("press", ["#pair-table .open", ".cell.separates"])
def test_what_opens_on_a_phone_is_no_wider_than_the_phone(browser, page, press):
    browser.open(page, 390, 844)
    browser.run(f"document.querySelector('{press}').click()")
    browser.run(
        f"{STORY}.querySelectorAll('th').forEach((head) => head.append('_\u200bwith_\u200ba_\u200blonger_\u200bname'))"
    )
    assert browser.run(f"{STORY}.scrollWidth - {STORY}.clientWidth") == 0


def test_a_cell_of_the_verdicts_opens_its_numbers(browser, page):
    browser.open(page)
    browser.run("document.querySelector('.cell.separates').click()")
    text = browser.run(f"{STORY}.textContent")
    for words in ("entropy", "separates", "q", "d_z at equal lengths", "Entropy of the top-50"):
        assert words in text


def test_the_theme_can_be_turned_and_paper_is_light(browser, page):
    browser.open(page, dark=True)
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = browser.run(paper)
    browser.run("document.getElementById('theme').click()")
    assert browser.run(paper) == "rgb(255, 255, 255)"
    browser.run("document.getElementById('theme').click()")
    assert browser.run(paper) == dark
    browser.ask("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.run(paper) == "rgb(255, 255, 255)"
    browser.ask("Emulation.setEmulatedMedia", media="", features=[])


def test_choices_redraw_their_charts(browser, page):
    browser.open(page)
    browser.run(
        "(() => { const box = document.querySelector('[data-choose=scatter]'); "
        "box.value = 'l5_gini'; box.dispatchEvent(new Event('change')); })()"
    )
    browser.wait("document.getElementById('scatter-note').textContent.startsWith('Gini')")
    assert browser.complaints == []


SAVED = """(async (chart, kind) => {
    const blobs = [], names = [];
    URL.createObjectURL = (blob) => { blobs.push(blob); return "data:,"; };
    HTMLAnchorElement.prototype.click = function () { names.push(this.download); };
    const home = document.getElementById(chart);
    const below = home.parentElement.classList.contains("scroll") ? home.parentElement : home;
    const buttons = [...below.nextElementSibling.querySelectorAll("button")];
    buttons.find((one) => one.textContent === kind.toUpperCase()).click();
    while (!names.length) await new Promise((resolve) => setTimeout(resolve, 20));
    const bytes = new Uint8Array(await blobs[0].arrayBuffer());
    const text = kind === "png" ? String.fromCharCode(...bytes.slice(1, 4)) : new TextDecoder().decode(bytes);
    return [names[0], text];
})"""


def test_a_chart_is_saved_with_its_title_or_its_numbers_and_nothing_is_fetched(browser, page):
    browser.open(page)
    name, svg = browser.run(f"{SAVED}('sweep', 'svg')")
    assert name.startswith("best-at-layer-2") and name.endswith(".svg")
    drawn = " ".join(" ".join(ET.fromstring(svg).itertext()).split())
    assert "Best at layer 2: residuals, AUROC 0.70" in drawn and "SAE features" in drawn
    name, head = browser.run(f"{SAVED}('carried', 'png')")
    assert name.endswith(".png") and head == "PNG"
    for chart in ("reliability", "risk", "auroc", "carried"):
        _, text = browser.run(f"{SAVED}('{chart}', 'csv')")
        rows = list(csv.DictReader(io.StringIO(text)))
        assert len(rows) > 1 and all(len(row) == len(rows[0]) for row in rows), chart
    assert {row["train"].strip("'") for row in rows} == {"constructor", STRANGE[1]}
    assert rows[0]["train"] == "constructor" and rows[0]["auroc"] == "0.7"
    assert browser.complaints == []
    assert browser.requests[1:] == []


def test_pictures_of_detectors_say_in_words_what_they_show(browser, page):
    browser.open(page)
    label = "document.getElementById('{}').getAttribute('aria-label')"
    assert browser.run(label.format("sweep")).startswith("Best at layer 2: residuals, AUROC 0.70")
    assert "SAE features at layer 5 0.70 (0.60 to 0.80)" in browser.run(label.format("sweep"))
    assert browser.run(label.format("reliability")).startswith("SAE features: ")
    shown = "[...document.querySelectorAll('#carried svg text')].map((text) => text.textContent)"
    words = " ".join(browser.run(shown))
    assert "partly" in words and "not judged" in words
    browser.run(
        "(() => { const box = document.querySelector('[data-from=curveDetectors]'); "
        "box.value = 'length'; box.dispatchEvent(new Event('change')); })()"
    )
    browser.wait("document.getElementById('risk-title').textContent.startsWith('Length: ')")
    assert browser.complaints == []


def test_domains_and_metrics_that_every_object_has_are_like_any_other(browser, tmp_path):
    folder = make_run(tmp_path / "run", 120, effect=1.2, domains=OBJECT_KEYS, optional=True)
    metrics = pl.read_parquet(folder / "metrics.parquet")
    renamed = {f"entropy_{side}": f"__proto___{side}" for side in ("fact", "hall")}
    renamed |= {f"stability_s1_{side}": f"constructor_{side}" for side in ("fact", "hall")}
    metrics.rename(renamed).write_parquet(folder / "metrics.parquet", metadata={"schema_version": "1"})
    pairs = pl.read_parquet(folder / "pairs.parquet").rename({"source": "__proto__"})
    pairs.write_parquet(folder / "pairs.parquet")
    browser.open(write_report(folder).path)
    assert browser.complaints == []
    texts = {
        chart: browser.run(f"[...document.querySelectorAll('#{chart} svg text')].map(text => text.textContent.trim())")
        for chart in ("forest", "heat", "scatter", "transfer")
    }
    assert {"__proto__", "constructor"} <= set(texts["forest"])
    for chart in ("heat", "scatter", "transfer"):
        # Long names end in an ellipsis.
        assert {name[:9] for name in OBJECT_KEYS} <= {text[:9] for text in texts[chart]}, chart
    # A colour each, and as many points as pairs.
    marks = "#scatter svg .mark-symbol.role-mark path"
    points = f"[...document.querySelectorAll('{marks}')].map(point => point.getAttribute('fill'))"
    assert len(browser.run(points)) in (119, 120)
    assert len(set(browser.run(points))) == len(OBJECT_KEYS)
    browser.run("document.querySelector('#pair-table .open').click()")
    assert "__proto__: book " in browser.run(f"{STORY}.textContent")
    for name in OBJECT_KEYS:
        for chart in ("forest", "ladder", "dose", "auroc"):
            browser.run(
                f"(() => {{ const box = [...document.querySelectorAll('[data-choose~={chart}]')].at(-1); "
                f"box.value = '{name}'; box.dispatchEvent(new Event('change')); }})()"
            )
        assert searched(browser, f"{name} pair-")[0][1] == name
    assert browser.complaints == []


def test_ten_thousand_pairs_open_and_answer(browser, tmp_path):
    folder = make_run(tmp_path / "run", 10_000, texts=("a prompt of some words", "one", "another"))
    path = write_report(folder).path
    assert path.stat().st_size < 6_000_000
    browser.open(path)
    paint = "performance.getEntriesByType('paint').find(one => one.name === 'first-contentful-paint').startTime"
    assert browser.run(paint) < 2000
    assert len(browser.run(ROWS)) == 10
    assert [row[0] for row in searched(browser, "pair-09999")] == ["pair-09999"]
    assert len(searched(browser, "")) == 10
    note = browser.run("document.getElementById('scatter-note').textContent")
    assert note.startswith(("2,000 of 10,000 pairs, drawn at random", "2,000 of 9,999 pairs, drawn at random"))
    browser.run("document.querySelector('[data-key=\"value, fact\"] button').click()")
    values = [float(row[5]) for row in browser.run(ROWS)]
    assert len(values) == 10
    assert values == sorted(values)
    assert browser.complaints == []


def hostile_report(rng: random.Random, folder: Path) -> Path:
    """A report whose ids, domains, texts and other columns are texts that try to act, in some mixture."""
    pairs = 24
    make_run(folder, pairs, effect=1.0, features=6)
    chosen = [text.encode("utf-8", "replace").decode() for text in (*TEXTS, *STRANGE)]
    drawn = {name: [rng.choice(chosen) for _ in range(pairs)] for name in ("prompt", "fact", "hallucination", "source")}
    kinds = rng.sample([text for text in chosen if text.strip() and len(text) < 200], 3)
    ids = [f"{rng.choice(chosen)[:300]} {number}" for number in range(pairs)]
    shared = {"pair_id": ids, "domain": [kinds[number % 3] for number in range(pairs)]}
    renamed = dict(zip(pl.read_parquet(folder / "metrics.parquet")["pair_id"], ids, strict=True))
    for name, columns in (("metrics", shared), ("pairs", shared | drawn)):
        table = pl.read_parquet(folder / f"{name}.parquet")
        held = table.with_columns(pl.Series(column, values) for column, values in columns.items())
        held.write_parquet(folder / f"{name}.parquet", metadata={"schema_version": "1"})
    features = pl.read_parquet(folder / "features.parquet")
    features.with_columns(pl.col("pair_id").replace(renamed)).write_parquet(folder / "features.parquet")
    return write_report(folder).path


@(pytest.mark.soak if LONG else lambda test: test)
@pytest.mark.parametrize("number", range(20 if LONG else 1))
def test_texts_that_try_to_act_do_nothing_wherever_they_stand(browser, tmp_path, number):
    rng = random.Random(f"{SEED} page {number}")
    page = hostile_report(rng, tmp_path / "run")
    browser.open(page)
    for word in rng.sample(TEXTS, 3):
        searched(browser, word.encode("utf-8", "replace").decode()[:200])
    searched(browser, "")
    for press in ("#pair-table .open", ".cell"):
        browser.run(f"document.querySelector({press!r})?.click()")
        assert browser.run(f"{STORY}.querySelectorAll('script, img, iframe').length") == 0
        browser.run(f"{STORY}.close?.()")
    for choice in range(browser.run("document.querySelectorAll('select').length")):
        browser.run(
            f"(() => {{ const box = document.querySelectorAll('select')[{choice}]; "
            "box.selectedIndex = box.options.length - 1; box.dispatchEvent(new Event('change')); })()"
        )
    where = f"FUZZ_SEED={SEED}, page {number}"
    assert (browser.complaints, browser.run("window.hacked")) == ([], None), where
    assert browser.requests == [page.resolve().as_uri()], where
