"""The ladder's older pieces give what the engine's pieces give."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import measuring
from bluffscope.compare.bench.parts import OneByOne, TextByText, dense_geometry
from bluffscope.metrics.geometry import measure_geometry
from bluffscope.pipeline.plan import pad
from random_pairs import random_pairs

PAIRS = measuring.as_pairs(random_pairs(3, count=6))


@pytest.fixture(scope="module")
def worker(tiny_model, tiny_saes):
    return measuring.make_worker(tiny_model, tiny_saes, position="completion-mean")


@pytest.fixture(scope="module")
def batch(worker):
    pairs = list(worker.tokenizer.tokenize(PAIRS))
    return pad([sequence for pair in pairs for sequence in pair.sequences], {pair.index: pair.index for pair in PAIRS})


@pytest.fixture(scope="module")
def residuals(worker, batch):
    return worker.reader.read(batch).residuals


def test_text_by_text_reads_what_a_padded_batch_reads(worker, batch, residuals):
    reader = TextByText(worker.reader.model, worker.reader.points, None)
    found = reader.read(batch).residuals
    for layer, expected in residuals.items():
        assert torch.allclose(found[layer], expected, rtol=0, atol=1e-10)


def test_one_by_one_encodes_what_a_batch_encodes(worker, residuals):
    for layer, coder in worker.coders.items():
        fields = {field.name: getattr(coder, field.name) for field in dataclasses.fields(coder)}
        ours, theirs = OneByOne(**fields).encode_decode(residuals[layer]), coder.encode_decode(residuals[layer])
        assert torch.equal(ours[0].indptr, theirs[0].indptr)
        assert torch.equal(ours[0].indices, theirs[0].indices)
        assert torch.allclose(ours[0].values, theirs[0].values, rtol=0, atol=1e-12)
        assert torch.allclose(ours[1], theirs[1], rtol=0, atol=1e-10)


def test_dense_geometry_is_the_gram_matrix_s(worker, residuals):
    for layer, coder in worker.coders.items():
        features = coder.encode(residuals[layer])
        for name, ours, theirs in zip(
            dense_geometry(features, coder.decoder)._fields,
            dense_geometry(features, coder.decoder),
            measure_geometry(features, coder.decoder),
            strict=True,
        ):
            if name == "axis":  # its sign means nothing
                ours, theirs = ours.abs(), theirs.abs()
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9, equal_nan=True, msg=name)
