"""What the linter says of closed answers, of too few clusters and of chains, and that it says nothing twice."""

from __future__ import annotations

import pytest

import bluffscope
from bluffscope.config import DataOptions
from bluffscope.linter import GroupSample, LintReport, lint_source
from bluffscope.pairs import open_source
from planted import clean_pairs, written


@pytest.fixture
def lint(tmp_path):
    """Lint rows by way of a file."""

    def run(rows, **options) -> LintReport:
        return bluffscope.lint(written(tmp_path / "d.jsonl", rows), **options)

    return run


def directions(count: int, *, balanced: bool, **more) -> list[dict[str, object]]:
    rows = clean_pairs(count, 7, **more)
    for i, row in enumerate(rows):
        row["fact"], row["hallucination"] = ("north", "south") if i % 2 or not balanced else ("south", "north")
    return rows


def severities(report: LintReport) -> dict[str, str]:
    return {finding.code: finding.severity for finding in report.findings}


def test_balanced_answers_of_a_closed_set_are_only_named(lint):
    report = lint(directions(60, balanced=True))
    assert severities(report) == {"closed-answers": "info"}
    assert report.scopes[0].groups == 60
    assert report.findings[0].message == (
        "Answers of a closed set, 'north' (60 pairs), 'south' (60 pairs), link no pairs and get effects of their own "
        "in the statistics."
    )


def test_the_classifier_meets_a_closed_answer_in_all_folds_and_finds_nothing(lint):
    """What is more often true in the other folds is less often so in this one: its scores lean below chance."""
    (scope,) = lint(directions(200, balanced=True)).scopes
    assert 0.3 < scope.auroc < 0.55


def test_an_answer_that_is_always_right_is_an_error_that_is_said_once(lint):
    report = lint(directions(60, balanced=False))
    assert severities(report) == {"answer-is-label": "error", "closed-answers": "info"}
    assert report.failed
    assert report.scopes[0].auroc == 1.0
    (finding,) = report.of("answer-is-label")
    assert finding.message.endswith("no verdict will be given. Balance which answer is right.")
    assert report.headline() == "1 error (answer is label)"


@pytest.mark.thorough
def test_a_domain_in_which_the_answer_is_the_label_is_named(lint):
    report = lint([*clean_pairs(100, domain="open"), *directions(20, balanced=False, domain="bool")])
    (finding,) = report.of("answer-is-label")
    assert finding.scope == "bool" and " in domain 'bool': " in finding.message


def test_too_few_clusters_are_a_warning_with_the_reason_and_what_to_do(lint):
    report = lint(clean_pairs(9))
    assert severities(report) == {"few-clusters": "warning", "not-judged": "info"}
    assert report.of("few-clusters")[0].message == (
        "No verdict will be given: only 9 clusters in 9 pairs, and at least 10 are needed (pairs that share a prompt "
        "or a completion are one cluster). Add pairs with other prompts and completions, or name what is independent "
        "with --cluster-by."
    )
    rows = [row for domain in "abcdefg" for row in clean_pairs(3, ord(domain), domain=domain)]
    (finding,) = lint(rows).of("few-clusters")
    assert "only 3 clusters in 3 pairs in domain 'a', " in finding.message
    assert "in domain 'e' and 2 more, and at least 10" in finding.message


def test_clusters_by_a_column_are_in_report_and_json_and_their_reason_is_the_column(lint):
    rows = [row | {"source": i // 8} for i, row in enumerate(clean_pairs(40))]
    report = lint(rows, cluster_by="source")
    assert report.as_dict()["cluster_by"] == report.cluster_by == "source"
    assert report.scopes[0].groups == 5
    (finding,) = report.of("few-clusters")
    assert "only 5 clusters in 40 pairs" in finding.message
    assert "(pairs with the same 'source' are one cluster). Add pairs with other values" in finding.message
    with pytest.raises(bluffscope.InputError, match="--cluster-by place: no such column"):
        lint(rows, cluster_by="place")


@pytest.mark.thorough
def test_pairs_that_share_a_prompt_are_not_said_to_be_a_group_where_they_are_none(lint):
    rows = clean_pairs(20)
    rows[1]["prompt"] = rows[0]["prompt"]
    assert "they form one group" in lint(rows).of("duplicate-prompt")[0].message
    report = lint(rows, cluster_by="completion")
    assert report.of("duplicate-prompt")[0].message.endswith(": --cluster-by takes them for independent.")


def test_a_ring_of_swaps_is_named_with_how_to_cut_it(lint):
    rows = clean_pairs(40)
    for row, following in zip(rows, [*rows[1:], rows[0]], strict=True):
        row["hallucination"] = following["fact"]
    report = lint(rows)
    assert severities(report) == {"few-clusters": "warning", "chained-pairs": "warning", "not-judged": "info"}
    message = report.of("chained-pairs")[0].message
    assert message.startswith(
        "40 of 40 pairs are one cluster, chained by completions that are true in one pair and false"
    )
    assert message.endswith(
        "in '0-1' and '0-0'): swap facts in twos (A with B, C with D) or within small disjoint sets."
    )


def test_a_sample_is_judged_by_the_clusters_of_the_whole(tmp_path):
    """Of a hundred pairs a sample holds too few of the small domain."""
    rows = [*clean_pairs(200, domain="large"), *directions(24, balanced=True, domain="small")]
    source = open_source(DataOptions(data=str(written(tmp_path / "d.jsonl", rows))))
    report = lint_source(GroupSample(source, 60, 0))
    assert not report.of("few-clusters")
    assert report.of("closed-answers")[0].message.count("24 pairs") == 2
    assert report.scopes[0].groups == report.scopes[0].pairs
