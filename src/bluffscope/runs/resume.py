"""Going on with a run: what its folder holds, what must not have changed since, and what has to be done again."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import signal
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from bluffscope.config import RunConfig, run_config
from bluffscope.errors import InputError, RunFolderError, RunStopped, WorkerLostError
from bluffscope.runs.identity import Identity, placeless, result_options
from bluffscope.table.atomic import is_leftover, remove_leftovers, write_bytes, writing
from bluffscope.table.checksums import CHECKSUMS, Finished, TableFile, inspect, write_checksums
from bluffscope.table.folder import RUN_MARKS, RunFolder
from bluffscope.table.links import refuse_links
from bluffscope.table.lock import LOCK
from bluffscope.table.merge import MergeResult, remove_shards
from bluffscope.table.reader import Run
from bluffscope.table.shards import ShardFile

IDENTITY: Final = "run.json"
"""In shards/: what the shards' results depend on, with a digest of it."""
_OPEN: Final = ("auto", None, [])
"""Values of options that are filled in later."""

_FILES: Final = (".html", ".json", ".jsonl", ".parquet", ".txt", ".yaml")
_FOLDERS: Final = ("figures", "shards")
"""What a run's own files and folders are called."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Previous:
    """What earlier sessions left of a run. The caller holds the folder's lock."""

    folder: RunFolder
    config: RunConfig | None
    """Its options; None where it was killed before they were written, and nothing was done."""
    identity: Mapping[str, Any] | None
    """What its results depend on, as far as it is known: see `Identity`."""
    finished: Finished | None
    """How its tables are; None where there are none yet."""

    @property
    def complete(self) -> bool:
        """Whether manifest and tables are all there and whole."""
        return self.finished is not None and self.finished.tables_whole and self.finished.manifest is not None


