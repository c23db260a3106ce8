"""Widths of SAEs on a hub: from the header of their file, over loopback, or from the file where it is wanted anyway."""

from __future__ import annotations

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

import tiny
from bluffscope.sae.releases import _shapes, release_files, saelens_at
from loopback_hub import LoopbackHub, use_here

FILE = "layer_0/sae_weights.safetensors"
WIDTHS = {"W_enc": [tiny.D_MODEL, tiny.D_SAE], "W_dec": [tiny.D_SAE, tiny.D_MODEL], "b_dec": [tiny.D_MODEL]}


@pytest.fixture
def hub(tiny_saes, tmp_path, monkeypatch):
    with LoopbackHub(repositories={"org/saes": tiny_saes}) as hub:
        use_here(hub, tmp_path / "cache", monkeypatch)
        yield hub


def whole(hub):
    """Downloads of the whole file."""
    return [request for request in hub.downloads(FILE) if request.range is None]


def test_widths_are_read_from_the_header_alone_and_from_the_file_where_it_is_wanted(hub, monkeypatch):
    assert _shapes("org/saes", FILE, None, download=False).items() >= WIDTHS.items()
    assert not whole(hub)
    assert release_files("org/saes", "layer_0", None) == {}
    assert _shapes("org/saes", FILE, None, download=True).items() >= WIDTHS.items()
    assert len(whole(hub)) == 1
    assert list(release_files("org/saes", "layer_0", None)) == list(release_files("org/saes", FILE, None)) == [FILE]

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert _shapes("org/saes", FILE, None, download=False).items() >= WIDTHS.items()
    with pytest.raises(LocalEntryNotFoundError):
        _shapes("org/saes", FILE.replace("layer_0", "layer_1"), None, download=False)
    assert len(whole(hub)) == 1


def test_saelens_reads_at_the_revision_that_is_asked_for_and_at_its_own_afterwards():
    before = constants.DEFAULT_REVISION
    with saelens_at("v1", download=False):
        assert constants.DEFAULT_REVISION == "v1"
    with saelens_at(None, download=False):
        assert before == constants.DEFAULT_REVISION
    assert before == constants.DEFAULT_REVISION
