"""The judge: whether an answer says what a gold answer says, by rules alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bluffscope.runs.ask import choices, dates, numbers
from bluffscope.runs.ask.affirmed import hedged, objection
from bluffscope.runs.ask.claims import Kind, beside_claim, cleaned, committed, core, last_word, sentences
from bluffscope.runs.ask.figures import agree_anywhere, figures, is_figure
from bluffscope.runs.ask.names import Place, asks_for_person, forms, normal_form, person_places, places
from bluffscope.runs.ask.refusals import answered_anyway, refuses
from bluffscope.runs.ask.words import FUNCTION, TITLES, content, folded, lean, stems, words

Verdict = Literal["right", "wrong", "refused", "empty"]
Mode = Literal["match", "contains", "numeric"]
REFUSED: Final = "(refused)"
"""The cluster of all answers that decline."""
MOST: Final = (1500, 500)
"""Characters at the beginning and the end of an answer that are read, where it has more."""
_LONG: Final = 6
"""Words from which a gold answer is a sentence."""
_YES: Final = {
    **dict.fromkeys(("yes", "yeah", "yep", "true", "correct", "right", "indeed"), "yes"),
    **dict.fromkeys(("no", "nope", "false", "incorrect", "wrong", "not"), "no"),
}


_IT_DOES: Final = re.compile(
    r"^\W*(?:it|they|he|she|you|we|one)\s(?:does|do|did|is|are|was|were|has|have|can|could|will|would)\b",
    re.IGNORECASE,
)
_ASKS: Final = re.compile(
    r"^\W*(?:can|could|would|what|which|who|why|how|where|do|does|any\w*|is|are|shall|maybe try)\b", re.I
)
"""A question of the answer's own, which is no guess ("Anything else?")."""
_IT_IS: Final = re.compile(r"^\W*(?:it|this|that|they|these|he|she)(?:'s| is| are| was| were)\b", re.IGNORECASE)
"""What a sentence begins with that may complete the answer of the one before ("It is in the leg. It is the femur")."""


@dataclass(frozen=True)
class Judgement:
    """What the judge found."""

    verdict: Verdict
    cluster: str
    """Normal form of the answer: answers that say the same have the same; empty for an empty answer."""
    reason: str
    """Why, in a few words."""


@dataclass(frozen=True)
class _Case:
    question: str
    golds: tuple[str, ...]
    mode: Mode
    person: bool

    @property
    def kind(self) -> Kind:
        """What the first gold answer is."""
        gold = self.golds[0] if self.golds else ""
        if is_figure(gold, self.question):
            return "number"
        return "name" if gold[:1].isupper() else "thing"


def judge(question: str, answer: str, golds: Sequence[str], mode: Mode = "contains") -> Judgement:
    """Judge an answer.

    Args:
        question: what was asked.
        answer: what the model said.
        golds: right answers and their aliases; any of them will do.
        mode: `match`: the first line's first sentence is the gold answer, but for what leads to it; `contains`: the
            sentence that answers holds it; `numeric`: the same by numbers and dates alone. In each, a gold answer
            that is a number or a date is compared as one.
    """
    case = _Case(question, tuple(golds), mode, asks_for_person(question))
    text = cleaned(_cut(answer), question)
    if _says_nothing(text, case):
        return Judgement("empty", "", "no answer in it")
    if refuses(text) and not any(refuses(gold) for gold in golds):
        rest = answered_anyway(text, question) or _answer_after(text, case)
        if rest is None:
            return Judgement("refused", REFUSED, "declines to answer")
        text = rest
    text = last_word(text)
    found = _right(text, case)
    if found.startswith("+"):
        return Judgement("right", _gold_cluster(case), found[1:])
    return Judgement("wrong", cluster_of(text, case), found)