def look_for_run(path: Path) -> None:
    """Refuse a path that holds no run to go on with.

    Raises:
        InputError: what is there instead.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "no such folder"
        raise InputError(f"--resume {path}: {what}; give the folder of a run that was started")
    refuse_links(path, append=True)
    # A run that was killed as it started left an empty folder, or hidden files.
    others = [file for file in path.iterdir() if not is_leftover(file)]
    if others and not any((path / mark).exists() for mark in (*RUN_MARKS, LOCK)):
        raise InputError(f"--resume {path}: no run in this folder; give the folder of a run that was started")
    if stray := next(_strays(path), None):
        again = f"bluffscope analyze --resume {shlex.quote(str(path))}"
        raise InputError(f"--resume {path}: {stray}; move it elsewhere, then: {again}")


def _strays(path: Path) -> Iterator[str]:
    """What lies where a run writes its own files, and would stop it in the end."""
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and entry.suffix in _FILES:
            yield f"{entry} is a folder, where the run has a file"
        elif entry.name in _FOLDERS and not entry.is_dir():
            yield f"{entry} is a file, where the run has a folder"
    shards = path / "shards"
    for entry in sorted(shards.iterdir()) if shards.is_dir() else ():
        if entry.suffix == ".parquet" and not is_leftover(entry) and (entry.is_dir() or not ShardFile.of(entry)):
            yield f"{entry} is not a shard of this run"


def saved_options(path: Path) -> RunConfig | None:
    """The options of the run in a folder; None where it was killed before they were written.

    Raises:
        InputError: config.yaml is damaged.
    """
    if not (path / "config.yaml").exists():
        return None
    return run_config(Run(path).config, str(path / "config.yaml"))


def no_options(path: Path) -> InputError:
    """The error for a run that has no options of its own and was not given any: the demo would start in its folder."""
    return InputError(
        f"--resume {path}: stopped before its options were written; repeat them with --resume: "
        "--data, and --preset or --model and --sae"
    )


def read_previous(path: Path) -> Previous:
    """Read what is in a run's folder, tables included, and remove what a killed process left half-written.

    Raises:
        InputError: config.yaml is damaged.
        RunFolderError: the folder cannot be written.
    """
    folder = RunFolder(path)
    with writing(path):
        for inside in (path, path / "figures"):
            if inside.is_dir():
                remove_leftovers(inside)
        shutil.rmtree(path / ".shards.tmp", ignore_errors=True)
    identity = _saved_identity(folder)
    merged = (path / "manifest.json").exists() or (identity is None and (path / CHECKSUMS).exists())
    finished = inspect(path) if merged else None
    if identity is None and finished is not None and (manifest := finished.manifest) is not None:
        identity = {**manifest, "data": {"digest": manifest["data"]["digest"]}}
    return Previous(folder, saved_options(path), identity, finished)


def resume_command(path: Path, config: RunConfig) -> str:
    """What to type to go on with a run; a named Ray cluster and code are asked for again, so they are in there."""
    words = ["bluffscope", "analyze", "--resume", str(path)]
    if config.engine.address not in (None, "auto"):
        words += ["--address", config.engine.address]
    if config.measure.analysis:
        words += ["--analysis", *config.measure.analysis]
    return shlex.join(words)


@contextmanager
def resumable(folder: RunFolder, config: RunConfig) -> Generator[None, None, None]:
    """Within the block, whatever ends the run names the command that resumes it."""
    again = resume_command(folder.path, config)
    try:
        yield
    except (RunFolderError, WorkerLostError) as error:
        raise type(error)(f"{error}; committed shards are kept: {again}") from error
    except KeyboardInterrupt as stop:
        raise RunStopped(getattr(stop, "signal_number", signal.SIGINT), again) from stop


def write_identity(folder: RunFolder, identity: Identity) -> None:
    """Write what the shards depend on into their folder.

    Raises:
        RunFolderError: it cannot be written.
    """
    with writing(folder.shards):
        folder.shards.mkdir(exist_ok=True)
    write_bytes(folder.shards / IDENTITY, json.dumps(identity.entry(), indent=1).encode())


def _saved_identity(folder: RunFolder) -> dict[str, Any] | None:
    path = folder.shards / IDENTITY
    if not path.exists():
        return None
    try:
        found = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        known = Identity(**{name: value for name, value in found.items() if name != "digest"})
        whole = known.digest() == found["digest"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        whole, found = False, {}
    if whole:
        return found
    _log.warning("%s is damaged and written again; shards tell by their names whether they still fit", path)
    return None


def refuse_changed_options(previous: Previous, config: RunConfig) -> None:
    """Refuse options that are not the run's own, as far as that can be seen before anything is loaded.

    Raises:
        InputError: which, and both values; or that the run has none and must be given them.
    """
    if previous.config is None:
        if config.model.model is None and config.model.preset is None:
            raise no_options(previous.folder.path)
    else:
        given = {name: value for name, value in result_options(config).items() if value not in _OPEN or name == "join"}
        if len(config.model.measured_layers) < len(config.model.layers):  # slices are compared once the model is known
            del given["layers"]
        _refuse(previous.folder.path, _changed(result_options(previous.config), given))


def refuse_changed_identity(previous: Previous, identity: Identity) -> None:
    """Refuse to go on where the model, the SAEs, the data or any option are not what the run was started with.

    Raises:
        InputError: which, and what was and is.
    """
    known = previous.identity
    if known is None:
        return
    entry = identity.entry()
    faults = _changed(known.get("options", {}), entry["options"])
    faults += _differing("--model", known.get("model", {}), entry["model"])
    saes = cast("Mapping[str, Mapping[str, Any]]", known.get("saes", {}))
    for layer in saes:
        faults += _differing(f"--sae, layer {layer}", saes[layer], entry["saes"].get(layer, {}))
    was, now = str(known["data"]["digest"]), str(entry["data"]["digest"])
    if was != now:
        faults.append(f"--data: its pairs are not those of the run (digest {was[:12]}, now {now[:12]})")
    if not faults and list(known["metric_versions"].items()) != list(identity.metric_versions.items()):
        faults.append("the columns measured, or their definitions, are others; use the program that started the run")
    _refuse(previous.folder.path, faults)


def _changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"--{name.replace('_', '-')}: the run has {_shown(was[name])}, not {_shown(now[name])}"
        for name in was
        if name in now and was[name] != now[name]
    ]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, cast("list[Any]", value))) or "none"
    return repr(value) if isinstance(value, str) else str(value)


def _differing(flag: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    before, after = placeless(was), placeless(now)
    # The table of SAE releases is not kept with old runs' SAEs: only what both know is compared.
    names = [name for name in before if name in after and before[name] != after[name]]
    if not names:
        return []
    name = "weights" if "weights" in names else names[0]
    return [f"{flag}: its {name} are not those of the run ({str(before[name])[:12]}, now {str(after[name])[:12]})"]


def _refuse(path: Path, faults: list[str]) -> None:
    if faults:
        raise InputError(f"--resume {path}: {'; '.join(faults)}; leave it as it was, or start a new run with --out")


def merged_before(previous: Previous, identity: Identity) -> MergeResult | None:
    """What came of a merge whose tables are whole though the manifest is not; None where there is more to do.

    Raises:
        InputError: the tables were made by another run.
    """
    if previous.finished is None or not previous.finished.tables_whole:
        return None
    run = Run(previous.folder.path)
    if run.metadata.get("run_digest") != identity.digest():
        _refuse(run.path, ["the options, model or data are not those that metrics.parquet was made with"])
    return _result(run, previous.finished.tables)


def completed(previous: Previous) -> MergeResult:
    """What came of a run that is complete; what its last session had no time to tidy is tidied."""
    assert previous.finished is not None
    remove_shards(previous.folder)
    result = _result(Run(previous.folder.path), previous.finished.tables)
    if previous.finished.damaged:  # the manifest and the tables are whole
        write_checksums(previous.folder.path, result.tables)
    return result


def _result(run: Run, tables: Mapping[str, TableFile]) -> MergeResult:
    reasons = run.quarantine["reason"].value_counts(sort=True)
    return MergeResult(tables["metrics.parquet"].rows, len(run.quarantine), dict(reasons.iter_rows()), tables, ())
