"""The bundled benchmark bluff200 keeps what its data card promises, property by property.

The file is read with the standard library alone. Groups are built here afresh, from the file, so that a fault in
the tool that writes it cannot hide. Tests that a broken set would fail are shown to fail on one at the end.
"""

import json
import re
import runpy
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, KFold
from sklearn.pipeline import make_pipeline

ROOT = Path(__file__).parents[2]
PATH = ROOT / "src/bluffscope/pairs/data/bluff200.jsonl"
TOOL = ROOT / "tools/make_benchmark.py"

DOMAINS = ("entity", "temporal", "logical", "adversarial")
FIELDS = {
    "id": str,
    "domain": str,
    "complexity": int,
    "prompt": str,
    "fact": str,
    "hallucination": str,
    "known": bool,
    "source": str,
}
NEGATIONS = {"not", "no", "never", "none", "without", "nobody", "nothing", "neither", "nor", "cannot"}
FUNCTION_WORDS = {"a", "an", "the", "of", "in", "on", "at", "to", "by", "and", "or", "for", "with"}
VECTORIZERS = {
    "words": {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
    "characters": {"analyzer": "char", "ngram_range": (2, 4)},
}


def normalise(text):
    return " ".join(text.casefold().split())


def words(text):
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.casefold())


def completions(pair):
    return pair["fact"], pair["hallucination"]


def group_ids(pairs):
    """Label the connected components of pairs that share a normalised prompt or a completion."""
    parent = list(range(len(pairs)))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    first = {}
    for i, pair in enumerate(pairs):
        for key in [("prompt", normalise(pair["prompt"])), *(("text", normalise(text)) for text in completions(pair))]:
            parent[root(i)] = root(first.setdefault(key, i))
    return [root(i) for i in range(len(pairs))]


def grouped(pairs):
    groups = defaultdict(list)
    for label, pair in zip(group_ids(pairs), pairs, strict=True):
        groups[label].append(pair)
    return list(groups.values())


def contains(sequence, part):
    """Whether the words of part stand in sequence one after the other."""
    return any(sequence[i : i + len(part)] == part for i in range(len(sequence) - len(part) + 1))


def text_auroc(pairs, vectorizer, text=lambda _pair, completion: completion, by_group=True):
    """AUROC of a text-only detector of hallucination, cross-validated, scores of all folds pooled."""
    texts = [text(pair, completion) for pair in pairs for completion in completions(pair)]
    labels = np.tile([0, 1], len(pairs))
    groups = np.repeat(group_ids(pairs), 2)
    scores = np.empty(len(texts))
    folds = GroupKFold(5) if by_group else KFold(5, shuffle=True, random_state=0)
    for train, test in folds.split(texts, labels, groups if by_group else None):
        model = make_pipeline(TfidfVectorizer(**VECTORIZERS[vectorizer]), LogisticRegression(C=10.0))
        model.fit([texts[i] for i in train], labels[train])
        scores[test] = model.decision_function([texts[i] for i in test])
    return roc_auc_score(labels, scores)


