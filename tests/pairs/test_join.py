"""Prompt and completion are joined by one space at most, unless the user says otherwise, and in one place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import bluffscope
from bluffscope.config import DataOptions, run_config
from bluffscope.pipeline.plan import TextTokenizer
from bluffscope.records import VIEWS, Pair, Tokenized, joined
from bluffscope.reference import analyses as reference
from bluffscope.reference.analyses import ReferenceOptions
from planted import clean_pairs

NBSP = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("prompt", "completion", "text"),
    [
        ("The lake is", "green", "The lake is green"),
        ("The lake is", " green", "The lake is green"),
        ("The lake is ", "green", "The lake is green"),
        ("Q: The lake?\nA:", "\ngreen", "Q: The lake?\nA:\ngreen"),
        ("Q: The lake?\n", "green", "Q: The lake?\ngreen"),
        ("The lake is", f"{NBSP}green", f"The lake is{NBSP}green"),
        ("The lake is ", " green", "The lake is green"),
        ("The lake is\n", " green", "The lake is\n green"),  # kept as given, and linted
        ("", "green", "green"),
    ],
)
def test_auto_adds_a_space_only_where_neither_side_has_white_space(prompt, completion, text):
    assert joined(prompt, completion, "auto") == text
    pair = Pair(0, "a", "all", None, prompt, completion, "red")
    assert pair.text("fact", DataOptions().join) == text


@given(st.text(), st.text(), st.text().filter(lambda join: join != "auto"))
def test_a_join_that_is_given_is_taken_as_it_is(prompt, completion, join):
    assert joined(prompt, completion, join) == prompt + join + completion


def test_the_options_of_an_earlier_run_keep_their_space():
    """Its config.yaml names the join, which was one space by default."""
    assert run_config({"data": {"join": " "}}, "config.yaml").data.join == " "
    assert run_config({"data": {"data": "bluff200"}}, "config.yaml").data.join == "auto"


def test_engine_and_reference_see_the_same_tokens_whatever_white_space_there_is():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core)
    engine = TextTokenizer(tokenizer, bos=None, position="last", join="auto", context=None)
    for prompt in ("a", "a ", "a\n"):
        for fact in ("b", " b", "\tb"):
            pair = Pair(0, "p", "all", None, prompt, fact, "c")
            (found,) = engine.tokenize([pair])
            assert isinstance(found, Tokenized)
            expected = reference.tokenise(pair, tokenizer, ReferenceOptions(layers=(0,)))
            assert [list(sequence.ids) for sequence in found.sequences] == [expected[view].ids for view in VIEWS]
            assert tokenizer.decode(found.sequences[1].ids) == joined(prompt, fact, "auto")


def test_prompts_and_completions_are_joined_nowhere_else():
    root = Path(bluffscope.__file__).parent
    found = [
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"\+ *(\w+\.)*join\b(?!\()|\bjoin *\+|prompt *\+ *[\w.\"']*completion", path.read_text("utf-8"))
    ]
    assert found == ["records/items.py"]


@pytest.mark.parametrize(
    ("prompt", "fact", "options", "code"),
    [
        ("The lake is", " green", {}, "space-at-join"),
        ("The lake is ", "green", {}, "space-at-join"),
        ("The lake is ", " green", {}, "space-at-join"),
        ("The lake is\n", " green", {}, "doubled-space"),
        ("The lake is", " green", {"join": " "}, "doubled-space"),
        ("The lake is ", "green", {"join": "\n"}, "doubled-space"),
        ("The lake is ", "green", {"join": ""}, None),
        ("The lake is", "green", {"join": " "}, None),
        ("The lake is?", "green", {"join": "\nA: "}, None),
        ("The lake is?", " green", {"join": "\nA: "}, "doubled-space"),
    ],
)
def test_the_linter_names_white_space_at_the_join(prompt, fact, options, code):
    rows = clean_pairs(15)
    rows[4] |= {"prompt": prompt, "fact": fact}
    report = bluffscope.lint(rows, **options)
    found = {finding.code: finding.pairs for finding in report.findings if finding.pairs}
    assert found == ({} if code is None else {code: ("0-4",)})
