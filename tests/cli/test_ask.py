"""`bluffscope ask`: questions and answers as they are published and generated, judged, and read by `analyze`."""

from __future__ import annotations

import json
import math

import polars as pl
import pytest

from bluffscope.config import DataOptions
from bluffscope.pairs.source import open_source

QUESTIONS = [
    {"id": "fr", "question": "What is the capital of France?", "answers": ["Paris"], "domain": "cities"},
    {"id": "legs", "question": "How many legs has a spider?", "answer": "8", "domain": "animals"},
    {"id": "emma", "question": "Who wrote Emma?", "answer": "Jane Austen", "aliases": ["Austen"], "domain": "books"},
]
ANSWERS = [
    {"id": "fr", "answers": ["Paris", "It is Lyon.", "I don't know.", "Paris."]},
    {"id": "legs", "answers": ["eight", "8 legs"]},
    {"id": "emma", "answers": ["Mary Shelley", ""]},
]


def written(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def ask(call, tmp_path):
    """Call `bluffscope ask` on these questions and answers; returns the outcome and the rows written."""

    def run(questions=QUESTIONS, answers=ANSWERS, *flags, out="out.jsonl"):
        paths = [written(tmp_path / name, records) for name, records in (("q.jsonl", questions), ("a.jsonl", answers))]
        outcome = call("ask", paths[0], "--answers", paths[1], "--out", tmp_path / out, *flags)
        return outcome, lines(tmp_path / out) if outcome.code == 0 else []

    return run


def verdicts(rows):
    return {row["id"]: row["verdict"] for row in rows}


def test_answers_become_labelled_texts_that_analyze_reads(ask, tmp_path, caplog):
    outcome, rows = ask()
    assert (outcome.code, outcome.err) == (0, "")
    assert verdicts(rows) == {
        **{"fr/0": "right", "fr/1": "wrong", "fr/2": "refused", "fr/3": "right"},
        **{"legs/0": "right", "legs/1": "right", "emma/0": "wrong", "emma/1": "empty"},
    }
    assert [row["label"] for row in rows] == [True, False, None, True, True, True, False, None]
    assert [row["cluster"] for row in rows] == ["paris", "lyon", "(refused)", "paris", "8", "8", "mary shelley", ""]
    entropy = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert [row["answer_entropy"] for row in rows] == pytest.approx([entropy] * 4 + [0.0] * 4)
    texts = list(open_source(DataOptions(data=str(tmp_path / "out.jsonl"))).items())
    assert [(text.id, text.label, text.group, text.domain) for text in texts][:2] == [
        ("fr/0", True, "fr", "cities"),
        ("fr/1", False, "fr", "cities"),
    ]
    assert len(texts) == 6
    assert any("left out: 2 x no label" in line for line in caplog.messages)


def test_what_the_model_knows_is_printed_by_domain(ask):
    outcome, _ = ask()
    table = [line.split() for line in outcome.out.splitlines()]
    assert ["cities", "1", "0", "1", "0", "0", "0"] in table
    assert ["animals", "1", "1", "0", "0", "0", "0"] in table
    assert ["all", "3", "1", "1", "1", "0", "0"] in table
    assert outcome.out.startswith("8 answers to 3 questions: 4 right, 2 wrong, 1 refused, 1 empty\n")


def test_a_table_of_many_domains_is_cut_but_for_full_and_quiet_prints_the_file_alone(ask, tmp_path):
    questions = [{**QUESTIONS[0], "id": f"q{k}", "domain": f"d{k}"} for k in range(9)]
    answers = [{"id": f"q{k}", "answer": "Paris"} for k in range(9)]
    brief, full, quiet = (ask(questions, answers, *flags)[0].out for flags in ((), ("--full",), ("-q",)))
    assert "Not shown: 3 more domains (--full)." in brief and len(brief.splitlines()) <= 15
    assert "Not shown" not in full and "d8" in full
    assert quiet == f"{tmp_path / 'out.jsonl'}\n"


def test_labels_corrected_by_hand_stay_whatever_judge_comes_next(ask, tmp_path):
    _, rows = ask()
    rows[1]["label"], rows[2]["label"] = True, False
    written(tmp_path / "out.jsonl", rows)
    for flags in ((), ("--judge", "match"), ("--judge", "contains")):
        outcome, again = ask(QUESTIONS, ANSWERS, *flags)
        assert "2 labels by hand kept." in outcome.out
        assert [row["label"] for row in again[:4]] == [True, True, False, True]
        assert [row["label_by"] for row in again[:4]] == ["judge", "hand", "hand", "judge"]
    changed = [{**ANSWERS[0], "answers": ["Paris", "Nice", "I don't know.", "Paris."]}, *ANSWERS[1:]]
    outcome, again = ask(QUESTIONS, changed)
    assert "1 label by hand of an answer that is not there any more: not kept" in outcome.err
    assert "1 label by hand kept." in outcome.out
    assert again[1]["label"] is False


def test_a_label_may_be_taken_away_and_completions_mended_by_hand_are_judged_again(ask, call, tmp_path):
    _, rows = ask()
    rows[0]["label"] = None
    written(tmp_path / "out.jsonl", rows)
    for _ in range(2):
        outcome, again = ask()
        assert "1 label by hand kept." in outcome.out
        assert (again[0]["label"], again[0]["label_by"], again[0]["verdict"]) == (None, "hand", "right")
    rows[1]["completion"] = "It is Paris."
    mended = written(tmp_path / "mended.jsonl", rows)
    assert call("ask", tmp_path / "q.jsonl", "--answers", mended, "--out", tmp_path / "new.jsonl").code == 0
    new = lines(tmp_path / "new.jsonl")
    assert [row["id"] for row in new] == [row["id"] for row in rows]
    assert [row["verdict"] for row in new[:2]] == ["right", "right"]


CHAT = {
    "id": "chatcmpl-1",
    "choices": [{"message": {"role": "assistant", "content": "Paris"}}, {"message": {"content": "Lyon"}}],
}
FORMS = {
    "chat in a batch": [{"custom_id": "fr", "response": {"status_code": 200, "body": CHAT}, "error": None}],
    "chat with its request": [{**CHAT, "messages": [{"role": "user", "content": QUESTIONS[0]["question"]}]}],
    "completions": [{"id": "fr", "choices": [{"text": "Paris"}, {"text": "Lyon"}]}],
    "parts": [
        {
            "id": "fr",
            "choices": [{"message": {"content": [{"type": "text", "text": each}]}} for each in ("Paris", "Lyon")],
        }
    ],
    "responses": [
        {
            "custom_id": "fr",
            "response": {
                "body": {
                    "output": [
                        {"type": "reasoning", "content": [{"text": "hm"}]},
                        *(
                            {"type": "message", "content": [{"type": "output_text", "text": each}]}
                            for each in ("Paris", "Lyon")
                        ),
                    ]
                }
            },
        }
    ],
    "vLLM": [{"prompt": QUESTIONS[0]["question"], "outputs": [{"text": "Paris"}, {"text": "Lyon"}]}],
    "vLLM with shots": [
        {
            "prompt": "Question: Capital of Italy?\nAnswer: Rome\n\nQuestion: What is the capital of  France?\nAnswer:",
            "outputs": [{"text": "Paris"}, {"text": "Lyon"}],
        }
    ],
    "vLLM with a template": [
        {
            "prompt": "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
            "outputs": [{"text": "Paris"}, {"text": "Lyon"}],
        }
    ],
    "OpenAI's responses": [
        {
            **{"id": "resp_1", "object": "response", "question": QUESTIONS[0]["question"], "error": None},
            "output": [
                {"type": "reasoning", "id": "rs_1", "summary": [], "content": None},
                *(
                    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": each}]}
                    for each in ("Paris", "Lyon")
                ),
            ],
        }
    ],
    "Anthropic's messages": [
        {
            **{"id": f"msg_{each}", "type": "message", "role": "assistant", "stop_reason": "end_turn"},
            "content": [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": each}],
            "request": {"messages": [{"role": "user", "content": QUESTIONS[0]["question"]}]},
        }
        for each in ("Paris", "Lyon")
    ],
    "Anthropic's batch": [
        {
            "custom_id": "fr",
            "result": {
                "type": "succeeded",
                "message": {"type": "message", "role": "assistant", "content": [{"type": "text", "text": each}]},
            },
        }
        for each in ("Paris", "Lyon")
    ],
    "TGI": [
        {
            **{"inputs": QUESTIONS[0]["question"], "generated_text": "Paris"},
            "details": {"finish_reason": "eos_token", "best_of_sequences": [{"generated_text": "Lyon"}]},
        }
    ],
    "pipelines": [
        {"id": "fr", "generated_text": "Paris"},
        {
            "id": "fr",
            "generated_text": [{"role": "user", "content": "Capital?"}, {"role": "assistant", "content": "Lyon"}],
        },
    ],
    "Ollama": [
        {
            **{"model": "m", "id": "fr", "done": True, "done_reason": "stop"},
            "message": {"role": "assistant", "content": "Paris"},
        },
        {"model": "m", "prompt": QUESTIONS[0]["question"], "response": "Lyon", "done": True, "context": [1, 2]},
    ],
    "Gemini": [
        {
            "id": "fr",
            "candidates": [
                {"content": {"parts": [{"text": each}], "role": "model"}, "finishReason": "STOP"}
                for each in ("Paris", "Lyon")
            ],
        }
    ],
    "lm-evaluation-harness": [
        {
            **{"doc_id": 0, "target": "Paris", "doc": {"question": QUESTIONS[0]["question"], "answer": "Paris"}},
            **{"arguments": [["Q", {"until": []}]], "resps": [["x", "y"]], "filtered_resps": ["Paris", "Lyon"]},
        }
    ],
    "wrapped": [{"id": "fr", "response": {"text": "Paris"}}, {"id": "fr", "result": {"output": "Lyon"}}],
    "one a line": [{"question": QUESTIONS[0]["question"], "answer": "Paris"}, {"id": "fr", "completion": "Lyon"}],
    "samples": [{"id": "fr", "samples": ["Paris", "Lyon"]}],
    "texts": [{"id": "fr", "text": "Paris"}, {"id": "fr", "response": "Lyon"}],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_answers_are_read_as_they_are_written_elsewhere(call, tmp_path, form, suffix):
    questions = written(tmp_path / "q.jsonl", QUESTIONS)
    answers = tmp_path / f"a{suffix}"
    if suffix == ".json":
        answers.write_text(json.dumps(FORMS[form]), encoding="utf-8")
    else:
        written(answers, FORMS[form])
    outcome = call("ask", questions, "--answers", answers, "--out", tmp_path / "o.jsonl")
    assert outcome.code == 0
    assert verdicts(lines(tmp_path / "o.jsonl")) == {"fr/0": "right", "fr/1": "wrong"}
    assert "2 questions without an answer" in outcome.err


def test_what_cannot_be_joined_is_counted(ask):
    failed = {"custom_id": "legs", "response": {"status_code": 500, "body": {}}, "error": {"message": "no"}}
    expired = {"custom_id": "emma", "result": {"type": "errored", "error": {"type": "overloaded_error"}}}
    scored = {"doc": {"id": "fr"}, "id": "fr", "resps": [[[-3.5, False]]], "filtered_resps": [[-3.5, False]]}
    strange = {"id": "other", "answers": ["x", "y"]}
    outcome, rows = ask(QUESTIONS, [*ANSWERS[:1], strange, failed, expired, scored])
    assert "answers left out: 3 x an error or nothing in place of an answer; 2 x no question with" in outcome.err
    assert len(rows) == 4


def test_what_the_api_refused_is_a_refusal(ask):
    refusal = "I'm sorry, but I can't help with that."
    chat = {"id": "fr", "choices": [{"message": {"role": "assistant", "content": None, "refusal": refusal}}]}
    part = {"type": "message", "content": [{"type": "refusal", "refusal": refusal}]}
    _, rows = ask(QUESTIONS, [chat, {"id": "legs", "output": [part]}])
    assert verdicts(rows) == {"fr/0": "refused", "legs/0": "refused"}


def test_a_text_that_two_questions_have_joins_neither(ask):
    twice = [QUESTIONS[0], {**QUESTIONS[0], "id": "again"}]
    outcome, rows = ask(
        twice, [{"question": QUESTIONS[0]["question"], "answer": "Paris"}, {"id": "fr", "answer": "Paris"}]
    )
    assert "1 x no question with its id or text" in outcome.err
    assert [row["id"] for row in rows] == ["fr/0"]


POPQA = {
    **{"id": 4222362, "subj": "George Rankin", "prop": "occupation", "obj": "politician", "s_pop": 142},
    **{"question": "What is George Rankin's occupation?", "possible_answers": '["politician", "political leader"]'},
}
SIMPLEQA = {"metadata": "{'topic': 'Art', 'answer_type': 'Person'}", "problem": "Who painted it?", "answer": "Ada Lum"}
TRIVIA = {"question": "Who?", "question_id": "tc_2", "answer": {"value": "Ada Lum", "aliases": ["A. Lum"]}}
PUBLISHED = {
    "popqa": (POPQA, "A political leader.", ("4222362/0", "occupation")),
    "simpleqa": (SIMPLEQA, "Ada Lum", ("0/0", "Art")),
    "triviaqa": (TRIVIA, "A. Lum", ("tc_2/0", "all")),
    "triviaqa-own": (
        {"Question": "Who?", "QuestionId": "tc_2", "Answer": {"Value": "Ada Lum", "Aliases": ["A. Lum"]}},
        "Ada Lum",
        ("tc_2/0", "all"),
    ),
    "truthfulqa": (
        {"question": "Who?", "correct_answers": ["Nobody", "Ada Lum"], "incorrect_answers": ["Bo"], "category": "Law"},
        "Ada Lum",
        ("0/0", "Law"),
    ),
    "pairs": ({"prompt": "Who?", "fact": "Ada Lum", "hallucination": "Bo", "id": "p"}, "Ada Lum", ("p/0", "all")),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_data_sets_are_read_as_they_are_published(call, tmp_path, name, suffix):
    record, answer, (text_id, domain) = PUBLISHED[name]
    questions = tmp_path / f"q{suffix}"
    if suffix == ".parquet":
        pl.DataFrame([record]).write_parquet(questions)
    else:
        written(questions, [record])
    answers = written(tmp_path / "a.jsonl", [{"id": text_id[:-2], "answer": answer}])
    assert call("ask", questions, "--answers", answers, "--out", tmp_path / "o.jsonl").code == 0
    (row,) = lines(tmp_path / "o.jsonl")
    assert (row["id"], row["domain"], row["verdict"]) == (text_id, domain, "right")


def test_fields_of_other_names_are_mapped_and_the_first_questions_taken(ask):
    questions = [{"q": each["question"], "right": {"text": ["Paris", "8"]}, "n": each["id"]} for each in QUESTIONS]
    flags = ("--columns", "question=q", "answers=right.text", "id=n", "--limit", 2)
    outcome, rows = ask(questions, ANSWERS, *flags)
    assert outcome.code == 0
    assert verdicts(rows)["fr/0"] == "right"
    assert {row["group"] for row in rows} == {"fr", "legs"}


def test_a_function_of_ones_own_judges(ask, tmp_path):
    (tmp_path / "own.py").write_text(
        "def first(question, answer, golds):\n"
        "    assert isinstance(golds, list)\n"
        "    return None if 'know' in answer else answer.startswith('M')\n"
        "def odd(question, answer, golds):\n    return 1\n"
        "def broken(question, answer, golds):\n    raise KeyError('x')\n"
    )
    _, rows = ask(QUESTIONS, ANSWERS, "--judge", f"{tmp_path}/own.py:first")
    assert verdicts(rows)["emma/0"] == "right"
    assert (verdicts(rows)["fr/0"], verdicts(rows)["fr/2"], verdicts(rows)["emma/1"]) == ("wrong", "refused", "empty")
    for name, says in (("odd", "returned 1; expected True, False or None"), ("broken", "fails with KeyError: 'x'")):
        outcome, _ = ask(QUESTIONS, ANSWERS, "--judge", f"{tmp_path}/own.py:{name}", out="n.jsonl")
        assert outcome.code == 2
        assert says in outcome.err
        assert not (tmp_path / "n.jsonl").exists()


@pytest.mark.parametrize(
    ("questions", "answers", "flags", "says"),
    [
        ([{"q": "x", "answer": "y"}], ANSWERS, (), "name the right one with --columns question=NAME"),
        ([{"question": "x"}], ANSWERS, (), "--columns answers=NAME"),
        ([QUESTIONS[0], QUESTIONS[0]], ANSWERS, (), "id 'fr' is taken"),
        ([{"question": "x", "answers": []}], ANSWERS, (), "no question with an answer in it"),
        ([{"claim": "x", "label": "SUPPORTS"}], ANSWERS, (), "looks like FEVER"),
        (QUESTIONS, [{"id": "fr", "mark": 3}], (), "no answer; expected choices"),
        (QUESTIONS, [{"id": "other", "answer": "x"}], (), "no answer belongs to a question"),
        (QUESTIONS, ANSWERS, ("--judge", "llm"), "expected match, contains, numeric or FILE.py:NAME"),
        (QUESTIONS, ANSWERS, ("--judge", "none.py:f"), "no such file"),
        (QUESTIONS, ANSWERS, ("--columns", "fact=x"), "the keys are question, answers, aliases, id, domain"),
        (QUESTIONS, ANSWERS, ("--limit", 0), "expected at least 1"),
        (QUESTIONS, ANSWERS, ("--schema", "popqa"), "--schema popqa needs the fields"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(ask, tmp_path, questions, answers, flags, says):
    outcome, _ = ask(questions, answers, *flags)
    assert outcome.code == 2
    assert says in outcome.err.splitlines()[-1]
    assert len([line for line in outcome.err.splitlines() if not line.startswith(("warning", "note"))]) == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_a_file_of_another_kind_is_not_overwritten(ask, tmp_path):
    written(tmp_path / "out.jsonl", [{"my": "notes"}])
    outcome, _ = ask()
    assert outcome.code == 2
    assert "not a file of judged answers; give another file" in outcome.err
    assert lines(tmp_path / "out.jsonl") == [{"my": "notes"}]
    assert ask(out="out.csv")[0].code == 2