@pytest.fixture(scope="module")
def pairs():
    return [json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def tool():
    return SimpleNamespace(**runpy.run_path(str(TOOL)))


def by_domain(pairs, domain):
    return [pair for pair in pairs if pair["domain"] == domain]


# 1. Shape


def test_there_are_fifty_pairs_in_each_of_four_domains(pairs):
    assert Counter(pair["domain"] for pair in pairs) == dict.fromkeys(DOMAINS, 50)


def test_every_line_has_the_declared_fields_in_order_with_their_types(pairs):
    for pair in pairs:
        assert list(pair) == list(FIELDS), pair
        assert {name: type(value) for name, value in pair.items()} == FIELDS, pair


def test_ids_are_unique_and_name_domain_and_number(pairs):
    expected = [f"{domain}-{number:03d}" for domain in DOMAINS for number in range(1, 51)]
    assert [pair["id"] for pair in pairs] == expected


def test_no_text_is_empty_or_has_stray_white_space(pairs):
    for pair in pairs:
        for name in ("prompt", "fact", "hallucination", "source"):
            assert pair[name], pair
            assert pair[name] == " ".join(pair[name].split()), pair


def test_complexity_stays_in_range_and_varies_in_every_domain(pairs):
    assert all(1 <= pair["complexity"] <= 10 for pair in pairs)
    for domain in DOMAINS:
        assert len({pair["complexity"] for pair in by_domain(pairs, domain)}) >= 5


def test_prompts_and_completions_have_the_declared_lengths(pairs):
    for pair in pairs:
        assert 3 <= len(pair["prompt"].split()) <= 25, pair
        assert all(1 <= len(text.split()) <= 4 for text in completions(pair)), pair


def test_texts_are_plain_ascii_and_carry_no_final_stop(pairs):
    for pair in pairs:
        for text in (pair["prompt"], *completions(pair)):
            assert text.isascii(), pair
            assert text[-1].isalnum(), pair


def test_articles_agree_with_either_completion(pairs):
    for pair in pairs:
        article = pair["prompt"].split()[-1]
        if article in {"a", "an"}:
            vowels = {text[0].casefold() in "aeiou" for text in completions(pair)}
            assert vowels == {article == "an"}, pair


# 2. Groups


def test_groups_are_small_lie_in_one_domain_and_number_at_least_fifteen_in_each(pairs):
    groups = grouped(pairs)
    assert all(2 <= len(group) <= 4 for group in groups)
    assert all(len({pair["domain"] for pair in group}) == 1 for group in groups)
    per_domain = Counter(group[0]["domain"] for group in groups)
    assert all(per_domain[domain] >= 15 for domain in DOMAINS), per_domain


def test_no_completion_contains_a_completion_of_another_group(pairs):
    texts = {(label, tuple(words(t))) for label, p in zip(group_ids(pairs), pairs, strict=True) for t in completions(p)}
    clashes = [(a, b) for i, a in texts for j, b in texts if i != j and contains(a, b)]
    assert clashes == []


# 3. Balance


def test_every_fact_is_the_hallucination_of_another_pair_and_the_reverse(pairs):
    for pair in pairs:
        others = [other for other in pairs if other["id"] != pair["id"]]
        assert any(other["hallucination"] == pair["fact"] for other in others), pair
        assert any(other["fact"] == pair["hallucination"] for other in others), pair


def test_each_group_uses_every_completion_as_often_right_as_wrong(pairs):
    for group in grouped(pairs):
        assert Counter(p["fact"] for p in group) == Counter(p["hallucination"] for p in group), group


# 4. Length


def test_fact_and_hallucination_have_equally_many_words(pairs):
    assert [pair["id"] for pair in pairs if len({len(text.split()) for text in completions(pair)}) != 1] == []


def test_completions_of_a_group_differ_by_at_most_five_characters(pairs):
    for group in grouped(pairs):
        lengths = [len(text) for pair in group for text in completions(pair)]
        assert max(lengths) - min(lengths) <= 5, group


# 5. Last word


def test_the_last_words_differ_and_so_do_last_digits(pairs):
    for pair in pairs:
        fact, hallucination = (words(text)[-1] for text in completions(pair))
        assert fact != hallucination, pair
        if fact[-1].isdigit() or hallucination[-1].isdigit():
            assert fact[-1] != hallucination[-1], pair


def test_the_last_words_share_no_ending_longer_than_three_letters(pairs):
    """A tokeniser that splits off a suffix would read the same last token in both views."""
    for pair in pairs:
        fact, hallucination = (text.casefold() for text in completions(pair))
        assert fact[-4:] != hallucination[-4:], pair


# 6. and 7. Answers and negations


def test_no_content_word_of_a_completion_stands_in_its_prompt(pairs):
    for pair in pairs:
        answer = {word for text in completions(pair) for word in words(text)} - FUNCTION_WORDS
        assert answer.isdisjoint(words(pair["prompt"])), pair
        assert answer.isdisjoint(re.split(r"\W+", pair["prompt"].casefold())), pair


def test_no_completion_holds_a_negation(pairs):
    for pair in pairs:
        for text in completions(pair):
            assert NEGATIONS.isdisjoint(words(text)), pair
            assert "n't" not in text.casefold(), pair


# 8. Prompts


def test_no_prompt_occurs_twice_even_with_its_words_reordered(pairs):
    assert len({normalise(pair["prompt"]) for pair in pairs}) == len(pairs)
    assert len({tuple(sorted(words(pair["prompt"]))) for pair in pairs}) == len(pairs)


def test_no_claim_is_both_a_fact_and_a_hallucination(pairs):
    facts = {normalise(f"{pair['prompt']} {pair['fact']}") for pair in pairs}
    hallucinations = {normalise(f"{pair['prompt']} {pair['hallucination']}") for pair in pairs}
    assert facts.isdisjoint(hallucinations)
    assert len(facts) == len(hallucinations) == len(pairs)


# 9. Text alone tells nothing


@pytest.mark.parametrize("vectorizer", VECTORIZERS)
@pytest.mark.parametrize("domain", ["pooled", *DOMAINS])
def test_a_classifier_on_completions_alone_stays_at_chance(pairs, domain, vectorizer):
    chosen = pairs if domain == "pooled" else by_domain(pairs, domain)
    assert 0.40 <= text_auroc(chosen, vectorizer) <= 0.60


@pytest.mark.thorough
@pytest.mark.parametrize("vectorizer", VECTORIZERS)
@pytest.mark.parametrize("domain", ["pooled", *DOMAINS])
def test_a_classifier_on_whole_claims_stays_at_chance(pairs, domain, vectorizer):
    chosen = pairs if domain == "pooled" else by_domain(pairs, domain)
    auroc = text_auroc(chosen, vectorizer, text=lambda pair, completion: f"{pair['prompt']} {completion}")
    assert 0.40 <= auroc <= 0.60


@pytest.mark.parametrize("vectorizer", VECTORIZERS)
def test_the_same_classifier_finds_a_planted_cue(pairs, vectorizer):
    """Without this, chance could be a classifier that finds nothing anywhere."""
    marked = [{**pair, "hallucination": pair["hallucination"] + " indeed"} for pair in pairs]
    assert text_auroc(marked, vectorizer) > 0.9


@pytest.mark.parametrize("vectorizer", VECTORIZERS)
def test_a_split_that_ignores_groups_is_misled_by_the_mirrored_pairs(pairs, vectorizer):
    """A completion met in training carries the opposite label in the test fold: why the folds go by group."""
    assert text_auroc(pairs, vectorizer, by_group=False) < 0.40


# 10. Known and unseen


def test_known_is_constant_in_a_group_and_holds_for_36_to_40_pairs_of_each_domain(pairs):
    assert all(len({pair["known"] for pair in group}) == 1 for group in grouped(pairs))
    for domain in DOMAINS:
        assert 36 <= sum(pair["known"] for pair in by_domain(pairs, domain)) <= 40


def test_every_relation_with_an_unseen_group_has_a_known_one(tool):
    for table in tool.DOMAINS.values():
        groups = tool.groups_of(table)
        unseen = tool.unseen_of(groups)
        assert {group.family for group in unseen} == {group.family for group in groups}
        assert {group.relation for group in unseen} <= {group.relation for group in groups if group not in unseen}


@pytest.mark.parametrize("domain", DOMAINS)
def test_known_and_unseen_pairs_are_alike_in_complexity_and_length(pairs, domain):
    chosen = by_domain(pairs, domain)
    for measure, tolerance in [
        (lambda pair: pair["complexity"], 1.0),
        (lambda pair: len(pair["fact"].split()), 0.5),
        (lambda pair: len(pair["prompt"].split()), 3.0),
    ]:
        known = np.mean([measure(pair) for pair in chosen if pair["known"]])
        unseen = np.mean([measure(pair) for pair in chosen if not pair["known"]])
        assert abs(known - unseen) <= tolerance


# The tool, and the tests themselves


def test_the_tool_writes_the_same_bytes_again(tool, tmp_path):
    tool.write(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == PATH.read_bytes()


def test_sharing_one_completion_would_join_two_groups(pairs):
    changed = [dict(pair) for pair in pairs]
    changed[0]["fact"] = changed[-1]["fact"].upper() + " "
    assert len(grouped(changed)) == len(grouped(pairs)) - 1
