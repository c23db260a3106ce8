"""The linter: one pass for numbers, the checks, one pass to look up the pairs found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from bluffscope.linter import balance, repeats, wording
from bluffscope.linter.classifier import SAMPLE_PAIRS, classify, draw_sample
from bluffscope.linter.clusters import cluster_findings
from bluffscope.linter.draft import QUOTED_PAIRS, Draft, Excerpt, short
from bluffscope.linter.findings import CODES, Finding, LintReport, ScopeMeasures
from bluffscope.linter.labelled import lint_texts
from bluffscope.linter.near import candidates, near_contradictions
from bluffscope.linter.profile import Profile, Tokenize, take_profile
from bluffscope.linter.sample import Rows
from bluffscope.linter.words import last_piece
from bluffscope.pairs.readers import quoted
from bluffscope.records import AUTO_JOIN, Pair

PLAIN: Final = (
    "{} has a chat template, and these texts are read as plain text: --chat makes conversations of the prompts, as the "
    "model was tuned on them"
)
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
    """Everything that is wrong or doubtful with the pairs of a source; docs/lint.md has each check.

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
        return lint_texts(source, tokenize=tokenize, tokenizer=tokenizer, plain=plain, seed=seed)
    profile = take_profile(source, tokenize, join)
    scopes = balance.measure(profile)
    drafts = [draft for check in PAIR_CHECKS for draft in check(profile)]
    drafts += [draft for check in SCOPE_CHECKS for draft in check(profile, scopes)]
    sample = draw_sample(profile, most_judged, seed)
    looked_up = _LookUp(source, drafts, sample.positions(), candidates(profile))
    scopes, judged = classify(profile, scopes, sample, looked_up.pairs, seed)
    faults = [Finding("unreadable-row", f"{fault}.", (fault.pair_id,), (fault.index,)) for fault in profile.faults]
    near = near_contradictions(profile, looked_up.compared)
    # A text classifier could but say the same again.
    judged = [found for found in judged if found.code != "text-tells" or found.scope not in profile.links.revealing]
    findings = [*faults, *map(looked_up.finding, drafts), *near, *cluster_findings(profile.links), *judged]
    findings += [Finding("plain-text", f"{PLAIN.format(tokenizer)}.")] if plain else []
    places = {code: place for place, code in enumerate(CODES)}
    return LintReport(
        data=source.name,
        rows=profile.rows,
        findings=tuple(sorted(findings, key=lambda finding: places[finding.code])),
        scopes=scopes,
        tokenizer=tokenizer,
        seed=seed,
        cluster_by=source.cluster_by,
    )


class _LookUp:
    """Ids, rows and texts of the pairs that are named, sampled or compared, from a second pass over the source."""

    def __init__(self, source: Rows, drafts: Sequence[Draft], sampled: np.ndarray, compared: np.ndarray) -> None:
        self.pairs: dict[int, Pair] = {}
        """Those sampled, without their prompts."""
        self.compared: dict[int, Pair] = {}
        self._names: dict[int, tuple[str, int]] = {}
        self._excerpts: dict[int, Excerpt] = {}
        found = {int(position) for draft in drafts for position in draft.positions}
        excerpted = {int(position) for draft in drafts for position in draft.positions[:QUOTED_PAIRS]}
        sample, prompts = set(sampled.tolist()), set(compared.tolist())
        if not found | sample | prompts:
            return
        pairs = ((place, row) for place, row in source.rows() if isinstance(row, Pair))
        for position, (place, pair) in enumerate(pairs):
            if position in found:
                self._names[position] = pair.id, pair.index
            if position in sample:
                self.pairs[position] = replace(pair, prompt="", extra={})
            if position in prompts:
                self.compared[position] = replace(pair, extra={})
            if position in excerpted:
                quotes = map(short, (pair.prompt, pair.fact, pair.hallucination, last_piece(pair.fact)))
                self._excerpts[position] = Excerpt(quoted(pair.id), place, *quotes)

    def finding(self, draft: Draft) -> Finding:
        """The finding that a draft becomes."""
        positions = draft.positions.tolist()
        names = [self._names[position] for position in positions]
        said = draft.say([self._excerpts[position] for position in positions[:QUOTED_PAIRS]])
        return Finding(draft.code, said, tuple(id for id, _ in names), tuple(row for _, row in names), draft.scope)
