"""The linter of labelled texts: each planted fault is found and named by id, clean data is left alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bluffscope
from bluffscope.config import DataOptions
from bluffscope.errors import InputError
from bluffscope.linter import CODES, GroupSample, LintReport, lint_source
from bluffscope.pairs import open_source
from bluffscope.pairs.groups import normalised
from planted import clean_pairs, clean_texts, planted_texts, written

WHOLE = {"one-label", "one-label-prompts", "answer-is-label", "prompt-tells", "few-clusters", "closed-answers"}
"""Of a whole data set: each has a test of its own below, as have those of a model's tokens."""
TOKENS = {"no-token", "boundary-merge", "token-length-imbalance", "plain-text", "not-judged"}
OF_PAIRS = {
    *("labels-as-texts", "same-completions", "conflicting-facts", "duplicate-pair", "duplicate-prompt"),
    *("chained-pairs", "answer-in-prompt", "same-last-word", "same-last-token"),
}


def named(report: LintReport, code: str) -> set[str]:
    return {name for finding in report.of(code) for name in finding.pairs}


def severities(report: LintReport) -> dict[str, str]:
    return {finding.code: finding.severity for finding in report.findings}


def only(report: LintReport, code: str) -> str:
    (finding,) = report.of(code)
    return finding.message


# No false alarm


