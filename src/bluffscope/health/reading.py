"""Is the right token of the right layer read? The run's own reading against plain forwards of single texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import torch

from bluffscope.health.check import Check, found, graded
from bluffscope.health.company import Company
from bluffscope.health.loaded_model import Plain, Subject, plain_forwards, site_of
from bluffscope.model.forward import PARITY_TOLERANCE
from bluffscope.model.hooks import HookPoint
from bluffscope.pipeline.plan import plan_batches
from bluffscope.pipeline.shard import ShardWorker
from bluffscope.records import Item, Tokenized, View

Key = tuple[int, View]
"""Index of a pair and view."""


def check_tokens(subject: Subject, tokenized: Sequence[Tokenized[Item]], plain: Sequence[Plain]) -> Iterator[Check]:
    """One BOS fed where it belongs, none read, and the last (or every completion) token read."""
    bos = subject.tokenizer.bos_token_id
    texts = {(pair.item.index, pair.item.arrangement.views[s.view]): s for pair in tokenized for s in pair.sequences}
    yield _check_bos_fed(subject, bos, [text.ids for text in texts.values()])
    read = sum(bos is not None and bos in [text.ids[place] for place in text.reads] for text in texts.values())
    yield found("BOS not read", read > 0, f"{read} of {len(texts)}")
    where = {"last": "the last token", "end-of-turn": "the token that closes the turn"}.get(
        subject.options.position, "every token of the completion"
    )
    seen = f"the same ids and positions in {len(plain)} texts"
    wrong = [
        (one, text)
        for one in plain
        if (text := texts.get((one.pair.index, one.view))) is None
        or (text.ids, text.reads, text.further) != (one.ids, one.reads, one.further)
    ]
    if wrong:
        one, text = wrong[0]
        there = "no such text" if text is None else f"token {list(text.reads)} of {len(text.ids)}"
        seen = f"{len(wrong)} of {len(plain)} texts differ; pair {one.pair.id}, {one.view}: {there}"
        seen += f" instead of {list(one.reads)} of {len(one.ids)}"
    yield found("read position", bool(wrong), seen, where=where)


def _check_bos_fed(subject: Subject, bos: int | None, texts: Sequence[Sequence[int]]) -> Check:
    if subject.texts.chat is not None:  # whose template decides; where a BOS opens every turn, it has several
        right = sum((ids[0] == bos) == (subject.texts.bos is not None) for ids in texts)
        return found("BOS fed", right < len(texts), f"as the chat template has it, in {right} of {len(texts)} texts")
    if not subject.asks_for_bos:
        begin = sum(ids[0] == bos for ids in texts)
        return found("BOS fed: not wanted", begin > 0, f"{begin} of {len(texts)} texts begin with one")
    if bos is None:
        return found("BOS fed: unknown", "warning", "the tokenizer has none")
    right = sum(ids[0] == bos and list(ids).count(bos) == 1 for ids in texts)
    return found("BOS fed", right < len(texts), f"in {right} of {len(texts)} texts")


def check_reading(
    subject: Subject,
    tokenized: Sequence[Tokenized[Item]],
    plain: Sequence[Plain],
    company: Company | None,
    *,
    both: bool = False,
) -> Iterator[Check]:
    """Whatever layout the run uses: the same residuals as each text alone, at the hook point the SAE names.

    Args:
        subject: model, SAEs and the run's reader.
        tokenized: the pairs of `plain`.
        plain: texts alone.
        company: further pairs and texts of theirs: the longest and what shared its forward.
        both: whether a run that packs is tried in padded batches as well.
    """
    if company is not None:
        done = {(one.pair.index, one.view) for one in plain}
        texts = [text for text in company.texts if (text[0].index, text[1]) not in done]
        plain = [*plain, *plain_forwards(subject, texts, everywhere=False)]
        seen = {pair.item.index for pair in tokenized}
        tokenized = [*tokenized, *(pair for pair in company.others if pair.item.index not in seen)]
    yield _check_finite(subject, plain)
    if subject.worker is None:
        reason = "not needed: this strategy runs one plain text at a time"
        yield found("packed = single: one text at a time", "note", reason)
        return
    packs = subject.worker.reader.packs
    for packed in (packs, *([False] if packs and both else [])):
        yield from _check_layout(subject, subject.worker, tokenized, plain, company, packed=packed)


def _check_layout(
    subject: Subject,
    worker: ShardWorker,
    tokenized: Sequence[Tokenized[Item]],
    plain: Sequence[Plain],
    company: Company | None,
    *,
    packed: bool,
) -> Iterator[Check]:
    """The run's reading in one layout against the plain forwards."""
    tolerance = PARITY_TOLERANCE[subject.model.dtype]
    words = {"layout": "packed" if packed else "batched", "tolerance": f"{tolerance:g}"}
    batches = [*plan_batches(tokenized, worker.limits, packed=packed)]
    if company is not None and packed == worker.reader.packs:  # a forward of its own, as in the run
        batches.append([*company.batch])
    states = _read(worker, batches, packed=packed)
    for layer, point in subject.points.items():
        title, own = "packed = single", states[layer]
        reads = [one for one in plain if (one.pair.index, one.view) in own]
        apart = [_apart(own[one.pair.index, one.view], one.at(site_of(point), point)[list(one.reads)]) for one in reads]
        wrong = [one for one, difference in zip(reads, apart, strict=True) if difference > tolerance]
        if not reads:
            yield found(title, "note", "no text to compare", layer=layer, **words)
            continue
        seen = f"{max(apart):.1e} apart in {len(reads)} texts"
        if wrong:
            one = wrong[0]
            text = next(
                text
                for pair in chain.from_iterable(batches)
                for text in pair.sequences
                if (text.item, pair.item.arrangement.views[text.view]) == (one.pair.index, one.view)
            )
            if company is not None and company.changes(worker, text, layer, tolerance):
                title = "packed = single: texts change each other"
                said = f"correct alone, different in a batch with a text of {len(company.longest.ids)} tokens"
            else:
                said = _whose(one, own[one.pair.index, one.view], point)
            seen = f"{len(wrong)} of {len(reads)} texts differ (by up to {max(apart):.2g}): "
            seen += f"pair {one.pair.id}, {one.view}: {said}"
        yield found(title, bool(wrong), seen, layer=layer, **words)


