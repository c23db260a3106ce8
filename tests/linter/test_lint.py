"""The linter: each planted fault is found and named by pair id, clean data is left alone, and the numbers are right."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import bluffscope
from bluffscope.config import DataOptions
from bluffscope.errors import InputError
from bluffscope.linter import CODES, LintReport, lint_source
from bluffscope.linter.balance import sign_p, signed_rank_p, smallest_p
from bluffscope.linter.classifier import FALSE_ALARMS, MOST_DOMAINS, draw_sample, judge
from bluffscope.linter.profile import take_profile
from bluffscope.linter.words import holds, last_piece, negated, pieces, words
from bluffscope.pairs import open_source
from bluffscope.pairs.groups import normalised
from planted import clean_pairs, planted, written


@pytest.fixture
def lint(tmp_path):
    """Lint rows by way of a file."""

    def run(rows, **options) -> LintReport:
        return bluffscope.lint(written(tmp_path / "d.jsonl", rows), **options)

    return run


def named(report: LintReport, code: str) -> set[str]:
    return {pair for finding in report.of(code) for pair in finding.pairs}


def codes(report: LintReport) -> set[str]:
    return {finding.code for finding in report.findings}


# No false alarm


def test_the_bundled_benchmark_has_no_finding_not_even_in_the_demo_models_tokens():
    assert bluffscope.lint("bluff200").findings == ()
    assert bluffscope.lint("bluff200", preset="demo").findings == ()


@pytest.mark.parametrize("seed", range(4))
def test_clean_pairs_have_no_finding(lint, seed):
    assert lint(clean_pairs(150, seed)).findings == ()


# Every planted fault


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> tuple[LintReport, dict[str, set[str]]]:
    rows, expected = planted()
    return bluffscope.lint(written(tmp_path_factory.mktemp("lint") / "d.jsonl", rows)), expected


@pytest.mark.parametrize("code", planted()[1])
def test_every_planted_fault_is_found_by_pair_id(faulty, code):
    report, expected = faulty
    found = [finding for finding in report.of(code) if finding.scope in (None, "longer", "denying")]
    assert found, code
    assert all(finding.severity == CODES[code] for finding in found)
    pairs = {pair for finding in found for pair in finding.pairs}
    if code == "text-tells":  # it names the ten it is surest of, all from where the cue was planted
        assert len(pairs) == 10
        assert pairs <= expected["negation-imbalance"]
    else:
        assert pairs == expected[code]


def test_every_code_of_the_linter_is_planted_in_words_or_in_tokens():
    of_clusters = {"answer-is-label", "few-clusters", "chained-pairs", "closed-answers"}  # test_clusters.py
    told = {"not-judged", "labels-as-texts"} | of_clusters  # of a whole data set: see below
    told |= {"plain-text"}  # of a model: contract/test_chat_runs.py
    in_tokens = {"same-last-token", "boundary-merge", "token-length-imbalance", "no-token"}
    of_texts = {"one-label", "few-of-a-label", "label-imbalance", "domain-tells", "one-label-prompts"}
    of_texts |= {"duplicate-text", "prompt-tells"}  # labelled/test_texts.py
    assert set(planted()[1]) | in_tokens | told | of_texts == set(CODES)
    assert not set(planted()[1]) & in_tokens


def test_the_planted_rest_is_left_alone_and_pooled_findings_name_the_same_pairs(faulty):
    report, expected = faulty
    assert codes(report) <= set(expected) | {"not-judged"}
    assert not [finding for finding in report.findings if finding.scope == "clean"]
    assert expected["negation-imbalance"] == {
        pair for f in report.of("negation-imbalance") if f.scope == "pooled" for pair in f.pairs
    }
    assert report.failed


def test_every_finding_is_one_printable_sentence_with_places_of_its_pairs(faulty):
    report, _ = faulty
    rows, _ = planted()
    for finding in report.findings:
        assert finding.message.endswith("."), finding
        assert finding.message.isprintable()
        assert len(finding.message) < 500
        assert len(finding.pairs) == len(finding.rows)
        assert [rows[row]["id"] for row in finding.rows] == list(finding.pairs)


def test_the_report_is_plain_json_and_can_be_cut_without_losing_its_counts(faulty):
    report, _ = faulty
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert sum(content["counts"].values()) == len(content["findings"]) == len(report.findings)
    cut = report.as_dict(1)
    assert cut["counts"] == content["counts"]
    assert all(len(finding["pairs"]) <= 1 for finding in cut["findings"])
    assert {finding["count"] for finding in cut["findings"]} <= {f["count"] for f in content["findings"]}
    assert max(finding["count"] for finding in cut["findings"]) > 1


def test_errors_and_warnings_make_a_headline_and_infos_do_not(lint):
    rows = clean_pairs(40)
    assert lint(rows).headline() is None
    rows[3] |= {"fact": "one end", "hallucination": "another end"}
    assert lint(rows).headline() == "1 warning (same last word: 1 pair)"
    rows[4] |= {"fact": "x", "hallucination": "x"}
    assert lint(rows).headline() == "1 error (same completions: 1 pair), 1 warning (same last word: 2 pairs)"
    assert lint(clean_pairs(10)).headline() is None


# Rows and files


def test_all_uses_of_an_id_are_named_with_their_places_also_across_files(tmp_path):
    first, second = clean_pairs(30), clean_pairs(30, seed=5)
    for row in (first[2], first[9], second[4]):
        row["id"] = "a"
    (tmp_path / "d").mkdir()
    written(tmp_path / "d" / "1.jsonl", first)
    written(tmp_path / "d" / "2.jsonl", second)
    (finding,) = bluffscope.lint(tmp_path / "d").of("duplicate-id")
    assert finding.rows == (2, 9, 34)
    assert finding.pairs == ("a", "a", "a")
    for place in ("1.jsonl: line 3", "1.jsonl: line 10", "2.jsonl: line 5"):
        assert place in finding.message


def test_an_unreadable_row_costs_itself_only(lint):
    rows = clean_pairs(30)
    rows[0]["prompt"] = ""
    rows[29] |= {"fact": "b", "hallucination": "B"}
    report = lint(rows)
    assert [finding.code for finding in report.findings] == ["unreadable-row", "same-completions", "same-last-word"]
    assert "line 1 (pair 0, id '0-0'): field 'prompt' is empty" in report.findings[0].message
    assert report.findings[1].rows == (29,)
    assert report.rows == 30
    assert report.scopes[0].pairs == 29


def test_data_without_one_readable_row_or_whose_file_is_broken_is_refused(lint, tmp_path):
    with pytest.raises(InputError, match="field 'prompt' is missing"):
        lint([{"question": "q", "fact": "a", "hallucination": "b"}] * 3)
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a", "fact": "b", "hallucination": "c"}\n{"id": }\n')
    with pytest.raises(InputError, match="line 2, column 8"):
        bluffscope.lint(tmp_path / "broken.jsonl")
    with pytest.raises(InputError, match="no such file"):
        bluffscope.lint(tmp_path / "none.jsonl")


def test_data_that_changes_between_the_passes_is_noticed(tmp_path):
    path = written(tmp_path / "d.jsonl", clean_pairs(5))
    source = open_source(DataOptions(data=str(path)))
    list(source.rows())
    written(path, clean_pairs(6))
    with pytest.raises(InputError, match="changed while it was in use"):
        list(source.rows())


def test_options_choose_columns_domains_and_rows_and_pairs_may_be_given_in_memory(lint):
    rows = [{"q": row.pop("prompt"), **row} for row in clean_pairs(12)]
    rows[8]["fact"] = rows[8]["hallucination"]
    options = {"columns": ["prompt=q"], "domain_from": "file"}
    assert named(lint(rows, **options), "same-completions") == {"0-8"}
    assert not lint(rows, limit=8, **options).of("same-completions")
    assert named(bluffscope.lint(iter(rows), **options), "same-completions") == {"0-8"}
    with pytest.raises(TypeError, match="'layers'"):
        bluffscope.lint("bluff200", layers=(1,))


TEXT = st.sampled_from(["a", "A", "b ", "c", "not a", "a b"])
ROW = st.fixed_dictionaries({"id": st.sampled_from("wxyz"), "prompt": TEXT, "fact": TEXT, "hallucination": TEXT})


def test_repeats_are_what_a_plain_comparison_of_all_rows_says(tmp_path_factory):
    path = tmp_path_factory.mktemp("lint") / "d.jsonl"

    @settings(max_examples=60, deadline=None)
    @given(st.lists(ROW, min_size=1, max_size=8))
    def check(rows):
        report = lint_source(open_source(DataOptions(data=str(written(path, rows)))))

        def found(code: str) -> set[tuple[int, ...]]:
            return {finding.rows for finding in report.of(code)}

        def alike(*keys: str) -> set[tuple[int, ...]]:
            texts = [tuple(row[k] if k == "id" else normalised(row[k]) for k in keys) for row in rows]
            runs = {tuple(i for i, other in enumerate(texts) if other == text) for text in texts}
            return {run for run in runs if len(run) > 1}

        assert found("duplicate-id") == alike("id")
        assert found("duplicate-pair") == alike("prompt", "fact", "hallucination")
        assert found("duplicate-prompt") == alike("prompt") - alike("prompt", "fact", "hallucination")
        pairs = [(normalised(r["prompt"]), normalised(r["fact"]), normalised(r["hallucination"])) for r in rows]
        clashes = {
            (i, j)
            for i, (prompt, fact, _) in enumerate(pairs)
            for j, (other, _, hall) in enumerate(pairs)
            if i != j and prompt == other and fact == hall
        }
        said = [set(finding.rows) for finding in report.of("contradiction")]
        assert all(any({i, j} <= rows for rows in said) for i, j in clashes)
        assert set().union(*said) == {row for clash in clashes for row in clash}
        assert found("same-completions") == (
            {same} if (same := tuple(i for i, (_, f, h) in enumerate(pairs) if f == h)) else set()
        )

    check()


# Words


def test_words_negations_and_endings_are_seen_as_documented():
    assert words("It isn't 3.5, Élan!") == ["it", "isn't", "3", "5", "élan"]
    assert pieces("Yes, no.") == ["yes", ",", "no", "."]
    for text in ("It is NOT so", "they don't", "they don\N{RIGHT SINGLE QUOTATION MARK}t", "Nobody", "cannot"):
        assert negated(text)
    for text in ("a knot", "nothingness", "November", "noble", "want", ""):
        assert not negated(text)
    assert last_piece("in Paris.") == "." != last_piece("in Paris")
    assert last_piece("\N{ROCKET}") == "\N{ROCKET}"
    assert holds("Is it Rome, New York or Oslo?", "new york")
    assert not holds("Is it New or York", "New York")
    assert not holds("Romeo", "Rome")
    assert not holds("What?", "?")


def test_an_answer_that_the_prompt_offers_beside_the_other_tells_nothing(lint):
    rows = clean_pairs(30)
    rows[0] |= {"prompt": "Oslo or Rome? The capital of Norway is", "fact": "Oslo", "hallucination": "Rome"}
    assert not lint(rows).of("answer-in-prompt")
    rows[0]["hallucination"] = "Bergen"
    assert named(lint(rows), "answer-in-prompt") == {"0-0"}
    rows[0] |= {"fact": "Bergen", "hallucination": "rome"}
    assert named(lint(rows), "answer-in-prompt") == {"0-0"}


# Balance


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=80))
@settings(deadline=None)
def test_the_paired_tests_agree_with_scipy_on_group_means(differences):
    values = np.array(differences, dtype=float)
    groups = np.arange(len(values)) // 2
    means = np.array([values[groups == group].mean() for group in range(groups.max() + 1)])
    if not means.any():
        assert signed_rank_p(values, groups) is None
        assert sign_p(values, groups) is None
        return
    assert sign_p(values, groups) == pytest.approx(
        stats.binomtest(int((means > 0).sum()), int((means != 0).sum())).pvalue, abs=1e-12
    )
    expected = stats.wilcoxon(means, zero_method="wilcox", correction=False, method="asymptotic").pvalue
    got = signed_rank_p(values, groups)
    assert got is not None
    assert got == pytest.approx(expected, abs=1e-9) or len(means[means != 0]) <= 50  # exact where it can be


def with_lengths(differences: list[int]) -> list[dict]:
    rows = clean_pairs(len(differences), seed=7)
    for row, difference in zip(rows, differences, strict=True):
        row["fact"] += "q" * max(0, -difference)
        row["hallucination"] += "q" * max(0, difference)
    return rows


@pytest.mark.thorough
def test_lengths_that_differ_the_same_way_are_found_and_those_that_cancel_are_not(lint):
    spread = [1, 2, 3, -1, -2, -3] * 10
    assert not lint(with_lengths(spread)).of("length-imbalance")
    shifted = lint(with_lengths([d + 2 for d in spread])).of("length-imbalance")
    assert [finding.scope for finding in shifted] == ["pooled"]
    constant = lint(with_lengths([1] * 30)).of("length-imbalance")
    assert "the same in all" in constant[0].message
    assert len(constant[0].pairs) == 30
    assert "shorter" in lint(with_lengths([-1] * 30)).of("length-imbalance")[0].message


def test_a_lean_that_a_few_very_long_texts_hide_from_dz_is_found(lint):
    report = lint(with_lengths([1] * 60 + [-60]))
    assert report.scopes[0].length_dz == pytest.approx(0.0, abs=0.01)
    assert len(report.of("length-imbalance")) == 1


@pytest.mark.thorough
def test_a_trifle_is_no_finding_however_many_pairs_there_are(lint):
    rng = random.Random(0)
    report = lint(with_lengths([round(rng.gauss(0.5, 5)) for _ in range(3000)]))
    assert report.scopes[0].length_p is not None
    assert report.scopes[0].length_p < 0.001
    assert not report.of("length-imbalance")


def test_pairs_of_one_group_count_once(lint):
    """Sixty pairs that share a prompt are one piece of evidence, whatever their lengths."""
    rows = with_lengths([3] * 60)
    for row in rows:
        row["prompt"] = "one and the same"
    report = lint(rows)
    assert report.scopes[0].groups == 1
    assert not report.of("length-imbalance")


# The text classifier


@pytest.mark.thorough
def test_a_planted_cue_is_found_named_and_placed_in_its_domain(lint):
    rows = [*clean_pairs(60, 1, domain="a"), *clean_pairs(60, 2, domain="b")]
    for row in rows[60:]:
        row["fact"] = row["fact"][:-2] + " indeed"
        row["hallucination"] = row["hallucination"][:-2] + " really"
    report = lint(rows)
    tells = report.of("text-tells")
    assert [finding.scope for finding in tells] == ["pooled", "b"]
    assert "'really'" in tells[0].message.split(" for a hallucination")[0]
    assert "'indeed'" in tells[0].message.split(" for a hallucination")[1]
    assert all(pair.startswith("2-") for finding in tells for pair in finding.pairs)
    by_scope = {scope.scope: scope for scope in report.scopes}
    assert by_scope["b"].auroc == 1.0
    assert by_scope["a"].auroc_lo <= 0.5 <= by_scope["a"].auroc_hi


@pytest.mark.thorough
def test_a_capital_letter_or_a_full_stop_is_a_cue_too(lint):
    for change in (str.capitalize, lambda text: text + "."):
        rows = clean_pairs(80)
        for row in rows:
            row["fact"] = change(row["fact"])
        assert lint(rows).of("text-tells")


@pytest.mark.thorough
def test_mirrored_pairs_do_not_look_like_a_cue_nor_hide_one(lint):
    rows = []
    for i, row in enumerate(clean_pairs(60)):
        mirror = row | {"id": f"m{i}", "prompt": f"{row['prompt']} rather"}
        rows += [row, mirror | {"fact": row["hallucination"], "hallucination": row["fact"]}]
    report = lint(rows)
    assert report.scopes[0].groups == 60
    assert not report.of("text-tells")
    for row in rows:
        row["hallucination"] += " indeed"
    assert lint(rows).of("text-tells")


def test_too_few_independent_pairs_are_said_not_to_be_judged(lint):
    report = lint([*clean_pairs(30, domain="a"), *clean_pairs(19, 1, domain="b")])
    (finding,) = report.findings
    assert (finding.code, finding.severity) == ("not-judged", "info")
    assert "'b' (19 independent groups)" in finding.message
    assert not report.failed


@pytest.mark.thorough
def test_large_data_is_judged_by_a_seeded_sample_of_whole_groups(tmp_path):
    rows = clean_pairs(300)
    for row, other in zip(rows[::2], rows[1::2], strict=True):
        other["fact"] = row["hallucination"]
    source = open_source(DataOptions(data=str(written(tmp_path / "d.jsonl", rows))))
    first, again, other = (lint_source(source, most_judged=100, seed=seed) for seed in (0, 0, 1))
    assert first.scopes[0].auroc_pairs == 100
    assert first == again
    assert first.scopes[0].auroc != other.scopes[0].auroc
    sampled = draw_sample(take_profile(source, None), 100, seed=0).scopes["pooled"] // 2
    assert len(np.unique(sampled)) == 50


@pytest.mark.thorough
def test_a_weak_cue_is_found_by_its_p_value_where_the_interval_reaches_below_the_margin():
    """One word more in 30 % of 150 hallucinations: AUROC 0.63, and an interval from 0.53."""
    rng = random.Random(0)

    def text() -> str:
        return " ".join(f"w{rng.randrange(300)}" for _ in range(8))

    facts = [text() for _ in range(150)]
    halls = [text() + (" indeed" if rng.random() < 0.3 else "") for _ in range(150)]
    rows = [
        {"id": str(i), "prompt": f"Number {i} is", "fact": fact, "hallucination": hall}
        for i, (fact, hall) in enumerate(zip(facts, halls, strict=True))
    ]
    report = bluffscope.lint(rows)
    pooled = report.scopes[0]
    assert pooled.auroc == pytest.approx(0.63, abs=0.01)
    assert pooled.auroc_lo < 0.55
    assert pooled.auroc_p < 0.02
    (finding,) = report.of("text-tells")
    assert "p = 0.0" in finding.message and "'indeed'" in finding.message


def test_no_p_value_lies_below_the_smallest_that_so_many_groups_can_give():
    for groups in range(1, 41):
        for differences in (np.ones(groups), np.arange(1.0, groups + 1), np.arange(groups) // 2 + 1.0):
            for test in (signed_rank_p, sign_p):
                p = test(differences, np.arange(groups))
                assert p is not None and p >= smallest_p(groups) * (1 - 1e-9)


@pytest.mark.thorough
def test_of_many_domains_the_largest_are_judged_and_small_ones_are_not_tested(lint):
    rows = [
        row | {"domain": f"d{i % 45}", "hallucination": row["hallucination"] + "q"}
        for i, row in enumerate(clean_pairs(45 * 20))
    ]
    report = lint(rows)
    judged = [scope for scope in report.scopes if scope.auroc is not None]
    assert len(judged) == 1 + MOST_DOMAINS
    assert "sample used up by larger domains" in report.of("not-judged")[0].message
    assert len(report.of("length-imbalance")) == 46
    few = lint([row | {"domain": f"d{i % 225}"} for i, row in enumerate(rows)])
    assert [finding.scope for finding in few.of("length-imbalance")] == ["pooled"]
    assert {scope.length_p for scope in few.scopes[1:]} == {None}


@pytest.mark.thorough
def test_the_same_words_on_both_sides_give_no_finding_in_99_of_100_data_sets():
    """Facts and hallucinations drawn alike: whatever the classifier finds is a false alarm ."""
    rng = random.Random(3)
    vocabulary = ["red", "green", "blue", "old", "new", "big", "lake", "town"]
    alarms = 0
    for seed in range(100):
        facts, halls = ([" ".join(rng.choices(vocabulary, k=3)) for _ in range(20)] for _ in "fh")
        found = judge(facts, halls, np.arange(20), 0.95, seed)
        alarms += found.p is not None and found.p <= FALSE_ALARMS
    assert alarms <= 8  # of 100, where 4 % are expected


# A model's tokens


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    def run(rows, **options) -> LintReport:
        return bluffscope.lint(written(tmp_path_factory.mktemp("lint") / "d.jsonl", rows), preset="demo", **options)

    return run


def test_with_a_model_endings_are_compared_as_its_tokens(tokens):
    rows = clean_pairs(30)
    rows[0] |= {"fact": "Paris.", "hallucination": "Rome."}
    report = tokens(rows)
    assert not report.of("same-last-word")
    assert "0-0" in named(report, "same-last-token")


def test_a_prompt_that_merges_with_its_completion_is_named(tokens):
    rows = clean_pairs(30)
    rows[4] |= {"prompt": "The capital of Fr", "fact": "ance", "hallucination": "iend"}
    assert named(tokens(rows, join=""), "boundary-merge") >= {"0-4"}
    assert not tokens(clean_pairs(30)).of("boundary-merge")


@pytest.mark.thorough
def test_token_lengths_are_tested_besides_characters(tokens):
    rows = clean_pairs(30)
    for row in rows:
        row |= {"fact": "the capital of France", "hallucination": "zqjxkvwqzjxkqvzjxqkwz", "prompt": row["prompt"]}
        row["hallucination"] = "".join(random.Random(row["id"]).sample(row["hallucination"], 21))
        row["fact"] = row["id"].replace("-", " of the ")[:21].ljust(21, "s")
    report = tokens(rows)
    assert not report.of("length-imbalance")
    assert report.scopes[0].token_dz is not None
    assert len(report.of("token-length-imbalance")) == 1


def test_a_pair_that_the_model_cannot_hold_is_an_error(tokens):
    rows = clean_pairs(30)
    rows[2]["prompt"] = "word " * 5000
    report = tokens(rows)
    assert named(report, "no-token") == {"0-2"}
    assert "context holds" in report.of("no-token")[0].message
    assert report.failed
