"""Cards of features: shares, effects, texts and histograms against the run's own rows."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bluffscope.report.contents import read_contents
from bluffscope.report.feature_cards import FEATURES_SHOWN, feature_cards, leading
from bluffscope.report.write import write_report
from made_runs import DOMAINS, make_run
from made_texts import make_texts


def cards_of(folder):
    write_report(folder)
    contents = read_contents(folder)
    return contents, feature_cards(contents)


def dense(folder, layer, feature, views, key, ids):
    """(item,) the activations of a feature in the views of a table, 0 where it has no row."""
    rows = pl.read_parquet(folder / "features.parquet").filter(pl.col("view").is_in(views))
    rows = dict(rows.filter(layer=layer, feature=feature).select(key, "activation").iter_rows())
    return np.array([rows.get(name, 0.0) for name in ids])


def test_shares_effects_texts_and_histogram_of_pairs(tmp_path):
    folder = make_run(tmp_path / "run", 90, effect=1.5)
    contents, cards = cards_of(folder)
    assert len(cards) == 2 * FEATURES_SHOWN
    ids, domains = contents.pairs["pair_id"].to_list(), contents.pairs["domain"].to_numpy()
    assert contents.scopes == [*DOMAINS, "pooled"]
    for card in cards[:3]:
        fact, hall = (
            dense(folder, card["layer"], card["feature"], [view], "pair_id", ids) for view in ("fact", "hall")
        )
        for scope, shown in zip(contents.scopes, card["scopes"], strict=True):
            inside = (domains == scope) | (scope == "pooled")
            difference = (hall - fact)[inside]
            expected = [
                (fact[inside] > 0).mean(),
                (hall[inside] > 0).mean(),
                difference.mean() / difference.std(ddof=1),
            ]
            assert shown == pytest.approx(expected, rel=0.01)
        both = np.concatenate([fact, hall])
        assert [activation for _, _, activation in card["texts"]] == pytest.approx(sorted(both)[::-1][:5], rel=0.01)
        for item, side, activation in card["texts"]:
            assert (fact, hall)[side][item] == pytest.approx(activation, rel=0.01)
        assert [sum(bins) for bins in card["bins"]] == [(fact > 0).sum(), (hall > 0).sum()]
        assert card["most"] == pytest.approx(both.max(), rel=0.01)


def test_shares_and_effects_of_texts(tmp_path):
    folder = make_texts(tmp_path / "run", 120, said=("one", "two"), stats=False)
    contents, cards = cards_of(folder)
    ids = contents.pairs["text_id"].to_list()
    is_fact = contents.metrics["is_fact"].to_numpy()
    rows = {(row["layer"], row["feature"]): row for row in contents.features.rows.iter_rows(named=True)}
    for card in cards[:4]:
        values = dense(folder, card["layer"], card["feature"], ["text"], "text_id", ids)
        shares = [(values[is_fact] > 0).mean(), (values[~is_fact] > 0).mean()]
        pooled = card["scopes"][contents.scopes.index("pooled")]
        assert pooled[:2] == pytest.approx(shares, rel=0.01)
        assert pooled[2] == pytest.approx(rows[card["layer"], card["feature"]]["dz"], rel=0.02)
        for item, side, activation in card["texts"]:
            assert bool(side) is not bool(is_fact[item])
            assert values[item] == pytest.approx(activation, rel=0.01)


def test_the_page_opens_with_features_that_differ_and_with_none_otherwise(tmp_path):
    _, cards = cards_of(make_run(tmp_path / "run", 90))
    first = leading(cards)
    assert first[0]["feature"] == 0  # fires in hallucinations alone
    assert [abs(card["dz"]) for card in first] == sorted((abs(card["dz"]) for card in first), reverse=True)
    assert leading([card | {"q": 0.5} for card in cards]) == []
