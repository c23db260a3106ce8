"""`bluffscope lint`: what it prints, its JSON, its exit codes; and what `analyze` carries of it."""

from __future__ import annotations

import json

import pytest

from bluffscope.cli.named_file import write_json
from planted import clean_pairs, clean_texts, planted, planted_texts, written


@pytest.fixture
def faulty(tmp_path):
    return written(tmp_path / "faulty.jsonl", planted()[0])


def test_the_bundled_benchmark_has_no_finding(call):
    for arguments in ([], ["bluff200"]):
        outcome = call("lint", *arguments)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.splitlines()[0] == "bluff200: 200 pairs in 98 groups: no finding"


def test_every_fault_is_printed_with_its_pairs_and_the_exit_code_is_1(call, faulty):
    outcome = call("lint", faulty)
    assert outcome.code == 1
    assert outcome.err == ""
    for code, pairs in planted()[1].items():
        section = outcome.out.split(f": {code.replace('-', ' ')}\n")[1].split("\n\n")[0]
        assert "pairs: " in section
        if len(pairs) < 10 and code != "text-tells":
            assert all(pair in section for pair in pairs), section


def test_warnings_alone_are_no_failure(call, tmp_path):
    rows = clean_pairs(30)
    rows[0] |= {"fact": "a house", "hallucination": "no house"}
    outcome = call("lint", written(tmp_path / "d.jsonl", rows))
    assert outcome.code == 0
    assert outcome.out.startswith("d: 30 pairs in 30 groups: 1 warning\n")
    assert "pairs: 0-0\n" in outcome.out


def test_json_on_standard_output_is_nothing_but_json_and_the_file_holds_the_same(call, faulty, tmp_path):
    outcome = call("lint", faulty, "--format", "json", "--json", tmp_path / "lint.json")
    assert outcome.code == 1
    content = json.loads(outcome.out)
    assert json.loads((tmp_path / "lint.json").read_text(encoding="utf-8")) == content
    assert set(planted()[1]) <= {finding["code"] for finding in content["findings"]}
    assert all(finding["severity"] and finding["message"] for finding in content["findings"])
    assert {scope["scope"] for scope in content["scopes"]} == {"pooled", "clean", "longer", "denying"}


@pytest.mark.thorough
def test_a_models_tokens_are_looked_at_when_it_is_named(call, tiny_model, tmp_path):
    rows = clean_pairs(25)
    rows[7] |= {"fact": "so.", "hallucination": "thus."}
    path = written(tmp_path / "d.jsonl", rows)
    for flags in (["--model", tiny_model], ["--preset", "demo"]):
        outcome = call("lint", path, *flags)
        assert outcome.code == 0, outcome
        assert "warning: same last token" in outcome.out
        assert "token d_z" in outcome.out
    assert "same last word" in call("lint", path).out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.jsonl"], "none.jsonl: no such file"),
        (["bluff200", "--limit", "0"], "--limit 0"),
        (["bluff200", "--limit", "many"], "--limit: expected a whole number, got many"),
        (["bluff200", "--format", "xml"], "--format: expected text or json, got xml"),
        (["bluff200", "--nonsense"], "--nonsense: no such option"),
        (["bluff200", "--preset", "other"], "--preset other: unknown"),
        (["bluff200", "--revision", "main"], "--revision without --model"),
        (["bluff200", "--model", "./none"], "--model ./none: no such folder"),
        (["bluff200", "--columns", "prompt"], "expected KEY=NAME"),
        (["bluff200", "--json", "none/lint.json"], "--json none/lint.json: no such folder"),
        (["bluff200", "--json", "."], "--json .: a folder"),
    ],
)
def test_wrong_usage_and_unreadable_data_cost_one_line_and_exit_code_2(call, arguments, says):
    outcome = call("lint", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("bluffscope lint: ")
    assert len(outcome.err.splitlines()) == 1
    assert says in outcome.err


@pytest.mark.thorough
def test_odd_texts_stay_on_their_lines_and_are_no_markup(call, tmp_path):
    rows = clean_pairs(25)
    odd = "[bold]\x1b[31m\n\N{RIGHT-TO-LEFT OVERRIDE}" + "x" * 9000
    rows[3] |= {"id": odd, "domain": odd, "fact": odd, "hallucination": odd.upper(), "prompt": odd}
    outcome = call("lint", written(tmp_path / "d.jsonl", rows))
    assert outcome.code == 1
    assert "[bold]" in outcome.out
    assert all(line.isprintable() for line in outcome.out.splitlines())
    assert max(map(len, outcome.out.splitlines())) < 1000


def test_help_is_quick_and_names_the_options(call):
    outcome = call("lint", "--help")
    assert outcome.code == 0
    for flag in ("--columns", "--domain-from", "--join", "--limit", "--cluster-by", "--model", "--format", "--json"):
        assert flag in outcome.out
    assert "lint" in call("--help").out


def test_analyze_carries_the_findings_and_is_not_stopped_by_errors(call, tiny_flags, tmp_path):
    rows = clean_pairs(5)
    rows[0] |= {"fact": "one end", "hallucination": "another end"}
    rows[1] |= {"fact": "x", "hallucination": "X"}
    flags = list(tiny_flags)
    flags[flags.index("--data") + 1] = written(tmp_path / "d.jsonl", rows)
    outcome = call("analyze", *flags)
    assert outcome.code == 0, outcome.err
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("Lint: ")]
    assert line.startswith("Lint: 1 error (same completions: 1 pair), 2 warnings (few clusters; same last token: ")
    assert line.endswith("; see manifest.json")
    lint = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["lint"]
    assert {finding["code"] for finding in lint["findings"]} >= {"same-completions", "same-last-token"}
    assert lint["findings"][0]["pairs"] == ["0-1"]


