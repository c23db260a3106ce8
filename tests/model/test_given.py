"""Models in memory: measured as by name, and left to the last bit as they were."""

from __future__ import annotations

import copy
import signal

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

import bluffscope
import tiny
from bluffscope.api import config_from, run
from bluffscope.errors import InputError, RunStopped
from bluffscope.model import HookPoint, ResidualReader, load_model
from bluffscope.model.given import GivenModel
from bluffscope.pipeline.given import Given
from bluffscope.pipeline.plan import pack
from bluffscope.records import Sequence

LONG = torch.tensor([[1, *range(5, 45)]])  # beyond the context that dynamic RoPE starts from


def loaded(folder, auto=AutoModelForCausalLM, **options):
    return auto.from_pretrained(folder, **options), AutoTokenizer.from_pretrained(folder)


def state(model):
    """All that a run could change of a model: modes, hooks, attributes, tensors and where they are, configuration."""
    modules = {
        name: (
            type(module),
            module.training,
            sorted(vars(module)),
            [*module._forward_hooks, *module._forward_pre_hooks],
        )
        for name, module in model.named_modules()
    }
    tensors = {
        name: (id(tensor), tensor.data_ptr(), tensor.dtype, tensor.device, tensor.requires_grad, tensor.tolist())
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    config = model.config
    return modules, tensors, config.to_dict(), id(config), config._attn_implementation


def logits(model, ids=LONG[:, :9]):
    """As the model gives them now; a forward with dropout is seeded."""
    torch.manual_seed(0)
    with torch.no_grad():
        return model(ids).logits


def untouched(model, work):
    """Whether a model is after some work what it was before, and computes the same."""
    expected, held = logits(model), copy.deepcopy(state(model))
    work()
    assert state(model) == held
    return torch.equal(logits(model), expected)


def test_a_model_in_memory_gives_the_table_of_its_folder_bit_for_bit_and_is_untouched(any_model, tiny_saes):
    model, tokenizer = loaded(any_model)
    by_name = bluffscope.analyze(tiny.PAIRS, model=any_model, sae=tiny_saes)
    tables = []
    assert untouched(
        model,
        lambda: tables.append(bluffscope.analyze(tiny.PAIRS, model=model, tokenizer=tokenizer, sae=tiny_saes)),
    )
    assert tables[0].equals(by_name)


@pytest.mark.parametrize("strategy", ["packed", pytest.param("separate", marks=pytest.mark.thorough)])
def test_log_probabilities_too_and_a_model_without_its_head_where_none_is_needed(tiny_model, tiny_saes, strategy):
    model, tokenizer = loaded(tiny_model)
    options = {"sae": tiny_saes, "logprob": True, "strategy": strategy, "layers": (0,), "noise_draws": 1}
    by_name = bluffscope.analyze(tiny.PAIRS[:2], model=tiny_model, **options)
    assert bluffscope.analyze(tiny.PAIRS[:2], model=model, tokenizer=tokenizer, **options).equals(by_name)
    body, _ = loaded(tiny_model, AutoModel)
    with pytest.raises(InputError, match="a Gemma2Model has no LM head, which log-probabilities"):
        bluffscope.analyze(tiny.PAIRS, model=body, tokenizer=tokenizer, **options)
    if strategy == "packed":
        options["logprob"] = False
        by_name = bluffscope.analyze(tiny.PAIRS[:2], model=tiny_model, **options)
        assert bluffscope.analyze(tiny.PAIRS[:2], model=body, tokenizer=tokenizer, **options).equals(by_name)


def test_whatever_state_a_model_is_in_it_is_measured_in_evaluation_and_left_in_that_state(tmp_path, tiny_saes):
    """Dropout, gradients, hooks, stretched RoPE frequencies, flex attention, and a tokenizer that cuts."""
    folder = tiny.save_random(tmp_path / "model", copy.deepcopy(tiny.BY_LENGTH["dynamic"]))
    by_name = bluffscope.analyze(tiny.PAIRS, model=folder, sae=tiny_saes)
    model, tokenizer = loaded(folder, attention_dropout=0.5)
    seen = []
    model.model.layers[1].register_forward_hook(lambda *_: seen.append(1))
    logits(model.eval(), LONG)
    stretched = model.model.rotary_emb.inv_freq.clone()
    assert not torch.equal(stretched, model.model.rotary_emb.original_inv_freq)
    model.train()
    model.model.layers[0].eval()
    model.model.embed_tokens.weight.requires_grad_(False)
    weight = next(model.model.layers[2].parameters())
    weight.grad = torch.ones_like(weight)
    model.config._attn_implementation = "flex_attention"
    model.config.output_hidden_states = True
    tokenizer("a b c", truncation=True, max_length=2, padding="max_length")
    ids = tokenizer("a text of several words", split_special_tokens=False)["input_ids"]
    held, said = state(model), tokenizer.backend_tokenizer.to_str()
    table = bluffscope.analyze(tiny.PAIRS, model=model, tokenizer=tokenizer, sae=tiny_saes)
    assert table.equals(by_name)
    assert seen  # a hook of the caller's belongs to the model
    assert state(model) == held
    assert torch.equal(model.model.rotary_emb.inv_freq, stretched)
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert tokenizer.backend_tokenizer.to_str() == said
    assert tokenizer("a text of several words", split_special_tokens=False)["input_ids"] == ids


class Ending:
    """A progress that ends the run when the first pairs are done."""

    def __init__(self, error):
        self.error = error

    def start(self, total):
        pass

    def advance(self, pairs):
        raise self.error

    def finish(self):
        pass


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("gone")], ids=["Ctrl-C", "exception"])
def test_a_model_is_untouched_by_a_run_that_ends_in_the_middle(tiny_model, tiny_saes, pairs_file, tmp_path, error):
    model, tokenizer = loaded(tiny_model)
    config = config_from(model="x", sae=str(tiny_saes), data=str(pairs_file), out=tmp_path / "run", batch_size=1)

    def ended():
        with pytest.raises((RunStopped, RuntimeError)):
            run(config, given=Given(GivenModel.of(model, tokenizer)), progress=Ending(error), draw=False)

    assert untouched(model, ended)


