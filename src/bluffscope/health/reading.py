"""Is the right token of the right layer read? The run's own reading against plain forwards of single texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import torch

from bluffscope.health.check import Check, Severity
from bluffscope.health.company import Company
from bluffscope.health.loaded_model import Plain, Subject, plain_forwards, site_of
from bluffscope.model.forward import PARITY_TOLERANCE
from bluffscope.model.hooks import HookPoint
from bluffscope.pipeline.plan import plan_batches
from bluffscope.pipeline.shard import ShardWorker
from bluffscope.records import VIEWS, Pair, Tokenized, View

FLOAT16_MAX: Final = 65504.0
"""The largest number of float16; beyond it is infinity."""
FLOAT16_NEAR: Final = 0.25
"""Share of it from which an activation gives cause for a warning."""

Key = tuple[int, View]
"""Index of a pair and view."""


class _Read(NamedTuple):
    """What a run reads of one text at one layer."""

    layer: int
    plain: Plain
    states: torch.Tensor
    """(read, d_model)"""


def check_tokens(subject: Subject, tokenized: Sequence[Tokenized[Pair]], plain: Sequence[Plain]) -> Iterator[Check]:
    """One BOS fed where it belongs, none read, and the last (or every completion) token read."""
    bos = subject.tokenizer.bos_token_id
    texts = {(pair.item.index, VIEWS[s.view]): s for pair in tokenized for s in pair.sequences}
    yield _check_bos_fed(subject, bos, [text.ids for text in texts.values()])
    read = [text for text in texts.values() if bos is not None and any(text.ids[i] == bos for i in text.reads)]
    yield Check(
        check="BOS not read",
        severity="error" if read else "ok",
        expected="no BOS at a read position",
        seen=f"{len(read)} of {len(texts)}",
        means="A BOS is the same for every text, and SAEs were not trained on it",
        do="Report this: the read positions are computed, not chosen",
    )
    wrong = [
        one
        for one in plain
        if (text := texts.get((one.pair.index, one.view))) is None or (text.ids, text.reads) != (one.ids, one.reads)
    ]
    where = "the last token" if subject.options.position == "last" else "every token of the completion"
    row: dict[str, Any] = {"check": "read position", "expected": f"{where}, as the reference tokenises"}
    if not wrong:
        yield Check(**row, seen=f"the same ids and positions in {len(plain)} texts")
        return
    first = wrong[0]
    text = texts.get((first.pair.index, first.view))
    seen = "no such text" if text is None else f"token {list(text.reads)} of {len(text.ids)} instead of "
    yield Check(
        **row,
        severity="error",
        seen=f"{len(wrong)} of {len(plain)} texts differ; pair {first.pair.id}, {first.view}: {seen}"
        f"{list(first.reads)} of {len(first.ids)}",
        means="Another token is measured than the one that ends the text, or other ids are fed",
        do="Look at the read_token columns; report this with the model's tokenizer",
    )


def _check_bos_fed(subject: Subject, bos: int | None, texts: Sequence[Sequence[int]]) -> Check:
    if not subject.asks_for_bos:
        seen = f"{sum(ids[0] == bos for ids in texts)} of {len(texts)} texts begin with one"
        fed = bos is not None and any(ids[0] == bos for ids in texts)
        return Check(
            check="BOS fed",
            severity="error" if fed else "ok",
            expected="none (the SAEs were trained without)",
            seen=seen,
            means="The model sees a token that was not there when the SAEs were trained",
            do="Check prepend_bos in the SAEs' metadata",
        )
    if bos is None:
        return Check(
            check="BOS fed",
            severity="warning",
            expected="one in front (prepend_bos of the SAEs)",
            seen="the tokenizer has none",
            means="The SAEs were trained on texts with a BOS, the model cannot be given one",
            do="Use the tokenizer of the model that the SAEs were trained on",
        )
    right = sum(ids[0] == bos and list(ids).count(bos) == 1 for ids in texts)
    wrong = right < len(texts)
    return Check(
        check="BOS fed",
        severity="error" if wrong else "ok",
        expected="exactly one in front (prepend_bos of the SAEs)",
        seen=f"in {right} of {len(texts)} texts",
        means="Without it the first token takes its role, and the residual stream is another one",
        do="Check the tokenizer's bos_token and prepend_bos in the SAEs' metadata",
    )


def check_reading(
    subject: Subject, tokenized: Sequence[Tokenized[Pair]], plain: Sequence[Plain], company: Company | None
) -> Iterator[Check]:
    """Whatever layout the run uses: the same residuals as each text alone, at the hook point the SAE names.

    Args:
        subject: model, SAEs and the run's reader.
        tokenized: the pairs of `plain`.
        plain: texts alone.
        company: further pairs and texts of theirs: the longest and what shared its forward.
    """
    if company is not None:
        done = {(one.pair.index, one.view) for one in plain}
        texts = [text for text in company.texts if (text[0].index, text[1]) not in done]
        plain = [*plain, *plain_forwards(subject, texts, everywhere=False)]
        seen = {pair.item.index for pair in tokenized}
        tokenized = [*tokenized, *(pair for pair in company.others if pair.item.index not in seen)]
    yield from _check_finite(subject, plain)
    if subject.worker is None:
        reason = "not needed: this strategy runs one plain text at a time"
        yield Check(check="packed = single", severity="note", expected="the same residuals", seen=reason)
        return
    if subject.worker.reader.packs:
        yield from _check_layout(subject, subject.worker, tokenized, plain, company, packed=True)
    yield from _check_layout(subject, subject.worker, tokenized, plain, company, packed=False)


def _check_layout(
    subject: Subject,
    worker: ShardWorker,
    tokenized: Sequence[Tokenized[Pair]],
    plain: Sequence[Plain],
    company: Company | None,
    *,
    packed: bool,
) -> Iterator[Check]:
    """The run's reading in one layout against the plain forwards."""
    name = "packed = single" if packed else "batched = single"
    tolerance = PARITY_TOLERANCE[subject.dtype]
    batches = [*plan_batches(tokenized, worker.limits, packed=packed)]
    if company is not None and packed == worker.reader.packs:  # a forward of its own, as in the run
        batches.append([*company.batch])
    found = _read(worker, batches, packed=packed)
    for layer, point in subject.points.items():
        reads = [
            _Read(layer, one, found[layer][one.pair.index, one.view])
            for one in plain
            if (one.pair.index, one.view) in found[layer]
        ]
        expected = f"the plain forward's, within {tolerance:g}"
        if not reads:
            yield Check(check=name, layer=layer, severity="note", expected=expected, seen="no text to compare")
            continue
        apart = [_apart(read.states, _expected(read.plain, point)) for read in reads]
        if max(apart) <= tolerance:
            seen = f"{max(apart):.1e} apart in {len(reads)} texts"
            yield Check(check=name, layer=layer, expected=expected, seen=seen)
            continue
        wrong = [read for read, difference in zip(reads, apart, strict=True) if not difference <= tolerance]
        whose, means, do = _explained(worker, chain.from_iterable(batches), wrong[0], point, company)
        yield Check(
            check=name,
            layer=layer,
            severity="error",
            expected=expected,
            seen=f"{len(wrong)} of {len(reads)} texts differ (by up to {max(apart):.2g}): {whose}",
            means=means,
            do=f"{do}; report this with the model's name",
        )


