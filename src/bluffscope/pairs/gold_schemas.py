"""Data sets of questions with right answers only, which `bluffscope ask` reads."""

from __future__ import annotations

import ast
import json
from typing import Any, Final, cast

from bluffscope.pairs.layout import GOLD, Fields, Layout, LeftOut, Values


def _popqa(fields: Fields) -> Values:
    answers = fields["possible_answers"]
    if isinstance(answers, str):
        answers = json.loads(answers)
    return {
        "question": fields["question"],
        "answers": fields.get("obj") or answers[0],
        "aliases": answers,
        "id": fields.get("id"),
        "domain": fields.get("prop"),
    }


def _simpleqa(fields: Fields) -> Values:
    said = fields.get("metadata")
    if isinstance(said, str):  # a dictionary as Python prints it
        try:
            said = ast.literal_eval(said)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            said = None
    topic = cast("dict[str, Any]", said).get("topic") if isinstance(said, dict) else None
    domain = fields.get("topic") or topic
    return {
        "question": fields["problem"],
        "answers": fields["answer"],
        "id": fields.get("original_index"),
        "domain": domain,
    }


def _triviaqa(fields: Fields) -> Values:
    answer = fields["answer"]
    return _trivia(fields["question"], answer["value"], answer.get("aliases"), fields.get("question_id"))


def _triviaqa_file(fields: Fields) -> Values:
    answer = fields["Answer"]
    return _trivia(fields["Question"], answer["Value"], answer.get("Aliases"), fields.get("QuestionId"))


def _trivia(question: Any, value: Any, aliases: Any, name: Any) -> Values:
    if value is None or value == "<unk>":  # the test split
        raise LeftOut("no answer is given")
    return {"question": question, "answers": value, "aliases": aliases, "id": name}


GOLD_LAYOUTS: Final[tuple[Layout, ...]] = (
    Layout("popqa", "PopQA", dict.fromkeys(("question", "possible_answers")), holds=GOLD, asks=_popqa),
    Layout("simpleqa", "SimpleQA", dict.fromkeys(("problem", "answer")), holds=GOLD, asks=_simpleqa),
    Layout("triviaqa", "TriviaQA", {"question": None, "answer": dict}, holds=GOLD, asks=_triviaqa),
    Layout("triviaqa", "TriviaQA's own files", {"Question": None, "Answer": dict}, holds=GOLD, asks=_triviaqa_file),
)
"""Of each data set as it is published."""
