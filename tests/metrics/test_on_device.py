"""The analyses where the model runs: the same numbers, and nothing but numbers of the table comes back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import measuring
import pretend_gpu
from bluffscope.metrics import Measurement
from bluffscope.records import Encoded, Features, LayerState
from pretend_gpu import OnGpu, PretendedGpu
from random_pairs import random_pairs

PAIRS = measuring.as_pairs(random_pairs(3, count=20))


@pytest.fixture(scope="module", params=["last", "completion-mean"])
def measured(request, tiny_model, tiny_saes):
    """A batch as a run measured it, with its analyses."""
    options = {"trajectory": "on", "logprob": True, "noise_draws": 2, "noise_sweep": (0.5,), "noise_mode": "relative"}
    worker = measuring.make_worker(
        tiny_model, tiny_saes, position=request.param, layers=(0, 1), dtype="float32", **options
    )
    kept: list[Measurement] = []
    first = worker.analyses[0]
    spied = dataclasses.replace(first, function=lambda batch: kept.append(batch) or first.function(batch))
    measuring.measure(dataclasses.replace(worker, analyses=[spied, *worker.analyses[1:]]), PAIRS)
    assert len(kept) == 1
    return kept[0], worker.analyses


def moved(features: Features) -> Features:
    return Features(OnGpu(features.indptr), OnGpu(features.indices), OnGpu(features.values), features.d_sae)


def on_gpu(batch: Measurement) -> Measurement:
    """The same batch, had the model run on a GPU."""

    def state(here: LayerState) -> LayerState:
        encoded = Encoded(moved(here.features), OnGpu(here.reconstruction), OnGpu(here.decoder))
        return LayerState(here.layer, OnGpu(here.residual), encoded)

    def encode(layer: int, residual: torch.Tensor) -> Features:
        assert isinstance(residual, OnGpu)
        with torch.utils._python_dispatch._disable_current_modes():
            return moved(batch.encode(layer, residual.held))

    states = {layer: state(here) for layer, here in batch.states.items()}
    return dataclasses.replace(batch, states=states, encode=encode, _geometry={})


def test_analyses_on_a_gpu_equal_those_on_the_cpu(measured):
    batch, analyses = measured
    with PretendedGpu() as gpu:
        there = on_gpu(batch)
        found = [analysis.function(there) for analysis in analyses]
    for analysis, values in zip(analyses, found, strict=True):
        for name, expected in analysis.function(batch).items():
            if isinstance(expected, np.ndarray) and expected.dtype.kind == "f":
                angles = name.split("_", 2)[-1].startswith(("misalignment", "drift", "twist"))
                tolerance = {"rtol": 1e-9, "atol": 1e-4 if angles else 1e-9}
                np.testing.assert_allclose(values[name], expected, err_msg=name, **tolerance)
            else:
                assert list(values[name]) == list(expected), name
    # what comes back is one number a read and quantity; residuals alone would be 24 a read
    reads = len(batch.read_view)
    assert max(gpu.brought_back) <= reads
    assert len(gpu.brought_back) > 20


def test_the_pretended_gpu_refuses_what_a_gpu_refuses():
    with PretendedGpu() as gpu:
        there = OnGpu(torch.arange(6.0).reshape(2, 3))
        with pytest.raises(AssertionError, match="on both devices"):
            there + torch.ones(2, 3)
        with pytest.raises(RuntimeError):
            there.numpy()
        assert torch.zeros(2, device=there.device).device == pretend_gpu.GPU
        assert (there.double() @ there.mT.double()).cpu().tolist() == [[5, 14], [14, 50]]
    assert gpu.brought_back == [4]