def _answer_after(text: str, case: _Case) -> str | None:
    """A sentence that declines nothing and answers with words of the question, in a text that declines."""
    parts = [part for part in sentences(text) if not refuses(part)]
    at = committed(parts, case.question, case.kind, alone=False)
    if at is None and parts and parts[-1].endswith("?") and len(words(parts[-1])) <= 4 and not _ASKS.match(parts[-1]):
        return parts[-1]
    return None if at is None else "\n".join(parts[at:])


def _cut(answer: str) -> str:
    first, last = MOST
    return answer if len(answer) <= first + last else f"{answer[:first]}\n{answer[-last:]}"


def _says_nothing(text: str, case: _Case) -> bool:
    given, asked = words(text), words(case.question)
    if not given:
        return True
    if [word.norm for word in given] == [word.norm for word in asked]:
        return True
    known = {word.norm for word in asked} | FUNCTION
    echo = all(word.norm in known for word in given)
    held = any(content(words(gold)) <= content(asked) for gold in case.golds)
    return (
        echo and not held and not _wanted(case) and len(content(asked) - content(given)) == 0 and bool(content(asked))
    )


def _right(text: str, case: _Case) -> str:
    """Why an answer is right, after a plus; else why it is wrong."""
    parts = sentences(text)
    if not parts:
        return "no gold answer in it"
    if (said := _yes_or_no(parts[0], case)) is not None:
        return said
    at = committed(parts, case.question, case.kind)
    chosen = parts[:1] if case.mode == "match" else parts if at is None else parts[at:]
    if hedged(text, None if at is None else parts[at]):
        return "several answers are offered"
    reason = "no gold answer in it"
    for number, part in enumerate(chosen):
        if number and at is not None and not _IT_IS.match(part):
            continue
        for gold in case.golds:
            for place in _places(part, gold, case):
                found = _affirmed(part, place, case, gold)
                if found is None and number and at is not None and not _covers(part, place, case):
                    found = "named after the answer"
                if found is None:
                    return f"+says {gold}"
                reason = found
    return reason


def _wanted(case: _Case) -> set[str]:
    """Yes or no, where a gold answer is one of them."""
    found = {_YES.get(folded(gold).strip(" .!")) for gold in case.golds}
    return {said for said in found if said is not None}


def _yes_or_no(sentence: str, case: _Case) -> str | None:
    wanted = _wanted(case)
    if not wanted:
        return None
    first = next((_YES[word.norm] for word in words(sentence) if word.norm in _YES), None)
    if first is None and re.search(r"\b(?:cannot|never)\b|n't\b", sentence, re.IGNORECASE):
        first = "no"
    elif first is None and (_IT_DOES.match(sentence) or stems(words(case.question)) <= stems(words(sentence))):
        first = "yes"
    return f"+says {first}" if first in wanted else f"says {first or 'neither yes nor no'}"


def _places(part: str, gold: str, case: _Case) -> Iterator[Place]:
    """Where a sentence has a gold answer."""
    figure = _with_unit(gold, case.golds)
    yield from (Place(one.start, one.end, 0, 0) for one in figures(part, figure, case.question))
    if case.mode == "numeric" or numbers.whole(gold) is not None or dates.whole(gold, case.question) is not None:
        return
    person = case.person and not _offered(case)
    for form in forms(gold, case.golds, person=person):
        yield from places(part, form, case.question, person=person)
        yield from places(part, form, case.question, person=person, slips=True)
        if len(form) >= _LONG and _says_all(part, gold):
            yield Place(0, len(part), 0, len(lean(words(part))))
    if person:
        yield from person_places(part, gold, case.question)


def _with_unit(gold: str, golds: Sequence[str]) -> str:
    """A gold answer, or another with the same number that names its unit ("$2" for "2")."""
    number = numbers.whole(gold)
    if number is None or number.unit is not None:
        return gold
    others = [(other, numbers.whole(other)) for other in golds]
    return next((text for text, one in others if one and one.unit and one.value == number.value), gold)


