"""Contradictions between texts that only look different: other code points, a few words more, another fact."""

from __future__ import annotations

import unicodedata

import pytest

import bluffscope
from bluffscope.config import DataOptions
from bluffscope.linter.words import holds, last_piece, words
from bluffscope.pairs import open_source
from bluffscope.pairs.groups import GroupBuilder, normalised
from planted import clean_pairs, written


def lint(*pairs, **options):
    rows = clean_pairs(15)  # too few for the text classifier, which takes its time
    for number, (prompt, fact, hallucination) in enumerate(pairs):
        rows[number] |= {"prompt": prompt, "fact": fact, "hallucination": hallucination}
    return bluffscope.lint(rows, **options)


def codes(report) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for finding in report.findings:
        found.setdefault(finding.code, set()).update(finding.pairs)
    return found


# Other code points

SAME = {
    "composed and decomposed": ("Le caf\u00e9 est", "Le cafe\u0301 est"),
    "marks in another order": ("q\u0323\u0307 is", "q\u0307\u0323 is"),
    "Hangul": ("\ud55c\uad6d is", unicodedata.normalize("NFD", "\ud55c\uad6d") + " is"),
    "zero-width space": ("Le caf\u00e9 est", "Le\u200b caf\u00e9 \u200best"),
    "byte-order mark": ("The lake is", "\ufeffThe lake is"),
    "soft hyphen": ("The lakeside is", "The lake\u00adside is"),
    "directional marks": ("The lake is", "\u202aThe \u200elake is\u202c"),
    "joiner between Latin letters": ("The lake is", "The la\u200dke i\u200cs\u200d"),
    "no-break space": ("The lake is", "The\u00a0lake\u202fis"),
    "capital of a decomposed letter": ("L'\u00c9TAT est", "l'e\u0301tat est"),
    "variation selector": ("\u2764 is", "\u2764\ufe0f is"),
}
OTHER = {
    "Persian with a non-joiner": ("\u0645\u06cc\u200c\u062e\u0648\u0627", "\u0645\u06cc\u062e\u0648\u0627"),
    "a family and two people": ("\U0001f468\u200d\U0001f469", "\U0001f468\U0001f469"),
    "an accent": ("Le caf\u00e9 est", "Le cafe est"),
    "a power": ("10\u00b2 is", "102 is"),
    "a space": ("over all", "overall"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_texts_that_look_the_same_are_one_text_for_groups_and_linter(case):
    one, other = SAME[case]
    assert one != other and normalised(one) == normalised(other)
    builder = GroupBuilder()
    for pair_id, prompt in (("a", one), ("b", other), ("c", "another")):
        builder.add(pair_id, prompt, f"fact of {pair_id}", f"hallucination of {pair_id}")
    first, second, third = builder.groups().labels()
    assert first == second != third
    assert codes(lint((one, "open", "closed"), (other, "closed", "open")))["contradiction"] == {"0-0", "0-1"}


@pytest.mark.parametrize("case", OTHER)
def test_texts_that_say_something_else_stay_apart(case):
    one, other = OTHER[case]
    assert normalised(one) != normalised(other)


def test_words_are_the_same_in_every_spelling_of_their_code_points():
    spelled = unicodedata.normalize("NFD", "ferm\u00e9")
    assert words(spelled) == words("ferm\u00e9") == ["ferm\u00e9"]
    assert last_piece(spelled) == last_piece("FERM\u00c9\u200b")
    assert holds("Le caf\u00e9 est ferm\u00e9 ?", spelled)


def test_ascii_texts_are_folded_as_before():
    assert normalised("  The\tLake \n IS ") == "the lake is"


def test_the_text_that_is_measured_stays_as_it_is(tmp_path):
    given = "Le cafe\u0301 est\u200b"
    data = written(tmp_path / "d.jsonl", [{"prompt": given, "fact": "ouvert", "hallucination": "ferme\u0301"}])
    (pair,) = open_source(DataOptions(data=str(data))).pairs()
    assert pair.text("hall", "auto") == f"{given} ferme\u0301"


# Nearly the same prompt

NEAR = {
    "an article": ("Light in vacuum travels", "Light in a vacuum travels"),
    "two words more": ("The top speed of light is", "The top speed of light in vacuum is"),
    "punctuation": ("The speed of light is", "The speed of light, is:"),
    "at the end": ("Pure water always boils", "Pure water always boils at sea level"),
}
APART = {
    "a template": ("The capital of France is", "The capital of Italy is"),
    "a negation": ("The deep lake is", "The deep lake is not"),
    "a contraction": ("The deep lake can rise", "The deep lake can't rise"),
    "a rank": ("The largest planet of all is", "The second largest planet of all is"),
    "a superlative": ("The planet with rings is", "The smallest planet with rings is"),
    "a number": ("The Apollo mission took off", "The Apollo 13 mission took off"),
    "a name": ("The river in Georgia is", "The river in Georgia near Tova is"),
    "another order": ("Rome beat Oslo at home", "Oslo beat Rome at home"),
    "many words": ("The lake is", "The lake behind that old house on a hill is"),
    "one word in common": ("Lakes", "Cold lakes"),
}


@pytest.mark.parametrize("case", NEAR)
@pytest.mark.parametrize("swapped", [True, False])
def test_a_label_that_changes_between_prompts_that_say_nearly_the_same_is_found(case, swapped):
    for one, other in (NEAR[case], NEAR[case][::-1]):
        report = lint((one, "fast", "slow"), (other, "slow", "fast" if swapped else "late"))
        (finding,) = report.of("near-contradiction")
        assert finding.pairs == ("0-0", "0-1")
        assert "nearly the same" in finding.message


@pytest.mark.parametrize("case", APART)
def test_prompts_that_ask_for_something_else_are_left_alone(case):
    for one, other in (APART[case], APART[case][::-1]):
        assert not lint((one, "fast", "slow"), (other, "slow", "fast")).of("near-contradiction")


def test_nearly_the_same_prompts_with_the_same_label_are_left_alone():
    one, other = NEAR["an article"]
    assert "near-contradiction" not in codes(lint((one, "fast", "slow"), (other, "fast", "slow")))


def test_prompts_made_by_a_template_of_closed_answers_take_no_time_and_raise_nothing():
    """Each pair meets 1,000 others that have its answers the other way round."""
    answers = ("yes", "no")
    rows = [
        {"prompt": f"Is the claim {i} true? Answer:", "fact": answers[i % 2], "hallucination": answers[1 - i % 2]}
        for i in range(2000)
    ]
    assert not bluffscope.lint(rows).of("near-contradiction")


# Another fact


def test_one_prompt_with_two_facts_is_found_unless_it_contradicts_itself():
    prompt = "The capital of Norway is"
    found = codes(lint((prompt, "Oslo", "Bergen"), (prompt, "Tromso", "Rome"), (prompt, "OSLO", "Paris")))
    assert found["conflicting-facts"] == {"0-0", "0-1"}
    assert "conflicting-facts" not in codes(lint((prompt, "Oslo", "Bergen"), (prompt, "Oslo", "Rome")))
    found = codes(lint((prompt, "Oslo", "Bergen"), (prompt, "Bergen", "Rome")))
    assert "contradiction" in found
    assert "conflicting-facts" not in found
