"""Every classic fault, planted in a set-up that is sound without it: the gate names it, or what comes of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

import bluffscope.pipeline.build
import bluffscope.pipeline.shard
from bluffscope.api import config_from, run
from bluffscope.config.demo import model_dir, sae_dir
from bluffscope.config.presets import DEMO_NAME
from bluffscope.model import HookPoint, ResidualReader
from bluffscope.model.gguf import converted
from bluffscope.pipeline.plan import TextTokenizer
from published import published_model

LIMIT = 48


@dataclass(frozen=True)
class Sound:
    """A model and the SAEs that were trained on it, in which nothing is wrong."""

    name: str
    model: str
    saes: Path
    layers: tuple[int, int, int]
    k: int
    """About as many features are active."""

    @property
    def folder(self) -> Path:
        """Of the model, as transformers reads it."""
        return model_dir() if self.model == DEMO_NAME else converted(self.model)


class Found(dict[tuple[str, int | None], dict]):
    """The gate's errors by check and layer."""

    named: dict[tuple[str, int | None], dict]
    """Its warnings too: what is an error in the embedded model may cost a real one little."""


@pytest.fixture(params=["demo", pytest.param("smollm2-135m", marks=pytest.mark.soak)])
def sound(request) -> Sound:
    """The embedded model, in which every layer is another, and a real one, in which neighbours are alike."""
    if request.param == "demo":
        return Sound("demo", DEMO_NAME, sae_dir(), (2, 5, 8), 40)
    file, saes = published_model()
    return Sound(request.param, str(file), saes, (6, 14, 23), 48)


@pytest.fixture
def saes(tmp_path, sound) -> Path:
    """A copy of the SAEs, to be altered."""
    return Path(shutil.copytree(sound.saes, tmp_path / "saes"))


@pytest.fixture
def examined(tmp_path, sound):
    """Runs the model, changed as told; gives what the gate found by check and layer."""

    def examine(**options) -> Found:
        given = {"model": sound.model, "sae": str(sound.saes), "limit": LIMIT, "out": tmp_path / "run"}
        given |= {"logprob": False, "keep_residuals": False}
        health = run(config_from(**given | options), draw=False).manifest["health"]
        errors = [finding for finding in health["findings"] if finding["severity"] == "error"]
        assert health["status"] == ("unsound" if errors else "healthy")
        assert all(finding["means"] and finding["do"] for finding in health["findings"])
        found = Found({(finding["check"], finding["layer"]): finding for finding in errors})
        found.named = {(finding["check"], finding["layer"]): finding for finding in health["findings"]}
        return found

    return examine


def with_cfg(folder: Path, **changes: object) -> None:
    """Changes an SAE's cfg.json: keys of its metadata where they are there, else its own."""
    config = json.loads((folder / "cfg.json").read_text())
    for key, value in changes.items():
        target = config["metadata"] if key in config["metadata"] or key == "model_from_pretrained_kwargs" else config
        target[key] = value
    (folder / "cfg.json").write_text(json.dumps(config))


def with_points(monkeypatch, change) -> None:
    """Has the reader hook another place than the SAEs name."""
    right = bluffscope.pipeline.build.hook_points

    def wrong(*given):
        return {layer: change(point) for layer, point in right(*given).items()}

    monkeypatch.setattr(bluffscope.pipeline.build, "hook_points", wrong)


def test_without_a_fault_there_is_no_error(sound, examined, saes):
    assert examined(sae=str(saes)).named == {}


def test_right_padding_read_at_its_end(sound, examined, monkeypatch):
    right = bluffscope.pipeline.shard.pad

    def wrong(sequences, slots):
        batch = right(sequences, slots)
        return replace(batch, read_slot=np.full_like(batch.read_slot, batch.input_ids.shape[1] - 1))

    monkeypatch.setattr(bluffscope.pipeline.shard, "pad", wrong)
    found = examined(strategy="batched")
    for layer in sound.layers:
        assert "no token of this text" in found["batched = single", layer]["seen"]


def test_the_last_token_missed_by_one(sound, examined, monkeypatch):
    right = TextTokenizer._tokenized

    def wrong(self, item, encoded):
        found = right(self, item, encoded)
        before = tuple(replace(text, reads=tuple(i - 1 for i in text.reads)) for text in found.sequences)
        return replace(found, sequences=before)

    monkeypatch.setattr(TextTokenizer, "_tokenized", wrong)
    found = examined()
    assert "instead of" in found["read position", None]["seen"]
    assert "instead of" in found["packed = single", sound.layers[1]]["seen"]


@pytest.mark.parametrize("step", [-1, 1])
def test_a_layer_missed_by_one(sound, examined, monkeypatch, step):
    with_points(monkeypatch, lambda point: replace(point, block=point.block + step))
    monkeypatch.setattr(bluffscope.pipeline.build, "load_parts", _whole_parts(bluffscope.pipeline.build.load_parts))
    found = examined()
    for layer in sound.layers:
        assert f"at blocks.{layer + step}.hook_resid_post" in found["packed = single", layer]["seen"]


