"""The page of transfer: matrices, a table and what can be saved; and the sentence that leads it."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from io import BytesIO

import polars as pl
import pytest

from bluffscope.detectors.transfer import CARRIED_SCHEMA
from bluffscope.report.crossings import sentence
from bluffscope.report.transfer_page import render_transfer_page
from made_runs import STRANGE


def cell(train, test, auroc, verdict, detector="sae", **more):
    known = {"detector": detector, "train": train, "test": test, "n": 40, "auroc": auroc, "verdict": verdict}
    if auroc is not None:
        known |= {"lo": auroc - 0.04, "hi": min(1.0, auroc + 0.04), "own": 0.9}
    return dict.fromkeys(CARRIED_SCHEMA) | known | more


def table(*cells):
    return pl.DataFrame(list(cells), schema=CARRIED_SCHEMA)


TWO = table(
    cell("a", "a", 0.5, "chance", "text"),
    cell("a", "a", 0.9, "found"),
    cell("a", "b", 0.52, "chance", text=0.5, gain=0.02, loss=0.4),
    cell("b", "b", 0.55, "unclear"),
    cell("b", "a", 0.1, "nothing learnt"),
    cell("a", "a", 0.6, "found", "residual"),
    cell("b", "b", None, None, "residual", reason="no residuals: analyze with --keep-residuals"),
)


def test_the_sentence_names_each_of_few_data_sets_and_the_detector_that_finds_most():
    assert sentence(TWO) == (
        "SAE features: a found (AUROC 0.90, 0.86 to 0.94); b not better than chance (0.55, 0.51 to 0.59); "
        "from a to b: chance (0.52, 0.48 to 0.56)."
    )
    nothing = sentence(table(cell("a", "a", 0.5, "chance"), cell("a", "b", 0.5, "nothing learnt")))
    assert nothing.endswith("a at chance (AUROC 0.50, 0.46 to 0.54); nothing was learnt that could be carried over.")
    saved = sentence(table(cell("kept", "b", 0.8, "carries over")))
    assert saved == "SAE features: detector kept on b: carries over (AUROC 0.80, 0.76 to 0.84)."
    assert sentence(table(cell("a", "b", None, None, reason="?"))).startswith("Nothing could be carried over")


def test_the_sentence_counts_many_data_sets():
    cells = [cell(a, b, 0.8, "found" if a == b else "partly") for a in "abcd" for b in "abcd"]
    assert sentence(table(*cells)) == (
        "SAE features: found in 4 of 4 data sets; of 12 crossings from one to another: 12 in part."
    )


def addresses(page, kind):
    return [base64.b64decode(found) for found in re.findall(rf'href="data:{re.escape(kind)};base64,([^"]*)"', page)]


def test_the_page_has_a_matrix_a_detector_text_last_and_all_numbers_and_no_script():
    page = render_transfer_page(TWO, "/models/tiny").decode()
    assert "What detectors of <bdi>tiny</bdi> carry over" in page
    assert "<script" not in page and "default-src 'none'" in page
    titles = re.findall(r"<figcaption>([^<]*)", page)
    assert [title.partition(":")[0] for title in titles] == ["SAE features", "Residuals", "Completion text"]
    assert "not judged: no residuals: analyze with --keep-residuals" in page
    words = re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    assert ">+0.02<" in words and ">+0.40<" in words
    pictures = addresses(page, "image/svg+xml")
    drawn = [" ".join(ET.fromstring(picture.decode()).itertext()) for picture in pictures]
    assert len(drawn) == len(addresses(page, "image/png")) == 3
    assert "0.52" in drawn[0] and "0.48 to 0.56" in drawn[0] and "nothing learnt" in drawn[0]
    assert "not judged" in drawn[1]
    assert addresses(page, "image/png")[0].startswith(b"\x89PNG")
    (saved,) = addresses(page, "text/csv")
    assert pl.read_csv(BytesIO(saved))["verdict"].to_list() == TWO["verdict"].to_list()


@pytest.mark.parametrize("name", [*STRANGE, "constructor", "=1+1"])
def test_names_that_try_to_act_are_text(name):
    page = render_transfer_page(table(cell(name, name, 0.9, "found"), cell(name, "b", 0.6, "partly")), name).decode()
    assert not re.search(r"<(script|img|iframe|b|a href=\"java)", page.replace("<bdi>", "").replace("<body>", ""))
    (saved,) = addresses(page, "text/csv")
    assert not re.search(r"(^|,)\"?=", saved.decode(), re.MULTILINE)


def test_saved_detectors_have_no_text_beside_them_and_the_page_says_so():
    assert "they hold no texts" in render_transfer_page(table(cell("kept", "b", 0.8, "carries over")), "m").decode()
    assert "they hold no texts" not in render_transfer_page(TWO, "m").decode()
