"""What names, metadata and configurations say of model, SAEs and options before a text is read."""

from __future__ import annotations

import pytest

from bluffscope.config import ModelOptions
from bluffscope.health.loaded_model import Traits
from bluffscope.health.setup import check_setup

SAE = {"hook_name": "blocks.2.hook_resid_post", "architecture": "jumprelu", "trained_on": {}}


def checks(sae, *, options=None, model=None, traits=None, poor=(), layer=2):
    chosen = ModelOptions(**{"model": "org/gemma-2-2b", "device": "cpu", "dtype": "float32", **(options or {})})
    found = list(check_setup(chosen, model or {}, {layer: SAE | sae}, traits, poor))
    return {check.check: (check.severity, check.seen) for check in found}


@pytest.mark.parametrize(
    ("hook", "severity"),
    [
        ("blocks.2.hook_resid_post", "ok"),
        ("blocks.3.hook_resid_pre", "ok"),  # what the block after it begins with
        ("blocks.3.hook_resid_post", "error"),
        ("blocks.2.hook_z", "error"),
    ],
)
def test_an_sae_of_another_layer_or_hook_point_is_an_error(hook, severity):
    found = checks({"hook_name": hook})
    (check,) = (found[title] for title in found if title.startswith(("layer", "hook point")))
    assert check == (severity, hook)


@pytest.mark.parametrize(
    ("trained", "poor", "severity"),
    [
        ("gemma-2-2b", (2,), "ok"),
        ("google/gemma-2-2b-it", (), "note"),  # a model is given its base model's SAEs
        ("google/gemma-2-2b-it", (2,), "warning"),
        ("gpt2-small", (), "warning"),
        (None, (2,), "note"),
    ],
)
def test_another_model_s_name_is_held_against_an_sae_that_fits_poorly(trained, poor, severity):
    assert checks({"trained_on": {"model_name": trained}}, poor=poor)["trained on this model"][0] == severity


@pytest.mark.parametrize(
    ("given", "trained", "severity"),
    [
        ("/models/SmolLM2-135M-Instruct.Q4_1.gguf", "HuggingFaceTB/SmolLM2-135M-Instruct", "ok"),
        ("gemma-3-270m-it-Q4_K_M.gguf", "google/gemma-3-270m-it", "ok"),
        ("Llama-3.1-8B.i1-IQ2_XXS.gguf", "meta-llama/Llama-3.1-8B", "ok"),
        ("a/Qwen3-0.6B-BF16.GGUF", "Qwen/Qwen3-0.6B", "ok"),
        ("SmolLM2-135M/model.gguf", "HuggingFaceTB/SmolLM2-135M", "ok"),
        ("SmolLM2-135M/ggml-model-f16.gguf", "HuggingFaceTB/SmolLM2-135M", "ok"),
        ("/here/SmolLM2-135M.F32.gguf", "/there/SmolLM2-135M.Q8_0.gguf", "ok"),  # trained on a file, too
        ("models/smollm2-135m", "/there/SmolLM2-135M.Q8_0.gguf", "ok"),
        ("SmolLM2-360M.Q4_1.gguf", "HuggingFaceTB/SmolLM2-135M", "warning"),
        ("gemma-2-2b.Q4_K_M.gguf", "gpt2-small", "warning"),
        ("model.gguf", "HuggingFaceTB/SmolLM2-135M", "warning"),
    ],
)
def test_a_name_that_differs_by_owner_folder_or_file_is_the_same_model_s(given, trained, severity):
    found = checks({"trained_on": {"model_name": trained}}, options={"model": given}, poor=(2,))
    assert found["trained on this model"][0] == severity


@pytest.mark.parametrize(
    ("trained", "loaded", "severity"),
    [("batchtopk", "jumprelu", "ok"), ("topk", "jumprelu", "error"), (None, "jumprelu", "ok")],
)
def test_an_sae_is_loaded_as_what_it_was_trained_as(trained, loaded, severity):
    sae = {"architecture": loaded, "trained_on": {"architecture": trained}}
    assert checks(sae)["architecture"][0] == severity


@pytest.mark.parametrize(
    ("traits", "seen"),
    [
        (None, "applied where the model has LayerNorm"),
        (Traits(100, 100, None, frozenset()), "nothing to do: this model's norms are not LayerNorms, so Transformer"),
        (Traits(100, 100, None, frozenset({2})), "applied: the mean is taken off what is read"),
    ],
)
def test_centred_writing_weights_are_applied_where_the_model_has_layer_norms(traits, seen):
    asked = {"trained_on": {"processing": {"center_writing_weights": True}}}
    severity, said = checks(asked, traits=traits)["centred writing weights"]
    assert severity == "ok"
    assert said.startswith(seen)


@pytest.mark.parametrize(
    ("options", "model", "outcome"),
    [
        ({"revision": "step1000"}, {}, ("ok", "step1000")),
        ({}, {"revision": "step1000"}, ("ok", "step1000")),
        ({"revision": "main"}, {"revision": "abc"}, ("error", "main")),
        ({}, {}, ("error", "not stated")),
    ],
)
def test_the_revision_that_an_sae_was_trained_on_is_asked_for(options, model, outcome):
    asked = {"trained_on": {"processing": {"revision": "step1000"}}}
    assert checks(asked, options=options, model=model)["model revision"] == outcome


@pytest.mark.parametrize(("tokens", "severity"), [(1000, "ok"), (1001, "warning"), (499, "warning"), (500, "ok")])
def test_a_tokenizer_with_far_fewer_or_more_ids_than_the_embedding_is_warned_of(tokens, severity):
    found = checks({}, traits=Traits(1000, tokens, None, frozenset()))
    (check,) = (found[title] for title in found if title.startswith("tokenizer"))
    assert check[0] == severity
    assert check[1].startswith(f"{tokens} ids")


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        ({}, ("ok", "float32 on cpu")),
        ({"device": "mps"}, ("warning", "float32 on mps")),
        ({"dtype": "bfloat16"}, ("note", "bfloat16 on cpu; --fidelity N shows what that changes")),
        ({"quantize": "int8"}, ("note", "float32 on cpu, int8 weights; --fidelity N shows what that changes")),
    ],
)
def test_precision_that_changes_numbers_is_named_with_how_to_see_by_how_much(options, outcome):
    found = checks({}, options=options)
    (check,) = (found[title] for title in found if title.startswith("device and precision"))
    assert check == outcome
