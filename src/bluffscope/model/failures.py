"""The many ways in which libraries fail to load a model, as one line that says what to do."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from bluffscope.host.hub import as_input_error, cached_snapshot, in_one_line, not_cached, refusal
from bluffscope.model.folder import CONVERSION, TOKENIZER_FILES


def model_errors(name: str, what: str, revision: str | None = None) -> AbstractContextManager[None]:
    """`as_input_error` for the files of a model.

    Args:
        name: of the model.
        what: is read: "model", "tokenizer" or "config.json".
        revision: branch, tag or commit on the hub.
    """
    return as_input_error(f"--model {name}", lambda error: _meaning(error, name, what, revision))


def _meaning(error: BaseException, name: str, what: str, revision: str | None) -> str:
    """What is wrong, and what to do."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    if isinstance(error, StrictDataclassError):
        return f"config.json is damaged ({in_one_line(error)}); copy it again"
    if isinstance(error, SafetensorError):
        return f"the weights are damaged ({in_one_line(error)}); copy them again"
    if isinstance(error, ImportError):
        return f"its architecture needs a package that is not installed ({in_one_line(error)})"
    if isinstance(error, MemoryError):
        return "it needs more memory than is available; give a smaller model"
    return refusal(error, name) or _reason(error, name, what, revision)


def _reason(error: BaseException, name: str, what: str, revision: str | None) -> str:
    """Why something cannot be loaded that is there, and what to do."""
    from huggingface_hub import is_offline_mode

    text = str(error)
    cached = cached_snapshot(name, revision)
    if cached and what == "tokenizer" and not any((cached / file).is_file() for file in TOKENIZER_FILES):
        # transformers takes every single tokenizer file for optional, and then fails for want of all
        return not_cached() if is_offline_mode() else "its repository has no tokenizer; give a folder that has one"
    if cached and "file named" in text and is_offline_mode() and not any(cached.glob("*.bin")):
        return not_cached()  # the weights, or a part of them: transformers takes them for never published
    if "ignore_mismatched_sizes" in text:
        return (
            "the weights have other shapes than config.json says: they do not belong together; copy both from one place"
        )
    if "trust_remote_code" in text:
        return "it requires its own code, which is refused; give a model that transformers supports"
    if "safetensors" in text and "file named" in text:
        return f"it has no safetensors weights, and pickles are refused; convert it where you trust it: {CONVERSION}"
    hint = "check the files in the folder" if Path(name).expanduser().exists() else "check the name, or give a folder"
    return f"cannot load the {what} ({in_one_line(error)}); {hint}"
