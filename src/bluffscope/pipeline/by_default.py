"""What a run does unless it is told otherwise, where it fits: it measures log-probabilities and keeps residuals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from bluffscope.config import READ_WHOLE, MeasureOptions, RunConfig
from bluffscope.errors import NoHeadError
from bluffscope.host.machine import free_memory
from bluffscope.pipeline.batch_size import ROW_TOKENS, SHARE, Planned, gigabytes, plan_run, run_footprint
from bluffscope.pipeline.memory import Shape
from bluffscope.pipeline.plan import TextTokenizer
from bluffscope.pipeline.worker import Loaded
from bluffscope.records import Item, Tokenized
from bluffscope.table.space import COPIES, NUMBER_OF_A_RESIDUAL, amount, free_bytes

RESIDUAL_BYTES: Final = 1_000_000_000
"""Most bytes that residuals take that are kept without being asked for."""
SAMPLE: Final = 100
"""Items whose tokens are counted before a run, to see how much it will write."""
UNMEASURED: Final = "log-probabilities left out: {}"
UNKEPT: Final = "residuals left out: {}; --keep-residuals keeps them"


def head_by_default(measure: MeasureOptions) -> bool:
    """Whether the LM head is there for log-probabilities alone, which nobody asked for."""
    return measure.logprob == "auto" and not replace(measure, logprob="off").needs_head


def refuse_unfit(shape: Shape, device: str, measure: MeasureOptions, rows: int | None, free: float) -> None:
    """Refuse a whole model that has no room.

    Args:
        shape: of the run, LM head included.
        device: where the model will be.
        measure: what is measured.
        rows: slots of a packed row, if they were given.
        free: bytes that the run may have in all.

    Raises:
        NoHeadError: not even the smallest batch fits.
    """
    needed = run_footprint(shape, device, measure).least_needed(rows or ROW_TOKENS) / SHARE
    if needed > free:
        raise NoHeadError(f"the whole model needs about {gigabytes(needed)} of memory, and {gigabytes(free)} are free")


def plan_settled(
    config: RunConfig, *, weights: bool = True, device: str | None = None, free: float | None = None
) -> tuple[RunConfig, Planned, str | None]:
    """A run as far as configurations tell; its options, log-probabilities settled; and why these do not fit.

    Args:
        config: the options, the preset resolved.
        weights: as for `plan_run`.
        device: where the model will be; None takes what the options say of this machine.
        free: bytes that the run may have there; None: what this process can have.

    Raises:
        InputError: as `plan_run`.
    """
    planned = plan_run(config.model, whole=config.measure.needs_head, weights=weights)
    if not head_by_default(config.measure):
        return config, planned, None
    free = free_memory(planned.device) if free is None else free
    try:
        refuse_unfit(planned.shape, device or planned.device, config.measure, config.engine.row_tokens, free)
    except NoHeadError as error:
        config = replace(config, measure=replace(config.measure, logprob="off"))
        return config, plan_run(config.model, weights=weights), str(error)
    return replace(config, measure=replace(config.measure, logprob="on")), planned, None


def reads_a_text(tokenizer: TextTokenizer, items: Iterable[Item], measure: MeasureOptions) -> tuple[float, float]:
    """Tokens read of a text, and at its further positions: means over the first items where they are not one."""
    if not _sampled(measure):
        return 1.0, 0.0
    found = [one for one in tokenizer.tokenize(list(islice(items, SAMPLE))) if isinstance(one, Tokenized)]
    texts = [text for one in found for text in one.sequences]
    reads, further = sum(len(text.reads) for text in texts), sum(len(part) for text in texts for part in text.further)
    return reads / max(1, len(texts)), further / max(1, len(texts))


def _sampled(measure: MeasureOptions) -> bool:
    """Whether texts have to be looked at to know how many of their tokens are read."""
    return bool(measure.further_positions) or measure.first_position in READ_WHOLE


@dataclass(frozen=True)
class Spare:
    """What residuals may take that are kept without being asked for; travels to workers."""

    texts: int
    """Of the whole run: each view of each item."""
    free: int | None
    """Bytes on the disk, where they are known."""
    sample: tuple[Item, ...] = ()
    """Some of the items, where completions are read as a whole."""

    @classmethod
    def of(cls, config: RunConfig, items: Iterable[Item], texts: int) -> Spare:
        """The room that a run has.

        Args:
            config: its options.
            items: all of them.
            texts: each view of each item.
        """
        sample = tuple(islice(items, SAMPLE)) if _sampled(config.measure) else ()
        return cls(texts, free_bytes(config.output.resume or config.output.out or Path("runs")), sample)

    def settled(self, loaded: Loaded) -> Loaded:
        """What was loaded, with the decision among its options where these leave it open."""
        output = loaded.config.output
        if output.keep_residuals != "auto":
            return loaded
        kept = "off" if self.refusal(loaded) else "on"
        return replace(loaded, config=replace(loaded.config, output=replace(output, keep_residuals=kept)))

    def refusal(self, loaded: Loaded) -> str | None:
        """Why residuals are not kept; None where they are."""
        reads = sum(reads_a_text(loaded.tokenizer, self.sample, loaded.config.measure))
        return too_much(int(self.texts * reads * loaded.width * NUMBER_OF_A_RESIDUAL), self.free)


def too_much(size: int, free: int | None) -> str | None:
    """Why residuals of so many bytes are not kept without being asked for; None where they are.

    Args:
        size: bytes of residuals.parquet.
        free: bytes on the disk, where they are known.
    """
    if size > RESIDUAL_BYTES:
        return f"they would take {amount(size)}, more than {amount(RESIDUAL_BYTES)}"
    if free is not None and 2 * COPIES * size > free:
        return f"they would take {amount(size)}, and {amount(free)} are free on the disk"
    return None