@pytest.mark.parametrize("prompts", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_clean_texts_have_no_finding(seed, prompts):
    report = bluffscope.lint(clean_texts(100, seed, prompts=prompts))
    assert report.findings == ()
    assert (report.items, report.rows) == ("texts", 200)
    (scope,) = report.scopes
    assert (scope.true, scope.false, scope.groups) == (100, 100, 100 if prompts else 200)
    # Each prompt has both labels: there is nothing to read in it.
    assert scope.auroc is not None and scope.prompt_auroc is None


def test_the_same_completion_with_either_label_under_different_prompts_is_fine():
    rows = clean_texts(60)
    for place in range(0, 120, 4):  # each true completion is a false one of the next prompt, and the reverse
        rows[place + 2]["completion"], rows[place + 3]["completion"] = (
            rows[place + 1]["completion"],
            rows[place]["completion"],
        )
    assert bluffscope.lint(rows).findings == ()


# Every planted fault


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> tuple[LintReport, dict[str, set[str]]]:
    rows, expected = planted_texts()
    return bluffscope.lint(written(tmp_path_factory.mktemp("lint") / "d.jsonl", rows)), expected


@pytest.mark.parametrize("code", planted_texts()[1])
def test_every_planted_fault_is_found_by_id(faulty, code):
    report, expected = faulty
    found = [finding for finding in report.of(code) if finding.scope in (None, "longer", "denying", "rare")]
    found = found or list(report.of(code))
    assert found, code
    assert all(finding.severity == CODES[code] for finding in found)
    names = {name for finding in found for name in finding.pairs}
    if code == "text-tells":  # it names the ten it is surest of
        assert len(names) == 10
        assert all(name.startswith("3-") for name in names)
    else:
        assert names == expected[code]


def test_every_code_is_one_of_texts_or_of_pairs(faulty):
    assert set(planted_texts()[1]) | WHOLE | TOKENS | OF_PAIRS == set(CODES)
    assert severities(faulty[0]).keys() <= {*planted_texts()[1], "not-judged"}


def test_the_planted_rest_is_left_alone(faulty):
    report, expected = faulty
    assert not [finding for finding in report.findings if finding.scope == "clean"]
    assert {finding.scope for finding in report.of("label-imbalance")} == {"rare"}
    assert "only 2 false of 22 texts in domain 'few'" in only(report, "few-of-a-label")
    assert "Only 12 of 82 texts (15 %) are false in domain 'rare'" in only(report, "label-imbalance")
    domains = only(report, "domain-tells")
    assert "9 % in 'few'" in domains and "balance the labels in each domain" in domains


def test_every_finding_is_one_printable_sentence_with_the_rows_of_its_texts(faulty):
    report, _ = faulty
    rows, _ = planted_texts()
    for finding in report.findings:
        assert finding.message.endswith("."), finding
        assert finding.message.isprintable()
        assert len(finding.message) < 500
        assert "pair" not in finding.message
        assert [rows[row]["id"] for row in finding.rows] == list(finding.pairs)
        assert list(finding.rows) == sorted(finding.rows)


def test_the_report_is_plain_json_that_says_it_is_of_texts(faulty):
    report, _ = faulty
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert content["items"] == "texts"
    assert "contradiction: 2 texts" in content["headline"]
    assert sum(content["counts"].values()) == len(content["findings"])
    assert set(content["scopes"][0]) >= {"texts", "true", "false", "groups", "length", "negation_p", "prompt_auroc"}
    assert "items" not in bluffscope.lint(clean_pairs(20)).as_dict()


# Rows


TEXT = st.sampled_from(["a", "A", "b ", "not a", "a b"])
ROW = st.fixed_dictionaries(
    {"id": st.sampled_from("wxyz"), "prompt": st.sampled_from(["p", "P ", "q"]), "completion": TEXT}
    | {"label": st.booleans()}
)


def test_repeats_are_what_a_plain_comparison_of_all_rows_says(tmp_path_factory):
    path = tmp_path_factory.mktemp("lint") / "d.jsonl"

    @settings(max_examples=60, deadline=None)
    @given(st.lists(ROW, min_size=1, max_size=8), st.booleans())
    def check(rows, statements):
        if statements:
            rows = [{"id": row["id"], "text": row["completion"], "label": row["label"]} for row in rows]
        report = lint_source(open_source(DataOptions(data=str(written(path, rows)))))
        texts = [tuple(normalised(row.get(key, "")) for key in ("prompt", "completion", "text")) for row in rows]

        def runs(keys) -> set[tuple[int, ...]]:
            found = {tuple(i for i, other in enumerate(keys) if other == key) for key in keys}
            return {run for run in found if len(run) > 1}

        def found(code: str) -> set[tuple[int, ...]]:
            return {finding.rows for finding in report.of(code)}

        assert found("duplicate-id") == runs([row["id"] for row in rows])
        assert found("duplicate-text") == runs([(*text, row["label"]) for text, row in zip(texts, rows, strict=True)])
        both = {run for run in runs(texts) if len({rows[i]["label"] for i in run}) > 1}
        assert found("contradiction") == both

    check()


def test_a_contradiction_quotes_one_text_of_either_label():
    rows = clean_texts(20, prompts=False)
    for place in (2, 4, 6, 9):
        rows[place] = {"id": f"t{place}", "text": "Tova is red.", "label": place != 9}
    report = bluffscope.lint(rows)
    (finding,) = report.of("contradiction")
    assert finding.message == (
        "'Tova is red.' is true in text 't2' and false in text 't9' (2 more have this text): keep the label that is "
        "right."
    )
    assert finding.pairs == ("t2", "t4", "t6", "t9")
    assert report.of("duplicate-text")[0].pairs == ("t2", "t4", "t6")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"text": "Tova is red.", "label": "perhaps"}], "expected true or false, 1 or 0"),
        ([{"text": " ", "label": True}], "field 'text' is empty"),
        ([{"text": "Tova is red.", "label": None}], "nothing in it to measure: 1 x no label"),
        ([], "d.jsonl"),
        (
            [{"text": "Tova is red.", "label": True}, {"prompt": "a", "fact": "b", "hallucination": "c"}],
            "field 'label' is missing",
        ),
    ],
)
def test_data_without_one_readable_text_is_refused_in_one_line(tmp_path, rows, says):
    data = written(tmp_path / "d.jsonl", rows)
    if len(rows) == 2:
        assert says in only(bluffscope.lint(data), "unreadable-row")
        return
    with pytest.raises(InputError, match=says) as caught:
        bluffscope.lint(data)
    assert len(str(caught.value).splitlines()) == 1


def test_pairs_and_labelled_texts_in_one_folder_are_refused(tmp_path):
    (tmp_path / "d").mkdir()
    written(tmp_path / "d" / "1.jsonl", clean_texts(3))
    written(tmp_path / "d" / "2.jsonl", clean_pairs(3))
    with pytest.raises(InputError, match=r"2\.jsonl: line 1: pairs and labelled texts in one source"):
        bluffscope.lint(tmp_path / "d")