def _whole_parts(load):
    """Has all blocks loaded, so that a reader may hook the wrong ones."""

    def whole(config, *rest):
        return load(replace(config, measure=replace(config.measure, logprob=True)), *rest)

    return whole


def test_resid_pre_hooked_for_resid_post(sound, examined, monkeypatch):
    with_points(monkeypatch, lambda point: HookPoint(point.block, "hook_resid_pre"))
    found = examined()
    for layer in sound.layers:
        assert f"at blocks.{layer - 1}.hook_resid_post" in found["packed = single", layer]["seen"]


def test_resid_pre_named_for_resid_post(sound, examined, saes):
    middle = sound.layers[1]
    with_cfg(saes / f"layer_{middle}", hook_name=f"blocks.{middle}.hook_resid_pre")
    found = examined(sae=str(saes))
    assert {layer for _, layer in found.named} == {middle}
    assert f"fits layer {middle} (blocks.{middle}.hook_resid_post) better" in found.named["hook point", middle]["means"]


@pytest.mark.parametrize(("place", "step"), [(1, -1), (2, -1), (0, 1), (1, 1)])
def test_the_sae_of_a_neighbouring_layer(sound, examined, tmp_path, place, step):
    true, last = sound.layers[place], sound.layers[-1]
    said = true + step
    folder = tmp_path / "one" / f"layer_{said}"
    shutil.copytree(sound.saes / f"layer_{true}", folder)
    with_cfg(folder, hook_name=f"blocks.{said}.hook_resid_post")
    # As many blocks are loaded as the SAEs name: one that belongs further up shows by another one beside it.
    shutil.copytree(sound.saes / f"layer_{last}", tmp_path / "one" / f"layer_{last}")
    found = examined(sae=str(tmp_path / "one"))
    assert f"fits layer {true} (blocks.{true}.hook_resid_post) better" in found.named["hook point", said]["means"]
    assert {layer for _, layer in found.named} == {said}


def test_an_sae_in_the_folder_of_another_layer(sound, examined, saes):
    first, middle, _ = sound.layers
    shutil.rmtree(saes / f"layer_{middle}")
    (saes / f"layer_{first}").rename(saes / f"layer_{middle}")
    found = examined(sae=str(saes))
    assert set(found) == {("layer", middle)}
    assert f"as layer {first}" in found["layer", middle]["do"]


def test_the_sae_of_another_model(sound, examined, tmp_path):
    torch.manual_seed(0)
    other = Path(shutil.copytree(sound.folder, tmp_path / "other"))
    network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(other), dtype=torch.float32)
    network.save_pretrained(other)
    found = examined(model=str(other))
    for layer in sound.layers:
        assert "SAE (it names " in found.named["explained variance", layer]["do"]
    assert found


@pytest.mark.parametrize("strategy", ["packed", "sequential"])
def test_no_bos_for_saes_whose_metadata_denies_it(sound, examined, saes, strategy):
    for layer in sound.layers:
        with_cfg(saes / f"layer_{layer}", prepend_bos=False)
    found = examined(sae=str(saes), strategy=strategy, limit=12 if sound.name == "demo" else LIMIT)
    named = [found.named.get(("BOS as in training", layer), {}).get("means", "") for layer in sound.layers]
    better = ["with a BOS better" in means for means in named]
    assert all(better) if sound.name == "demo" else any(better)


def test_a_bos_that_is_not_fed(sound, examined, monkeypatch):
    monkeypatch.setattr(bluffscope.pipeline.build, "_bos", lambda model, coders: None)
    found = examined()
    assert "in 0 of" in found["BOS fed", None]["seen"]
    assert ("packed = single", sound.layers[0]) in found


def test_a_bos_fed_twice(sound, examined, monkeypatch):
    right = TextTokenizer._tokenized

    def wrong(self, item, encoded):
        return right(self, item, {text: [self.bos, *ids] for text, ids in encoded.items()})

    monkeypatch.setattr(TextTokenizer, "_tokenized", wrong)
    assert "in 0 of" in examined()["BOS fed", None]["seen"]


def test_a_bos_that_is_read(sound, examined, monkeypatch):
    right = TextTokenizer._tokenized

    def wrong(self, item, encoded):
        found = right(self, item, encoded)
        return replace(found, sequences=tuple(replace(text, reads=(0,)) for text in found.sequences))

    monkeypatch.setattr(TextTokenizer, "_tokenized", wrong)
    found = examined()
    assert found["BOS not read", None]["seen"].split()[0] != "0"
    assert "it is the BOS" in found["packed = single", sound.layers[-1]]["seen"]
    # what the table alone would have shown: the same features in every text
    assert "(100%)" in found["features always on", sound.layers[1]]["seen"]


