"""Features removed from the residual: log-probabilities as plain Hugging Face hooks give them, one text at a time."""

from __future__ import annotations

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import bluffscope
import tiny
from bluffscope.errors import InputError
from bluffscope.features.ablation import ablate
from bluffscope.features.effects import feature_effects
from bluffscope.features.selection import items_of, pairs_of
from bluffscope.table.reader import read_run

LAYER = 1
COUNTRIES = ("France", "Italy", "Spain", "Peru", "Chad", "Oman", "Cuba", "Mali", "Iran", "Laos", "Fiji", "Togo")


def pairs() -> list[dict[str, object]]:
    """Pairs whose prompts begin other pairs' prompts and whose completions have one token or several."""
    return [
        {
            "id": f"{country}-{long}",
            "prompt": f"The capital of {country}" + " is" * long,
            "fact": fact,
            "hallucination": hall,
        }
        for country in COUNTRIES
        for long, fact, hall in ((0, "x", "Rome is one"), (1, "Paris, hundred", "é"))
    ]


@pytest.fixture(scope="module", params=["gemma2", "gpt2"])
def made(request, tmp_path_factory):
    """A run of a tiny model, and where the model and its SAEs are."""
    folder = tmp_path_factory.mktemp(request.param)
    model = tiny.save_model(folder / "model", request.param)
    saes = tiny.save_saes(folder / "saes")
    bluffscope.analyze(pairs(), model=str(model), sae=str(saes), out=str(folder / "run"))
    return read_run(folder / "run"), model, saes


def opened(run, layers=(LAYER,)):
    chosen = pairs_of(run.metrics, run.pairs)
    return chosen, feature_effects(run.features, chosen, layers=layers)


def by_hand(model_folder, sae_folder, features) -> dict[tuple[str, str], float]:
    """Log-probability of each completion, features removed by a hook from the last prompt token on."""
    from sae_lens import SAE

    model = AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    sae = SAE.load_from_disk(sae_folder / f"layer_{LAYER}")
    block = (model.transformer.h if hasattr(model, "transformer") else model.model.layers)[LAYER]
    found = {}
    for pair in pairs():
        prompt = tokenizer(pair["prompt"], add_special_tokens=False)["input_ids"]
        for side in ("fact", "hallucination"):
            ids = tokenizer(f"{pair['prompt']} {pair[side]}", add_special_tokens=False)["input_ids"]
            start = (
                next(i for i, (a, b) in enumerate(zip([*prompt, None], [*ids, None], strict=False)) if a != b) + 1
            )  # BOS

            def hook(_module, _args, output, first=start - 1):
                residual = output if isinstance(output, torch.Tensor) else output[0]
                residual = residual.clone()
                for position in range(first, residual.shape[1]):
                    activations = sae.encode(residual[0, position])
                    for feature in features:
                        residual[0, position] = residual[0, position] - activations[feature] * sae.W_dec[feature]
                return residual if isinstance(output, torch.Tensor) else (residual, *output[1:])

            handle = block.register_forward_hook(hook)
            with torch.no_grad():
                logits = model(torch.tensor([[1, *ids]])).logits[0].log_softmax(-1)
            handle.remove()
            found[pair["id"], side] = sum(
                float(logits[position - 1, token]) for position, token in enumerate([1, *ids]) if position >= start
            )
    return found


def means(values):
    sides = [[value for (_, side), value in values.items() if side == asked] for asked in ("fact", "hallucination")]
    return [sum(side) / len(side) for side in sides]


def test_log_probabilities_are_those_of_hooks_on_the_plain_model(made):
    run, model, saes = made
    chosen, study = opened(run)
    [ablation] = ablate(run, chosen, study, 3, sets=2, device="cpu")
    assert ablation.features == tuple(study.rows["feature"][:3])
    untouched = means(by_hand(model, saes, ()))
    assert ablation.effects.untouched == pytest.approx(untouched, rel=1e-5)
    for name, features in {"top": ablation.features, "random 1": ablation.random[0]}.items():
        expected = means(by_hand(model, saes, features))
        found = [ablation.effects.of(name, side)["mean"] for side in ("fact", "hall")]
        assert [a + b for a, b in zip(found, untouched, strict=True)] == pytest.approx(expected, rel=1e-5)
        assert max(map(abs, found)) > 0.01  # the features matter, so that the comparison can fail
    assert ablation.effects.removed[0] > 0