def _says_all(part: str, gold: str) -> bool:
    """Whether a sentence has all words of a gold answer that is one, and negates as often."""
    wanted, given = content(words(gold)), content(words(part))
    negations = [len(re.findall(r"\b(?:not|no|never|cannot)\b|n't\b", text.lower())) for text in (gold, part)]
    return wanted <= given and negations[0] == negations[1]


def _affirmed(part: str, place: Place, case: _Case, gold: str) -> str | None:
    """Why a sentence that has the gold answer does not give it."""
    asked = content(words(case.question))

    def known(other: str) -> bool:
        items = lean(words(other))
        if not items or content(items) <= asked:
            return not items or not _offered(case)
        return any(
            places(other, form, case.question, person=False) for g in case.golds for form in forms(g, (), person=False)
        ) or any(agree_anywhere(other, gold) for gold in case.golds)

    offered = _offered(case)
    if offered:
        chosen = choices.picked(part, case.question, lambda text: _starts(text, offered))
        if chosen is not None and not place.start <= chosen < place.end:
            return "another choice is picked"
    if len(words(gold)) < _LONG:
        if beside_claim(part, place.start, case.question, case.kind) and not offered:
            return "named beside the answer"
        if not _compared(part, offered) and (
            why := objection(part, place.start, place.end, known, lambda text: content(words(text)) <= asked)
        ):
            return why
    if case.mode == "match" and not _covers(part, place, case):
        return "more than the gold answer"
    return None


def _offered(case: _Case) -> list[str]:
    """The choices of a question that holds its answer ("Which is larger, X or Y?")."""
    held = any(content(words(gold)) <= content(words(case.question)) for gold in case.golds)
    return choices.offered(case.question) if held else []


def _starts(text: str, offered: list[str]) -> list[int]:
    return [
        place.start
        for choice in offered
        for form in forms(choice, (), person=False)
        for place in places(text, form, "", person=False)
    ]


def _compared(part: str, offered: list[str]) -> bool:
    return bool(offered) and re.search(r"\b(?:than|as)\b", part) is not None


def _covers(part: str, place: Place, case: _Case) -> bool:
    """Whether nothing but what leads to it stands beside the gold answer."""
    said = core(part, case.question)
    at = part.find(said)
    outside = part[at : max(place.start, at)] + " " + part[place.end : at + len(said)]
    asked = content(words(case.question))
    return all(word.norm in FUNCTION | TITLES or content([word]) <= asked for word in words(outside))


def _gold_cluster(case: _Case) -> str:
    gold = case.golds[0]
    if (date := dates.whole(gold, case.question)) is not None:
        return str(date)
    number = numbers.whole(gold)
    return normal_form(gold) if number is None else str(number)


def cluster_of(text: str, case: _Case) -> str:
    """The normal form of what an answer claims."""
    parts = sentences(text) or [text]
    at = committed(parts, case.question, case.kind) or 0
    said = core(parts[at], case.question)
    gold = case.golds[0] if case.golds else ""
    if dates.whole(gold, case.question) is not None and (found := dates.dates(said)):
        return str(found[0])
    if numbers.whole(gold) is not None and (values := numbers.quantities(said)):
        return str(values[0])
    return normal_form(said) or normal_form(text)


OwnJudge = Callable[[str, str, Sequence[str]], bool | None]
"""Takes question, answer and gold answers; returns True, False, or None where it leaves the answer out."""


def judge_with(own: OwnJudge, question: str, answer: str, golds: Sequence[str]) -> Judgement:
    """Judge by a function of the user's; what is empty, and the clusters, are as `judge` has them.

    A None is a refusal.
    """
    case = _Case(question, tuple(golds), "contains", asks_for_person(question))
    text = cleaned(_cut(answer), question)
    if not words(text):
        return Judgement("empty", "", "no answer in it")
    said = own(question, answer, golds)
    if said is None:
        return Judgement("refused", REFUSED, "left out by the judge's function")
    return (
        Judgement("right", _gold_cluster(case), "by the judge's function")
        if said
        else Judgement("wrong", cluster_of(text, case), "by the judge's function")
    )
