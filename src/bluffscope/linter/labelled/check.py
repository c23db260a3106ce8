"""The linter of labelled texts: one pass for numbers, the checks, one pass to look up the texts found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from bluffscope.linter.clusters import cluster_findings
from bluffscope.linter.draft import Draft, TextExcerpt, short
from bluffscope.linter.findings import PLAIN, Finding, LintReport, TextMeasures, in_order
from bluffscope.linter.labelled import balance, repeats, wording
from bluffscope.linter.labelled.classifier import PROMPTS, classify_texts, draw_texts, readers
from bluffscope.linter.labelled.profile import TextProfile, take_texts
from bluffscope.linter.lookup import LookUp
from bluffscope.linter.near import candidates, near_contradictions
from bluffscope.linter.profile import Tokenize, unreadable
from bluffscope.linter.repeats import duplicate_ids
from bluffscope.linter.sample import Rows
from bluffscope.linter.wording import without_tokens
from bluffscope.pairs.readers import quoted
from bluffscope.records import LabelledText

TEXT_CHECKS: Final[tuple[Callable[[TextProfile], Iterator[Draft]], ...]] = (
    duplicate_ids,
    repeats.contradictions,
    without_tokens,
    repeats.duplicate_texts,
    repeats.one_label_prompts,
    wording.marked,
)
"""Checks of single texts and prompts."""
SCOPE_CHECKS: Final[tuple[Callable[[TextProfile, Sequence[TextMeasures]], Iterator[Draft]], ...]] = (
    balance.label_findings,
    balance.length_imbalances,
    balance.token_length_imbalances,
    balance.negation_imbalances,
)
"""Checks of the balance of labels, and between them; the text classifiers, which need texts, come on top."""


def lint_texts(
    source: Rows,
    *,
    tokenize: Tokenize | None,
    tokenizer: str | None,
    join: str,
    plain: bool,
    most_judged: int,
    seed: int,
) -> LintReport:
    """Everything that is wrong or doubtful with the labelled texts of a source; the arguments are `lint_source`'s."""
    profile = take_texts(source, tokenize, join)
    scopes = balance.measure(profile)
    drafts = [draft for check in TEXT_CHECKS for draft in check(profile)]
    drafts += [draft for check in SCOPE_CHECKS for draft in check(profile, scopes)]
    claims = repeats.claims(profile)
    sample, compared = draw_texts(profile, most_judged, seed), candidates(claims)
    looked_up = _look_up(source, drafts, sample.positions(), compared, prompts=PROMPTS in readers(profile))
    scopes, judged = classify_texts(profile, scopes, sample, looked_up.kept, seed)
    near = near_contradictions(claims, {position: looked_up.kept[position] for position in compared.tolist()})
    # A text classifier could but say the same again, and of one label there is nothing to judge.
    judged = [found for found in judged if found.code != "text-tells" or found.scope not in profile.links.revealing]
    one_label = any(draft.code == "one-label" for draft in drafts)
    findings = [*map(looked_up.finding, drafts), *near, *([] if one_label else judged)]
    findings += cluster_findings(profile.links, "text", own=profile.own_groups)
    findings += [Finding("plain-text", f"{PLAIN.format(tokenizer)}.")] if plain else []
    return LintReport(
        data=source.name,
        rows=profile.rows,
        findings=in_order([*unreadable(profile), *findings]),
        scopes=scopes,
        tokenizer=tokenizer,
        seed=seed,
        cluster_by=source.cluster_by,
        items="texts",
    )


def _look_up(
    source: Rows, drafts: Sequence[Draft], sampled: np.ndarray, compared: np.ndarray, *, prompts: bool
) -> LookUp[LabelledText]:
    with_prompts = set(compared.tolist())

    def bare(position: int, text: LabelledText) -> LabelledText:
        return replace(text, extra={}, prompt=text.prompt if prompts or position in with_prompts else "")

    return LookUp(source, LabelledText, drafts, kept=np.union1d(sampled, compared), bare=bare, excerpt=_excerpt)


def _excerpt(place: str, text: LabelledText) -> TextExcerpt:
    said = f"{short(text.prompt)} + {short(text.completion)}" if text.prompt else short(text.completion)
    return TextExcerpt(quoted(text.id), place, said)
