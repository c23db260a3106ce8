"""Which model, SAEs and layers a run gets from what its options leave open."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from transformer_lens.loading_from_pretrained import convert_hf_model_config
from transformers import AutoConfig, AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, GPT2Config, LlamaConfig

from bluffscope.cli.presets import Presets, needed_bytes
from bluffscope.config import MeasureOptions, ModelOptions
from bluffscope.config.demo import model_dir
from bluffscope.config.presets import PRESETS, resolve
from bluffscope.errors import InputError
from bluffscope.pipeline.batch_size import MOST_BATCH_TOKENS, ROW_TOKENS, plan_run, run_footprint
from bluffscope.pipeline.memory import GEMMA_2_2B, Footprint, Shape

SCOPE = "gemma-scope-2b-pt-res-canonical"
SCOPE_16K = f"{SCOPE}:layer_{{layer}}/width_16k/canonical"


def chosen(**options):
    found = resolve(ModelOptions(**options))
    return found.model, found.sae, found.layers


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("bluffscope-demo", "bluffscope-demo", PRESETS["demo"].layers)),
        ({"preset": "demo", "layers": (5,)}, ("bluffscope-demo", "bluffscope-demo", (5,))),
        ({"preset": "gemma-2-2b"}, ("google/gemma-2-2b", SCOPE_16K, (5, 12, 20))),
        ({"model": "google/gemma-2-2b"}, ("google/gemma-2-2b", SCOPE_16K, (5, 12, 20))),
        ({"model": "google/gemma-2-2b", "sae": SCOPE}, ("google/gemma-2-2b", SCOPE_16K, (5, 12, 20))),
        ({"model": "google/gemma-2-2b", "sae": SCOPE, "layers": (3,)}, ("google/gemma-2-2b", SCOPE_16K, (3,))),
        ({"model": "google/gemma-2-2b", "sae": "saes"}, ("google/gemma-2-2b", "saes", ())),
        ({"model": "google/gemma-2-2b", "sae": f"{SCOPE}:x"}, ("google/gemma-2-2b", f"{SCOPE}:x", ())),
        ({"preset": "gemma-2-2b", "model": "copy"}, ("copy", SCOPE_16K, (5, 12, 20))),
        ({"preset": "gemma-2-2b", "sae": "saes"}, ("google/gemma-2-2b", "saes", ())),
        ({"model": "m", "sae": "s", "layers": (2, 1)}, ("m", "s", (2, 1))),
        (
            {"model": "google/gemma-2-2b", "sae": f"{SCOPE}@v1"},
            ("google/gemma-2-2b", SCOPE_16K.replace(":", "@v1:", 1), (5, 12, 20)),
        ),
        ({"preset": "smollm2-135m"}, ("HuggingFaceTB/SmolLM2-135M-Instruct", "none", (6, 14, 23))),
        ({"model": "google/gemma-3-270m"}, ("google/gemma-3-270m", "none", (4, 8, 14))),
        ({"preset": "smollm2-135m", "sae": "saes"}, ("HuggingFaceTB/SmolLM2-135M-Instruct", "saes", ())),
        ({"model": "gpt2"}, ("gpt2", PRESETS["gpt2-small"].sae, PRESETS["gpt2-small"].layers)),
    ],
    ids=str,
)
def test_what_is_left_open_comes_from_the_preset(options, expected):
    assert chosen(**options) == expected


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"preset": "gemma"}, "--preset gemma: unknown; choose from demo, gemma-2-2b"),
        ({"model": "m"}, "--model m: give its SAEs with --sae"),
        ({"sae": "s"}, "--sae without --model"),
        ({"layers": (5, 5)}, "--layers: 5 is given twice"),
        ({"layers": (-1,)}, "--layers -1: layers are counted from 0"),
        ({"model": "m", "sae": "s", "layers": (1, 2, 1)}, "--layers: 1 is given twice"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(options, says):
    with pytest.raises(InputError, match=says):
        resolve(ModelOptions(**options))


def test_other_options_stay_as_they_are():
    found = resolve(ModelOptions(preset="gemma-2-2b", device="cpu", dtype="bfloat16", revision="abc"))
    assert (found.device, found.dtype, found.revision, found.preset) == ("cpu", "bfloat16", "abc", "gemma-2-2b")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_s_layers_lie_at_the_depths_that_the_issue_names(name):
    depth = PRESETS[name].architecture.num_hidden_layers
    assert PRESETS[name].layers == tuple(round(share * depth) for share in (0.20, 0.46, 0.77))


def test_the_demo_comes_first_and_gemma_2_2b_keeps_its_layers():
    assert list(PRESETS)[0] == "demo"
    assert PRESETS["gemma-2-2b"].layers == (5, 12, 20)


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.sae not in ("none", preset.model)])
def test_saelens_s_registry_has_the_preset_s_saes(name):
    preset = PRESETS[name]
    release, _, template = preset.sae.partition(":")
    entry = get_pretrained_saes_directory()[release]
    assert entry.model.rpartition("/")[2] in (preset.model.rpartition("/")[2], name)
    for layer, l0 in zip(preset.layers, preset.l0, strict=True):
        sae_id = template.format(layer=layer)
        path = entry.saes_map[sae_id]
        in_path = re.search(r"average_l0_(\d+)", path)
        assert l0 == (entry.expected_l0[sae_id] or float(in_path[1]))
        if entry.conversion_func == "gemma_2":  # names say it all
            said = load_sae_config_from_huggingface(release, sae_id)
            assert (said["d_in"], said["d_sae"]) == (preset.architecture.hidden_size, preset.d_sae)
            assert said["metadata"]["hook_name"] == f"blocks.{layer}.{preset.point}"
            assert said["metadata"]["prepend_bos"]
        elif entry.conversion_func == "gemma_3":
            assert f"layer_{layer}_width_16k" in path
            assert path.startswith("resid_post_all/")
            assert (preset.point, preset.d_sae) == ("hook_resid_post", 16384)
        elif entry.conversion_func == "llama_scope":
            assert path == f"Llama3_1-8B-Base-L{layer}R-8x"
            assert (preset.point, preset.d_sae) == ("hook_resid_post", 8 * preset.architecture.hidden_size)
            assert entry.norm_scaling_factor[sae_id] > 1
        else:
            assert path == sae_id == f"blocks.{layer}.{preset.point}"
            assert preset.d_sae == 32 * preset.architecture.hidden_size


CONFIGS = {
    "demo": lambda: AutoConfig.from_pretrained(model_dir()),
    "smollm2-135m": lambda: LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_attention_heads=9,
        num_key_value_heads=3,
        num_hidden_layers=30,
        vocab_size=49152,
        tie_word_embeddings=True,
    ),
    "gemma-3-270m": lambda: Gemma3TextConfig(
        hidden_size=640,
        intermediate_size=2048,
        num_attention_heads=4,
        num_key_value_heads=1,
        num_hidden_layers=18,
        vocab_size=262144,
        sliding_window=512,
    ),
    "gemma-2-2b": Gemma2Config,
    "gemma-2-9b": lambda: Gemma2Config(
        hidden_size=3584, intermediate_size=14336, num_attention_heads=16, num_key_value_heads=8, num_hidden_layers=42
    ),
    "gemma-3-4b": lambda: Gemma3TextConfig(
        hidden_size=2560, intermediate_size=10240, num_hidden_layers=34, sliding_window=1024
    ),
    "llama-3.1-8b": lambda: LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_attention_heads=32,
        num_key_value_heads=8,
        num_hidden_layers=32,
        vocab_size=128256,
    ),
    "gpt2-small": GPT2Config,
}


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_and_parameters_are_those_of_the_architecture(name):
    config, facts = CONFIGS[name](), PRESETS[name].architecture
    config._attn_implementation = "eager"
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in network.parameters()) == facts.parameters
    sizes = {"number_bytes": 4, "saes": (), "blocks": 1 + max(PRESETS[name].layers)}
    assert Shape.of(facts, **sizes) == Shape.of(config, **sizes)
    assert bool(getattr(config, "tie_word_embeddings", False)) == facts.tie_word_embeddings


@pytest.mark.parametrize(
    ("name", "known_as"),
    [
        ("gemma-2-2b", "google/gemma-2-2b"),
        ("gemma-2-9b", "google/gemma-2-9b"),
        ("gemma-3-4b", "google/gemma-3-4b-pt"),
        ("llama-3.1-8b", "meta-llama/Llama-3.1-8B"),
    ],
)
def test_sizes_are_those_that_transformer_lens_knows_by_heart(name, known_as):
    theirs, ours = convert_hf_model_config(known_as), PRESETS[name].architecture
    pairs = {
        "d_model": "hidden_size",
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "n_key_value_heads": "num_key_value_heads",
        "d_head": "head_dim",
        "d_mlp": "intermediate_size",
        "d_vocab": "vocab_size",
    }
    assert {name: theirs[name] for name in pairs} == {
        name: getattr(ours, attribute) for name, attribute in pairs.items()
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_memory_named_is_that_of_the_memory_model(dtype):
    shape = GEMMA_2_2B[dtype]
    needed = Footprint(shape).needed(MOST_BATCH_TOKENS["cpu"], ROW_TOKENS)
    assert needed_bytes(PRESETS["gemma-2-2b"], shape.number_bytes) == needed
    assert needed_bytes(PRESETS["gemma-2-9b"], shape.number_bytes) > 2 * needed


def test_the_demo_s_memory_is_what_a_run_of_it_plans():
    planned = plan_run(ModelOptions())
    found = run_footprint(planned.shape, "cpu", MeasureOptions())
    assert needed_bytes(PRESETS["demo"], 4) == pytest.approx(found.needed(1024, 1024), rel=0.001)


def test_the_docs_show_what_the_command_prints(capsys):
    Presets().execute()
    docs = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() in docs
