"""What a scan finds of closed answers, of too few clusters and of chains."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from bluffscope.config import DataOptions
from bluffscope.errors import InputError
from bluffscope.pairs import open_source
from bluffscope.pairs.links import Chain, Few, Links, _gives_away


@pytest.fixture
def links(tmp_path):
    """The links of rows, by way of a file."""

    def found(rows, **options) -> Links:
        named = [{"id": f"p{i}"} | row for i, row in enumerate(rows)]
        data = tiny.write_pairs(tmp_path / "pairs.jsonl", named)
        return open_source(DataOptions(data=str(data), **options)).scan().links

    return found


def answers(count: int, *sides: tuple[str, str], domain: str = "all") -> list[dict[str, object]]:
    """Pairs whose fact and hallucination go through these in turn."""
    return [
        {"prompt": f"Question {i} of {domain}:", "domain": domain}
        | dict(zip(("fact", "hallucination"), side, strict=True))
        for i, side in zip(range(count), list(sides) * count, strict=False)
    ]


def towns(count: int, hallucination=lambda i: f"city {i}", domain: str = "towns") -> list[dict[str, object]]:
    return [
        {"prompt": f"Capital {i}:", "fact": f"town {i}", "hallucination": hallucination(i), "domain": domain}
        for i in range(count)
    ]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), min_size=1, max_size=12))
def test_answers_give_the_label_away_where_least_squares_says_so(numbers):
    columns = np.zeros((len(numbers), 5))
    for row, (fact, hallucination) in enumerate(numbers):
        if fact >= 0:
            columns[row, fact] -= 1
        if hallucination >= 0:
            columns[row, hallucination] += 1
    ones = np.ones(len(numbers))
    residual = columns @ np.linalg.lstsq(columns, ones)[0] - ones
    assert _gives_away(np.array(numbers)) == (np.abs(residual).max() < 1e-6)


def test_yes_that_is_always_true_gives_the_label_away_and_balanced_answers_do_not(links):
    always = links(answers(20, ("yes", "no")))
    assert always.revealing == ("pooled",)
    assert always.closed == (("no", 20), ("yes", 20))
    balanced = links(answers(20, ("yes", "no"), ("no", "yes")))
    assert balanced.revealing == ()
    assert links(answers(30, ("A", "B"), ("B", "C"), ("A", "C"))).revealing == ()
    assert links(answers(40, ("A", "B"), ("B", "C"))).revealing == ("pooled",)


def test_a_domain_that_gives_the_label_away_is_named(links):
    found = links([*towns(200), *answers(20, ("yes", "no"), domain="bool")])
    assert (found.revealing, found.few, found.chains) == (("bool",), (), ())
    assert found.closed == (("no", 20), ("yes", 20))


def test_scopes_of_fewer_than_ten_clusters_are_named_with_their_pairs(links):
    assert links(towns(9)).few == (Few("pooled", 9, 9),)
    assert links(towns(10)).few == ()
    small = [row | {"prompt": "One", "fact": f"hut {i}"} for i, row in enumerate(towns(30, "shed {}".format, "small"))]
    assert links([*towns(20), *small]).few == (Few("small", 1, 30),)


def test_swaps_in_a_ring_are_a_chain_and_swaps_in_twos_are_none(links):
    ring = links(towns(40, lambda i: f"town {(i + 1) % 40}"))
    assert ring.chains == (Chain("pooled", 40, 40, "town 0", "p0", "p39"),)
    assert ring.few == (Few("pooled", 1, 40),)
    assert links(towns(40, lambda i: f"town {i ^ 1}")).chains == ()
    assert links(towns(40, lambda i: f"town {(i + 1) % 40}"), cluster_by="prompt").chains == ()


def test_pairs_that_share_a_prompt_are_no_chain(links):
    assert links([row | {"prompt": "The same"} for row in towns(40)]).chains == ()


def test_a_chain_is_named_in_its_domain_once(links):
    ring = towns(40, lambda i: f"town {(i + 1) % 40}", domain="ring")
    (chain,) = links([*ring, *answers(60, ("yes", "no"), ("no", "yes"), domain="bool")]).chains
    assert (chain.scope, chain.cluster, chain.pairs) == ("ring", 40, 40)
    (chain,) = links([*ring, *answers(20, ("yes", "no"), ("no", "yes"), domain="bool")]).chains
    assert (chain.scope, chain.cluster, chain.pairs) == ("pooled", 40, 60)


def test_a_carried_column_makes_the_clusters_and_an_unknown_one_is_refused(links):
    rows = [row | {"topic": i % 12} for i, row in enumerate(towns(48))]
    assert links(rows, cluster_by="topic").few == ()
    assert links(rows, cluster_by="domain").few == (Few("pooled", 1, 48),)
    with pytest.raises(InputError, match="--cluster-by theme: no such column; .* a column out of .*'topic'"):
        links(rows, cluster_by="theme")
