"""Questions as they are read: the bundled set."""

from __future__ import annotations

from bluffscope.runs.ask.questions import BLUFFQA, read_questions


def test_the_bundled_questions_are_read_by_their_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bluffqa").mkdir()  # whatever lies in the folder one stands in
    questions = read_questions(BLUFFQA)
    assert len(questions) >= 200
    assert {question.domain for question in questions} == {"entity", "temporal", "logical", "adversarial"}
    assert all(question.text and question.golds for question in questions)