# Labels


def test_one_label_alone_is_an_error_and_all_that_is_said_of_labels():
    rows = [row for row in clean_texts(60) if row["label"]]
    report = bluffscope.lint(rows)
    assert severities(report) == {"one-label": "error"}
    assert report.failed
    assert only(report, "one-label").startswith("No text is false (of 60): there is nothing to tell apart; add false")


def test_fewer_than_ten_of_a_label_get_no_verdict():
    rows = [row for place, row in enumerate(clean_texts(40)) if row["label"] or place < 18]
    report = bluffscope.lint(rows)
    assert severities(report) == {"few-of-a-label": "warning", "one-label-prompts": "warning", "not-judged": "info"}
    assert only(report, "few-of-a-label").startswith("No verdict will be given: only 9 false of 49 texts, and at least")
    rows = [row for place, row in enumerate(clean_texts(40)) if row["label"] or place < 20]
    assert not bluffscope.lint(rows).of("few-of-a-label")


@pytest.mark.parametrize(("false", "found"), [(24, True), (25, False)])
def test_a_rare_label_is_one_of_fewer_than_a_fifth(false, found):
    rows = [row for place, row in enumerate(clean_texts(100)) if row["label"] or place < 2 * false]
    assert bool(bluffscope.lint(rows).of("label-imbalance")) == found


@pytest.mark.thorough
def test_domains_of_different_labels_tell_them_and_alike_ones_do_not():
    def rows(shares) -> list[dict]:
        made = []
        for number, share in enumerate(shares):
            texts = clean_texts(60, number, prompts=False, domain=f"d{number}")
            made += [text for place, text in enumerate(texts) if text["label"] or place < 120 * share]
        return made

    report = bluffscope.lint(rows((0.9, 0.3)))
    assert severities(report) == {"domain-tells": "warning"}
    message = only(report, "domain-tells")
    assert "47 % of the texts are false in 'd0' and 23 % in 'd1'" in message
    assert not bluffscope.lint(rows((0.6, 0.65))).of("domain-tells")


def test_domains_of_chance_labels_raise_no_finding_however_many_there_are():
    rng = np.random.default_rng(4)
    rows = clean_texts(200, prompts=False)
    for row in rows:
        row |= {"label": bool(rng.random() < 0.5), "domain": f"d{rng.integers(60)}"}
    assert not bluffscope.lint(rows).of("domain-tells")


@pytest.mark.thorough
def test_the_auroc_of_domains_is_that_of_guessing_by_their_shares():
    shares = {"a": (30, 10), "b": (12, 28)}
    rows = []
    for domain, (true, false) in shares.items():
        texts = clean_texts(40, ord(domain), prompts=False, domain=domain)
        rows += [row for row in texts if row["label"]][:true] + [row for row in texts if not row["label"]][:false]
    score = np.array([shares[row["domain"]][1] / 40 for row in rows])
    false = np.array([not row["label"] for row in rows])
    wins = score[false][:, None] - score[~false][None]
    auroc = (wins > 0).mean() + (wins == 0).mean() / 2
    assert f"AUROC {auroc:.2f}, F test" in only(bluffscope.lint(rows), "domain-tells")


