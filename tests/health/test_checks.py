"""The table of checks: what the code asks for is declared, what is declared is used and explained."""

from __future__ import annotations

import ast
from pathlib import Path
from string import Formatter

import pytest

import bluffscope.health
from bluffscope.health.check import declared, found, graded, judged

FOLDER = Path(bluffscope.health.__file__).parent
DOC = Path(__file__).parents[2] / "docs" / "health.md"


def test_the_code_uses_every_declared_check_and_no_other():
    trees = [ast.parse(path.read_text("utf-8")) for path in FOLDER.glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    constants = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    asked = {
        call.args[0].value
        for call in nodes
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in ("found", "judged", "graded")
        and isinstance(call.args[0], ast.Constant)
    }
    assert len(asked) > 20
    assert asked <= declared().keys() <= constants


@pytest.mark.parametrize("title", declared())
def test_a_check_says_what_it_expects_and_where_it_can_fail_what_that_means(title):
    check = declared()[title]
    assert check["expected"]
    assert check.keys() <= {"check", "expected", "means", "do", "warning", "error", "inclusive", "about"}
    assert check.get("about", "SAEs") == "SAEs"
    assert ("warning" in check) == ("error" in check)
    assert "warning" not in check or check["means"]
    if title != "layer: unknown hook point":
        assert ("means" in check) == ("do" in check)
    name = check.get("check", title).replace("{layout}", "packed").replace("{whose}", "SAELens")
    assert name in DOC.read_text("utf-8") or "means" not in check or name == "pairs measured"


def test_words_are_filled_in_and_meaning_and_advice_belong_to_failures():
    words = {name for text in declared()["layer"].values() for _, name, _, _ in Formatter().parse(text) if name}
    assert words == {"layer", "block"}
    wrong = found("layer", True, "blocks.2.hook_resid_post", layer=5, block=2)
    assert wrong.message == (
        "layer, layer 5: expected an SAE that reads layer 5, seen blocks.2.hook_resid_post. "
        "Columns named l5_ hold what is read at block 2. Give this SAE as layer 2, or the SAE of layer 5"
    )
    well = found("layer", False, "blocks.5.hook_resid_post", layer=5)
    assert (well.severity, well.means, well.do) == ("ok", "", "")


@pytest.mark.parametrize(
    ("title", "graded_as"),
    [
        ("relative error", {0.5: "ok", 0.51: "warning", 1.0: "warning", 1.01: "error", float("nan"): "ok"}),
        ("explained variance", {0.5: "ok", 0.49: "warning", 0.2: "warning", 0.19: "error", float("nan"): "error"}),
        ("L0", {1.99: "ok", 2.0: "warning", 3.99: "warning", 4.0: "error"}),
    ],
)
def test_limits_are_not_to_be_exceeded_or_not_to_be_fallen_below(title, graded_as):
    assert {value: graded(title, value) for value in graded_as} == graded_as


def test_a_limit_is_named_in_what_is_expected():
    assert judged("relative error", 0.3, "0.300 on average").expected == "at most 0.5"
    assert judged("texts without features", 0.3, "30%").expected == "at most 5%"
