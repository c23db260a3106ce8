"""The linter: one pass for numbers, the checks, one pass to look up the pairs found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from bluffscope.linter import balance, repeats, wording
from bluffscope.linter.classifier import SAMPLE_PAIRS, classify, draw_sample
from bluffscope.linter.clusters import cluster_findings
from bluffscope.linter.draft import Draft, Excerpt, short
from bluffscope.linter.findings import PLAIN, Finding, LintReport, ScopeMeasures, in_order
from bluffscope.linter.labelled.check import lint_texts
from bluffscope.linter.lookup import LookUp
from bluffscope.linter.near import candidates, near_contradictions
from bluffscope.linter.profile import Profile, Tokenize, take_profile, unreadable
from bluffscope.linter.sample import Rows
from bluffscope.linter.words import last_piece
from bluffscope.pairs.readers import quoted
from bluffscope.records import AUTO_JOIN, Pair

PAIR_CHECKS: Final[tuple[Callable[[Profile], Iterator[Draft]], ...]] = (
    repeats.duplicate_ids,
    wording.labels_as_texts,
    repeats.contradictions,
    repeats.conflicting_facts,
    wording.without_tokens,
    repeats.duplicate_pairs,
    repeats.duplicate_prompts,
    wording.marked,
)
"""Checks of single pairs."""
SCOPE_CHECKS: Final[tuple[Callable[[Profile, Sequence[ScopeMeasures]], Iterator[Draft]], ...]] = (
    balance.length_imbalances,
    balance.token_length_imbalances,
    balance.negation_imbalances,
)
"""Checks of a domain's balance; the text classifier, which needs texts, comes on top."""


def lint_source(
    source: Rows,
    *,
    tokenize: Tokenize | None = None,
    tokenizer: str | None = None,
    join: str = AUTO_JOIN,
    plain: bool = False,
    most_judged: int = SAMPLE_PAIRS,
    seed: int = 0,
) -> LintReport:
    """Everything that is wrong or doubtful with the pairs or labelled texts of a source; docs/lint.md has each check.

    The files are read twice. About 100 bytes a pair are held, the texts of the sample that the text classifier sees,
    and those of pairs whose prompts are compared.

    Args:
        source: where the pairs come from; it need not be scanned, and ids may repeat.
        tokenize: a model's tokenizer, for the checks of tokens.
        tokenizer: the model's name, for the report.
        join: how prompts and completions are joined.
        plain: whether the model has a chat template that is not used.
        most_judged: most pairs of a scope that the text classifier sees.
        seed: of that sample, and of the bootstrap.

    Raises:
        InputError: a file cannot be read, or not one of its rows is a pair.
    """
    if source.labelled:
        return lint_texts(
            source,
            tokenize=tokenize,
            tokenizer=tokenizer,
            join=join,
            plain=plain,
            most_judged=2 * most_judged,
            seed=seed,
        )
    profile = take_profile(source, tokenize, join)
    scopes = balance.measure(profile)
    drafts = [draft for check in PAIR_CHECKS for draft in check(profile)]
    drafts += [draft for check in SCOPE_CHECKS for draft in check(profile, scopes)]
    sample = draw_sample(profile, most_judged, seed)
    compared = candidates(profile)
    looked_up = _look_up(source, drafts, sample.positions(), compared)
    scopes, judged = classify(profile, scopes, sample, looked_up.kept, seed)
    near = near_contradictions(profile, {position: looked_up.kept[position] for position in compared.tolist()})
    # A text classifier could but say the same again.
    judged = [found for found in judged if found.code != "text-tells" or found.scope not in profile.links.revealing]
    findings = [*map(looked_up.finding, drafts), *near, *cluster_findings(profile.links), *judged]
    findings += [Finding("plain-text", f"{PLAIN.format(tokenizer)}.")] if plain else []
    return LintReport(
        data=source.name,
        rows=profile.rows,
        findings=in_order([*unreadable(profile), *findings]),
        scopes=scopes,
        tokenizer=tokenizer,
        seed=seed,
        cluster_by=source.cluster_by,
    )


def _look_up(source: Rows, drafts: Sequence[Draft], sampled: np.ndarray, compared: np.ndarray) -> LookUp[Pair]:
    with_prompts = set(compared.tolist())

    def bare(position: int, pair: Pair) -> Pair:
        return replace(pair, extra={}, prompt=pair.prompt if position in with_prompts else "")

    return LookUp(source, Pair, drafts, kept=np.union1d(sampled, compared), bare=bare, excerpt=_excerpt)


def _excerpt(place: str, pair: Pair) -> Excerpt:
    quotes = map(short, (pair.prompt, pair.fact, pair.hallucination, last_piece(pair.fact)))
    return Excerpt(quoted(pair.id), place, *quotes)
