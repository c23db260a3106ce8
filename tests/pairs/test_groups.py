"""Groups are the connected components of shared prompts and completions, whatever the order."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bluffscope.pairs.groups import GroupBuilder, Groups, connected_components

WORDS = ["Paris", "paris ", "PARIS", "Rome", "St  Gallen", "st\tgallen", "Straße", "STRASSE", "Tokyo", "Ω"]
TEXT_TRIPLES = st.lists(
    st.tuples(
        st.sampled_from([*WORDS, *(f"prompt {i}" for i in range(12))]),
        st.sampled_from([*WORDS, *(f"fact {i}" for i in range(20))]),
        st.sampled_from([*WORDS, *(f"hall {i}" for i in range(20))]),
    ),
    min_size=1,
    max_size=25,
)


def labels_of(pairs) -> list[str]:
    builder = GroupBuilder()
    for pair_id, prompt, fact, hallucination in pairs:
        builder.add(pair_id, prompt, fact, hallucination)
    return builder.groups().labels()


def naive_partition(pairs) -> set[frozenset[str]]:
    """Every pair against every other, merged until nothing changes."""

    def fold(text):
        return " ".join(text.casefold().split())

    def linked(one, other):
        completions = {fold(one[2]), fold(one[3])} & {fold(other[2]), fold(other[3])}
        return fold(one[1]) == fold(other[1]) or bool(completions)

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


@settings(max_examples=300, deadline=None)
@given(TEXT_TRIPLES)
def test_groups_equal_the_naive_definition(triples):
    pairs = [(f"id{i}", *triple) for i, triple in enumerate(triples)]
    assert partition(pairs, labels_of(pairs)) == naive_partition(pairs)


@settings(max_examples=150, deadline=None)
@given(TEXT_TRIPLES, st.randoms(use_true_random=False))
def test_labels_do_not_depend_on_the_order_of_pairs(triples, random):
    pairs = [(f"id{i}", *triple) for i, triple in enumerate(triples)]
    shuffled = random.sample(pairs, len(pairs))
    before = dict(zip((pair[0] for pair in pairs), labels_of(pairs), strict=True))
    after = dict(zip((pair[0] for pair in shuffled), labels_of(shuffled), strict=True))
    assert before == after


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
