"""A tokenizer from anybody lengthens no text without bound, and those that people publish are taken as they are."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from bluffscope.errors import InputError
from bluffscope.model.load import load_tokenizer
from bluffscope.model.tokenizer_limits import MOST_GROWTH, check_growth


def doubling(times: int = 26) -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.Replace("a", "aa")] * times)


def charsmap(*replacements: bytes) -> str:
    return base64.b64encode(b"\x04\0\0\0" + b"trie" + b"\0".join(replacements) + b"\0").decode()


def replacing(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def chain(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"normalizer": {"type": "Sequence", "normalizers": list(rules)}}


PREPEND = {"type": "Prepend", "prepend": "x" * 20}
BYTES = {"type": "ByteLevel", "add_prefix_space": True}
HOSTILE = {
    "doubling": chain(*[replacing({"String": "a"}, "aa")] * 26),
    "one long text": chain(replacing({"String": "a"}, "b" * 65)),
    "an expression": chain(replacing({"Regex": "."}, "b" * 65)),
    "nothing between": chain(*[replacing({"Regex": "x*"}, "bb")] * 3),
    "prepending": chain(PREPEND, PREPEND),
    "nested": chain(chain(*[chain(replacing({"String": "a"}, "aaa"))["normalizer"]] * 4)["normalizer"]),
    "a map": chain({"type": "Precompiled", "precompiled_charsmap": charsmap(b"a", b"b" * 5000)}),
    "maps": chain(*[{"type": "Precompiled", "precompiled_charsmap": charsmap(b"b" * 20)}] * 3),
    "bytes of bytes": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 7}},
    "both": chain(*[replacing({"String": "a"}, "aa")] * 4)
    | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 3}},
    "a decoder": {"decoder": {"type": "Sequence", "decoders": [replacing({"String": "a"}, "aa")] * 26}},
    "a template": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "x", "type_id": 0}}] * 10,
            "special_tokens": {"x": {"id": "x", "ids": [0] * 10, "tokens": ["x"] * 10}},
        }
    },
    "an unknown rule": chain({"type": "Grow"}, {"type": "Grow"}),
    "many rules": chain(*[{"type": "NFKC"}] * 10_000),
    "an affix": {"model": {"type": "BPE", "end_of_word_suffix": "x" * 1000}},
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_rules_that_make_much_of_little_are_refused_unopened(name):
    with pytest.raises(InputError, match=f"more than {MOST_GROWTH} times as long") as caught:
        check_growth("m", HOSTILE[name])
    assert "\n" not in str(caught.value)


SPACES = normalizers.Replace(Regex(" {2,}"), " ")
WORDS = [pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.ByteLevel()]
PUBLISHED = {
    "llama": ([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")], None),
    "gemma": ([normalizers.Replace(" ", "▁")], pre_tokenizers.Split(" ", "merged_with_previous")),
    "qwen": ([normalizers.NFC()], pre_tokenizers.Sequence(WORDS)),
    "clip": ([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()], None),
    "albert": (
        [
            normalizers.Replace("``", '"'),
            normalizers.Replace("''", '"'),
            *(normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), SPACES),
        ],
        pre_tokenizers.Metaspace(),
    ),
    "bert": ([normalizers.BertNormalizer()], pre_tokenizers.BertPreTokenizer()),
}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_the_chains_of_published_families_pass(name):
    tokenizer = Tokenizer(models.BPE())
    rules, before = PUBLISHED[name]
    tokenizer.normalizer = normalizers.Sequence(rules)
    if before is not None:
        tokenizer.pre_tokenizer = before
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    check_growth("m", json.loads(tokenizer.to_str()))


@pytest.mark.parametrize(
    "rules",
    [
        [normalizers.Replace("a", "bcd"), normalizers.Replace(Regex("."), "xy"), normalizers.Prepend("▁▁")],
        [normalizers.Replace(Regex("x*"), "bb"), normalizers.Replace(Regex("()"), "c")],
        [normalizers.BertNormalizer(), normalizers.Replace("中", "国国")],
    ],
)
def test_no_text_grows_by_more_than_the_bound_says(rules, monkeypatch):
    """The rules that are just refused at the growth that a text really has would be a bound that is too low."""
    sequence = normalizers.Sequence(rules)
    real = max(len(sequence.normalize_str(text)) / len(text) for text in ("a", "aaaaaaaa", "xyz a", "中中", "hello"))
    content = {"normalizer": json.loads(sequence.__getstate__())}
    monkeypatch.setattr("bluffscope.model.tokenizer_limits.MOST_GROWTH", real - 1e-6)
    with pytest.raises(InputError):
        check_growth("m", content)


def test_a_model_with_a_doubling_tokenizer_is_refused_before_it_is_loaded(tiny_model, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"] = json.loads(doubling().__getstate__())
    for token in content["added_tokens"]:
        token |= {"content": "a" * 50, "normalized": True, "special": False}  # normalised as soon as it is loaded
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"more than {MOST_GROWTH} times as long"):
        load_tokenizer(str(folder), None)


def test_padding_and_truncation_that_a_tokenizer_asks_for_are_not_applied(tiny_model, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    content = json.loads((folder / "tokenizer.json").read_text())
    padding = {"direction": "Right", "pad_to_multiple_of": 2**31, "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}
    content["padding"] = {"strategy": {"Fixed": 2**31}, **padding}
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 1}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = load_tokenizer(str(folder), None).tokenizer
    ids = tokenizer(["abcdefgh"], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert ids == load_tokenizer(str(tiny_model), None).tokenizer(["abcdefgh"], add_special_tokens=False)["input_ids"]
