"""A whole run: options in, a folder with tables, manifest, log and report out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import polars as pl

from bluffscope.config import RunConfig
from bluffscope.config.presets import resolved
from bluffscope.errors import InputError, NoHeadError, QuarantineLimitError, WorkerLostError
from bluffscope.health import Health, Inspection, Sample, examine, inspect
from bluffscope.host.buffers import kept_heap
from bluffscope.host.exclusive import exclusive
from bluffscope.host.float64_guard import own_settings
from bluffscope.host.machine import Watch
from bluffscope.host.signals import Check, stoppable
from bluffscope.linter import GroupSample, lint_source
from bluffscope.linter.findings import PLAIN
from bluffscope.metrics import ANALYSES, Analysis
from bluffscope.metrics.own import UserAnalysis
from bluffscope.pairs import Source, open_source
from bluffscope.pipeline.build import NOTHING
from bluffscope.pipeline.by_default import UNKEPT, UNMEASURED, Spare, reads_a_text
from bluffscope.pipeline.given import Given
from bluffscope.pipeline.worker import Loaded
from bluffscope.records import Shard
from bluffscope.runs.columns import columns_by_layers
from bluffscope.runs.earlier import Earlier
from bluffscope.runs.hints import noise_hints, slow_hints, unasked_hints
from bluffscope.runs.identity import identity_of, run_manifest, table_metadata
from bluffscope.runs.log import RunLog, logging_to
from bluffscope.runs.options import (
    as_before,
    check_out,
    check_values,
    homes_expanded,
    keeping_tokens,
    only_chosen,
    possible,
    refuse_unlabelled_tokens,
    replayable,
)
from bluffscope.runs.resume import (
    Previous,
    completed,
    look_for_run,
    merged_before,
    objects_of,
    read_previous,
    refuse_changed_identity,
    refuse_changed_options,
    refuse_missing_objects,
    resumable,
    resume_command,
    write_identity,
)
from bluffscope.runs.state import Clock, Session
from bluffscope.runs.workers import Crew, check_engine, crew_of
from bluffscope.table.folder import RunFolder
from bluffscope.table.journal import Journal
from bluffscope.table.lock import locked
from bluffscope.table.merge import MergeResult, merge, remove_shards
from bluffscope.table.reader import Run
from bluffscope.table.space import bytes_a_pair, check_space

LINT_ROWS = 20_000
"""Pairs that the linter looks at in a run; of more, whole groups are drawn at random, and the manifest says so."""
LINT_PAIRS = 1000
"""Most pairs of a scope that the linter's text classifier sees in a run: `bluffscope lint` takes the time for more."""
LINT_KEPT = 100
"""Findings of a kind, and pairs of a finding, that the manifest names; `bluffscope lint` names all."""

_log = logging.getLogger(__name__)


class Progress(Protocol):
    """Shows how far a run is."""

    def start(self, total: int) -> None:
        """The number of pairs to come."""

    def advance(self, pairs: int) -> None:
        """So many more pairs are done."""

    def finish(self) -> None:
        """No more pairs come."""


class _Silent(Progress):
    """Shows nothing."""


@dataclass(frozen=True)
class RunResult:
    """What a run left behind."""

    path: Path
    """The run's folder."""
    merged: MergeResult
    """How many pairs are in the table and in quarantine."""
    manifest: Mapping[str, Any]
    """What manifest.json holds."""
    untouched: bool = False
    """Whether the run was complete already: its files were compared with their checksums, and nothing was measured."""

    def metrics(self) -> pl.DataFrame:
        """The result table, read from the folder."""
        return Run(self.path).metrics


_DOING: Final = {
    "load": "Loading the model",
    "data": "Reading the pairs",
    "lint": "Linting the pairs",
    "write": "Writing tables",
    "health": "Running health checks",
}
"""What a run is doing at a stage, for those who wait."""