def _explained(
    worker: ShardWorker, pairs: Iterable[Tokenized[Pair]], read: _Read, point: HookPoint, longest: Company | None
) -> tuple[str, str, str]:
    """What is read in place of a text, what that means, and what to try."""
    text = next(
        text
        for pair in pairs
        for text in pair.sequences
        if (text.item, VIEWS[text.view]) == (read.plain.pair.index, read.plain.view)
    )
    if longest is not None and longest.changes(worker, text, read.layer, PARITY_TOLERANCE[worker.reader.model.dtype]):
        return (
            f"{_name(read)}: correct alone, different in a batch with a text of {len(longest.longest.ids)} tokens",
            "The model's position factors depend on the longest text of a forward (as LongRoPE's and dynamic RoPE's "
            "do): texts of different lengths change each other",
            "Use --strategy sequential, which runs each text alone",
        )
    return (
        _whose(read, point),
        "What is measured is not what the SAE was trained to read",
        "Try --strategy batched and --device cpu",
    )


def _read(
    worker: ShardWorker, batches: Iterable[Sequence[Tokenized[Pair]]], *, packed: bool
) -> dict[int, dict[Key, torch.Tensor]]:
    """What the run reads of every text, by layer, in these batches."""
    found: dict[int, dict[Key, torch.Tensor]] = {layer: {} for layer in worker.coders}
    for pairs in batches:
        batch = worker.lay_out(pairs, packed=packed)
        residuals = worker.reader.read(batch).residuals
        for slot, pair in enumerate(pairs):
            for number, view in enumerate(VIEWS):
                of_text = torch.from_numpy((batch.read_item == slot) & (batch.read_view == number))
                for layer, states in residuals.items():
                    found[layer][pair.item.index, view] = states[of_text.to(states.device)]
    return found


