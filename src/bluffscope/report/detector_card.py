"""The model card of a detector that is saved: what it is for, how good it is, and when it misleads, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from bluffscope.detectors.growing import SAYS
from bluffscope.detectors.train import Source, Trained
from bluffscope.host.terminal import interval
from bluffscope.report.detectors import by_what, sees, trained_rows, verdict
from bluffscope.report.labels import auroc, capital, clean
from bluffscope.report.tokens import unit_rows

_READS: Final = {
    "last": "the last token of a text",
    "first-completion": "the first token of the completion",
    "completion-mean": "the mean over the completion's tokens",
    "end-of-turn": "the token that closes the assistant's turn",
    "tokens": "each token of the completion; a text's score is that of its highest token",
}
_MISLEADS: Final = """\
- Its probability holds for texts like those above, with as many hallucinated among them. Where one text in a hundred
  is, most alarms are false, whatever the AUROC.
- {judges}
- It can be right for an uninteresting reason (another author, another topic): the baselines catch what they can count.
- {works}
"""
_WORKS: Final = {
    False: "It works with this model at this precision alone; Bluffscope refuses others.",
    True: "It works with vectors of the same model, place and precision alone, which nothing in this folder can check.",
}

_JUDGES: Final = {
    False: "It judges texts in which a completion ends; while a model writes, each prefix is judged as if it ended "
    "there.",
    True: "It judges each token by itself: a claim that follows from no single token, it does not see.",
}


def card(name: str, trained: Trained, run: Source, where: Sequence[str]) -> str:
    """The card.

    Args:
        name: of the detector.
        trained: what is saved.
        run: that it was trained on, or vectors that were given.
        where: the conditions that chose its pairs.
    """
    return "\n".join(_lines(name, trained, run, where))


def _lines(name: str, trained: Trained, run: Source, where: Sequence[str]) -> Iterator[str]:
    about, items = trained.about, trained.arrangement.table
    chosen = f" with {' and '.join(map(_safe, where))}" if where else ""
    yield from (f"# Detector {_safe(name)}", "")
    judges = "a token is part of a hallucination" if trained.by_token else "a text is hallucinated"
    yield f"Estimates the probability that {judges}, from inside a language model. It is linear: one"
    yield from ("weight a value, saved in `weights.safetensors`; no pickle and no code is in this folder.", "")
    yield from ("| | |", "|---|---|")
    if trained.keys.given:
        yield from _of_vectors(trained, run)
    else:
        yield from _of_run(trained, run, chosen)
    yield from ("", "## How good it is", "")
    drawn = f"{about['repeats']} draws of {about['folds']} folds that split no group"
    yield f"Cross-validated in {drawn}, beside baselines without a look inside:"
    yield from ("", "| detector | AUROC | 95 % | gain over the best baseline | 95 % |", "|---|---|---|---|---|")
    for row in trained_rows(trained):
        cells = [str(cell) for cell in row.cells]
        yield f"| {' | '.join([*cells, *['-'] * (5 - len(cells))])} |"
    if trained.by_token:
        yield from _by_token(trained.about["token_level"])
    yield from ("", f"{capital(verdict(trained))}.", "")
    if (left := trained.left_out) is None:
        yield "The run had no other pairs or texts to test it on."
    else:
        generalises = left["lo"] is not None and left["lo"] > 0.5
        judged = "better than chance there too" if generalises else "not shown to be better than chance there"
        by, tokens = by_what(left)
        yield f"Other {items} of the run ({left['n']:,}): AUROC{by} {auroc(left)}{tokens}, {judged}."
    yield f"Calibration error of held-out probabilities: {trained.ece:.3f}."
    if (alarm := trained.alarm) is not None:
        yield f"Alarm: a score above {alarm.threshold:.3f}, which at most {alarm.alpha:.1%} of true texts exceed;"
        yield f"calibrated on a text of each of {alarm.clusters} groups that nothing was fitted to."
    yield from (f"{_safe(note, 400)}" for note in about["notes"])
    yield from ("", "## What carries over", "", *_carried(about["domains"], items), "")
    if not trained.keys.given:
        yield from ("`bluffscope detect transfer DIR RUN ...` tests it, as it is, on other runs of this model.", "")
    yield from ("## When it misleads", "")
    yield _MISLEADS.format(judges=_JUDGES[trained.by_token], works=_WORKS[bool(trained.keys.given)])
    name = clean(name, 80)
    if trained.keys.given:
        yield from ("## Use", "", f"    bluffscope detect score {name} --activations FILE.safetensors", "")
        return
    grows = trained.keys.on != "metrics" and trained.position in SAYS
    yield from ("## Use", "", f"    bluffscope detect score {name} --prompt PROMPT --completion COMPLETION")
    yield from (f"    bluffscope detect watch {name} --prompt PROMPT", "") if grows else ("",)


def _by_token(level: Mapping[str, Any]) -> Iterator[str]:
    """How good a detector of tokens is by token, span and text."""
    yield from (
        "",
        f"The table above is by {level['judged_by']}; a span's or text's score is that of its highest token:",
        "",
    )
    yield "| by | to be found | AUROC | 95 % | best baseline | recall at 1 % false alarms | 95 % | precision there |"
    yield "|---|---|---|---|---|---|---|---|"
    yield from (f"| {' | '.join(map(str, row.cells))} |" for row in unit_rows(level))


def _carried(rows: Sequence[Mapping[str, Any]], items: str) -> Iterator[str]:
    """A table of the domains that were left out in turn."""
    if not rows:
        yield "Its data are of one domain, or of very many: how it does in a new one was not measured."
    else:
        yield "Fitted to all domains but one, and tested in that one, beside text alone:"
        yield from ("", f"| domain | {items} | AUROC | 95 % | text alone |", "|---|---|---|---|---|")
    for row in rows:
        text = f"{row['text']:.2f}" if "text" in row else "-"
        known = [f"{row['auroc']:.2f}", interval(row), text] if "auroc" in row else ["-", _safe(row["reason"]), "-"]
        yield f"| {_safe(row['domain'])} | {row['n']:,} | {' | '.join(known)} |"


def _of_run(trained: Trained, run: Source, chosen: str) -> Iterator[str]:
    """Rows of the table: model, layers, position, data."""
    about, items, model = trained.about, trained.arrangement.table, run.manifest.get("model") or {}
    yield f"| model | {_place(model.get('name'))} ({model.get('architecture')}, {run.manifest.get('dtype')}) |"
    yield f"| looks at | {sees(trained)} of layers {', '.join(map(str, _layers(trained, run)))} |"
    yield f"| reads | {_READS.get(trained.position, trained.position)} |"
    data = _place(_option(run, "data", "data"))
    yield f"| data | {data}: {about[items]:,} {items}{chosen}, {about['groups']:,} groups |"
    yield f"| texts | {'conversations by the chat template' if _option(run, 'data', 'chat') == 'True' else 'plain'} |"


def _of_vectors(trained: Trained, run: Source) -> Iterator[str]:
    """The same of vectors: what they are of is not known."""
    parts = ", ".join(f"{_safe(name)} ({width:,} values)" for name, width in trained.keys.given)
    yield "| model, read position | those of the vectors that were given |"
    yield f"| looks at | {parts} |"
    yield f"| data | {_place(run.path)}: {trained.about['texts']:,} texts, {trained.about['groups']:,} groups |"


def _option(run: Source, part: str, name: str) -> str:
    options: object = run.config.get(part)
    return str(cast("dict[str, Any]", options).get(name)) if isinstance(options, dict) else "unknown"


def _layers(trained: Trained, run: Source) -> list[int]:
    keys = trained.keys
    if keys.on == "metrics":
        model: Any = run.config.get("model")
        return list(model["layers"]) if isinstance(model, dict) else []
    return [*keys.layers] or keys.features["layer"].unique().sort().to_list()


def _place(name: object) -> str:
    """A name on the hub as it is; of a path only its end: a card is published, the machine's folders are not."""
    path = Path(str(name))
    return _safe(path.name if path.is_absolute() or path.exists() else str(name))


def _safe(text: str, width: int = 80) -> str:
    """Text that no Markdown or HTML in it can change."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", clean(text, width))
