"""The dashboard is drawn for any table, and shows the table's own numbers."""

from __future__ import annotations

import errno
import importlib.util
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import altair as alt
import polars as pl
import pytest

from bluffscope.errors import RunFolderError
from bluffscope.report import summarize
from bluffscope.report.dashboard import MOST_DOMAINS, MOST_EFFECTS, cell_text, dashboard
from bluffscope.report.figures import write_figures
from bluffscope.report.labels import number
from bluffscope.report.panels import MOST_POINTS, figure
from faults import Fault, Injector

_SPEC = importlib.util.spec_from_file_location("report_tables", Path(__file__).with_name("tables.py"))
tables = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tables)
synthetic = tables.synthetic

STRANGE = (
    '<b>html</b> & "q"',
    "😀🎉 emoji",
    "שלום עולם",
    "a very long domain name " * 6,
    "x\n\u202eevil\x00",
    "all domains",
    "pooled",
    "",
)


def measured(table: pl.DataFrame) -> list[str]:
    ends = ("_fact", "_hall", "_diff")
    return [name for name in table.columns if name.endswith(ends) or "_fact_" in name or "_hall_" in name]


def nulled(table: pl.DataFrame, *parts: str) -> pl.DataFrame:
    names = [name for name in measured(table) if not parts or any(part in name for part in parts)]
    return table.with_columns(pl.lit(None, table.schema[name]).alias(name) for name in names)


def write_dashboard(table: pl.DataFrame, folder: Path, title: str) -> list[Path]:
    return write_figures({"dashboard": dashboard(table, title)}, folder)


def panels(spec: dict) -> dict[str, dict]:
    """The panels of a figure by title, however deep they stand in it."""
    found = {}
    for part in spec["concat"]:
        found |= panels(part) if "concat" in part else {part["title"]["text"].strip(): part}
    return found


def drawn(table: pl.DataFrame) -> dict[str, list[dict]]:
    """The numbers of each panel of a table's dashboard."""
    return {title: list(panel["data"]["values"]) for title, panel in panels(dashboard(table, "x")).items()}


def draw(table: pl.DataFrame, folder: Path, title: str = "A run") -> str:
    """Draws, checks both files, and gives the text of the SVG."""
    paths = write_dashboard(table, folder, title)
    assert [path.name for path in paths] == ["dashboard.png", "dashboard.svg"]
    png = paths[0].read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    assert 200 < width <= 2 * 1620 and height > 100
    root = ET.fromstring(paths[1].read_bytes())
    texts = " ".join("".join(node.itertext()) for node in root.iter() if node.tag.endswith("}text"))
    assert not [node for node in root.iter() if node.tag.endswith("script")]
    return texts


