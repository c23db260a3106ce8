"""The Hugging Face hub: whether it answers at all, and what its refusals mean.

Where there is no network, huggingface_hub tries again for half a minute, file by file. So the hub is asked
once, briefly, before anything is loaded; where it does not answer, the local cache is all there is.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPException
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from bluffscope.errors import InputError
from bluffscope.host.quiet import replaced
from bluffscope.host.redaction import redacted

logger = logging.getLogger(__name__)

DATASETS = "hf://datasets/"
"""How addresses of datasets begin."""
ANSWER_SECONDS = 5.0
"""How long the hub may take to answer."""

_USER = re.compile(r"(?<=://)[^/@]*@")

_silent: ContextVar[bool] = ContextVar("silent", default=False)
"""Whether the hub was found not to answer."""


@contextmanager
def hub_or_cache(names: Iterable[str]) -> Generator[None, None, None]:
    """Read files from the local cache alone while the hub does not answer, and mute the hub library's messages.

    Args:
        names: the models and SAEs to be loaded; the hub is not asked where all of them are folders or files.
    """
    from huggingface_hub import constants  # a fifth of a second: only when something is loaded
    from huggingface_hub.utils import logging as hub_logging

    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    offline = constants.HF_HUB_OFFLINE
    away = [name for name in names if not Path(name).expanduser().exists()]
    silent = bool(away) and not offline and not _answers(constants.ENDPOINT)
    token = _silent.set(silent)
    try:
        with replaced(constants, HF_HUB_OFFLINE=offline or silent):
            yield
        if silent:
            logger.warning("%s does not answer: used the local cache of %s", hub_address(), " and ".join(away))
    finally:
        _silent.reset(token)
        hub_logging.set_verbosity(verbosity)


@contextmanager
def downloads_reported(report: Callable[[str], None]) -> Generator[None, None, None]:
    """Pass the progress of downloads to `report`, instead of drawing bars across an existing display.

    Only where standard error is a terminal: elsewhere huggingface_hub's bars are off.
    """
    from huggingface_hub.utils import tqdm as Bar  # noqa: N812

    def display(bar: Any, msg: str | None = None, pos: int | None = None) -> bool:  # noqa: ARG001
        bar.leave, bar.fp = False, StringIO()  # closing would write line ends
        if bar.total and msg is None:
            done, total = (bar.format_sizeof(size, bar.unit) for size in (bar.n, bar.total))
            report(f"Downloading {bar.desc.removesuffix(': ')}: {done} of {total}")
        return True

    with replaced(Bar, display=display):
        yield


def refusal(error: BaseException, name: str, revision_as: str = "--revision") -> str | None:
    """What a failed download means and what to do about it; None where the hub had no part in the failure.

    Args:
        error: as transformers, SAELens or huggingface_hub raised it.
        name: the repository that was asked for.
        revision_as: how the user names another revision.
    """
    from huggingface_hub import errors, is_offline_mode

    causes = list(_chain(error))

    def found(kind: type[BaseException]) -> BaseException | None:
        return next((cause for cause in causes if isinstance(cause, kind)), None)

    hub = hub_address()
    meanings = {
        errors.GatedRepoError: (
            f"it is gated: accept its licence at {hub}/{name}, then set HF_TOKEN (or run `hf auth login`)"
        ),
        errors.RepositoryNotFoundError: (
            f"{hub} has none of this name, or it is private; check the name, set HF_TOKEN (or run `hf auth login`), or "
            "give a folder"
        ),
        errors.RevisionNotFoundError: f"it has no such revision; give {revision_as} a branch, tag or commit of it",
        errors.HFValidationError: "neither a folder nor a hub id (ORGANISATION/NAME); check the spelling",
    }
    if meaning := next((said for kind, said in meanings.items() if found(kind)), None):
        return meaning
    # A file that the hub refuses is then looked for in the cache, and its absence there reported: look deeper first.
    if isinstance(cause := found(errors.HfHubHTTPError), errors.HfHubHTTPError):
        status = cause.response.status_code
        if status in (401, 403):
            return f"{hub} refuses it ({status}); set HF_TOKEN to a token that may read it"
        return f"{hub} answers with error {status}; check the name, try again later, or give a folder"
    if not is_offline_mode() and any(_of_network(cause) for cause in causes):
        return f"the download from {hub} broke off: run it again to continue, or give a folder"
    if found(errors.LocalEntryNotFoundError) or found(errors.OfflineModeIsEnabled):
        return not_cached()
    return None


def hub_address() -> str:
    """Where the hub is, without the user and password that HF_ENDPOINT may hold."""
    from huggingface_hub import constants

    return _USER.sub("", constants.ENDPOINT)


def without_token(text: str) -> str:
    """The text as `redacted` returns it, also without the token that is sent to the hub, whatever that looks like."""
    from huggingface_hub import get_token

    token = get_token()
    return redacted(text.replace(token, "***") if token else text)


@contextmanager
def as_input_error(where: str, meaning: Callable[[BaseException], str]) -> Generator[None, None, None]:
    """Turn whatever libraries raise while they read files of unknown origin into one line that says what to do.

    Only calls of libraries belong inside: whatever they raise is taken for the files' fault.

    Args:
        where: put in front of the message.
        meaning: what an error means, and what to do.
    """
    try:
        yield
    except (InputError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # of any type: a panic of Rust (tokenizers) is not an Exception
        raise InputError(f"{where}: {meaning(error)}") from error


def in_one_line(error: BaseException) -> str:
    """The beginning of what an error of a library says, in one line and without the token."""
    text = " ".join(without_token(str(error)).split())
    if not text or isinstance(error, LookupError):  # of a KeyError the text is the key alone
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    text = re.sub(r"^Error\(s\) in loading state_dict for \w+: ", "", text)  # torch's heading
    return text if len(text) <= 200 else text[:197] + "..."


def cached_snapshot(name: str, revision: str | None = None, kind: Literal["model", "dataset"] = "model") -> Path | None:
    """The folder in which the local cache has a repository's files; None for a folder and for what is not cached.

    Args:
        name: hub id of the repository.
        revision: branch, tag or commit; None is the branch main.
        kind: of repository; only a model may be a folder of the user's.

    Returns:
        The folder; its name is the commit. Files may be absent from it.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    if kind == "model" and Path(name).expanduser().exists():
        return None
    if leaves(name) or leaves(revision or ""):
        return None
    repository = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)
    reference = repository / "refs" / (revision or "main")
    commit = reference.read_text(encoding="utf-8") if reference.is_file() else revision
    if not commit or not (repository / "snapshots" / commit).is_dir():
        return None
    return repository / "snapshots" / commit


