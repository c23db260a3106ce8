"""Which model, SAEs and layers a run gets from what its options leave open."""

from __future__ import annotations

import pytest

from bluffscope.config import ModelOptions
from bluffscope.errors import InputError
from bluffscope.presets import PRESETS, resolve

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


def test_the_presets_layers_are_those_of_issue_and_design():
    assert PRESETS["gemma-2-2b"].layers == (5, 12, 20)
    assert list(PRESETS)[0] == "demo"