@exclusive()
@own_settings()
def run(
    config: RunConfig,
    *,
    analyses: tuple[Analysis, ...] = ANALYSES,
    added: tuple[UserAnalysis, ...] = (),
    given: Given = NOTHING,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    earlier: Path | None = None,
) -> RunResult:
    """Measure the pairs that the options name and write the run's folder; or go on with a run, see ``output.resume``.

    What was loaded is held by nothing once it returns.

    Args:
        config: all options; whatever is left open is filled in from the preset, the model and the device.
        analyses: which of the five analyses run.
        added: analyses of the user's own.
        given: model and SAEs that are in memory already, whatever the options name; they are left as they are.
        progress: shows how many pairs are done.
        tell: called with what the run is doing, in a few words.
        earlier: folder of a finished run: what it measured of the same texts, by the same options, is taken from there.

    Raises:
        InputError: something in the options or the data; nothing is written.
        RunFolderError: the folder cannot be written.
        QuarantineLimitError: more pairs are in quarantine than ``engine.max_quarantine`` allows.
        RunStopped: Ctrl-C or SIGTERM came; what was committed is kept, and can be resumed.
    """
    config = keeping_tokens(homes_expanded(config))
    clock = Clock()
    clock.stopwatch.entered = None if tell is None else lambda stage: tell(_DOING.get(stage, "Measuring"))
    check_values(config)
    given.check(config)
    if left_out := [name for name in config.measure.analysis if name not in {item.source for item in added}]:
        raise InputError(f"--analysis {left_out[0]}: options alone run no code; load it and give it in `added`")
    with ExitStack() as held:
        previous = None
        log = held.enter_context(logging_to(RunLog()))
        if config.output.resume is None:
            check_out(config.output.out)
        else:
            previous = _continued(config, held, log)
            if previous.complete:
                assert previous.finished is not None and previous.finished.manifest is not None
                merged = completed(previous)
                return RunResult(previous.folder.path, merged, previous.finished.manifest, untouched=True)
            refuse_missing_objects(previous, model=given.model is not None, saes=given.saes is not None)
            config = as_before(config, previous.config)
        check_engine(config.engine)
        with clock.stopwatch.stage("data"):
            source = open_source(config.data)
            scan = source.scan()
        config = resolved(replace(config, data=replace(config.data, data=source.location)))
        refuse_unlabelled_tokens(config, scan)
        config = only_chosen(config, analyses)
        spare = Spare.of(config, source.items(), scan.count * len(scan.arrangement.views))

        def hired(config: RunConfig) -> Crew:
            made = possible(config, analyses, added, scan.arrangement)
            everything = (*made, *(Analysis(item.title, item) for item in added))
            columns_of = columns_by_layers(config, scan, made, added)
            return held.enter_context(crew_of(config, everything, columns_of, clock.stopwatch, given, spare))

        left_out: list[str] = []
        try:
            crew = hired(config)
        except NoHeadError as error:
            if config.measure.logprob != "auto":
                raise
            left_out.append(UNMEASURED.format(error))
            crew = hired(replace(config, measure=replace(config.measure, logprob="off")))
        if config.output.keep_residuals == "auto" and (why := spare.refusal(crew.loaded)):
            left_out.append(UNKEPT.format(why))
        config = crew.loaded.config
        for note in left_out:
            _log.warning("%s", note, extra={"called": "note"})
        with clock.stopwatch.stage("lint"):
            lint = _lint(config, source, crew.loaded)
        session = Session(clock, config, source, scan, crew, identity_of(config, crew.loaded, scan), tuple(left_out))
        with clock.stopwatch.stage("write"):
            folder = _folder(session, previous, held, log)
        with resumable(folder, config, in_memory=bool(given)):
            return _finish(session, folder, previous, lint, progress or _Silent(), earlier)


def _continued(config: RunConfig, held: ExitStack, log: RunLog) -> Previous:
    """The run to go on with, its folder locked and its options compared; logs what is damaged in it."""
    assert config.output.resume is not None
    path = config.output.resume
    if config.output.out is not None:
        raise InputError(f"--out {config.output.out}: cannot be combined with --resume; leave it out")
    look_for_run(path)
    held.enter_context(locked(path))
    log.open(RunFolder(path))
    previous = read_previous(path)
    refuse_changed_options(previous, config)
    for fault in () if previous.finished is None else previous.finished.damaged:
        _log.warning("%s: made again", fault)
    return previous


def _folder(session: Session, previous: Previous | None, held: ExitStack, log: RunLog) -> RunFolder:
    """The run's folder, locked, with its options and what its results depend on written down."""
    config = session.config
    if previous is not None:
        refuse_changed_identity(previous, session.identity)
        folder = previous.folder
    else:
        out = config.output.out
        check_space(out or Path("runs"), session.scan.count, _bytes_a_pair(session))
        name = f"{Path(config.model.model or 'model').name}-{session.source.name}"
        folder = RunFolder.create_default(name) if out is None else RunFolder.create(out)
        held.enter_context(locked(folder.path))
        log.open(folder)
    if previous is None or previous.config is None:
        if previous is not None:
            _log.warning("%s: stopped before its options were written; it starts with those given", folder.path)
        folder.write_config(replayable(config, session.loaded.identity.get("revision"), session.loaded.sae_identities))
    write_identity(folder, session.identity)
    return folder


def _bytes_a_pair(session: Session) -> int:
    loaded, config = session.loaded, session.config
    reads, further = reads_a_text(loaded.tokenizer, session.source.items(), config.measure)
    width = loaded.width if config.output.keep_residuals == "on" else 0
    return bytes_a_pair(loaded.columns, loaded.sae_identities, reads=reads, width=width, further=further)