def gone(place: Path, suffixes: Iterable[str] = ()) -> str | None:
    """What is wrong with a folder or file in which a link leads to nothing, and what to do; None where none does.

    The cache keeps files as blobs, and links to them under their names; a blob that is removed leaves its link behind.

    Args:
        place: a folder, looked through at all depths, or a file.
        suffixes: of the files that matter; all where none is given.
    """
    files = [place, *(sorted(place.rglob("*")) if place.is_dir() else ())]
    for file in files:
        if file.is_symlink() and not file.exists() and (not suffixes or file.suffix in suffixes):
            return (
                f"{file.name} in {file.parent} is a link to a file that is gone ({os.readlink(file)}); remove the link "
                "and download it again, or copy the file there"
            )
    return None


def leaves(path: str) -> bool:
    """Whether a name inside a repository would lead out of it."""
    return path.startswith("/") or ".." in re.split(r"[/\\]", path) or (os.name == "nt" and ":" in path)


def cached_commit(name: str, revision: str | None = None) -> str | None:
    """The commit that the local cache holds of a repository's revision; None as `cached_snapshot`."""
    folder = cached_snapshot(name, revision)
    return None if folder is None else folder.name


def not_cached(*, folders: bool = True) -> str:
    """What to do about a file that the cache lacks and the hub did not give.

    Args:
        folders: whether a folder was looked for first.
    """
    from huggingface_hub import constants

    hub = hub_address()
    where = ("no such folder here, and " if folders else "") + "not (wholly) in the Hugging Face cache"
    if _silent.get():
        return f"{where}; {hub} does not answer: check the name and the network, or give a folder"
    if constants.HF_HUB_OFFLINE:
        return f"{where}, while HF_HUB_OFFLINE forbids downloading it; unset that, or give a folder"
    return f"{where}; the download from {hub} failed: check the network and try again, or give a folder"


def _of_network(error: BaseException) -> bool:
    """Whether a connection failed or ended too early; the client's library has changed its name more than once."""
    client = type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "requests")
    return client or "Consistency check failed" in str(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _answers(url: str) -> bool:
    """Whether a server answers at all in `ANSWER_SECONDS`; looking up its name, which has no time limit, included."""
    answered: list[bool] = []

    def ask() -> None:
        try:
            urlopen(Request(url, method="HEAD"), timeout=ANSWER_SECONDS).close()
        except HTTPError:
            pass  # it says no, but it is there
        except (OSError, HTTPException, ValueError) as error:
            # huggingface_hub brings its own certificates: let it try
            if not isinstance(getattr(error, "reason", error), ssl.SSLError):
                return
        answered.append(True)

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    return bool(answered)
