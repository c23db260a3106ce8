"""Groups are the connected components of shared prompts and completions, whatever the order."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluffscope.errors import InputError
from bluffscope.pairs.groups import GroupBuilder, Groups, cluster_pairs, connected_components

WORDS = ["Paris", "paris ", "PARIS", "Rome", "St  Gallen", "st\tgallen", "Straße", "STRASSE", "Tokyo", "Ω"]
TEXTS = st.tuples(
    st.sampled_from([*WORDS, *(f"prompt {i}" for i in range(12))]),
    st.sampled_from([*WORDS, *(f"fact {i}" for i in range(20))]),
    st.sampled_from([*WORDS, *(f"hall {i}" for i in range(20))]),
    st.sampled_from("ab"),
)
CLOSED = st.tuples(
    st.integers().map("prompt {}".format), st.sampled_from(["yes", "no"]), st.sampled_from(["No ", "x"]), st.just("c")
)
ROWS = st.tuples(st.lists(TEXTS, min_size=1, max_size=25), st.lists(CLOSED, max_size=15)).map(
    lambda both: sum(both, [])
)
"""Prompt, fact, hallucination and domain of each pair."""


def labels_of(pairs, by="both") -> list[str]:
    builder = GroupBuilder(by)
    for pair in pairs:
        builder.add(*pair)
    return builder.groups().labels()


def frame_of(pairs) -> pl.DataFrame:
    names = ["pair_id", "prompt", "fact", "hallucination", "domain"]
    return pl.DataFrame([dict(zip(names, pair, strict=False)) for pair in pairs])


def fold(text):
    return " ".join(text.casefold().split())


def naive_closed(pairs) -> set[str]:
    """Each completion, counted in all pairs and in each domain."""
    closed = set()
    for scope in (pairs, *([pair for pair in pairs if pair[4] == domain] for domain in {pair[4] for pair in pairs})):
        for text in {fold(text) for pair in scope for text in pair[2:4]}:
            number = sum(text in (fold(pair[2]), fold(pair[3])) for pair in scope)
            if number >= 10 and number >= 0.05 * len(scope):
                closed.add(text)
    return closed


def naive_partition(pairs, by="both") -> set[frozenset[str]]:
    """Every pair against every other, merged until nothing changes."""
    closed = naive_closed(pairs)

    def linked(one, other):
        completions = {fold(one[2]), fold(one[3])} & {fold(other[2]), fold(other[3])} - closed
        prompts = fold(one[1]) == fold(other[1])
        return (by != "completion" and prompts) or (by != "prompt" and bool(completions))

    component = list(range(len(pairs)))
    changed = True
    while changed:
        changed = False
        for i, one in enumerate(pairs):
            for j, other in enumerate(pairs):
                if linked(one, other) and component[i] != component[j]:
                    component[i] = component[j] = min(component[i], component[j])
                    changed = True
    return {
        frozenset(pair[0] for pair, own in zip(pairs, component, strict=True) if own == group) for group in component
    }


def partition(pairs, labels) -> set[frozenset[str]]:
    return {
        frozenset(pair[0] for pair, own in zip(pairs, labels, strict=True) if own == label) for label in set(labels)
    }


@settings(max_examples=200, deadline=None)
@given(ROWS, st.sampled_from(["both", "prompt", "completion"]))
def test_groups_equal_the_naive_definition(rows, by):
    pairs = [(f"id{i}", *row) for i, row in enumerate(rows)]
    assert partition(pairs, labels_of(pairs, by)) == naive_partition(pairs, by)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.randoms(use_true_random=False), st.sampled_from(["both", "prompt", "completion"]))
def test_labels_do_not_depend_on_the_order_of_pairs(rows, random, by):
    pairs = [(f"id{i}", *row) for i, row in enumerate(rows)]
    shuffled = random.sample(pairs, len(pairs))
    before = dict(zip((pair[0] for pair in pairs), labels_of(pairs, by), strict=True))
    after = dict(zip((pair[0] for pair in shuffled), labels_of(shuffled, by), strict=True))
    assert before == after


@settings(max_examples=100, deadline=None)
@given(ROWS, st.sampled_from(["both", "prompt", "completion"]))
def test_a_table_has_the_clusters_of_its_source_and_names_its_closed_completions(rows, by):
    pairs = [(f"id{i}", *row) for i, row in enumerate(rows)]
    found = cluster_pairs(frame_of(pairs), by)
    assert found.labels.to_list() == labels_of(pairs, by)
    assert {fold(name) for name in found.names} == naive_closed(pairs)
    assert len(found.names) == len({fold(name) for name in found.names})
    texts = [text for pair in pairs for text in pair[2:4]]
    counts = [sum(fold(name) in map(fold, pair[2:4]) for pair in pairs) for name in found.names]
    assert counts == sorted(counts, reverse=True)
    assert [texts[[*map(fold, texts)].index(fold(name))] for name in found.names] == list(found.names)
    for pair, numbers in zip(pairs, found.closed.tolist(), strict=True):
        for text, number in zip(pair[2:4], numbers, strict=True):
            assert (fold(found.names[number]) == fold(text)) if number >= 0 else fold(text) not in naive_closed(pairs)


def yes_or_no(count: int, domain: str = "all") -> list[tuple[str, ...]]:
    answers = ("yes", "No"), (" NO", "Yes")
    return [(f"{domain}{i}", f"Is statement {i} of {domain} true?", *answers[i % 2], domain) for i in range(count)]


def capitals(count: int) -> list[tuple[str, ...]]:
    return [(f"c{i}", f"The capital of country {i} is", f"town {i}", f"city {i}", "capitals") for i in range(count)]


def test_pairs_of_a_closed_set_of_answers_are_each_a_cluster():
    found = cluster_pairs(frame_of(yes_or_no(200)))
    assert found.labels.n_unique() == 200
    assert found.names == ("No", "yes")
    assert found.closed[:2].tolist() == [[1, 0], [0, 1]]


def test_a_domain_of_closed_answers_counts_by_itself_and_links_nothing_elsewhere():
    """Twenty pairs of a thousand are 2 %, but all of their domain."""
    pairs = [
        *capitals(980),
        *yes_or_no(20, "bool"),
        *(("x", "A", "yes", "a", "capitals"), ("y", "B", "b", "no", "other")),
    ]
    assert len(set(labels_of(pairs))) == len(pairs)
    assert cluster_pairs(frame_of(pairs)).names == ("No", "yes")


def test_nine_pairs_or_less_than_a_twentieth_of_them_are_not_closed():
    def largest(pairs):
        return cluster_pairs(frame_of(pairs)).labels.value_counts()["count"].max()

    assert largest(yes_or_no(9)) == 9
    assert largest(yes_or_no(10)) == 1
    few = [(pair_id, prompt, "yes", f"no {pair_id}", "capitals") for pair_id, prompt, *_ in yes_or_no(10)]
    assert largest([*capitals(190), *few]) == 1
    assert largest([*capitals(191), *few]) == 10


def test_a_completion_that_is_both_sides_of_a_pair_counts_once():
    pairs = [(f"p{i}", f"prompt {i}", "same", "same", "all") for i in range(9)]
    assert len(set(labels_of(pairs))) == 1


def test_the_values_of_a_column_are_clusters_and_null_is_one_of_its_own():
    values = ["a", None, "b", "a", None, float("nan"), "b"]
    frame = frame_of(capitals(7)).with_columns(
        topic=pl.Series([value if isinstance(value, str) else None for value in values]),
        number=pl.Series([1.0, None, 2.0, 1.0, None, float("nan"), 2.0]),
    )
    for column in ("topic", "number"):
        labels = cluster_pairs(frame, column).labels.to_list()
        assert labels[0] == labels[3] != labels[2] == labels[6]
        assert len(set(labels)) == 5
    with pytest.raises(InputError, match="--cluster-by theme: no such column; .* a column out of 'pair_id', .*'topic'"):
        cluster_pairs(frame, "theme")


def test_numbers_count_as_text_missing_texts_link_nothing_and_ids_are_row_numbers():
    frame = pl.DataFrame({"prompt": [1, 1, None, None], "fact": [None] * 4, "hallucination": ["a", "b", " ", " "]})
    labels = cluster_pairs(frame).labels.to_list()
    assert labels == cluster_pairs(frame.with_columns(pair_id=pl.Series(range(4)))).labels.to_list()
    assert labels[0] == labels[1] and len(set(labels)) == 3
    assert labels == labels_of([("0", "1", None, "a"), ("1", "1", None, "b"), ("2", *[None] * 3), ("3", *[None] * 3)])
    nothing = cluster_pairs(frame.head(0))
    assert (len(nothing.labels), nothing.closed.shape, nothing.names) == (0, (0, 2), ())


def test_a_prompt_that_equals_a_completion_does_not_link():
    labels = labels_of([("a", "Rome", "x", "y"), ("b", "z", "Rome", "w")])
    assert labels[0] != labels[1]


def test_fact_and_hallucination_link_across_pairs():
    labels = labels_of(
        [("a", "France", "Paris", "Rome"), ("b", "Italy", " rome", "Milan"), ("c", "Peru", "Lima", "Bo")]
    )
    assert labels[0] == labels[1] != labels[2]


def test_a_label_is_g_and_twelve_hex_digits_of_the_smallest_id_hash():
    smallest = min(hashlib.blake2b(name.encode(), digest_size=8).hexdigest() for name in ("one", "two", "three"))
    labels = labels_of([(name, "the same prompt", name, "h") for name in ("one", "two", "three")])
    assert labels == ["g" + smallest[:12]] * 3


def test_labels_that_agree_in_twelve_digits_are_told_apart():
    groups = Groups.of(np.array([0x123456789ABC0000, 0x123456789ABC0001, 5], dtype=np.uint64))
    assert groups.labels() == ["g123456789abc0000", "g123456789abc0001", "g0000000000000005"]


def test_labels_come_one_by_one_as_they_come_all_at_once():
    groups = Groups.of(np.random.default_rng(0).integers(0, 2**64, 10_000, dtype=np.uint64))
    assert list(groups) == groups.labels() == groups.tolist()
    assert groups.labels(4090, 4100) == groups.labels()[4090:4100]


def test_numbers_and_labels_make_the_same_groups():
    groups = Groups.of(np.random.default_rng(0).integers(0, 300, 1000, dtype=np.uint64) << np.uint64(20))
    ordered = sorted(set(groups))
    assert [ordered[number] for number in groups.numbers()] == groups.labels()


def test_long_chains_are_one_component_in_reasonable_time():
    count = 200_000
    order = np.random.default_rng(0).permutation(count)
    edges = np.stack([order[:-1], order[1:]])
    assert not connected_components(count, edges).any()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_components_are_named_by_their_smallest_node(graph):
    count, edges = graph
    found = connected_components(count, np.array(edges, dtype=np.int64).reshape(-1, 2).T)
    assert all(found[a] == found[b] for a, b in edges)
    assert all(found[root] == root for root in found)
    assert all(found[node] <= node for node in range(count))
    assert all(_linked(node, root, edges) for node, root in enumerate(found))


def _linked(node, root, edges) -> bool:
    seen = {node}
    while grown := {b for a, b in [*edges, *((b, a) for a, b in edges)] if a in seen} - seen:
        seen |= grown
    return root in seen


def test_the_chain_of_pairs_that_share_one_completion_is_one_group():
    pairs = [(f"id{i}", f"prompt {i}", f"c{i}", f"c{i + 1}") for i in range(2000)]
    labels = labels_of(pairs)
    assert all(one == other for one, other in pairwise(labels))
