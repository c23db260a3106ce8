"""The linter: one pass for numbers, the checks, one pass to look up the pairs found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from bluffscope.linter.balance import length_imbalances, measure, negation_imbalances, token_length_imbalances
from bluffscope.linter.classifier import SAMPLE_PAIRS, classify, draw_sample
from bluffscope.linter.draft import QUOTED_PAIRS, Draft, Excerpt, short
from bluffscope.linter.findings import CODES, Finding, LintReport, ScopeMeasures
from bluffscope.linter.near import Named, candidates, near_contradictions
from bluffscope.linter.profile import Profile, Tokenize, take_profile
from bluffscope.linter.repeats import (
    conflicting_facts,
    contradictions,
    duplicate_ids,
    duplicate_pairs,
    duplicate_prompts,
    same_completions,
)
from bluffscope.linter.sample import Rows
from bluffscope.linter.wording import (
    answers_in_prompts,
    doubled_spaces,
    labels_as_texts,
    merged_boundaries,
    same_last_tokens,
    same_last_words,
    spaces_at_joins,
    without_tokens,
)
from bluffscope.linter.words import last_piece
from bluffscope.pairs.fields import RowError
from bluffscope.pairs.readers import quoted
from bluffscope.records import AUTO_JOIN

PAIR_CHECKS: Final[tuple[Callable[[Profile], Iterator[Draft]], ...]] = (
    duplicate_ids,
    labels_as_texts,
    contradictions,
    conflicting_facts,
    same_completions,
    without_tokens,
    duplicate_pairs,
    duplicate_prompts,
    answers_in_prompts,
    same_last_words,
    same_last_tokens,
    merged_boundaries,
    doubled_spaces,
    spaces_at_joins,
)
"""Checks of single pairs."""
SCOPE_CHECKS: Final[tuple[Callable[[Profile, Sequence[ScopeMeasures]], Iterator[Draft]], ...]] = (
    length_imbalances,
    token_length_imbalances,
    negation_imbalances,
)
"""Checks of a domain's balance; the text classifier, which needs texts, comes on top."""


def lint_source(
    source: Rows,
    *,
    tokenize: Tokenize | None = None,
    tokenizer: str | None = None,
    join: str = AUTO_JOIN,
    most_judged: int = SAMPLE_PAIRS,
    seed: int = 0,
) -> LintReport:
    """Everything that is wrong or doubtful with the pairs of a source; docs/lint.md has each check.

    The files are read twice. About 100 bytes a pair are held, the texts of the sample that the text classifier sees,
    and those of pairs whose prompts are compared.

    Args:
        source: where the pairs come from; it need not be scanned, and ids may repeat.
        tokenize: a model's tokenizer, for the checks of tokens.
        tokenizer: the model's name, for the report.
        join: how prompts and completions are joined.
        most_judged: most pairs of a scope that the text classifier sees.
        seed: of that sample, and of the bootstrap.

    Raises:
        InputError: a file cannot be read, or not one of its rows is a pair.
    """
    profile = take_profile(source, tokenize, join)
    scopes = measure(profile)
    drafts = [draft for check in PAIR_CHECKS for draft in check(profile)]
    drafts += [draft for check in SCOPE_CHECKS for draft in check(profile, scopes)]
    sample = draw_sample(profile, most_judged, seed)
    looked_up = _LookUp(source, drafts, sample.positions(), candidates(profile))
    scopes, judged = classify(profile, scopes, sample, looked_up.texts, looked_up.rows, seed)
    faults = [Finding("unreadable-row", f"{fault}.", (fault.pair_id,), (fault.index,)) for fault in profile.faults]
    near = near_contradictions(profile, looked_up.compared)
    findings = [*faults, *map(looked_up.finding, drafts), *near, *judged]
    places = {code: place for place, code in enumerate(CODES)}
    return LintReport(
        data=source.name,
        rows=profile.rows,
        findings=tuple(sorted(findings, key=lambda finding: places[finding.code])),
        scopes=scopes,
        tokenizer=tokenizer,
        seed=seed,
    )


class _LookUp:
    """Ids, rows and texts of the pairs that are named, sampled or compared, from a second pass over the source."""

    def __init__(self, source: Rows, drafts: Sequence[Draft], sampled: np.ndarray, compared: np.ndarray) -> None:
        self.rows: dict[int, int] = {}
        self.texts: dict[int, tuple[str, str, str]] = {}
        self.compared: dict[int, Named] = {}
        self._ids: dict[int, str] = {}
        self._excerpts: dict[int, Excerpt] = {}
        found = [np.empty(0, np.int64), *(draft.positions for draft in drafts)]
        excerpted = {int(i) for positions in found for i in positions[:QUOTED_PAIRS]}
        sample, prompts = set(sampled.tolist()), set(compared.tolist())
        wanted = set(np.unique(np.concatenate(found)).tolist()) | sample | prompts
        if not wanted:
            return
        pairs = ((place, row) for place, row in source.rows() if not isinstance(row, RowError))
        for position, (place, pair) in enumerate(pairs):
            if position in wanted:
                self._ids[position] = pair.id
                self.rows[position] = pair.index
            if position in sample:
                self.texts[position] = (pair.id, pair.fact, pair.hallucination)
            if position in prompts:
                self.compared[position] = Named(pair.id, pair.index, pair.prompt, pair.fact, pair.hallucination)
            if position in excerpted:
                quotes = map(short, (pair.prompt, pair.fact, pair.hallucination, last_piece(pair.fact)))
                self._excerpts[position] = Excerpt(quoted(pair.id), place, *quotes)

    def finding(self, draft: Draft) -> Finding:
        """The finding that a draft becomes."""
        positions = [int(position) for position in draft.positions]
        return Finding(
            draft.code,
            draft.say([self._excerpts[position] for position in positions[:QUOTED_PAIRS]]),
            tuple(self._ids[position] for position in positions),
            tuple(self.rows[position] for position in positions),
            draft.scope,
        )