def _finish(
    session: Session,
    folder: RunFolder,
    previous: Previous | None,
    lint: dict[str, Any],
    progress: Progress,
    earlier: Path | None,
) -> RunResult:
    """Measure what is missing, merge, write the manifest; the shards go last."""
    config, stopwatch, hints = session.config, session.clock.stopwatch, list(session.left_out)
    merged = None if previous is None else merged_before(previous, session.identity)
    with stoppable() as check:
        if merged is None:
            measuring = time.perf_counter()
            with Watch() as watch:
                _measure(session, folder, previous is not None, progress, check, earlier)
            hints += slow_hints(config, time.perf_counter() - measuring, watch.marks, session.crew.tally().work)
            with stopwatch.stage("write"):
                count = -(-session.scan.count // config.engine.shard_pairs)
                metadata = table_metadata(config, session.identity)
                merged = merge(
                    folder,
                    count,
                    session.loaded.columns,
                    metadata,
                    config.output.keep_residuals == "on",
                    check,
                    session.scan.arrangement,
                    session.scan.paired_by,
                    config.measure.first_position == "tokens",
                    bool(config.measure.further_positions),
                )
                _log_quarantine(folder)
    measured = Run(folder.path)
    hints += noise_hints(config, measured.metrics) + unasked_hints(measured.metrics)
    if session.crew.loaded.tokenizer.plain_though_chat:
        hints.append(PLAIN.format(config.model.model))
    with stopwatch.stage("health"):
        health = _health(session, measured, merged)
    sessions = session.among(merged.sessions)
    manifest = run_manifest(config, session.source, session.scan, session.crew, merged, sessions, lint)
    manifest = folder.write_manifest({**manifest, "hints": hints, "health": health.entry()})
    remove_shards(folder)
    return RunResult(folder.path, merged, manifest)


def _health(session: Session, run: Run, merged: MergeResult) -> Health:
    """The health gate, on the finished tables and on a few texts read again where the model is."""
    loaded, engine = session.loaded, session.config.engine
    try:
        inspection = session.crew.ask(
            partial(inspect, sample=Sample.of_run(session.source, run.metrics, engine.shard_pairs))
        )
    except WorkerLostError as error:  # the run is complete
        inspection = Inspection.undone(str(error))
    return examine(
        session.config.model,
        inspection,
        run.metrics,
        run.features,
        merged.reasons,
        identity=loaded.identity,
        saes=loaded.sae_identities,
        allowed=session.config.output.allow_unsound,
    )


def _measure(
    session: Session, folder: RunFolder, resumed: bool, progress: Progress, check: Check, earlier: Path | None
) -> None:
    """Run and commit every shard that is not committed yet; an earlier run's numbers are taken where they hold."""
    stopwatch, scan, limit = session.clock.stopwatch, session.scan, session.config.engine.max_quarantine
    journal, identity = Journal(folder, session.identity.digest()), session.identity
    objects = bool(objects_of(identity.model, identity.saes))
    again = resume_command(folder.path, session.config, in_memory=objects)
    with stopwatch.stage("data"):
        journal.recover(session.shards())
    for fault in journal.dropped:
        _log.warning("%s: measured again", fault)
    if resumed:
        a_pair = journal.bytes / journal.pairs if journal.pairs else _bytes_a_pair(session)
        check_space(folder.path, scan.count, a_pair, journal.bytes)
    _refuse_quarantine(journal, limit, again)

    def commit(shard: Shard, frame: pl.DataFrame) -> None:
        with stopwatch.stage("write"):
            journal.commit(shard, frame, session.said())
        _refuse_quarantine(journal, limit, again)

    def advance(pairs: int) -> None:
        progress.advance(pairs)
        check()

    if earlier is not None and (before := Earlier.of(earlier, identity)) is not None:
        for shard in journal.missing(session.shards()):
            if (frame := before.frame(shard, session.loaded.columns, session.config)) is not None:
                commit(shard, frame)
    progress.start(scan.count - journal.pairs)
    try:
        shards = stopwatch.each("data", journal.missing(session.shards()))
        with kept_heap():
            session.crew.run(shards, commit, advance)
    finally:
        progress.finish()


def _refuse_quarantine(journal: Journal, limit: int | None, again: str) -> None:
    if limit is not None and journal.quarantined > limit:
        reason, number = journal.reasons.most_common(1)[0]
        raise QuarantineLimitError(
            f"stopped: {journal.quarantined} of {journal.pairs} pairs are in quarantine, --max-quarantine is {limit} "
            f"({number} x {reason}); finished shards are kept: "
            f"{again} --max-quarantine N"
        )


def _lint(config: RunConfig, source: Source, loaded: Loaded) -> dict[str, Any]:
    """What the linter finds, for the manifest; it stops nothing, and a sample does for its text classifier."""
    sample = GroupSample(source, LINT_ROWS, config.measure.seed) if source.scan().count > LINT_ROWS else None
    report = lint_source(
        sample or source,
        tokenize=loaded.tokenizer.tokenize,
        tokenizer=config.model.model,
        join=loaded.tokenizer.visible_join,
        plain=loaded.tokenizer.plain_though_chat,
        most_judged=LINT_PAIRS,
        seed=config.measure.seed,
    )
    return report.as_dict(LINT_KEPT) | ({} if sample is None else {"rows_in_all": sample.total})


def _log_quarantine(folder: RunFolder) -> None:
    run = Run(folder.path)
    for row in run.quarantine.iter_rows(named=True):
        folder.log("error", row["reason"], [row[run.key]])