def test_analyze_says_of_clean_pairs_only_that_they_are_few(call):
    outcome = call("analyze", "--limit", "4")
    assert outcome.code == 0, outcome.err
    assert "Lint: 1 warning (few clusters); see manifest.json" in outcome.out


def test_clusters_by_a_column_are_said_and_an_unknown_column_is_refused_before_a_model_is_loaded(
    call, refused, tmp_path
):
    rows = [row | {"source": i // 2} for i, row in enumerate(clean_pairs(40))]
    data = written(tmp_path / "d.jsonl", rows)
    outcome = call("lint", data, "--cluster-by", "source")
    assert outcome.code == 0
    assert outcome.out.startswith("d: 40 pairs in 20 groups (--cluster-by source): no finding\n")
    says = (
        "--cluster-by place: no such column; use both, prompt, completion or a column out of 'domain', 'complexity', "
    )
    refused("lint", data, "--cluster-by", "place", says=says)
    refused("analyze", "--data", data, "--cluster-by", "place", "--model", "nowhere", "--sae", "nowhere", says=says)


def test_an_answer_that_is_always_right_fails_and_a_closed_set_does_not(call, tmp_path):
    rows = [row | {"fact": "north", "hallucination": "south"} for row in clean_pairs(40)]
    outcome = call("lint", written(tmp_path / "d.jsonl", rows))
    assert outcome.code == 1
    assert "error: answer is label\n" in outcome.out
    swapped = [row | {"fact": "south", "hallucination": "north"} if i % 2 else row for i, row in enumerate(rows)]
    outcome = call("lint", written(tmp_path / "d.jsonl", swapped), "--format", "json")
    assert outcome.code == 0
    content = json.loads(outcome.out)
    assert content["cluster_by"] == "both"
    assert [finding["code"] for finding in content["findings"]] == ["closed-answers"]


# Labelled texts


def test_labelled_texts_are_printed_as_texts_with_their_labels(call, tmp_path):
    outcome = call("lint", written(tmp_path / "d.jsonl", clean_texts(60)))
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0] == "d: 120 texts (60 true, 60 false) in 60 groups: no finding"
    assert "prompt AUROC  " not in outcome.out and "negation t/f" in outcome.out
    outcome = call("lint", written(tmp_path / "faulty.jsonl", planted_texts()[0]))
    assert outcome.code == 1
    assert "pair" not in outcome.out
    for code, ids in planted_texts()[1].items():
        section = outcome.out.split(f": {code.replace('-', ' ')}\n")[1].split("\n\n")[0]
        assert ("texts: " in section) == bool(ids or code == "text-tells"), code
        if len(ids) < 10:
            assert all(name in section for name in ids), section


def test_one_label_fails_and_labels_that_are_none_are_refused_in_one_line(call, refused, tmp_path):
    rows = clean_texts(30)
    outcome = call("lint", written(tmp_path / "d.jsonl", rows[::2]), "--format", "json")
    assert outcome.code == 1
    content = json.loads(outcome.out)
    assert (content["items"], content["findings"][0]["code"]) == ("texts", "one-label")
    unknown = written(tmp_path / "unknown.jsonl", [row | {"label": "perhaps"} for row in rows])
    refused("lint", unknown, says="expected true or false, 1 or 0")
    refused("lint", unknown, "--labels", "true=yes", "false=no", says="nothing in it to measure: 60 x label 'perhaps'")
    (tmp_path / "empty.jsonl").write_text("")
    refused("lint", tmp_path / "empty.jsonl", says="empty.jsonl")


@pytest.mark.thorough
def test_analyze_carries_the_findings_of_labelled_texts(call, tiny_flags, tmp_path):
    rows = clean_texts(6)
    rows[1] |= {"completion": rows[0]["completion"]}
    flags = list(tiny_flags)
    flags[flags.index("--data") + 1] = written(tmp_path / "d.jsonl", rows)
    outcome = call("analyze", *flags)
    assert outcome.code == 0, outcome.err
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("Lint: ")]
    assert line.startswith("Lint: 1 error (contradiction: 2 texts), 2 warnings (few clusters; few of a label); see")
    lint = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["lint"]
    assert (lint["items"], lint["rows"]) == ("texts", 12)
    assert lint["findings"][0]["pairs"] == [rows[0]["id"], rows[1]["id"]]


def test_a_name_that_is_no_utf_8_and_a_number_that_is_none_make_valid_json(tmp_path):
    write_json(tmp_path / "found.json", {"data": "pairs\udcff.jsonl", "auroc": float("nan")})
    assert json.loads((tmp_path / "found.json").read_bytes()) == {"data": "pairs\udcff.jsonl", "auroc": None}