@pytest.mark.thorough
def test_prompts_of_one_label_only_are_said_with_numbers_and_not_of_statements():
    one_each = [row for place, row in enumerate(clean_texts(80)) if place % 4 in (0, 3)]
    report = bluffscope.lint(one_each)
    assert severities(report) == {"one-label-prompts": "warning"}
    assert only(report, "one-label-prompts").startswith(
        "None of 80 prompts (0 with several texts) has both true and false texts: what is asked cannot be told from"
    )
    assert not bluffscope.lint(clean_texts(80, prompts=False)[::3]).of("one-label-prompts")
    # The prompts of a group may say the same in other words.
    grouped = [row | {"group": place // 2} for place, row in enumerate(one_each)]
    assert not bluffscope.lint(grouped).of("one-label-prompts")
    both = [row for place, row in enumerate(clean_texts(80)) if place < 20 or place % 4 in (0, 3)]
    assert not bluffscope.lint(both).of("one-label-prompts")


# Cues


def with_lengths(differences: list[int]) -> list[dict]:
    rows = clean_texts(len(differences), seed=7, prompts=False)
    for place, difference in enumerate(differences):
        rows[2 * place]["text"] += "q" * max(0, -difference)
        rows[2 * place + 1]["text"] += "q" * max(0, difference)
    return rows


@pytest.mark.thorough
def test_lengths_that_differ_the_same_way_are_found_and_those_that_cancel_are_not():
    spread = [1, 2, 3, -1, -2, -3] * 10
    assert not bluffscope.lint(with_lengths(spread)).of("length-imbalance")
    message = only(bluffscope.lint(with_lengths([d + 2 for d in spread])), "length-imbalance")
    assert message.startswith("False texts are longer than true ones: ") and "even the lengths out" in message
    assert "shorter" in only(bluffscope.lint(with_lengths([d - 2 for d in spread])), "length-imbalance")


@pytest.mark.thorough
def test_lengths_that_are_one_number_a_label_are_found():
    rows = with_lengths([0] * 30)
    for row in rows:
        row["text"] = row["text"][:16].ljust(16, "q") + ("" if row["label"] else "q")
    report = bluffscope.lint(rows)
    assert "g beyond measure, as each label has one length" in only(report, "length-imbalance")
    assert report.scopes[0].length.auroc == 1.0


def test_a_lean_that_a_few_very_long_texts_hide_from_the_mean_is_found():
    report = bluffscope.lint(with_lengths([2] * 60 + [-120]))
    assert abs(report.scopes[0].length.g) < 0.1
    assert report.of("length-imbalance")


def test_texts_of_one_group_count_once():
    """Forty false texts of one group are longer: one piece of evidence, whatever their number."""
    rows = with_lengths([0] * 60)
    for place, row in enumerate(rows):
        row["group"] = "one" if place < 80 and not row["label"] else f"g{place}"
        row["text"] += "qqqq" if row["group"] == "one" else ""
    assert bluffscope.lint([{**row, "group": None} for row in rows]).of("length-imbalance")
    assert not bluffscope.lint(rows).of("length-imbalance")


@pytest.mark.parametrize("kind", ["completion", "prompt", "text"])
def test_a_planted_cue_is_found_where_it_stands(kind):
    rows = [row for place, row in enumerate(clean_texts(120, prompts=kind != "text")) if place % 4 in (0, 3)]
    for row in rows:
        row[kind] += " indeed" if row["label"] else " really"
    report = bluffscope.lint(rows)
    code = "prompt-tells" if kind == "prompt" else "text-tells"
    (finding,) = report.of(code)
    of_false, of_true = finding.message.split("what speaks loudest: ")[1].split(" for a false text and ")
    assert "'really'" in of_false and "'indeed'" in of_true.split(" for a true one")[0]
    assert {"text-tells", "prompt-tells"} & severities(report).keys() == {code}
    assert len(finding.pairs) == 10
    scope = report.scopes[0]
    told = scope.prompt_auroc if kind == "prompt" else scope.auroc
    other = scope.auroc if kind == "prompt" else scope.prompt_auroc
    assert told == 1.0
    assert other is None if kind == "text" else other < 0.6
    beginning = {
        "completion": "The text of a completion alone, without its prompt,",
        "prompt": "The text of a prompt alone, without any completion,",
        "text": "The words of a text alone, without any knowledge,",
    }
    assert finding.message.startswith(beginning[kind])


def test_a_text_of_a_group_tells_nothing_of_its_group():
    """Ten answers a prompt, labels alike in a prompt, words of its own: only across prompts would that be a cue."""
    rng = np.random.default_rng(0)
    rows = []
    for prompt in range(50):
        own = " ".join(f"w{word}" for word in rng.integers(300, size=4))
        share = rng.beta(0.4, 0.4)
        for _ in range(10):
            said = f"{own} " + " ".join(f"w{word}" for word in rng.integers(300, size=4))
            rows.append({"prompt": f"Number {prompt} is", "completion": said, "label": bool(rng.random() < share)})
    report = bluffscope.lint(rows)
    assert not report.of("text-tells") and not report.of("prompt-tells")
    assert report.scopes[0].auroc_lo < 0.5 < report.scopes[0].auroc_hi


def test_answers_that_are_always_right_are_an_error_that_is_said_once():
    rows = clean_texts(60)
    for row in rows:
        row["completion"] = "north" if row["label"] else "south"
    report = bluffscope.lint(rows)
    assert severities(report) == {"answer-is-label": "error", "closed-answers": "info"}
    message = only(report, "answer-is-label")
    assert "each answer is always true or always false" in message and "Balance which answer is right." in message
    assert "'north' (60 texts), 'south' (60 texts), link no texts" in only(report, "closed-answers")
    for place, row in enumerate(rows):
        row["completion"] = ("north", "south")[row["label"] ^ (place % 4 < 2)]
    assert severities(bluffscope.lint(rows)) == {"closed-answers": "info"}


def test_few_clusters_are_said_of_texts_and_of_their_own_groups():
    rows = clean_texts(40, prompts=False)
    message = only(bluffscope.lint([row | {"group": place // 10} for place, row in enumerate(rows)]), "few-clusters")
    assert "only 8 clusters in 80 texts" in message and "(texts with the same group are one cluster)" in message
    message = only(bluffscope.lint(clean_texts(9)), "few-clusters")
    assert "only 9 clusters in 18 texts" in message and "texts that share a prompt or a completion" in message


def test_too_few_groups_of_a_label_are_not_judged():
    rows = clean_texts(40, prompts=False)
    for place, row in enumerate(rows):
        row["group"] = place % 5 if not row["label"] else place + 100
    report = bluffscope.lint(rows)
    assert "'pooled' (5 groups with false texts)" in only(report, "not-judged")


# Large data, and a model's tokens


@pytest.mark.thorough
def test_a_sample_is_of_whole_groups_and_depends_on_the_seed_alone(tmp_path):
    source = open_source(DataOptions(data=str(written(tmp_path / "d.jsonl", clean_texts(150)))))
    first, again, other = (lint_source(source, most_judged=50, seed=seed) for seed in (0, 0, 1))
    assert first.scopes[0].auroc_texts == 100
    assert first == again
    assert first.scopes[0].auroc != other.scopes[0].auroc
    part = lint_source(GroupSample(source, 100, 0))
    assert (part.rows, part.items, part.scopes[0].groups) == (100, "texts", 50)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    def run(rows, **options) -> LintReport:
        return bluffscope.lint(written(tmp_path_factory.mktemp("lint") / "d.jsonl", rows), preset="demo", **options)

    return run


@pytest.mark.thorough
def test_token_lengths_are_tested_besides_characters(tokens):
    rows = clean_texts(40, prompts=False)
    for place, row in enumerate(rows):
        row["text"] = "the cat and the dog" if row["label"] else "zqjxkvwqzjxkqvzjxqk"
        row["text"] += f" {place:03}"
    report = tokens(rows)
    assert not report.of("length-imbalance")
    assert "tokens, g" in only(report, "token-length-imbalance")
    assert report.scopes[0].tokens.auroc == 1.0


@pytest.mark.thorough
def test_a_text_that_the_model_cannot_hold_is_an_error_and_counts_in_no_length(tokens):
    rows = clean_texts(30)
    rows[2]["prompt"] = "word " * 5000
    rows[5] = {"id": "statement", "text": "word " * 5000, "label": False}
    rows[7]["prompt"] = "The capital of Fr"
    rows[7]["completion"] = "ance"
    report = tokens(rows, join="")
    assert named(report, "no-token") == {rows[2]["id"], "statement"}
    assert all("the model's context holds" in finding.message for finding in report.of("no-token"))
    assert not any("text text" in finding.message for finding in report.of("no-token"))
    assert named(report, "boundary-merge") >= {rows[7]["id"]}
    assert not tokens(clean_texts(30)).of("boundary-merge")