def _read(
    worker: ShardWorker, batches: Iterable[Sequence[Tokenized[Item]]], *, packed: bool
) -> dict[int, dict[Key, torch.Tensor]]:
    """What the run reads of every text, by layer, in these batches."""
    read: dict[int, dict[Key, torch.Tensor]] = {layer: {} for layer in worker.reader.points}
    for pairs in batches:
        batch = worker.lay_out(pairs, packed=packed)
        residuals = worker.reader.read(batch).residuals
        for slot, pair in enumerate(pairs):
            for number, view in enumerate(pair.item.arrangement.views):
                of_text = torch.from_numpy((batch.read_item == slot) & (batch.read_view == number))
                for layer, states in residuals.items():
                    read[layer][pair.item.index, view] = states[of_text.to(states.device)]
    return read


def _apart(got: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference of a read, relative to what was expected; infinite where shapes or numbers are unfit."""
    if got.shape != expected.shape:
        return float("inf")
    difference = (got.double() - expected.double()).norm(dim=1) / expected.double().norm(dim=1)  # (read,)
    largest = float(difference.max())
    return largest if largest == largest else float("inf")  # NaN compares with nothing


def _whose(plain: Plain, states: torch.Tensor, point: HookPoint) -> str:
    """Where in the plain forward that which was read stands: at another site, at another token, or nowhere."""
    last = states[-1].double()
    best, where = float("inf"), ""
    for site in plain.sites:
        there = plain.at(site, point).double()
        if there.shape[1] != len(last):  # hook_z and the residual stream
            continue
        apart = (there - last).norm(dim=1) / there.norm(dim=1).clamp_min(1e-30)  # (token,)
        token = int(apart.argmin())
        if float(apart[token]) < best:
            best = float(apart[token])
            where = _token(plain, token) if site == site_of(point) else f"{_token(plain, token)} at {site}"
    if best > 0.02:
        return "it matches no token of this text at any loaded layer (a pad, another text, or a wrong mask)"
    return f"it is {where}"


def _token(plain: Plain, token: int) -> str:
    if token == plain.reads[-1]:
        return "the right token"
    return "the BOS" if token == 0 and plain.bos else f"token {token} instead of {plain.reads[-1]}"


def _check_finite(subject: Subject, plain: Sequence[Plain]) -> Check:
    """Overflow of half precision, as the residual stream of a few texts shows it."""
    dtype, largest = subject.model.dtype, 0.0
    name, half = str(dtype).removeprefix("torch."), dtype is torch.float16
    for site, states in chain.from_iterable(one.sites.items() for one in plain):
        if not bool(states.isfinite().all()):
            cure = "Use --dtype bfloat16 or float32" if half else "Check the model's weights"
            return found("finite values", True, f"infinite or NaN in {name}, first at {site}", cure=cure)
        largest = max(largest, float(states.abs().max()))
    title = "finite values: near the end of float16"
    return found(title, graded(title, largest) if half else "ok", f"largest {largest:.3g} in {name}")
