"""Models in GGUF files: dequantised once into an ordinary folder, which is kept in the user's cache."""

from __future__ import annotations

import copy
import logging
import shutil
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import filelock
import numpy as np

from bluffscope.errors import InputError
from bluffscope.host.cache import cache_folder
from bluffscope.host.hub import as_input_error, in_one_line
from bluffscope.host.quiet import replaced
from bluffscope.host.weights_digest import sha256_of
from bluffscope.model.silence import library_silence

logger = logging.getLogger(__name__)

SUFFIX: Final = ".gguf"
_WAIT_SECONDS: Final = 3600
"""How long another process may take to convert the same file."""
_FEW: Final = 10_000_000
"""Parameters that a model may have beyond those in its file: tied weights, buffers."""


def is_gguf(name: str) -> bool:
    """Whether a model's name is the path of a GGUF file."""
    path = Path(name).expanduser()
    return path.suffix == SUFFIX and path.is_file()


def gguf_files(name: str) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of a GGUF file, by its name, as `file_hashes` gives them."""
    path = Path(name).expanduser()
    return {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}}


def converted(name: str) -> Path:
    """The folder with a GGUF file's model in float32 and its tokenizer, made at the first call.

    Args:
        name: path of the file.

    Raises:
        InputError: the file is damaged or of an architecture that transformers cannot read, package gguf is missing, or
            there is no place for the folder.
    """
    cache = cache_folder()
    if cache is None:
        raise InputError(f"--model {name}: no home folder to keep the converted model in; set XDG_CACHE_HOME")
    with as_input_error(f"--model {name}", _meaning):
        # transformers is part of the key: another version may read the file otherwise
        key = f"{_sha256(Path(name).expanduser())[:32]}-{version('transformers')}"
        folder, part = cache / "gguf" / key, cache / "gguf" / f"{key}.part"
        if folder.is_dir():
            return folder
        if find_spec("gguf") is None:
            raise InputError(f"--model {name}: package gguf is not installed; run: pip install 'bluffscope[gguf]'")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{part}.lock", timeout=_WAIT_SECONDS):
            if not folder.is_dir():  # another process may have made it meanwhile
                logger.warning("%s is converted to float32, once: %s", name, folder)
                shutil.rmtree(part, ignore_errors=True)
                try:
                    with library_silence():
                        _convert(name, Path(name).expanduser().resolve(), part)
                    part.rename(folder)
                finally:
                    shutil.rmtree(part, ignore_errors=True)
    return folder


def _sha256(path: Path) -> str:
    state = path.stat()
    return _sha256_at(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _sha256_at(path: Path, _size: int, _changed: int) -> str:
    """A file is asked for several times a run."""
    return sha256_of(path)


def _convert(name: str, file: Path, folder: Path) -> None:
    """Write the model and its tokenizer into a new folder, as transformers saves them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils

    folder.mkdir()
    link = folder / f"model{SUFFIX}"  # alone: transformers also reads what lies beside a file
    link.symlink_to(file)
    source = {"pretrained_model_name_or_path": folder, "gguf_file": link.name}
    tensors, parameters = _sizes(file)
    config: Any = AutoConfig.from_pretrained(**source)
    if config.num_hidden_layers > tensors:
        raise ValueError(f"it claims {config.num_hidden_layers} layers and holds {tensors} tensors")
    with torch.device("meta"):  # shapes without memory
        claimed: int = AutoModelForCausalLM.from_config(copy.deepcopy(config)).num_parameters()
    if claimed > parameters + _FEW:
        raise ValueError(f"it claims {claimed:,} parameters and holds {parameters:,}")
    with replaced(modeling_gguf_pytorch_utils, tqdm=lambda tensors, **_: tensors):
        loaded: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32, output_loading_info=True)
    network, info = loaded
    if missing := sorted(map(str, info["missing_keys"])):
        whole = "give the file that holds the whole model"
        raise InputError(f"--model {name}: {len(missing)} weights are missing, first {missing[0]}; {whole}")
    _forget_quantisation(network)
    network.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    link.unlink()


def _forget_quantisation(network: Any) -> None:
    """Its weights are plain now, which transformers does not notice: it would refuse to save them."""
    del network.config.quantization_config
    for name in ("hf_quantizer", "is_quantized"):
        if hasattr(network, name):
            delattr(network, name)


def _sizes(file: Path) -> tuple[int, int]:
    """How many tensors a GGUF file holds, and how many parameters.

    Raises:
        ValueError: the file ends before what it says it holds.
    """
    from gguf import GGUFReader  # optional

    class Bounded(GGUFReader):
        """gguf's own reader takes what lies behind the end for empty, and counts on."""

        def _get(self, offset: Any, dtype: Any, count: Any = 1, override_order: Any = None) -> np.ndarray:
            if int(offset) + int(count) * np.dtype(dtype).itemsize > len(self.data):
                raise ValueError("it ends too early")
            return super()._get(offset, dtype, count, override_order)

    tensors = Bounded(file).tensors
    return len(tensors), sum(int(tensor.n_elements) for tensor in tensors)


def _meaning(error: BaseException) -> str:
    """Why a GGUF file cannot be converted, and what to do."""
    if isinstance(error, filelock.Timeout):
        return f"another process has been converting it for an hour; stop it, or remove {error.lock_file}"
    if isinstance(error, OSError):
        return f"it cannot be converted ({in_one_line(error)}); its float32 copy needs room in the cache folder"
    if isinstance(error, MemoryError):
        return "it needs more memory than is available; give a smaller model"
    if "architecture" in str(error):
        return f"transformers cannot read it ({in_one_line(error)}); give the model's folder or hub id"
    return f"the GGUF file is damaged or of an unknown kind ({in_one_line(error)}); copy it again, or give the folder"