def test_weights_are_held_once_however_often_they_are_measured(tiny_model):
    model, tokenizer = loaded(tiny_model)
    twin = GivenModel.of(model, tokenizer).load(None, head=True)
    ours = {parameter.data_ptr() for parameter in twin.network.parameters()}
    assert ours == {parameter.data_ptr() for parameter in model.parameters()}
    assert not any(parameter.requires_grad for parameter in twin.network.parameters())
    assert twin.network.lm_head.weight is twin.network.model.embed_tokens.weight  # tied, as in the original
    short = GivenModel.of(model, tokenizer).load(2, head=False)
    by_name = load_model(
        str(tiny_model), revision=None, blocks=2, device=torch.device("cpu"), dtype=torch.float32, head=False
    )
    assert len(short.network.layers) == short.config.num_hidden_layers == 2
    same = ("architecture", "layers", "layers_loaded", "d_model", "weights")
    assert {name: short.identity[name] for name in same} == {name: by_name.identity[name] for name in same}


@pytest.mark.thorough
def test_a_hook_that_steers_is_measured_as_it_steers(tiny_model, tiny_saes):
    model, tokenizer = loaded(tiny_model)
    before = bluffscope.analyze(tiny.PAIRS, model=model, tokenizer=tokenizer, sae=tiny_saes)
    hook = model.model.layers[1].register_forward_hook(lambda _module, _args, output: output + 1.0)
    after = bluffscope.analyze(tiny.PAIRS, model=model, tokenizer=tokenizer, sae=tiny_saes)
    assert after["l0_fact_gini"].equals(before["l0_fact_gini"])
    assert not after["l1_fact_gini"].equals(before["l1_fact_gini"])
    twin = GivenModel.of(model, tokenizer).load(2, head=False)
    reader = ResidualReader.create(twin, {1: HookPoint(1, "hook_resid_post")})
    ids = (1, 7, 9, 30)
    with torch.no_grad():
        expected = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0, -1]
    found = reader.read(pack([Sequence(0, 0, ids, reads=(3,))], {0: 0}, 100)).residuals[1][0]
    assert torch.allclose(found, expected, rtol=1e-5)
    hook.remove()
    again = bluffscope.analyze(tiny.PAIRS, model=model, tokenizer=tokenizer, sae=tiny_saes)
    assert again.equals(before)


class Wrapper:
    """As nnsight's LanguageModel has its model and tokenizer; nnsight itself is not installed."""

    def __init__(self, name, model, tokenizer):
        setattr(self, name, model)
        self.tokenizer = tokenizer
        for module in model.modules():  # it replaces the modules' own forward methods
            module.forward = module.forward


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["_model", "local_model"])
def test_a_wrapper_is_measured_by_the_module_that_it_wraps(tiny_model, tiny_saes, name):
    model, tokenizer = loaded(tiny_model)
    expected = bluffscope.analyze(tiny.PAIRS, model=model, tokenizer=tokenizer, sae=tiny_saes)
    wrapper = Wrapper(name, model, tokenizer)
    forwards = [vars(module)["forward"] for module in model.modules()]
    assert bluffscope.analyze(tiny.PAIRS, model=wrapper, sae=tiny_saes).equals(expected)
    assert [vars(module)["forward"] for module in model.modules()] == forwards
    compiled = torch.compile(loaded(tiny_model)[0], backend="eager")
    assert bluffscope.analyze(tiny.PAIRS, model=compiled, tokenizer=tokenizer, sae=tiny_saes).equals(expected)