@pytest.mark.thorough
def test_the_dashboard_shows_every_panel_and_says_what_is_seen(tmp_path):
    text = draw(synthetic(), tmp_path / "figures", "bluff200 on the demo model")
    for words in (
        "bluff200 on the demo model",
        "200 pairs, 4 domains",
        "Reconstruction error of the SAE, by layer and domain",
        "Sphericity of the active features, by layer and domain",
        "Centroid drift from the prompt, degrees",
        "Axis twist from the prompt, degrees",
        "Stability under noise",
        "Entropy",
        "Cross-layer alignment",
        "not interpretable",
        "Effect sizes by metric and domain",
        "d_z = mean / sd of the paired differences",
        *tables.DOMAINS,
        "l20_misalignment_angle",
    ):
        assert words in text
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["dashboard.png", "dashboard.svg"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("one layer, one domain", synthetic(30, layers=(0,), domains=("all",))),
        ("one pair", synthetic(1)),
        ("no pair", synthetic(4).head(0)),
        ("nothing measured", synthetic().select("pair_id", "domain")),
        ("no domain", synthetic(20).drop("domain")),
        ("everything null", nulled(synthetic())),
        ("some null", nulled(synthetic(), "axis_twist", "sphericity", "cross_layer", "stability")),
        ("constant", synthetic(12).with_columns(pl.lit(1.0).alias(n) for n in ("entropy_fact", "entropy_hall"))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_poor_tables_are_drawn_too(tmp_path, name, table):
    text = draw(table, tmp_path)
    assert ("no values in this run" in text) == (name not in ("one layer, one domain", "no domain", "constant"))


@pytest.mark.parametrize(
    ("table", "titles", "empty"),
    [
        (synthetic().select("pair_id", "domain"), 1, ["Metrics"]),
        (synthetic(4).head(0), 9, "all"),
        (nulled(synthetic(20)), 9, "all"),
        (synthetic(20).drop("domain"), 9, []),
        (
            nulled(synthetic(20), "axis_twist", "sphericity"),
            9,
            ["Sphericity of the active features, by layer and domain", "Axis twist from the prompt, degrees"],
        ),
    ],
    ids=["nothing measured", "no pair", "everything null", "no domain", "some null"],
)
def test_panels_without_a_value_say_so(table, titles, empty):
    found = drawn(table)
    assert len(found) == titles
    without = [title for title, values in found.items() if values == [{"text": "no values in this run"}]]
    assert without == (list(found) if empty == "all" else empty)


def test_of_many_pairs_layers_and_domains_a_part_is_shown_and_counted():
    domains = tuple(f"domain{i:02d}" for i in range(25))
    spec = dashboard(synthetic(6000, layers=tuple(range(5)), domains=domains, sweep=(0.03, 1)), "x")
    assert spec["title"]["subtitle"].startswith(
        f"6,000 pairs, the {MOST_DOMAINS} largest domains (15 more are counted in 'all domains')"
    )
    found = panels(spec)
    drift = found["Centroid drift from the prompt, degrees"]
    assert drift["title"]["subtitle"][0] == "2,000 of the 2,400 pairs of these domains, drawn at random"
    assert len(drift["data"]["values"]) == MOST_POINTS
    effects = found["Effect sizes by metric and domain"]
    assert effects["title"]["subtitle"][1] == f"the {MOST_EFFECTS} largest (pooled) of 53 metrics"
    assert len({row["metric"] for row in effects["data"]["values"]}) == MOST_EFFECTS


@pytest.mark.thorough
def test_domains_with_strange_names_are_text_and_stay_apart(tmp_path):
    text = draw(synthetic(80, domains=STRANGE), tmp_path, "<script>alert(1)</script>\n\u202e title " + "long " * 60)
    assert '<b>html</b> & "q"' in text and "<script>alert(1)</script> title long" in text
    assert "\u202e" not in text and "\x00" not in text
    assert "all domains #2" in text and "(empty)" in text
    rows = drawn(synthetic(80, domains=STRANGE))["Effect sizes by metric and domain"]
    scopes = {row["scope"] for row in rows}
    assert len(scopes) == len(STRANGE) + 1


@pytest.mark.thorough
def test_many_pairs_layers_and_domains_are_cut_down_and_the_titles_say_so(tmp_path):
    domains = tuple(f"domain{i:02d}" for i in range(25))
    table = synthetic(10_000, layers=tuple(range(14)), domains=domains, sweep=(0.03, 1))
    text = draw(table, tmp_path)
    assert f"10,000 pairs, the {MOST_DOMAINS} largest domains (15 more are counted in 'all domains')" in text
    assert "2,000 of the 4,000 pairs of these domains, drawn at random" in text
    assert f"the {MOST_EFFECTS} largest (pooled) of 134 metrics" in text
    assert len(drawn(table)["Centroid drift from the prompt, degrees"]) == MOST_POINTS
    assert dashboard(table, "x") == dashboard(table, "x")


def test_the_numbers_in_the_figure_are_those_of_the_summary():
    table = synthetic()
    data = drawn(table)
    summary = summarize(table)
    cells = {
        (r["scope"].strip(), r["layer"]): r for r in data["Sphericity of the active features, by layer and domain"]
    }
    assert len(cells) == 5 * 3
    row = summary.filter(metric="l12_sphericity", domain="temporal").row(0, named=True)
    assert cells["temporal", "12"]["change"] == row["mean_diff"]
    means = f"{number(row['mean_fact'])} → {number(row['mean_hall'])}"
    assert cells["temporal", "12"]["label"] == f"{row['mean_diff']:+.3f}\n{means}"
    cells = {(r["scope"].strip(), r["layer"]): r for r in data["Reconstruction error of the SAE, by layer and domain"]}
    row = summary.filter(pl.col("pooled"), metric="l5_reconstruction_error").row(0, named=True)
    assert cells["all domains", "5"]["change"] == pytest.approx(100 * row["mean_diff"] / row["mean_fact"])
    points = {(r["metric"].strip(), r["scope"].strip()): r["dz"] for r in data["Effect sizes by metric and domain"]}
    assert len(points) == 33 * 5
    assert points["entropy", "logical"] == summary.filter(metric="entropy", domain="logical")["dz"][0]
    drift = data["Centroid drift from the prompt, degrees"]
    assert [r["fact"] for r in drift] == table["centroid_drift_fact"].to_list()
    bars = {(r["scope"].strip(), r["view"]): r for r in data["Entropy"]}
    part = table.filter(domain="entity")["entropy_hall"]
    assert bars["entity", "hallucination"]["mean"] == pytest.approx(part.mean())
    assert bars["entity", "hallucination"]["low"] == pytest.approx(part.quantile(0.25, "linear"))


def test_analyses_that_did_not_run_have_no_panel():
    table = synthetic(40)
    gone = [name for name in table.columns if name.startswith(("centroid", "axis", "stability", "l"))]
    assert list(drawn(table.drop(gone))) == [
        "Entropy",
        "Cross-layer alignment",
        "Cross-layer consistency",
        "Effect sizes by metric and domain",
    ]


def test_the_first_spread_with_values_names_the_scopes_and_explains_the_colours():
    found = panels(dashboard(nulled(synthetic(40), "stability"), "x"))
    first, second = (found[title]["layer"][0]["encoding"] for title in ("Entropy", "Cross-layer alignment"))
    assert first["y"]["axis"] is not None and first["color"]["legend"] is not None
    assert second["y"]["axis"] is None and second["color"]["legend"] is None


def test_the_specification_is_valid_vega_lite():
    alt.Chart.from_dict(figure(dashboard(synthetic(20), "x")), validate=True)


@pytest.mark.parametrize(
    ("change", "percent", "text"),
    [
        (1.26, True, "+1.3 %"),
        (-0.04, True, "0.0 %"),
        (-0.0312, False, "-0.031"),
        (1e-9, False, "0.000"),
        (None, True, "-"),
    ],
)
def test_cells_are_short(change, percent, text):
    assert cell_text(change, percent) == text


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write .*file: "):
        write_dashboard(synthetic(4), tmp_path / "file", "x")


@pytest.mark.thorough
@pytest.mark.parametrize("moment", ["before", "half"])
def test_where_the_disk_is_full_the_figures_that_were_there_stay(tmp_path, moment):
    earlier = [path.read_bytes() for path in write_dashboard(synthetic(4), tmp_path, "earlier")]
    fault = Fault(error=errno.ENOSPC, call="write", moment=moment)
    with (
        Injector(tmp_path, fault).installed(),
        pytest.raises(RunFolderError, match="dashboard.png: No space left on device"),
    ):
        write_dashboard(synthetic(4), tmp_path, "later")
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == earlier


def test_what_draws_imports_neither_torch_nor_ray_and_vl_convert_only_to_draw():
    slow = "{'torch', 'ray', 'transformers', 'vl_convert'}"
    code = f"import sys, bluffscope.report.figures; print({slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
