"""Write bluffqa, the bundled questions with gold answers in the four domains of bluff200, and print their counts.

Run ``python tools/make_bluffqa.py`` from the repository root. The questions stand in `bluffqa_questions.py`; this tool
adds the spelled forms of numbers, years and dates, and writes nothing if it finds a fault.
"""

from __future__ import annotations

import argparse
import calendar
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TypedDict

from bluffqa_questions import ADVERSARIAL, ENTITY, LOGICAL, TEMPORAL, Row

DEFAULT_PATH = Path(__file__).resolve().parents[1] / "src/bluffscope/runs/ask/data/bluffqa.jsonl"
DOMAINS: dict[str, list[Row]] = {
    "entity": ENTITY,
    "temporal": TEMPORAL,
    "logical": LOGICAL,
    "adversarial": ADVERSARIAL,
}
GRADES = range(1, 6)
FEWEST_OF_A_DOMAIN, FEWEST_OF_A_GRADE = 50, 10
LONGEST_QUESTION, LONGEST_ANSWER = 24, 5
"""In words."""
MOST_ALIKE = 0.6
"""Shared words over all words, from which on two questions with one answer count as one question."""
PUNCTUATION = set(" ',.:?/%()-")
"""What questions and answers may hold besides letters and digits."""

MONTHS = list(calendar.month_name)[1:]
# fmt: off
SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
         "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
# fmt: on
NUMBER = re.compile(r"\d+(?:[./]\d+)?")
CHOICE = re.compile(r": (.+) or (.+)\?$")


class Question(TypedDict):
    """One line of the file."""

    id: str
    domain: str
    popularity: int
    """1 (nearly everybody knows) to 5 (few do, or several steps); one editor's judgement."""
    kind: str
    """ "text", "number", "year" or "date"."""
    question: str
    answers: list[str]
    """Right answers, the canonical one first."""
    aliases: list[str]
    """Further right forms of them."""
    lure: str | None
    """The common misconception, of adversarial questions."""


