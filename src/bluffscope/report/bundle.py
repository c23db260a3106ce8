"""Vega in one script, which draws the page's charts in the browser: bundled once, then kept in the user's cache."""

from __future__ import annotations

import hashlib
import logging
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from bluffscope.errors import InputError, RunFolderError
from bluffscope.host.cache import cache_folder
from bluffscope.table.atomic import write_bytes

VEGA_LITE: Final = "6.1"
"""The version of Vega-Lite in which `bluffscope.report.charts` is written; vl-convert bundles several."""
_PACKAGE: Final = "vl-convert-python"
_EXPORT: Final = "window.vegaEmbed = vegaEmbed;"

_log = logging.getLogger(__name__)


def vl_convert(what: str) -> Any:
    """The package that bundles Vega for the page and draws figures without a browser.

    Args:
        what: needs it, for the message.

    Raises:
        InputError: it is not installed.
    """
    try:
        import vl_convert as vlc  # only now: 80 MB, which a page whose script is in the cache does not need
    except ImportError as error:
        raise InputError(f"{what}: {_PACKAGE} is not installed; run: pip install {_PACKAGE}") from error
    return vlc


@cache
def javascript() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script.

    Raises:
        InputError: it is not in the cache, and the package that bundles it is not installed.
    """
    path = _path()
    if path is not None and (kept := _kept(path)) is not None:
        return kept
    script = vl_convert("report.html").javascript_bundle(_EXPORT, vl_version=VEGA_LITE)
    script = script.replace("</script", "<\\/script")
    if path is not None:
        _keep(path, script)
    return script


def _path() -> Path | None:
    """Where the script is kept; None where there is no place for it."""
    folder = cache_folder()
    try:
        release = version(_PACKAGE)
    except PackageNotFoundError:
        return None
    return None if folder is None else folder / f"vega-lite-{VEGA_LITE}-{release}.js"


def _kept(path: Path) -> str | None:
    """What is in the cache, if it is whole: its first line is the checksum of the rest."""
    try:
        digest, _, script = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    whole = hashlib.sha256(script).hexdigest().encode() == digest
    return script.decode("utf-8", "replace") if whole else None


def _keep(path: Path, script: str) -> None:
    """Keep it for the next report. Several processes may do so at once: each puts a whole file in its place."""
    content = script.encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    except (OSError, RunFolderError) as error:
        _log.debug("the report's script is not kept: %s", error)
