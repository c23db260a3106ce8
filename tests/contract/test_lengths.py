"""Models whose rotary factors depend on the longest text of a forward: every text is read as if it were alone."""

from __future__ import annotations

import copy
import dataclasses
import random

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import compare
import measuring
import tiny
from bluffscope.api import config_from, run
from bluffscope.config import ForecastOptions
from bluffscope.features.ablation import ablate
from bluffscope.features.effects import feature_effects
from bluffscope.features.selection import pairs_of
from bluffscope.health import diagnose, gate
from bluffscope.health import reading as health_reading
from bluffscope.model.lengths import LengthClasses
from bluffscope.pipeline import shard as pipeline
from bluffscope.pipeline.plan import plan_batches
from bluffscope.records import VIEWS, Tokenized
from bluffscope.runs.forecast import forecast
from bluffscope.table.reader import read_run

LAYOUTS = ("packed", pytest.param("batched", marks=pytest.mark.thorough))
TOLERANCE = 1e-5


def records(count=24):
    """Short pairs; every sixth lies on both sides of the border, one of them far beyond; one prompt is beyond it."""
    draw = random.Random(3)
    words = ["the", "capital", "of", "France", "Italy", "water", "boils", "at", "one", "hundred", "degrees"]
    made = []
    for number in range(count):
        prompt = f"The capital of {' '.join(draw.choices(words, k=2))}"
        fact, hall = "Paris", "Rome " + " ".join(draw.choices(words, k=(12 + number if number % 6 == 5 else 1)))
        made.append({"id": f"p{number}", "domain": "d", "prompt": prompt, "fact": fact, "hallucination": hall})
    made[7]["prompt"] = "The capital of Italy and the capital of France and so on and the capital is"
    return made


PAIRS = measuring.as_pairs(records())