def test_with_no_feature_to_remove_nothing_changes_at_all(made):
    run, _, _ = made
    [ablation] = ablate(run, *opened(run), 0, sets=2, device="cpu")
    assert ablation.effects.rows["mean"].to_list() == [0.0] * ablation.effects.rows.height
    assert ablation.effects.conclusion == "Nothing was removed, and nothing changed."


def test_random_features_are_others_that_fire_about_as_often_and_depend_on_the_seed_alone(made):
    run, _, _ = made
    chosen, study = opened(run)
    first, again, other = (ablate(run, chosen, study, 3, sets=4, seed=seed, device="cpu")[0] for seed in (0, 0, 1))
    assert first.random == again.random != other.random
    assert first.as_dict() == again.as_dict()
    tested = set(study.rows["feature"])
    for features in first.random:
        assert len(set(features)) == 3
        assert set(features) <= tested - set(first.features)


def test_limit_takes_pairs_spread_over_the_run_and_several_layers_come_in_turn(made):
    run, _, _ = made
    chosen, study = opened(run, layers=(0, 3))
    found = ablate(run, chosen, study, 2, limit=10, sets=2, device="cpu")
    assert [ablation.layer for ablation in found] == [0, 3]
    assert {ablation.effects.texts for ablation in found} == {(10, 10)}


def test_more_features_than_leave_others_to_compare_with_are_refused(made):
    run, _, _ = made
    chosen, study = opened(run)
    with pytest.raises(InputError, match=r"--ablate 40: layer 1 has \d+ features that fire often enough"):
        ablate(run, chosen, study, 40, device="cpu")
    with pytest.raises(InputError, match="no column 'fact'"):
        ablate(run, chosen.drop("fact"), study, 1, device="cpu")
    assert isinstance(chosen, pl.DataFrame)


@pytest.mark.parametrize("prompted", [True, False])
def test_labelled_texts_have_the_log_probabilities_of_the_sides_of_pairs(made, tmp_path, prompted):
    run, model, saes = made
    texts = [
        {"id": f"{pair['id']}-{label}", "group": pair["id"], "label": label}
        | (
            {"prompt": pair["prompt"], "completion": pair[side]}
            if prompted
            else {"text": f"{pair['prompt']} {pair[side]}"}
        )
        for pair in pairs()
        for side, label in (("fact", True), ("hallucination", False))
    ]
    bluffscope.analyze(texts, model=str(model), sae=str(saes), out=str(tmp_path / "run"))
    labelled = read_run(tmp_path / "run")
    chosen = items_of(labelled)
    study = feature_effects(labelled.features, chosen, layers=(LAYER,))
    [found] = ablate(labelled, chosen, study, 3, sets=2, device="cpu")
    assert found.effects.texts == (24, 24)
    assert not found.effects.paired
    if prompted:
        untouched = by_hand(model, saes, ())
        assert found.effects.untouched == pytest.approx(means(untouched), rel=1e-5)
        expected = means(by_hand(model, saes, found.features))
        top = [found.effects.of("top", side)["mean"] for side in ("fact", "hall")]
        assert [a + b for a, b in zip(top, means(untouched), strict=True)] == pytest.approx(expected, rel=1e-5)
        [paired] = ablate(run, *opened(run), 3, sets=2, device="cpu")
        assert found.effects.untouched == pytest.approx(paired.effects.untouched, rel=1e-6)


def test_texts_of_one_label_are_refused(made, tmp_path):
    _, model, saes = made
    texts = [
        {"text": f"{pair['prompt']} {pair['fact']}", "label": number % 2 == 0} for number, pair in enumerate(pairs())
    ]
    bluffscope.analyze(texts, model=str(model), sae=str(saes), out=str(tmp_path / "run"))
    labelled = read_run(tmp_path / "run")
    chosen = items_of(labelled)
    study = feature_effects(labelled.features, chosen, layers=(LAYER,))
    with pytest.raises(InputError, match="all texts with a log-probability have one label"):
        ablate(labelled, chosen.filter("label"), study, 3, sets=2, device="cpu")