def _expected(plain: Plain, point: HookPoint) -> torch.Tensor:
    return plain.at(site_of(point), point)[list(plain.reads)]


def _apart(got: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference of a read, relative to what was expected; infinite where shapes or numbers are unfit."""
    if got.shape != expected.shape:
        return float("inf")
    difference = (got.double() - expected.double()).norm(dim=1) / expected.double().norm(dim=1)  # (read,)
    largest = float(difference.max())
    return largest if largest == largest else float("inf")  # NaN compares with nothing


def _whose(read: _Read, point: HookPoint) -> str:
    """Where in the plain forward that which was read stands: at another site, at another token, or nowhere."""
    own, last = site_of(point), read.states[-1].double()
    best, found = float("inf"), ""
    for site in read.plain.sites:
        states = read.plain.at(site, point).double()
        apart = (states - last).norm(dim=1) / states.norm(dim=1).clamp_min(1e-30)  # (token,)
        token = int(apart.argmin())
        if float(apart[token]) < best:
            best = float(apart[token])
            token_name = "the right token" if token == read.plain.reads[-1] else _token(read.plain, token)
            found = f"it is {token_name} at {site}" if site != own else f"it is {token_name}"
    text = _name(read)
    if best > 0.02:
        return f"{text}: it matches no token of this text at any loaded layer (a pad, another text, or a wrong mask)"
    return f"{text}: {found}"


def _name(read: _Read) -> str:
    return f"pair {read.plain.pair.id}, {read.plain.view}"


def _token(plain: Plain, token: int) -> str:
    if token == 0 and plain.bos:
        return "the BOS"
    return f"token {token} instead of {plain.reads[-1]}"


def _check_finite(subject: Subject, plain: Sequence[Plain]) -> Iterator[Check]:
    """Overflow of half precision, as the residual stream of a few texts shows it."""
    largest = 0.0
    bad: list[str] = []
    for one in plain:
        for site, states in one.sites.items():
            if not bool(states.isfinite().all()):
                bad.append(site)
            else:
                largest = max(largest, float(states.abs().max()))
    name = str(subject.dtype).removeprefix("torch.")
    row: dict[str, Any] = {"check": "finite values", "expected": "every activation finite"}
    if bad:
        do = "Use --dtype bfloat16 or float32" if subject.dtype is torch.float16 else "Check the model's weights"
        yield Check(
            **row,
            severity="error",
            seen=f"infinite or NaN in {name}, first at {bad[0]}",
            means="Activations leave the range of this precision: overflow",
            do=do,
        )
        return
    near: Severity = "ok"
    if subject.dtype is torch.float16 and largest > FLOAT16_NEAR * FLOAT16_MAX:
        near = "warning"
    yield Check(
        **row,
        severity=near,
        seen=f"largest {largest:.3g} in {name}",
        means=f"float16 ends at {FLOAT16_MAX:g}: longer or stranger texts may overflow",
        do="Use --dtype bfloat16 or float32",
    )