@pytest.fixture(scope="module", params=sorted(tiny.BY_LENGTH))
def by_length(request, tmp_path_factory):
    """A model of each kind, and the dtype in which it can run."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    return tiny.save_random(folder, tiny.BY_LENGTH[request.param]), "float32" if "moe" in request.param else "float64"


@pytest.fixture(scope="module")
def phi3(tmp_path_factory):
    return tiny.save_random(tmp_path_factory.mktemp("phi3") / "model", tiny.BY_LENGTH["phi3"])


def made_worker(model, saes, **options):
    """A worker that refuses no text as too long: dynamic NTK begins where max_position_embeddings ends."""
    worker = measuring.make_worker(model, saes, **options)
    tokenizer = dataclasses.replace(worker.tokenizer, context=None)
    return dataclasses.replace(worker, loaded=dataclasses.replace(worker.loaded, tokenizer=tokenizer))


def tokenized(worker, pairs=PAIRS):
    found = list(worker.tokenizer.tokenize(pairs))
    assert all(isinstance(pair, Tokenized) for pair in found)
    return found


def alone(folder, dtype, sequences, layers):
    """Each text alone in the whole model, which remembers no text before it, by `hidden_states`."""
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    fresh = copy.deepcopy(network.model.rotary_emb)
    found = {}
    for sequence in sequences:
        network.model.rotary_emb = copy.deepcopy(fresh)
        with torch.no_grad():
            hidden = network(torch.tensor([sequence.ids]), output_hidden_states=True).hidden_states
        for layer in layers:
            found[sequence.item, VIEWS[sequence.view], layer] = hidden[layer + 1][0, list(sequence.reads)]
    return found


def read(worker, pairs):
    """What the worker reads of each text, in batches as it makes them."""
    found = {}
    packed = worker.reader.packs
    for batch in plan_batches(pairs, worker.limits, packed=packed):
        laid_out = worker.lay_out(batch, packed=packed)
        for layer, states in worker.reader.read(laid_out).residuals.items():
            for slot, pair in enumerate(batch):
                for number, view in enumerate(VIEWS):
                    reads = (laid_out.read_item == slot) & (laid_out.read_view == number)
                    found[pair.item.index, view, layer] = states[torch.from_numpy(reads)]
    return found


def apart(found, expected):
    return {key: float(((found[key] - x).norm(dim=1) / x.norm(dim=1)).max()) for key, x in expected.items()}


@pytest.mark.thorough
@pytest.mark.parametrize("position", ["last", "first-completion", "completion-mean"])
@pytest.mark.parametrize("strategy", LAYOUTS)
def test_every_text_is_read_as_if_it_were_alone(by_length, tiny_saes, strategy, position):
    model, dtype = by_length
    worker = made_worker(model, tiny_saes, dtype=dtype, strategy=strategy, position=position)
    assert worker.loaded.strategy == strategy
    pairs = tokenized(worker)
    sequences = [sequence for pair in pairs for sequence in pair.sequences]
    lengths = [len(sequence.ids) for sequence in sequences]
    assert min(lengths) < tiny.BORDER < max(lengths)
    expected = alone(model, dtype, sequences, (0, 1))
    assert max(apart(read(worker, pairs), expected).values()) < TOLERANCE


@pytest.mark.parametrize("strategy", LAYOUTS)
def test_without_the_split_short_texts_change(by_length, tiny_saes, strategy, monkeypatch):
    monkeypatch.setattr(LengthClasses, "of", classmethod(lambda cls, config: cls()))
    model, dtype = by_length
    worker = made_worker(model, tiny_saes, dtype=dtype, strategy=strategy)
    pairs = tokenized(worker)
    short = [text for pair in pairs for text in pair.sequences if len(text.ids) <= tiny.BORDER]
    assert max(apart(read(worker, pairs), alone(model, dtype, short, (0, 1))).values()) > 0.01


@pytest.mark.parametrize("strategy", [*LAYOUTS, pytest.param("sequential", marks=pytest.mark.thorough)])
def test_tables_and_log_probabilities_are_those_of_texts_alone(phi3, tiny_saes, strategy):
    asked = {"logprob": True, "noise_draws": 1}
    worker = measuring.make_worker(phi3, tiny_saes, strategy=strategy, **asked)
    expected = measuring.load_oracle(phi3, tiny_saes).rows(PAIRS, **asked)
    assert compare.assert_same(measuring.measure(worker, PAIRS), expected, "float64", draws=1).left_out == 0


@pytest.mark.thorough
def test_neither_the_size_of_batches_nor_memory_that_runs_out_changes_the_table(phi3, tiny_saes):
    worker = measuring.make_worker(phi3, tiny_saes)
    whole = measuring.measure(worker, PAIRS)
    assert worker.work.forwards == 2  # one for each side of the border
    for change in ({"limits": dataclasses.replace(worker.limits, batch_tokens=40)}, {"ceiling": pipeline.Ceiling(1)}):
        other = dataclasses.replace(worker, work=pipeline.Work(), **change)
        compare.assert_same(measuring.measure(other, PAIRS), whole.to_dicts(), "float64")
        assert other.work.forwards > 2


def test_a_long_text_leaves_nothing_behind_in_the_model(tmp_path, tiny_saes):
    model = tiny.save_random(tmp_path / "model", tiny.BY_LENGTH["dynamic"])
    worker = made_worker(model, tiny_saes)
    *_, longest = sorted((text for pair in tokenized(worker) for text in pair.sequences), key=lambda s: len(s.ids))
    cut = [dataclasses.replace(longest, ids=longest.ids[:end], reads=(end - 1,)) for end in (tiny.BORDER, 30)]

    def first_reads():
        return [worker.reader.read(pipeline.pad([text], {text.item: 0})).residuals[1] for text in cut]

    before = first_reads()
    worker.reader.read(pipeline.pad([longest], {longest.item: 0}))
    assert all(torch.equal(one, other) for one, other in zip(before, first_reads(), strict=True))


ROPE = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": tiny.BORDER}
OTHERS = {
    "default": {"rope_type": "default", "rope_theta": 10000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "yarn": {"rope_type": "yarn", **ROPE},
    "llama3": {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, **ROPE},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_rotary_kinds_keep_one_forward_for_texts_of_all_lengths(tmp_path, tiny_saes, kind):
    plain = tiny.ARCHITECTURES["llama"].to_dict() | {"rope_parameters": OTHERS[kind]}
    model = tiny.save_random(tmp_path / "model", LlamaConfig.from_dict(plain))
    worker = measuring.make_worker(model, tiny_saes)
    pairs = tokenized(worker)
    expected = alone(model, "float64", [text for pair in pairs for text in pair.sequences], (0, 1))
    assert max(apart(read(worker, pairs), expected).values()) < TOLERANCE
    measuring.measure(worker, PAIRS)
    assert worker.work.forwards == 1


@pytest.mark.parametrize("position", ["last", "first-completion"])
@pytest.mark.parametrize("strategy", LAYOUTS)
def test_a_dry_run_counts_the_forwards_that_happen(phi3, tiny_saes, tmp_path, strategy, position):
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", records(60))
    config = config_from(
        data=str(data), model=str(phi3), sae=str(tiny_saes), strategy=strategy, position=position,
        shard_pairs=16, batch_tokens=200, device="cpu", out=tmp_path / "run",
    )  # fmt: skip
    work = forecast(config, ForecastOptions()).work
    counts = run(config, draw=False).manifest["counts"]
    names = ("forwards", "tokens", "slots", "reads")
    assert tuple(getattr(work, name) for name in names) == tuple(counts[name] for name in names)


@pytest.mark.thorough
def test_ablation_gives_the_log_probabilities_of_texts_alone(phi3, tiny_saes, tmp_path, monkeypatch):
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", records())
    run(config_from(data=str(data), model=str(phi3), sae=str(tiny_saes), out=tmp_path / "run"), draw=False)
    opened = read_run(tmp_path / "run")
    chosen = pairs_of(opened.metrics, opened.pairs)
    effects = feature_effects(opened.features, chosen, layers=(1,))
    [together] = ablate(opened, chosen, effects, 3, sets=2, device="cpu")
    split = LengthClasses.split
    monkeypatch.setattr(
        LengthClasses, "split", lambda self, texts: [[text] for part in split(self, texts) for text in part]
    )
    [apart_] = ablate(opened, chosen, effects, 3, sets=2, device="cpu")
    assert together.effects.untouched == pytest.approx(apart_.effects.untouched, rel=1e-5)
    for one, other in zip(together.effects.rows["mean"], apart_.effects.rows["mean"], strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


def reading(health, name):
    return [check for check in health["checks"] if check["check"] == name]


@pytest.fixture
def one_long(tmp_path):
    """149 short pairs and a long one that the evenly spread sample of the health check misses."""
    made = [
        {"id": f"s{i}", "prompt": f"The capital of {i}", "fact": "Paris", "hallucination": "Rome"} for i in range(150)
    ]
    made[75] = {
        **made[75],
        "id": "long",
        "prompt": "The capital of Italy and of France and so on and again the capital",
    }
    return tiny.write_pairs(tmp_path / "pairs.jsonl", made)


@pytest.mark.parametrize("strategy", LAYOUTS)
def test_the_health_check_reads_the_longest_text_and_finds_every_strategy_sound(
    phi3, tiny_saes, one_long, tmp_path, strategy, monkeypatch
):
    compared = texts_alone(monkeypatch)
    config = config_from(
        data=str(one_long), model=str(phi3), sae=str(tiny_saes), strategy=strategy, out=tmp_path / "run"
    )
    health = run(config, draw=False).manifest["health"]
    assert [check["severity"] for check in reading(health, f"{strategy} = single")] == ["ok"] * 3
    lengths = dict(compared)
    assert lengths["long"] > tiny.BORDER
    assert min(lengths.values()) < tiny.BORDER
    assert len(compared) <= 8 + 4 + 8  # spread, beside the longest, with the other BOS


def texts_alone(monkeypatch):
    """The pair and length of every text that goes through the model alone, as they come."""
    right, compared = gate.plain_forwards, []

    def noted(*arguments, **options):
        for one in right(*arguments, **options):
            compared.append((one.pair.id, len(one.ids)))
            yield one

    for module in (gate, health_reading):
        monkeypatch.setattr(module, "plain_forwards", noted)
    return compared


@pytest.mark.parametrize("strategy", LAYOUTS)
@pytest.mark.thorough
def test_the_health_check_names_texts_that_change_each_other(
    phi3, tiny_saes, one_long, tmp_path, strategy, monkeypatch
):
    monkeypatch.setattr(LengthClasses, "of", classmethod(lambda cls, config: cls()))
    asked = {"data": str(one_long), "model": str(phi3), "sae": str(tiny_saes), "strategy": strategy}
    health = run(config_from(**asked, out=tmp_path / "run"), draw=False).manifest["health"]
    for entry in (health, diagnose(config_from(**asked)).entry()):
        for check in reading(entry, f"{strategy} = single"):
            assert check["severity"] == "error"
            assert "correct alone, different in a batch with a text of" in check["seen"]
            assert "texts of different lengths change each other" in check["means"]
            assert "--strategy sequential" in check["do"]


@pytest.mark.parametrize(
    ("rope", "classes"),
    [
        ({}, LengthClasses()),
        (None, LengthClasses()),
        ({"rope_type": "yarn", "factor": 2.0}, LengthClasses()),
        ({"rope_type": "longrope", "original_max_position_embeddings": 4}, LengthClasses((4,))),
        ({"type": "longrope"}, LengthClasses((100,))),
        ({"rope_type": "dynamic", "factor": 2.0}, LengthClasses((), 100)),
        (
            {
                "full_attention": {"rope_type": "longrope", "original_max_position_embeddings": 9},
                "sliding_attention": {"rope_type": "dynamic"},
                "linear_attention": None,
            },
            LengthClasses((9,), 100),
        ),
        ({"rope_type": "default", "long_mscale": 1.1}, LengthClasses()),
        ({"rope_type": "yarn", "long_mscale": 1, "original_max_position_embeddings": 7}, LengthClasses((7,))),
    ],
)
def test_classes_are_found_in_every_shape_of_rotary_parameters(rope, classes):
    class Config:
        rope_parameters = rope
        max_position_embeddings = 100

    assert LengthClasses.of(Config()) == classes


def test_a_class_is_named_by_its_shortest_length():
    several = LengthClasses((4, 9), 12)
    names = [several.of_length(tokens) for tokens in range(1, 16)]
    assert names == [0, 0, 0, 0, 5, 5, 5, 5, 5, 10, 10, 10, 13, 14, 15]
    assert len(np.unique(names)) == 6