class HookedTransformer(nn.Module):
    """As TransformerLens's: weights of its own."""


def replaced_forward(model):
    model.model.layers[2].forward = lambda *_, **__: None


def spread(model):
    model.model.layers[1].to("meta")


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (None, {"tokenizer": None}, "comes without its tokenizer; give tokenizer=TOKENIZER"),
        (None, {"tokenizer": "gpt2"}, "tokenizer is a str; give a tokenizer of transformers"),
        (None, {"dtype": "bfloat16"}, "--dtype bfloat16: the model in memory is float32; convert it first"),
        (None, {"device": "mps"}, "--device mps: the model in memory is cpu"),
        (None, {"quantize": "int8"}, "--quantize int8: the model is in memory already"),
        (None, {"revision": "main"}, "--revision main: the model is in memory already"),
        (None, {"engine": "ray"}, "--engine ray: a model or SAEs in memory stay in this process; save them"),
        (lambda model: model.bfloat16(), {"fidelity": 2}, "--fidelity: float32 is loaded by name"),
        (
            None,
            {"layers": (9,), "sae": {9: None}},
            "--sae, layer 9: expected an SAE of SAELens or its folder, got NoneType",
        ),
        (None, {"layers": (1,), "sae": {0: "x"}}, "--layers 1: sae has none for it; it has 0"),
        (None, {"sae": {0: "no/such"}}, "--sae, layer 0: no/such: no such folder"),
        (None, {"sae": [1]}, "sae: expected SAEs by layer, as {5: SAE, 12: SAE}, or a name; got list"),
        (replaced_forward, {}, "forward of model.layers.2 was replaced, which cannot be followed"),
        (spread, {}, "its weights are on cpu, meta; move it to one device"),
        (lambda model: model.to(torch.float8_e4m3fn), {}, "its weights are torch.float8_e4m3fn; convert it"),
        (lambda _: HookedTransformer(), {}, "a HookedTransformer has weights of its own and no Hugging Face module"),
        (lambda _: nn.Linear(2, 2), {}, "expected a model of transformers, got Linear"),
        (lambda _: 3, {}, "expected a model of transformers, got int"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(tiny_model, tiny_saes, change, options, says):
    model, tokenizer = loaded(tiny_model)
    model = (change(model) if change else None) or model
    with pytest.raises(InputError) as caught:
        bluffscope.analyze(tiny.PAIRS, **{"model": model, "tokenizer": tokenizer, "sae": tiny_saes} | options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_is_no_option_of_a_model_by_name(tiny_model, tiny_saes):
    with pytest.raises(InputError, match="tokenizer: a model that is loaded by name brings its own"):
        bluffscope.analyze(tiny.PAIRS, model=tiny_model, tokenizer=AutoTokenizer.from_pretrained(tiny_model))


@pytest.mark.thorough
def test_a_run_of_objects_is_resumed_with_the_same_objects_and_no_others(tiny_model, tiny_saes, tmp_path):
    model, tokenizer = loaded(tiny_model)
    saes = {layer: tiny_saes / f"layer_{layer}" for layer in (0, 1)}
    objects = {"model": model, "tokenizer": tokenizer, "sae": saes}
    options = {"seed": 3, "shard_pairs": 1, "batch_size": 1}
    whole = bluffscope.analyze(tiny.PAIRS, **objects, **options)
    folder = tmp_path / "run"
    with pytest.raises(RunStopped) as stopped:
        bluffscope.run(tiny.PAIRS, **objects, **options, out=folder, progress=Ending(KeyboardInterrupt()))
    assert stopped.value.signal_number == signal.SIGINT
    assert stopped.value.resume is not None
    assert stopped.value.resume.startswith("bluffscope.analyze(PAIRS, model=MODEL, tokenizer=TOKENIZER")
    said = f"--resume {folder}: its model lay in memory; give the same again, in Python: bluffscope.analyze("
    named = {"model": str(tiny_model), "sae": str(tiny_saes), "layers": (0, 1), "seed": 3, "shard_pairs": 1}
    with pytest.raises(InputError) as by_name:  # as the command line does
        run(config_from(resume=folder, **named), draw=False)
    assert str(by_name.value).startswith(said)
    other, _ = loaded(tiny_model)
    nn.init.zeros_(other.model.layers[0].mlp.up_proj.weight)
    with pytest.raises(InputError, match="--model: its weights are not those of the run"):
        bluffscope.analyze(tiny.PAIRS, resume=folder, **objects | {"model": other})
    resumed = bluffscope.run(tiny.PAIRS, resume=folder, **objects)
    assert resumed.metrics.equals(whole)
    assert resumed.manifest["model"]["in_memory"]
    assert bluffscope.run(resume=folder).path == folder  # it is complete: nothing has to be given
