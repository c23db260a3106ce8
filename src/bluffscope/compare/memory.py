"""Whether the whole model fits in memory in float64: said before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import torch

from bluffscope.config import ModelOptions
from bluffscope.config.demo import model_dir, sae_dir
from bluffscope.config.presets import DEMO_NAME, resolve
from bluffscope.errors import InputError
from bluffscope.host.hub import hub_or_cache
from bluffscope.host.machine import memory_available
from bluffscope.model.load import parameter_count
from bluffscope.sae import SaeConfig, find_saes, read_sae_configs

WORKING_BYTES: Final = 500_000_000
"""What a run of few pairs needs beside the weights: libraries, logits of one text, one geometry."""
_FLOAT64: Final = 8


@dataclass(frozen=True)
class Need:
    """What the whole model and its SAEs take in float64."""

    parameters: int
    """Of the model with its LM head."""
    sae_configs: Mapping[int, SaeConfig] = field(default_factory=dict)
    """By layer."""

    @property
    def weights(self) -> int:
        """Bytes of the model."""
        return self.parameters * _FLOAT64

    @property
    def saes(self) -> int:
        """Bytes of the SAEs: encoder and decoder; biases hardly count."""
        return sum(2 * sae.d_in * sae.d_sae for sae in self.sae_configs.values()) * _FLOAT64

    @property
    def total(self) -> int:
        """Bytes of a run."""
        return self.weights + self.saes + WORKING_BYTES


def float64_need(options: ModelOptions) -> Need:
    """Read from configurations what a run of the whole model takes; no weights are loaded.

    Args:
        options: model, SAEs and layers, as given or resolved.

    Raises:
        InputError: model or SAEs that cannot be found.
    """
    options = resolve(options)
    assert options.model is not None and options.sae is not None  # resolve sees to it
    model = str(model_dir()) if options.model == DEMO_NAME else options.model
    sae = str(sae_dir()) if options.sae == DEMO_NAME else options.sae
    with hub_or_cache([model, sae.partition(":")[0]]):
        parameters = parameter_count(model, options.revision)
        return Need(parameters, read_sae_configs(find_saes(sae, options.layers)))


def check_memory(options: ModelOptions) -> None:
    """Refuse a model that does not fit in float64, on its device or (where it is loaded first) in main memory.

    Args:
        options: those of the float64 runs, the device chosen.

    Raises:
        InputError: too little memory, or model or SAEs that cannot be found.
    """
    need = float64_need(options)
    if options.device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        if need.total > free:
            raise InputError(_refusal(need, free, "on the GPU", "use --device cpu, a larger GPU"))
    if need.total > (free := memory_available()):
        raise InputError(_refusal(need, free, "on this machine", "use a machine with more memory"))


def _refusal(need: Need, free: int, where: str, instead: str) -> str:
    return (
        f"float64 needs about {need.total / 1e9:.1f} GB for the whole model ({need.parameters / 1e9:.2f} billion "
        f"parameters, {need.weights / 1e9:.1f} GB) and its SAEs ({need.saes / 1e9:.1f} GB), but {free / 1e9:.1f} GB "
        f"are free {where}: {instead} or verify a smaller model; fewer --layers hardly help, since sequential runs all "
        "of the model"
    )
