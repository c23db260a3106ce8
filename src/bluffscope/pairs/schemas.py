"""The field's data sets as they are published: each layout by its fields, and how a record of it becomes pairs.

To read another, write a function from a record's fields to the values of a pair (either completion may be a list) and
put a `Layout` into `LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from bluffscope.errors import InputError
from bluffscope.pairs.gold_schemas import GOLD_LAYOUTS
from bluffscope.pairs.labelled_schemas import LABELLED_LAYOUTS
from bluffscope.pairs.layout import GOLD, Fields, Layout, LeftOut, Values, named
from bluffscope.pairs.record import listed, quoted

AUTO: Final = "auto"


def layout_of(fields: Fields, schema: str = AUTO) -> Layout | None:
    """The layout that a record has, of one data set or of all; None where it has none that is known.

    Raises:
        InputError: no layout of the data set that was named fits the record.
    """
    known = [layout for layout in LAYOUTS if schema in (AUTO, layout.schema)]
    found = next((layout for layout in known if layout.fits(fields)), None)
    if found is None and schema != AUTO:
        wanted = "; or ".join(listed(layout.needs) for layout in known)
        raise InputError(f"--schema {schema} needs the fields {wanted}; the fields here are {listed(fields)}")
    return found


def check_schema(name: str) -> None:
    """Refuse a schema that does not exist."""
    if name != AUTO and name not in SCHEMAS:
        raise InputError(f"--schema {quoted(name)}: unknown; use {AUTO} or one of {', '.join(SCHEMAS)}")


def not_read(layout: Layout) -> str:
    """What to do with a source of which nothing is read: a sentence without its subject and full stop."""
    if layout.holds == GOLD:
        return (
            f"looks like {layout.title}: {GOLD}; bluffscope ask judges a model's own answers to them; or add a false "
            "answer to each record, then name both: --columns prompt=NAME fact=NAME hallucination=NAME"
        )
    return f"looks like {layout.title}: {layout.holds}; give the file of the texts, or the folder of both"


def _truthfulqa_best(fields: Fields) -> Values:
    return {
        "prompt": fields["Question"],
        "fact": fields["Best Answer"],
        "hallucination": fields["Best Incorrect Answer"],
        "domain": fields.get("Category"),
    }


def _truthfulqa_lists(fields: Fields) -> Values:
    return {
        "prompt": fields["Question"],
        "fact": _split(fields["Correct Answers"]),
        "hallucination": _split(fields["Incorrect Answers"]),
        "domain": fields.get("Category"),
    }


def _split(answers: str | None) -> list[str]:
    return [answer.strip() for answer in (answers or "").split(";") if answer.strip()]


def _truthfulqa_generation(fields: Fields) -> Values:
    return {
        "prompt": fields["question"],
        "fact": fields["correct_answers"],
        "hallucination": fields["incorrect_answers"],
        "domain": fields.get("category"),
    }


def _truthfulqa_choice(fields: Fields) -> Values:
    targets = fields["mc2_targets"]
    marked = list(zip(targets["choices"], targets["labels"], strict=True))
    if any(label not in (0, 1) for _, label in marked):
        raise LeftOut("a label of mc2_targets is neither 0 nor 1")
    return {
        "prompt": fields["question"],
        "fact": [text for text, label in marked if label == 1],
        "hallucination": [text for text, label in marked if label == 0],
    }


def _counterfact(fields: Fields) -> Values:
    rewrite = fields["requested_rewrite"]
    return {
        "id": fields.get("case_id"),
        "prompt": rewrite["prompt"].replace("{}", rewrite["subject"]),
        "fact": rewrite["target_true"]["str"],
        "hallucination": rewrite["target_new"]["str"],
        "domain": rewrite.get("relation_id"),
    }


def _choice(prompt: Any, texts: Sequence[Any], labels: Sequence[Any], answer: Any, **more: Any) -> Values:
    """The right choice with each of the wrong ones."""
    if answer is None or answer == "":
        raise LeftOut("no answer is given")
    if len(texts) != len(labels) or list(labels).count(answer) != 1:
        raise LeftOut("the answer is none of the choices")
    right = list(labels).index(answer)
    return {
        "prompt": prompt,
        "fact": texts[right],
        "hallucination": [text for number, text in enumerate(texts) if number != right],
        **more,
    }


def _arc(fields: Fields) -> Values:
    choices = fields["choices"]
    return _choice(fields["question"], choices["text"], choices["label"], fields["answerKey"])


def _openbookqa(fields: Fields) -> Values:
    return _arc({**fields, "question": fields["question_stem"]})


def _arc_lines(fields: Fields) -> Values:
    question = fields["question"]
    texts, labels = ([choice[name] for choice in question["choices"]] for name in ("text", "label"))
    return _choice(question["stem"], texts, labels, fields.get("answerKey"))


def _mmlu(fields: Fields) -> Values:
    choices = fields["choices"]
    return _choice(fields["question"], choices, range(len(choices)), fields["answer"], domain=fields.get("subject"))


def _mmlu_pro(fields: Fields) -> Values:
    options = fields["options"]
    return _choice(
        fields["question"], options, range(len(options)), fields["answer_index"], domain=fields.get("category")
    )


def _dpo(prompt: str) -> Callable[[Fields], Values]:
    def pairs(fields: Fields) -> Values:
        chosen, rejected = _turn(fields["chosen"]), _turn(fields["rejected"])
        return {"prompt": _turn(fields[prompt], "user"), "fact": chosen, "hallucination": rejected}

    return pairs


def _turn(value: Any, role: str = "assistant") -> Any:
    """A text as it is; of a conversation of one exchange what this role says."""
    if not isinstance(value, list):
        return value
    messages = [(message["role"], message["content"]) for message in cast("list[Any]", value)]
    roles = [role for role, _ in messages]
    if "system" in roles:
        raise LeftOut("a conversation with a system message, which plain text cannot hold")
    if roles not in (["user"], ["assistant"], ["user", "assistant"]) or role not in roles:
        raise LeftOut("a conversation of more than one exchange, which plain text cannot hold")
    return dict(messages)[role]


def _boolq(fields: Fields) -> Values:
    answer = fields["answer"]
    if not isinstance(answer, bool):
        raise LeftOut("no answer is given")
    said = ("yes", "no") if answer else ("no", "yes")
    question = f"{fields['passage']}\nQuestion: {fields['question']}?\nAnswer:"
    return {"prompt": question, "fact": said[0], "hallucination": said[1]}


_TRUTHFULQA = {"prompt": "Question", "domain": "Category"}
_ANSWERS = ("Question", "Best Answer", "Best Incorrect Answer", "Correct Answers", "Incorrect Answers", "Category")
_HALU = {"prompt": "question", "fact": "right_answer", "hallucination": "hallucinated_answer"}
_CHOICE = {"prompt": "question", "fact": "the right choice", "hallucination": "each wrong choice"}
_PREFERENCE = {"prompt": "prompt", "fact": "chosen", "hallucination": "rejected"}

LAYOUTS: Final[tuple[Layout, ...]] = (
    Layout(
        "truthfulqa",
        "TruthfulQA's CSV with a best incorrect answer",
        dict.fromkeys(("Question", "Best Answer", "Best Incorrect Answer")),
        _truthfulqa_best,
        {**_TRUTHFULQA, "fact": "Best Answer", "hallucination": "Best Incorrect Answer"},
        _ANSWERS,
    ),
    Layout(
        "truthfulqa",
        "TruthfulQA's CSV",
        dict.fromkeys(("Question", "Correct Answers", "Incorrect Answers")),
        _truthfulqa_lists,
        {**_TRUTHFULQA, "fact": "Correct Answers, split at ;", "hallucination": "Incorrect Answers, split at ;"},
        _ANSWERS,
    ),
    Layout(
        "truthfulqa",
        "TruthfulQA, generation",
        dict.fromkeys(("question", "correct_answers", "incorrect_answers")),
        _truthfulqa_generation,
        {
            **{"prompt": "question", "fact": "correct_answers[*]", "hallucination": "incorrect_answers[*]"},
            "domain": "category",
        },
        ("question", "best_answer", "correct_answers", "incorrect_answers", "category"),
    ),
    Layout(
        "truthfulqa",
        "TruthfulQA, multiple choice",
        {"question": None, "mc1_targets": dict, "mc2_targets": dict},
        _truthfulqa_choice,
        {"prompt": "question", "fact": "mc2_targets with label 1", "hallucination": "mc2_targets with label 0"},
        ("question", "mc1_targets", "mc2_targets"),
    ),
    Layout(
        "halueval",
        "HaluEval, question answering",
        dict.fromkeys(("question", "right_answer", "hallucinated_answer")),
        named(**_HALU),
        _HALU,
        tuple(_HALU.values()),
    ),
    *(
        Layout("halueval", f"HaluEval, {title}", dict.fromkeys(took.values()), named(**took), took, (*took.values(),))
        for title, took in {
            "dialogue": {
                **{"prompt": "dialogue_history", "fact": "right_response"},
                "hallucination": "hallucinated_response",
            },
            "summarization": {
                **{"prompt": "document", "fact": "right_summary"},
                "hallucination": "hallucinated_summary",
            },
        }.items()
    ),
    Layout(
        "counterfact",
        "CounterFact",
        {"requested_rewrite": dict},
        _counterfact,
        {
            **{"id": "case_id", "domain": "requested_rewrite.relation_id"},
            "prompt": "requested_rewrite.prompt with its subject",
            "fact": "requested_rewrite.target_true.str",
            "hallucination": "requested_rewrite.target_new.str",
        },
        (
            *("case_id", "requested_rewrite", "paraphrase_prompts", "neighborhood_prompts", "attribute_prompts"),
            "generation_prompts",
        ),
    ),
    Layout(
        "counterfact",
        "CounterFact, one prompt a row",
        dict.fromkeys(("prompt", "subject", "target_true", "target_false")),
        named(prompt="prompt", fact="target_true", hallucination="target_false", domain="relation_id"),
        {"prompt": "prompt", "fact": "target_true", "hallucination": "target_false", "domain": "relation_id"},
        ("prompt", "target_true", "target_false", "relation_id", "relation_prefix", "relation_suffix"),
    ),
    Layout(
        "multiple-choice",
        "multiple choice as in ARC and CommonsenseQA",
        {"question": str, "choices": dict, "answerKey": None},
        _arc,
        _CHOICE,
        ("question", "choices", "answerKey"),
    ),
    Layout(
        "multiple-choice",
        "multiple choice as in OpenBookQA",
        {"question_stem": str, "choices": dict, "answerKey": None},
        _openbookqa,
        {**_CHOICE, "prompt": "question_stem"},
        ("question_stem", "choices", "answerKey"),
    ),
    Layout(
        "multiple-choice",
        "multiple choice as in ARC's and CommonsenseQA's own files",
        {"question": dict, "answerKey": None},
        _arc_lines,
        {**_CHOICE, "prompt": "question.stem"},
        ("question", "answerKey"),
    ),
    Layout(
        "multiple-choice",
        "multiple choice as in MMLU",
        {"question": str, "choices": list, "answer": int},
        _mmlu,
        {**_CHOICE, "domain": "subject"},
        ("question", "choices", "answer", "subject"),
    ),
    Layout(
        "multiple-choice",
        "multiple choice as in MMLU-Pro",
        {"question": str, "options": list, "answer_index": int},
        _mmlu_pro,
        {**_CHOICE, "domain": "category"},
        ("question", "options", "answer", "answer_index", "category"),
    ),
    Layout(
        "dpo",
        "preferences",
        dict.fromkeys(("prompt", "chosen", "rejected")),
        _dpo("prompt"),
        _PREFERENCE,
        tuple(_PREFERENCE.values()),
    ),
    Layout(
        "dpo",
        "preferences for questions",
        dict.fromkeys(("question", "chosen", "rejected")),
        _dpo("question"),
        {**_PREFERENCE, "prompt": "question"},
        ("question", "chosen", "rejected"),
    ),
    Layout(
        "boolq",
        "BoolQ",
        {"question": None, "passage": None, "answer": None},
        _boolq,
        {"prompt": "passage and question", "fact": "answer", "hallucination": "the other answer"},
        ("question", "passage", "answer"),
    ),
    *LABELLED_LAYOUTS,
    *GOLD_LAYOUTS,
)
"""The first that fits a record is taken."""
SCHEMAS: Final[tuple[str, ...]] = tuple(dict.fromkeys(layout.schema for layout in LAYOUTS))
