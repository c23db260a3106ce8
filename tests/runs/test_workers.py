"""Who measures a run's shards: refused in one line, placed by memory and GPUs before any weights are loaded."""

from __future__ import annotations

import functools
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from bluffscope.api import config_from, run
from bluffscope.config import EngineOptions, MeasureOptions, ModelOptions, RunConfig
from bluffscope.config.presets import resolve
from bluffscope.engine.placement import Node, Placement
from bluffscope.errors import InputError, NoHeadError
from bluffscope.host.stopwatch import Stopwatch
from bluffscope.metrics import ANALYSES
from bluffscope.pipeline.memory import GEMMA_2_2B
from bluffscope.runs import workers as crew
from bluffscope.runs.workers import RunFactory, crew_of
from bluffscope.table.schema import table_columns

GB = 10**9


def placed(nodes, shape=GEMMA_2_2B["float32"], gpu_free=0, device="auto", logprob="off", **engine):
    config = RunConfig(
        model=ModelOptions(device=device),
        measure=MeasureOptions(logprob=logprob, trajectory="off"),
        engine=EngineOptions(engine="ray", **engine),
    )
    return crew._placed(config, shape, nodes, lambda gpus: gpu_free)


def test_log_probabilities_that_nobody_asked_for_need_workers_with_room_for_the_whole_model():
    placed([Node(8, 0, 32 * GB)], logprob="auto")
    small = [Node(8, 0, 8 * GB)]
    with pytest.raises(NoHeadError, match="the whole model needs about .*, and 8.0 GB are free"):
        placed(small, logprob="auto")
    placed(small, logprob="on")  # on the user's own account


def test_memory_limits_workers_and_what_is_mapped_counts_once():
    node = Node(cores=32, gpus=0, memory=64 * GB)
    config, placement = placed([node])
    shape = GEMMA_2_2B["bfloat16"]
    _, converted = placed([node], shape=replace(shape, file_bytes=2))
    assert config.model.device == "cpu"
    assert 1 < placement.workers <= 8
    # With every worker's weights its own, fewer fit into half the memory than with weights that are shared.
    small = Node(cores=32, gpus=0, memory=24 * GB)
    assert placed([small])[1].workers > placed([small], shape=replace(GEMMA_2_2B["float32"], file_bytes=2))[1].workers
    assert converted.workers >= 1


def test_a_cluster_with_gpus_has_a_worker_on_each_and_batches_of_the_least_that_is_free():
    config, placement = placed([Node(64, 8, 512 * GB)], gpu_free=70 * GB)
    assert placement == Placement(8, 8, gpu=True)
    assert (config.model.device, config.engine.batch_tokens) == ("cuda", 16384)
    assert placed([Node(64, 8, 512 * GB)], device="cpu")[1].gpu is False


def test_gpus_that_are_not_there_and_a_second_worker_on_a_mac_are_refused():
    with pytest.raises(InputError, match="the cluster has no GPUs; use --device cpu"):
        placed([Node(8, 0, 64 * GB)], device="cuda")
    with pytest.raises(InputError, match="--workers 2: a Mac has one GPU"):
        placed([Node(8, 0, 64 * GB)], device="mps", workers=2)


def test_all_workers_have_the_batch_plan_of_the_fullest_machine():
    ample, _ = placed([Node(4, 0, 64 * GB)])
    tight, _ = placed([Node(4, 0, 64 * GB), Node(4, 0, 9 * GB)], workers=2)
    assert ample.engine.batch_tokens == 1024
    assert tight.engine.batch_tokens < 1024
    assert placed([Node(4, 0, 64 * GB)], batch_tokens=77)[0].engine.batch_tokens == 77


def test_without_ray_there_is_one_line_that_says_what_to_install(monkeypatch, tiny_model, tiny_saes):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError) as caught:
        run(config_from(model=tiny_model, sae=tiny_saes, engine="ray"))
    assert str(caught.value) == "--engine ray: Ray is not installed; run: pip install 'bluffscope[ray]'"


def test_options_of_ray_without_it_are_warned_of(tiny_model, tiny_saes, pairs_file, tmp_path, caplog):
    run(config_from(model=tiny_model, sae=tiny_saes, data=str(pairs_file), out=tmp_path / "r", workers=2), draw=False)
    assert "--workers: the local engine has one worker, in this process; add --engine ray" in caplog.messages


def test_what_travels_to_workers_is_small_and_refuses_another_version(tiny_model, tiny_saes):
    config = config_from(model=tiny_model, sae=tiny_saes)
    config = replace(config, model=resolve(config.model))
    factory = RunFactory(config, ANALYSES, functools.partial(table_columns, sweep=()), 1)
    assert len(pickle.dumps(factory)) < 10_000
    with pytest.raises(InputError, match=r"a machine of the cluster has bluffscope .*, this one 0\.0\.1"):
        replace(factory, version="0.0.1")()


def test_a_worker_made_elsewhere_loads_what_the_options_name(tiny_model, tiny_saes):
    config = config_from(model=str(tiny_model), sae=str(tiny_saes), device="cpu")
    threads = torch.get_num_threads()
    try:
        worker = RunFactory(config, ANALYSES, functools.partial(table_columns, sweep=()), 1)()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert list(worker.describe().sae_identities) == [0, 1, 3]
    assert worker.tally().seconds["load"] > 0


def test_an_address_is_asked_before_anything_is_loaded_and_only_with_ray():
    crew.check_engine(EngineOptions(engine="local", address="nonsense"))
    with pytest.raises(InputError, match="^--address nonsense: give HOST:PORT"):
        crew.check_engine(EngineOptions(engine="ray", address="nonsense"))


def test_a_mac_has_one_worker_and_the_reference_no_batch_plan():
    config, placement = placed([Node(8, 0, 64 * GB)], device="mps")
    assert (config.model.device, placement.workers, placement.gpu) == ("mps", 1, False)
    config, placement = placed([Node(8, 0, 64 * GB)], strategy="sequential")
    assert (config.model.device, config.engine.batch_tokens) == ("cpu", None)
    assert placement.workers >= 1


class Callable:
    def __call__(self, measurement):
        return {}


def test_only_the_modules_of_the_users_own_analyses_are_sent():
    functions = [analysis.function for analysis in ANALYSES]
    assert crew._modules_to_send(functions) == ()
    assert crew._modules_to_send([np.mean, len, functools.partial(len)]) == ()
    assert crew._modules_to_send([tiny.write_pairs, functools.partial(tiny.save_saes)]) == ("tiny",)
    assert crew._modules_to_send([Callable()]) == (__name__,)


def test_a_crew_here_has_the_worker_itself(tiny_model, tiny_saes):
    config = config_from(model=tiny_model, sae=tiny_saes)
    with crew_of(config, ANALYSES, table_columns, Stopwatch()) as found:
        assert found.loaded.strategy == "packed"
        assert found.workers is None
        assert found.memory(5)["peak_bytes"] > 0
