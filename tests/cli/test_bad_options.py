"""Wrong flags and config files: one clear line, exit code 2, nothing written."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from bluffscope.api import run
from bluffscope.cli.options import RunCommand, parse
from bluffscope.config import MeasureOptions, RunConfig
from bluffscope.errors import InputError


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--layers", "1", "1"], "--layers: 1 is given twice"),
        (["--layers", "1", "--layers", "3"], "--layers: given twice"),
        (["--layers", "-1"], "layers are counted from 0"),
        (
            ["--layers", "5,12"],
            ("--layers: expected a list of whole numbers or slices (all, spread, START:STOP:STEP), got 5,12", "--help"),
        ),
        (["--batch-size", "0"], "--batch-size 0: give auto or at least 1"),
        (["--batch-size", "-3"], "--batch-size -3: give auto or at least 1"),
        (["--batch-size", "x"], "--batch-size: expected auto or a whole number, got x"),
        (["--batch-tokens", "0"], "--batch-tokens 0"),
        (["--row-tokens", "0"], "--row-tokens 0"),
        (["--shard-pairs", "0"], "--shard-pairs 0"),
        (["--noise-std", "-1"], "--noise-std -1.0: give a number that is 0 or more"),
        (["--noise-std", "nan"], "--noise-std nan"),
        (["--noise-std", "inf"], "--noise-std inf"),
        (["--noise-sweep", "0.1", "nan"], "--noise-sweep nan"),
        (["--noise-sweep", "0.3", "0.3"], "--noise-sweep: 0.3 is given twice"),
        (["--noise-draws", "0"], "--noise-draws 0: give at least 1"),
        (["--noise-draws", "1.5"], "--noise-draws: expected a whole number, got 1.5"),
        (["--seed", "-1"], "--seed -1"),
        (["--seed"], "--seed: expected a whole number, got nothing"),
        (["--limit", "0"], "--limit 0: expected at least 1"),
        (["--limit", str(2**63)], "--limit: expected a whole number of at most 2147483647, got 9223372036854775808"),
        (["--shard-pairs", str(2**63)], "--shard-pairs: expected a whole number of at most"),
        (["--noise-draws", "1001"], "--noise-draws: expected a whole number of at most 1000, got 1001"),
        (["--seed", "9" * 5000], ("--seed: expected a whole number, got 999", "...; see")),
        (["--seed", f"-{2**32}"], "--seed: expected a whole number of at most 4294967295"),
        (["--layers", "1", str(2**63)], "--layers: expected a whole number of at most 10000"),
        (["--dry-run", "--gpus", str(10**30)], "--gpus: expected a whole number of at most 1000000"),
        (["--dtype", "float8"], "--dtype: expected auto or float32 or bfloat16 or float16 or float64, got float8"),
        (["--quantize", "int3"], "--quantize: expected none or int8 or int4, got int3"),
        (["--quantize", "int4"], "--quantize int4: it runs on cuda, not on cpu; use --quantize int8"),
        (["--quantize", "int8", "--dtype", "float64"], "cannot be combined with --dtype float64"),
        (["--fidelity", "-2", "--dtype", "bfloat16"], "--fidelity -2: give a number that is 0 or more"),
        (["--fidelity", "x"], "--fidelity: expected a whole number, got x"),
        (["--fidelity", "3"], "the run is in float32 without quantisation, so there is nothing to compare"),
        (["--device", "cuda"], "--device cuda: not available here; use --device cpu or auto"),
        (
            ["--position", "first"],
            "--position: expected last or first-completion or divergence or completion-mean or end-of-turn or tokens "
            "or several of them, got first",
        ),
        (["--position", "last", "mean"], ("--position: expected last or", "got mean")),
        (["--position"], ("--position: expected last or", "got nothing")),
        (["--position", "last", "divergence", "last"], "--position: last is given twice; name each position once"),
        (["--position", "last", "tokens"], "--position tokens: cannot be combined with others"),
        (["--position", "last", "end-of-turn"], "--position end-of-turn: only conversations have it; add --chat"),
        (["--modle", "x"], ("--modle: no such option", "did you mean --model?")),
        (["stray"], "stray: no such option"),
        (["--preset", "nope"], "--preset nope: unknown; choose from demo, gemma-2-2b"),
        (["--columns", "prompt"], "expected KEY=NAME"),
        (["--columns", "colour=red"], "unknown key 'colour'"),
        (["--columns", "prompt=question"], ("field 'question' is missing", "the fields here are")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_named_with_what_it_takes(refused, tiny_flags, monkeypatch, flags, says):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused("analyze", *tiny_flags, *flags, says=says)


def test_an_argument_that_stands_alone_is_not_asked_for_as_an_option(refused):
    refused("lint", "--data", "pairs.jsonl", says="--data: no such option: give the value alone, without a flag")


def test_a_model_without_saes_and_saes_without_a_model_are_refused(refused, tiny_model, tiny_saes):
    refused("analyze", "--model", tiny_model, says=("give its SAEs with --sae",))
    refused("analyze", "--sae", tiny_saes, says=("--sae without --model",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: [1", "not valid YAML (line 1: expected "),
        ("model:\n  a: b: c", "not valid YAML (line 2: mapping values are not allowed here)"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
        ("- 1", "no options in it"),
        ("", "no options in it"),
        ("colours: {}", "unknown section 'colours'; expected some of data, model, measure, engine, output"),
        ("3: {}", "unknown section 3"),
        ("model: 3", "model: expected options and their values"),
        ("model: {modle: x}", "model.modle: no such option in this version; expected some of preset, model"),
        ("model: {temperature: 0.7}", "model.temperature: no such option in this version"),
        (
            "model: {layers: 5}",
            "model.layers: expected a list of whole numbers or slices (all, spread, START:STOP:STEP), got",
        ),
        (
            "model: {layers: [a]}",
            "expected a list of whole numbers or slices (all, spread, START:STOP:STEP), got ['a']",
        ),
        ("model: {dtype: float8}", "model.dtype: expected auto or float32"),
        ("model: {model: 5}", "model.model: expected text or null, got 5"),
        ("measure: {noise_draws: 1.5}", "measure.noise_draws: expected a whole number, got 1.5"),
        ("measure: {position: []}", "measure.position: expected last or first-completion"),
        ("measure: {noise_draws: null}", "measure.noise_draws: expected a whole number, got None"),
        ("measure: {noise_std: 1e-3}", "measure.noise_std: expected a number, got '1e-3'"),
        ("engine: {batch_size: true}", "engine.batch_size: expected auto or a whole number, got True"),
        ("engine: {batch_size: '8'}", "engine.batch_size: expected auto or a whole number, got '8'"),
        ("output: {keep_residuals: 'yes'}", "output.keep_residuals: expected auto or on or off"),
        ('output: {out: "a\\0b"}', "output.out: expected a path or null"),
        ("a: &a [" + "[" * 3000, "not valid YAML"),
        ('model: {layers: !!int ""}', "not valid YAML"),
        ("model: {layers: !!bool x}", "not valid YAML"),
        ("model: {revision: !!timestamp x}", "not valid YAML"),
        ("\n0x" + "f" * 5000 + ": 1", "not valid YAML (line 2: mapping values are not allowed here)"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_named_with_the_option(refused, tmp_path, text, says):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    refused("analyze", "--config", path, says=(f"--config {path}: ", says))


WHOLE = [
    f"{part.name}.{option.name}"
    for part in fields(RunConfig)
    for option in fields(part.default_factory)  # pyright: ignore
    if "int" in str(option.type)
]
ENDLESS = {"decimal": "9" * 5000, "hexadecimal": "0x" + "f" * 5000, "sexagesimal": "1:0" * 3000, "2**63": str(2**63)}


@pytest.mark.thorough
@pytest.mark.parametrize("option", WHOLE)
@pytest.mark.parametrize("number", list(ENDLESS))
def test_whole_numbers_without_end_are_refused_wherever_one_may_stand(refused, tmp_path, option, number):
    part, name = option.split(".")
    path = tmp_path / "config.yaml"
    for text in (ENDLESS[number], f"[{ENDLESS[number]}]"):
        path.write_text(f"{part}:\n  {name}: {text}\n")
        line = refused("analyze", "--config", path, says=f"--config {path}: ")
        assert f"{option}: expected " in line or "not valid YAML (line 2: a whole number of " in line
        assert len(line) < 400


def test_the_library_refuses_them_too(tmp_path):
    with pytest.raises(InputError, match=r"^--noise-draws: expected a whole number of at most 1000, got 1000000$"):
        run(RunConfig(measure=MeasureOptions(noise_draws=10**6)))
    with pytest.raises(InputError, match="got a number of thousands of digits"):
        run(RunConfig(measure=MeasureOptions(seed=10**5000)))


def test_a_config_that_is_missing_a_folder_or_no_text_is_refused(refused, tmp_path):
    refused("analyze", "--config", tmp_path / "no.yaml", says=("cannot be read", "give a run's config.yaml"))
    refused("analyze", "--config", tmp_path, says="cannot be read (Is a directory)")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    refused("analyze", "--config", tmp_path / "bytes.yaml", says="not valid YAML")
    refused("analyze", "--config", says="--config: expected a path, got nothing")
    refused("analyze", "--config", "a", "--config", "b", says="--config: given twice")


def test_wrong_usage_reads_the_same_where_the_terminal_knows_no_frames(monkeypatch):
    class Plain:
        encoding = "ascii"

        def isatty(self):
            return False

        def write(self, text):
            return len(text)

        def flush(self):
            pass

    monkeypatch.setattr("sys.stdout", Plain())
    with pytest.raises(InputError, match=r"^--modle: no such option \(did you mean --model\?\); see x --help$"):
        parse(RunCommand, ["--modle", "a"], "x")
    with pytest.raises(InputError, match=r"^--seed: expected a whole number, got y; see x --help$"):
        parse(RunCommand, ["--seed", "y"], "x")
