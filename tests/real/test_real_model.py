"""A published language model out of its package, against plain transformers and SAELens: text by text, in float64."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sae_lens import SAE
from transformers import AutoModelForCausalLM, AutoTokenizer

from bluffscope.cli.main import main
from bluffscope.model.gguf import converted
from published import published_model

ROOT = Path(__file__).resolve().parents[2]
LAYERS = (6, 14, 23)
VIEWS = ("prompt", "fact", "hall")
EVERY = 4
"""One pair in so many is computed by hand: 50."""
CLOSE = 1e-5


@pytest.fixture(scope="module")
def published():
    """The model's GGUF file and where its SAEs are."""
    return published_model()


@pytest.fixture(scope="module")
def run(published, tmp_path_factory):
    """A run of the bundled pairs with the SAEs in examples/, as `make real` does it."""
    out = tmp_path_factory.mktemp("real") / "run"
    file, saes = map(str, published)
    given = ["--model", file, "--sae", saes, "--logprob", "--keep-residuals", "--out", str(out)]
    assert main(["analyze", *given]) == 0
    return out


@pytest.fixture(scope="module")
def pairs(run):
    return pl.read_parquet(run / "metrics.parquet")


class ByHand:
    """What plain transformers says of one text, in float64."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def ids(self, text: str) -> list[int]:
        return [1, *self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def read(self, text: str) -> tuple[dict[int, np.ndarray], torch.Tensor, torch.Tensor]:
        """The residuals after the layers at the last token; of each token but BOS log-probability and largest logit."""
        ids = torch.tensor([self.ids(text)])
        with torch.inference_mode():
            found = self.model(ids, output_hidden_states=True)
        logits = found.logits[0, :-1]
        scores = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        residuals = {layer: found.hidden_states[layer + 1][0, -1].numpy() for layer in LAYERS}
        return residuals, scores, logits.abs().amax(-1)


@pytest.fixture(scope="module")
def by_hand(published, run):
    """Residuals, the completion's log-probability and its scale by (pair, view), of every fourth pair."""
    oracle, found = ByHand(converted(str(published[0]))), {}
    for pair in pl.read_parquet(run / "pairs.parquet").gather_every(EVERY).to_dicts():
        prompt = pair["prompt"]
        texts = (prompt, f"{prompt} {pair['fact']}", f"{prompt} {pair['hallucination']}")
        for view, text in zip(VIEWS, texts, strict=True):
            residuals, *by_token = oracle.read(text)
            completion = slice(len(oracle.ids(prompt)) - 1, None)
            found[pair["pair_id"], view] = residuals, *(float(values[completion].sum()) for values in by_token)
    return found


def test_the_model_prefers_the_fact_in_the_share_of_pairs_that_its_weights_say(pairs):
    wins = pairs.select("domain", win=pl.col("logprob_fact") > pl.col("logprob_hall"))
    assert wins["win"].mean() == 0.715
    assert wins["win"].to_list() == pairs["knows"].to_list()
    share = dict(wins.group_by("domain").agg(pl.col("win").mean()).iter_rows())
    assert share == {"entity": 0.78, "temporal": 0.80, "logical": 0.60, "adversarial": 0.68}


def test_a_sound_set_up_is_called_healthy(run):
    health = json.loads((run / "manifest.json").read_text())["health"]
    assert (health["status"], health["findings"]) == ("healthy", [])


def test_log_probabilities_are_those_of_plain_transformers(pairs, by_hand):
    assert len(by_hand) == 3 * len(pairs) // EVERY
    rows = {row["pair_id"]: row for row in pairs.to_dicts()}
    for (pair, view), (_, expected, largest) in by_hand.items():
        if view != "prompt":
            assert rows[pair][f"logprob_{view}"] == pytest.approx(expected, abs=CLOSE * largest), (pair, view)


def test_residuals_are_those_of_plain_transformers(run, by_hand):
    table = pl.read_parquet(run / "residuals.parquet")
    ours = {(row["pair_id"], row["view"], row["layer"]): np.array(row["values"]) for row in table.to_dicts()}
    for (pair, view), (residuals, *_) in by_hand.items():
        for layer, expected in residuals.items():
            apart = np.linalg.norm(ours[pair, view, layer] - expected)
            assert apart < CLOSE * np.linalg.norm(expected), (pair, view, layer)


@pytest.mark.parametrize("layer", LAYERS)
def test_features_are_those_of_saelens_but_for_some_at_the_threshold(run, by_hand, published, layer):
    sae = SAE.load_from_disk(published[1] / f"layer_{layer}", dtype="float64")
    table = pl.read_parquet(run / "features.parquet").filter(layer=layer)
    ours: dict[tuple[str, str], set[int]] = {}
    for pair, view, feature in table.select("pair_id", "view", "feature").iter_rows():
        ours.setdefault((pair, view), set()).add(feature)
    for key, (residuals, *_) in by_hand.items():
        x = torch.from_numpy(residuals[layer])
        with torch.no_grad():
            theirs = sae.encode(x[None])[0]
            above = x @ sae.W_enc + sae.b_enc - sae.threshold
        expected = set(torch.nonzero(theirs).flatten().tolist())
        assert 5 < len(expected) < 300
        doubtful = set(torch.nonzero(above.abs() < CLOSE * x.norm()).flatten().tolist())
        assert len(doubtful) < 5
        assert ours[key] ^ expected <= doubtful, key