def spelled(number: int, hundred_and: str = " ") -> str:
    """A whole number below 10,000 in English words; `hundred_and` stands after the hundreds and thousands."""
    if number < 20:
        return SMALL[number]
    if number < 100:
        return TENS[number // 10 - 2] + (f"-{SMALL[number % 10]}" if number % 10 else "")
    unit, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    rest = number % unit
    joint = " " if rest >= 100 else hundred_and
    return f"{spelled(number // unit)} {name}" + (f"{joint}{spelled(rest, hundred_and)}" if rest else "")


def spelled_year(year: int) -> str:
    """A year as it is spoken, `nineteen sixty-nine`.

    Raises:
        ValueError: the year is spoken otherwise.
    """
    if year % 100 < 10 or not 1000 <= year < 2000:
        raise ValueError(
            f"expected a year of four digits that is spoken in two parts, got {year}: spell it as an alias"
        )
    return f"{spelled(year // 100)} {spelled(year % 100)}"


def kind_of(question: str, answer: str) -> str:
    """What the answer is, for a judge."""
    if question.startswith("In what year"):
        return "year"
    if NUMBER.fullmatch(answer):
        return "number"
    return "date" if re.fullmatch(rf"\d+ (?:{'|'.join(MONTHS)})", answer) else "text"


def forms(answer: str, kind: str) -> list[str]:
    """Other ways to write a number, year or date."""
    if kind == "year":
        return [spelled_year(int(answer))]
    if kind == "number" and answer.isdigit():
        number = int(answer)
        grouped = [f"{number:,}"] if number >= 1000 else []
        return [*grouped, *dict.fromkeys((spelled(number), spelled(number, " and ")))]
    if kind == "date":
        day, month = answer.split()
        nth = f"{day}th"  # the days here all take it; `faults` holds the others back
        return [f"{month} {day}", f"{nth} {month}", f"{month} {nth}", f"{nth} of {month}"]
    return []


def records() -> Iterator[Question]:
    """All questions, fields in the order of the file."""
    for domain, rows in DOMAINS.items():
        for number, (popularity, question, given, *more) in enumerate(rows, 1):
            aliases, lure = [*more, None, None][:2]
            answers = [re.sub("^(?:an?|the) ", "", str(given))]
            kind = kind_of(str(question), answers[0])
            further = [*forms(answers[0], kind), *(part for part in str(aliases or "").split(" / ") if part)]
            yield {
                "id": f"{domain}-{number:03d}",
                "domain": domain,
                "popularity": int(str(popularity)),
                "kind": kind,
                "question": str(question),
                "answers": answers,
                "aliases": further,
                "lure": None if lure is None else str(lure),
            }


def words(text: str) -> tuple[str, ...]:
    """Words and numbers of a text without case, accents and articles; `9.11`, `3/7` and `25%` are one word each."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return tuple(w for w in re.findall(r"\d+(?:[.,/]\d+)*%?|[^\W_]+", plain) if w not in {"a", "an", "the"})


def within(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether words stand next to each other in others."""
    return any(tuple(whole[i : i + len(part)]) == tuple(part) for i in range(len(whole) - len(part) + 1))


def right_forms(item: Question) -> dict[tuple[str, ...], str]:
    """All right forms of a question by their words."""
    return {words(text): text for text in (*item["answers"], *item["aliases"])}


def item_faults(item: Question) -> Iterator[str]:
    """What is wrong with one question by itself."""
    asked, right, lure = words(item["question"]), right_forms(item), item["lure"]
    texts = [item["question"], *item["answers"], *item["aliases"], *([lure] if lure is not None else [])]
    for text in texts:
        if text != unicodedata.normalize("NFC", text).strip() or "  " in text or not words(text):
            yield f"{text!r} is not trimmed text in Unicode's composed form"
        if odd := {c for c in text if not (c.isalnum() or c in PUNCTUATION)}:
            yield f"{text!r} holds {sorted(odd)}"
    if not (item["question"].isascii() and item["question"].endswith("?") and len(asked) <= LONGEST_QUESTION):
        yield f"not an ASCII question of at most {LONGEST_QUESTION} words"
    if len(words(item["answers"][0])) > LONGEST_ANSWER:
        yield f"an answer of more than {LONGEST_ANSWER} words"
    if len({text.casefold() for text in texts[1:]}) < len(texts) - 1:
        yield "an answer, alias or lure stands there twice"
    if item["popularity"] not in GRADES or not item["answers"]:
        yield "no answer, or a popularity that is none of 1 to 5"
    if item["kind"] == "date" and int(item["answers"][0].split()[0]) % 10 in (1, 2, 3):
        yield "a date whose day does not end in th"
    yield from lure_faults(item, right)
    if not CHOICE.search(item["question"]):
        yield from (
            f"the answer {text!r} stands in the question" for form, text in right.items() if within(form, asked)
        )


def lure_faults(item: Question, right: dict[tuple[str, ...], str]) -> Iterator[str]:
    """What is wrong with the misconception, or with the two options of a choice."""
    lure = item["lure"]
    if (item["domain"] == "adversarial") != (lure is not None):
        yield "adversarial questions have a lure, and no others"
    if lure is not None and any(within(form, words(lure)) or within(words(lure), form) for form in right):
        yield f"the lure {lure!r} is or holds a right answer, or is part of one"
    if chosen := CHOICE.search(item["question"]):
        wrong = [option for option in chosen.groups() if words(option) not in right]
        if len(wrong) != 1:
            yield "a choice needs one right option and one wrong"
        elif lure is not None and words(lure) != words(wrong[0]):
            yield "the lure of a choice is its wrong option"


def faults(items: Sequence[Question]) -> list[str]:
    """What is wrong with a set of questions, a line each; empty if it is sound."""
    found = [f"{item['id']}: {fault}" for item in items for fault in item_faults(item)]
    for field in ("id", "question"):
        counts = Counter(" ".join(words(item[field])) for item in items)
        found += [f"{field} {value!r} occurs {count} times" for value, count in counts.items() if count > 1]
    for domain in DOMAINS:
        grades = Counter(item["popularity"] for item in items if item["domain"] == domain)
        if grades.total() < FEWEST_OF_A_DOMAIN or min(grades[grade] for grade in GRADES) < FEWEST_OF_A_GRADE:
            found.append(f"{domain}: fewer than {FEWEST_OF_A_DOMAIN} questions, or {FEWEST_OF_A_GRADE} of a popularity")
    return found + pair_faults(items) + position_faults(items)


def pair_faults(items: Sequence[Question]) -> list[str]:
    """Pairs of questions that ask the same, or of which an alias of one is the answer of another."""
    found: list[str] = []
    known = [(item["id"], words(item["answers"][0]), right_forms(item).keys()) for item in items]
    asked = [set(words(item["question"])) for item in items]
    for one, other in combinations(range(len(items)), 2):
        (id_one, answer, forms_one), (id_other, second, forms_other) = known[one], known[other]
        if answer != second and (shared := forms_one & forms_other):
            found.append(f"{id_one} and {id_other}: different answers share the form {' '.join(min(shared))!r}")
        a, b = asked[one], asked[other]
        if answer == second and len(a & b) / len(a | b) >= MOST_ALIKE:
            found.append(f"{id_one} and {id_other}: nearly the same question with the same answer")
    return found


def position_faults(items: Sequence[Question]) -> list[str]:
    """Whether the first or the second option of the choices is right too often."""
    choices = [(CHOICE.search(item["question"]), right_forms(item)) for item in items]
    first = [words(choice[1]) in right for choice, right in choices if choice]
    share = sum(first) / max(len(first), 1)
    return [] if 0.4 <= share <= 0.6 else [f"the first option of a choice is right in {share:.0%}, not 40% to 60%"]


def counts(items: Sequence[Question]) -> str:
    """A table in Markdown: questions by domain and popularity."""
    cells = Counter((item["domain"], item["popularity"]) for item in items)
    rows = [(domain, [cells[domain, grade] for grade in GRADES]) for domain in DOMAINS]
    rows.append(("all", [sum(column) for column in zip(*(row for _, row in rows), strict=True)]))
    lines = [f"| {name} | {' | '.join(map(str, row))} | {sum(row)} |" for name, row in rows]
    return "\n".join(["| domain | 1 | 2 | 3 | 4 | 5 | all |", "|---|---:|---:|---:|---:|---:|---:|", *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file and print its counts; with a fault, print the faults and return 1."""
    parser = argparse.ArgumentParser(description="Write the bundled questions bluffqa.")
    parser.add_argument("path", nargs="?", type=Path, default=DEFAULT_PATH, help="output file (default: %(default)s)")
    path, items = parser.parse_args(arguments).path, list(records())
    if found := faults(items):
        print("\n".join(found), file=sys.stderr)
        return 1
    lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    print(counts(items))
    return 0


if __name__ == "__main__":
    sys.exit(main())
