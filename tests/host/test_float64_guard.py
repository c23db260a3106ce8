"""The caller's global settings change no number, and are as they were afterwards."""

from __future__ import annotations

import decimal
import os
import random
import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import bluffscope
import tiny
from bluffscope.features.effects import feature_effects
from bluffscope.host.float64_guard import own_settings

BACKENDS = torch.backends


@contextmanager
def put(get: Callable[[], Any], set_: Callable[[Any], Any], value: Any) -> Generator[None, None, None]:
    """A setting for the length of a test."""
    before = get()
    set_(value)
    try:
        yield
    finally:
        set_(before)


def flag(owner: Any, name: str, value: Any) -> AbstractContextManager[None]:
    return put(partial(getattr, owner, name), partial(setattr, owner, name), value)


@contextmanager
def flushed() -> Generator[None, None, None]:
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def seeded() -> Generator[None, None, None]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        yield


PLANTED: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "default dtype": lambda: put(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "default dtype half": lambda: put(torch.get_default_dtype, torch.set_default_dtype, torch.bfloat16),
    "default device": lambda: put(lambda: None, torch.set_default_device, "meta"),
    "device context": lambda: torch.device("meta"),
    "deterministic": lambda: put(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, "error"),
    "matmul precision": lambda: put(lambda: "highest", torch.set_float32_matmul_precision, "medium"),
    "mkldnn in bfloat16": lambda: flag(BACKENDS.mkldnn.matmul, "fp32_precision", "bf16"),
    "everything in bfloat16": lambda: flag(BACKENDS, "fp32_precision", "bf16"),
    "no mkldnn": lambda: flag(BACKENDS.mkldnn, "enabled", False),
    "one attention kernel": lambda: sdpa_kernel(SDPBackend.MATH),
    "flushed denormals": flushed,
    "numpy raises": lambda: np.errstate(all="raise"),
    "another seed": seeded,
    "few digits": lambda: decimal.localcontext(prec=2),
    "polars prints otherwise": lambda: pl.Config(float_precision=1, tbl_rows=1, thousands_separator=True),
}


def state() -> dict[str, Any]:
    """What a caller may have set, as far as it can be asked for."""
    precisions = (BACKENDS, BACKENDS.mkldnn, BACKENDS.mkldnn.matmul, BACKENDS.cudnn, BACKENDS.cuda.matmul)
    return {
        "autocast": [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda", "mps")],
        "autocast dtype": torch.get_autocast_dtype("cpu"),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "precision": [owner.fp32_precision for owner in precisions],
        "mkldnn": BACKENDS.mkldnn.enabled,
        "kernels": (BACKENDS.cuda.flash_sdp_enabled(), BACKENDS.cuda.math_sdp_enabled()),
        "denormals": bool(torch.full((1,), 1e-38, dtype=torch.float32, device="cpu").mul(1e-3) == 0),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "numpy": np.geterr(),
        "seeds": (torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())),  # noqa: NPY002
        "warnings": list(warnings.filters),
        "decimal": decimal.getcontext().prec,
        "polars": pl.Config.save(),
        "recursion": sys.getrecursionlimit(),
        "environment": dict(os.environ),
    }


@pytest.fixture(scope="module")
def analyze(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], pl.DataFrame]:
    """A small analysis with everything in it."""
    folder = tmp_path_factory.mktemp("settings")
    model = tiny.save_model(folder / "model", "llama")
    saes = tiny.save_saes(folder / "saes", (0, 1))
    options = {"model": str(model), "sae": str(saes), "logprob": True, "noise_draws": 2, "device": "cpu"}
    return lambda: bluffscope.analyze(tiny.PAIRS, **options)


@pytest.fixture(scope="module")
def expected(analyze: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    """In a process that nobody has touched."""
    return analyze()


@pytest.mark.thorough
@pytest.mark.parametrize("name", PLANTED)
def test_a_setting_of_the_caller_changes_no_bit_of_the_table_and_is_there_afterwards(analyze, expected, name):
    with PLANTED[name]():
        before = state()
        table = analyze()
        assert state() == before
    assert table.equals(expected)


def test_an_autocast_is_off_inside_and_on_again_afterwards():
    left, right = (torch.randn(64, 64, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    plain = left @ right
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not torch.equal((left @ right).float(), plain)
        with own_settings():
            assert torch.equal(left @ right, plain)


def test_settings_come_back_after_an_error():
    with torch.autocast("cpu"), PLANTED["default dtype"]():
        before = state()
        with pytest.raises(KeyError), own_settings():
            assert torch.get_default_dtype() == torch.float32
            raise KeyError
        assert state() == before


def test_numpy_that_raises_stops_neither_statistics_nor_lint():
    """One feature that fires in 60 hallucinations, over four orders of size: the tail's exponentials underflow."""
    size = np.logspace(0, 4, 60)
    ids = [f"p{number}" for number in range(60)]
    rows = pl.LazyFrame({"pair_id": ids, "view": "hall", "layer": 3, "feature": 5, "activation": size})
    pairs = pl.DataFrame({"pair_id": ids, "group": ids, "domain": "all"})
    effects = partial(feature_effects, rows.cast({"layer": pl.Int32, "feature": pl.Int32}), pairs)
    lint = partial(bluffscope.lint, limit=40)
    expected = effects().rows, lint().findings
    with np.errstate(all="raise"):
        assert effects().rows.equals(expected[0])
        assert lint().findings == expected[1]
