"""The field's labelled texts as they are published: one completion or statement a record, true or false.

To read another, write a function from a record's fields to the values of a text and put a `Layout` into
`LABELLED_LAYOUTS`; a label is whatever the data set calls it, and `labels` says what is true and what is false.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from bluffscope.pairs.layout import LABELLED, Fields, Layout, LeftOut, Values, named
from bluffscope.pairs.readers import format_of, read_records
from bluffscope.pairs.record import Tell, shown
from bluffscope.pairs.spans import places_of

PROMPTS: Final = "prompts of labelled texts"
"""What a file holds that is read only beside another."""
_FALSE_SPAN: Final = "Not Supported"


def _halueval_general(fields: Fields) -> Values:
    spans = fields.get("hallucination_spans") or []
    found = named(id="ID", prompt="user_query", completion="chatgpt_response", label="hallucination")(fields)
    if fields["hallucination"] == "yes" and (places := places_of(spans, fields["chatgpt_response"])):
        found["spans"] = places
    return found


def _city(fields: Fields) -> Values:
    """Statements of one city are of one group; other tables of the data set have no such column."""
    return {"text": fields["statement"], "label": fields["label"], "group": fields.get("city")}


def _ragtruth(fields: Fields) -> Values:
    spans = fields["labels"]
    return {
        "id": fields.get("id"),
        "group": fields["source_id"],
        "prompt": fields.get("prompt"),
        "completion": fields["response"],
        "label": not spans,
        "spans": [(span["start"], span["end"]) for span in spans],
    }


def _ragtruth_prompts(file: Path, tell: Tell) -> Mapping[str, Fields]:
    """The prompts of a file of responses, by source: from its companion in the same folder, where there is one."""
    names = [file.name.replace("response", other) for other in ("source_info", "source")]
    there = [file.with_name(name) for name in names if name != file.name]
    beside = next((path for path in there if path.is_file() and format_of(path)), None)
    if beside is None:
        tell(f"{shown(file)}: no prompts, for lack of {shown(names[0])} beside it: the responses alone are read")
        return {}
    records = (record.fields for record in read_records(beside, tell))
    prompts = {str(fields.get("source_id")): {"prompt": fields.get("prompt")} for fields in records}
    tell(f"{shown(file)}: prompts of {len(prompts):,} sources from {shown(beside)}")
    return prompts


def _longfact(fields: Fields) -> Values:
    messages = [(message["role"], message["content"]) for message in fields["conversation"]]
    if [role for role, _ in messages] != ["user", "assistant"]:
        raise LeftOut("a conversation of more than one exchange")
    completion, notes = messages[1][1], cast("list[dict[str, Any]]", fields["annotations"])
    false = [note for note in notes if note["label"] == _FALSE_SPAN]
    return {
        "prompt": messages[0][1],
        "completion": completion,
        "domain": fields.get("subject"),
        "label": not false,
        "spans": [(note["index"], note["index"] + len(note["span"])) for note in false],
    }


_NO_YES: Final = ("true=no", "false=yes")
_LONGFACT: Final = {"prompt": "the user's message", "completion": "the assistant's", "domain": "subject"}
_RAGTRUTH: Final = {"completion": "response", "label": "labels: false where it has a span", "group": "source_id"}

LABELLED_LAYOUTS: Final[tuple[Layout, ...]] = (
    Layout(
        "halueval",
        "HaluEval's answers to user queries",
        dict.fromkeys(("user_query", "chatgpt_response", "hallucination")),
        _halueval_general,
        {"prompt": "user_query", "completion": "chatgpt_response", "label": "hallucination", "id": "ID"},
        ("ID", "user_query", "chatgpt_response", "hallucination", "hallucination_spans"),
        holds=LABELLED,
        labels=_NO_YES,
    ),
    *(
        Layout(
            "halueval",
            f"HaluEval's samples of {what}",
            dict.fromkeys((prompt, completion, "hallucination")),
            named(prompt=prompt, completion=completion, label="hallucination"),
            {"prompt": prompt, "completion": completion, "label": "hallucination"},
            (prompt, completion, "hallucination"),
            holds=LABELLED,
            labels=_NO_YES,
        )
        for what, prompt, completion in (
            ("answers", "question", "answer"),
            ("replies", "dialogue_history", "response"),
            ("summaries", "document", "summary"),
        )
    ),
    Layout(
        "fever",
        "FEVER",
        dict.fromkeys(("claim", "label")),
        named(id="id", text="claim", label="label"),
        {"text": "claim", "label": "label", "id": "id"},
        ("id", "claim", "label"),
        holds=LABELLED,
        labels=("true=SUPPORTS", "false=REFUTES"),
    ),
    Layout(
        "ragtruth",
        "RAGTruth's responses",
        {"source_id": None, "response": None, "labels": list},
        _ragtruth,
        _RAGTRUTH,
        ("id", "source_id", "response", "labels", "prompt"),
        holds=LABELLED,
        beside=_ragtruth_prompts,
        joined_by="source_id",
    ),
    Layout("ragtruth", "RAGTruth's prompts", dict.fromkeys(("source_id", "source_info", "prompt")), holds=PROMPTS),
    Layout(
        "longfact",
        "LongFact with annotations",
        {"conversation": list, "annotations": list},
        _longfact,
        {**_LONGFACT, "label": f"annotations: false where one is {_FALSE_SPAN}"},
        ("subject", "conversation", "annotations"),
        holds=LABELLED,
    ),
    Layout(
        "llmsknow",
        "LLMsKnow's answers",
        dict.fromkeys(("question", "model_answer", "automatic_correctness")),
        named(prompt="question", completion="model_answer", label="automatic_correctness", group="raw_question"),
        {"prompt": "question", "completion": "model_answer", "label": "automatic_correctness", "group": "raw_question"},
        ("question", "model_answer", "automatic_correctness", "raw_question"),
        holds=LABELLED,
    ),
    Layout(
        "geometry-of-truth",
        "Geometry of Truth's statements",
        dict.fromkeys(("statement", "label")),
        _city,
        {"text": "statement", "label": "label", "group": "city, if there is one"},
        ("statement", "label"),
        holds=LABELLED,
    ),
)
"""Of each data set as it is published."""