@pytest.fixture
def topk_saes(sound, saes) -> Path:
    """The SAEs as the TopK SAEs they nearly are: no threshold, the largest are kept."""
    for layer in sound.layers:
        folder = saes / f"layer_{layer}"
        weights = load_file(folder / "sae_weights.safetensors")
        del weights["threshold"]
        save_file(weights, folder / "sae_weights.safetensors")
        with_cfg(
            folder, architecture="topk", training_architecture="topk", k=sound.k, rescale_acts_by_decoder_norm=False
        )
    return saes


def test_a_topk_sae_loaded_as_relu(sound, examined, topk_saes, tmp_path):
    assert examined(sae=str(topk_saes), out=tmp_path / "as it is").named == {}
    for layer in sound.layers:
        with_cfg(topk_saes / f"layer_{layer}", architecture="standard")
    found = examined(sae=str(topk_saes))
    for layer in sound.layers:
        assert "loaded as standard" in found["architecture", layer]["seen"]
        assert "(published)" in found["L0", layer]["expected"]


def test_an_sae_s_fault_leaves_what_needs_no_sae(sound, tmp_path, saes):
    with_cfg(saes / f"layer_{sound.layers[1]}", l0=1.0)
    done = run(config_from(model=sound.model, sae=str(saes), limit=LIMIT, logprob=True, out=tmp_path / "run"))
    assert {finding["about"] for finding in done.manifest["health"]["findings"]} == {"SAEs"}
    verdicts = pl.read_parquet(done.path / "stats.parquet")["metric", "verdict"].unique()
    kept = set(verdicts.filter(pl.col("verdict") != "withheld")["metric"])
    assert kept == {"logprob", "logprob_per_token"}
    page = (done.path / "report.html").read_text()
    assert "Only what needs no SAE is judged" in page


def test_a_topk_sae_loaded_as_relu_that_does_not_say_how_it_was_trained(sound, examined, topk_saes):
    for layer in sound.layers:
        with_cfg(topk_saes / f"layer_{layer}", architecture="standard", training_architecture=None, l0=None)
    found = examined(sae=str(topk_saes))
    assert all(("L0", layer) in found for layer in sound.layers)


@pytest.mark.parametrize("sound", ["demo"], indirect=True)
def test_overflow_of_half_precision(sound, examined, tmp_path):
    """A block whose output a checkpoint in float32 can hold, and float16 cannot."""
    model = Path(shutil.copytree(model_dir(), tmp_path / "large"))
    weights = load_file(model / "model.safetensors")
    for name in weights:
        if name.endswith("layers.6.post_feedforward_layernorm.weight"):
            weights[name] = torch.full_like(weights[name], 6e4)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    found = examined(model=str(model), dtype="float16")
    assert f"{LIMIT} of {LIMIT} pairs" in found["overflow", None]["seen"]
    assert "blocks.6.hook_resid_post" in found["finite values", None]["seen"]
    assert "bfloat16" in found["finite values", None]["do"]


def test_the_hidden_state_after_the_final_norm(sound, examined, monkeypatch):
    """What `hidden_states[-1]` gives to whoever takes it for the last block's output."""
    right = ResidualReader.read

    def wrong(self, batch):
        found = right(self, batch)
        last = max(found.residuals)
        return replace(found, residuals={**found.residuals, last: self.model.network.norm(found.residuals[last])})

    monkeypatch.setattr(ResidualReader, "read", wrong)
    found = examined()
    assert "the hidden state after the final norm" in found["packed = single", sound.layers[-1]]["seen"]
    assert ("packed = single", sound.layers[1]) not in found


def test_a_hole_in_the_mask_of_packed_rows(sound, examined, monkeypatch):
    right = bluffscope.pipeline.shard.pack

    def wrong(*arguments):
        batch = right(*arguments)
        return replace(batch, position_ids=batch.position_ids + (batch.position_ids > 3))

    monkeypatch.setattr(bluffscope.pipeline.shard, "pack", wrong)
    found = examined()
    assert ("packed = single", sound.layers[1]) in found
    assert ("batched = single", sound.layers[1]) not in found


def test_norm_outliers_at_some_read_positions(sound, examined, monkeypatch):
    right = ResidualReader.read

    def wrong(self, batch):
        found = right(self, batch)
        return replace(
            found,
            residuals={
                layer: torch.where(torch.arange(len(x))[:, None] % 10 == 3, 40 * x, x)
                for layer, x in found.residuals.items()
            },
        )

    monkeypatch.setattr(ResidualReader, "read", wrong)
    assert "beyond" in examined()["norms at read positions", sound.layers[0]]["seen"]


def test_a_checkpoint_that_is_not_the_one_of_the_sae(sound, examined, saes):
    with_cfg(saes / f"layer_{sound.layers[0]}", model_from_pretrained_kwargs={"revision": "step1000"})
    assert "--revision step1000" in examined(sae=str(saes))["model revision", sound.layers[0]]["do"]
