"""`bluffscope detect watch` and `detect export`: what is printed, written and refused, and the example of the docs."""

from __future__ import annotations

import io
import json
import re
import textwrap
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import bluffscope.cli.watch as watch
from bluffscope.cli.console import LastingConsole
from bluffscope.cli.main import main
from bluffscope.detectors.files import read_detector
from bluffscope.detectors.stream import Watcher, Written
from made_detectors import PROMPTS, make_detector

DOCS = Path(__file__).resolve().parents[2] / "docs" / "detect.md"


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    return make_detector(tmp_path_factory.mktemp("detectors") / "known", tiny_model)


def written(call, folder, *prompts, most=10, **flags):
    """By prompt, the objects of --format json."""
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    outcome = call(
        "detect", "watch", folder, "--prompt", *prompts, "--max-new-tokens", most, "--format", "json", *words
    )
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    return [[line for line in lines if line["prompt"] == place] for place in range(len(prompts))]


def test_programs_get_an_object_a_token_step_by_step(call, folder):
    first, second = written(call, folder, *PROMPTS[:2])
    assert set(first[0]) == {"prompt", "text", "id", "probability", "logit"}
    curve = read_detector(folder).calibration
    for token in (*first, *second):
        assert token["probability"] == pytest.approx(float(curve.probabilities(np.array([token["logit"]]))[0]))
    (alone,) = written(call, folder, PROMPTS[0])
    assert [one["id"] for one in alone] == [one["id"] for one in first]
    (sampled,) = written(call, folder, PROMPTS[0], temperature=2, seed=4)
    assert [one["id"] for one in sampled] != [one["id"] for one in alone]


def test_a_person_reads_the_texts_one_behind_the_other_with_what_a_probability_is(call, folder):
    found = written(call, folder, *PROMPTS, temperature=3, most=25)
    flags = ("--temperature", 3, "--max-new-tokens", 25, "--threshold", 0.6)
    outcome = call("detect", "watch", folder, "--prompt", *PROMPTS, *flags)
    assert outcome.code == 0
    shown = re.sub(r"\[0\.\d\d\]", "", outcome.out)
    places = [shown.index(prompt) for prompt in PROMPTS]
    assert places == sorted(places)
    assert "Each probability is that the text up to this token is hallucinated." in outcome.out
    high = [one["probability"] for some in found for one in some if one["probability"] >= 0.6]
    brackets = [float(one) for one in re.findall(r"\[(0\.\d\d)\]", outcome.out)]
    assert high and brackets and min(brackets) >= 0.6 and max(brackets) == round(max(high), 2)
    assert "\x1b" not in outcome.out
    last = found[0][-1]["probability"]
    assert f"Text 1: {len(found[0])} tokens; probability at the last {last:.2f}" in outcome.out


def drawn(tokens, prompts=("Of",), **options):
    """What a console shows of tokens."""
    file = io.StringIO()
    console = LastingConsole(file=file, width=200, **options)
    view = watch._Texts(console, prompts, 0.5)
    for token in tokens:
        view.add(token)
    view.close()
    return file.getvalue()


def token(text, probability, prompt=0):
    return Written(prompt, text, 1, probability, 0.0)


def test_without_colours_a_word_is_followed_by_its_highest_probability_where_that_is_high():
    tokens = [
        token(" Par", 0.9),
        token("is", 0.2),
        token(" or", 0.1),
        token(" Ro", 0.1),
        token("me,", 0.7),
        token("\n", 0.9),
    ]
    assert drawn(tokens) == "Of Paris[0.90] or Rome,[0.70]\n\n\n"
    terminal = {"force_terminal": True, "color_system": "truecolor"}
    assert "[0.90]" in drawn(tokens, **terminal, no_color=True)
    coloured = drawn(tokens, **terminal)
    assert "[0.90]" not in coloured and "\x1b[" in coloured
    assert "[bold]" in drawn([token(" [bold]x", 0.1)], **terminal)
    assert "\\x1b[2J" in drawn([token("\x1b[2J", 0.1)])


def test_a_text_that_ends_makes_way_for_the_next_which_is_then_seen_at_once():
    file = io.StringIO()
    view = watch._Texts(LastingConsole(file=file, width=200), ("A", "B"), 0.5)
    view.add(token(" one ", 0.1, 0))
    view.add(token(" two", 0.1, 1))
    assert "B" not in file.getvalue()
    view.add(token(" three", 0.1, 1))
    view.add(token(" four", 0.1, 1))
    assert "B two three" in file.getvalue()
    view.close()
    assert file.getvalue() == "A one \n\nB two three four\n\n"


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.cells, self.titles = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]
        self.titles += [value for name, value in attrs if name == "title"]

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "td":
            self.cells.append(data)


def test_the_page_makes_no_request_and_says_each_probability_twice(call, folder, tmp_path):
    path = tmp_path / "page.html"
    prompt = "<script>alert(1)</script> & more"
    found = written(call, folder, prompt, html=path)[0]
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.links == [] and "script" not in page.tags and "link" not in page.tags
    assert "default-src 'none'" in text and "url(" not in text and "@import" not in text
    assert page.titles == [f"{one['probability']:.3f}" for one in found]
    assert [cell for cell in page.cells if re.fullmatch(r"0\.\d{3}", cell)] or not found
    assert all(f"<td>{one['probability']:.3f}</td>" in text for one in found)
    assert "&lt;script&gt;" in text and "prefers-color-scheme: dark" in text
    assert "<table>" in text and 'lang="en"' in text


def test_ctrl_c_ends_it_cleanly_with_what_was_written(call, folder, tmp_path, monkeypatch):
    steps = Watcher.write

    def interrupted(self, prompts, options):
        for place, one in enumerate(steps(self, prompts, options)):
            if place == 3:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(Watcher, "write", interrupted)
    page = tmp_path / "page.html"
    outcome = call("detect", "watch", folder, "--prompt", PROMPTS[0], "--temperature", 3, "--html", page)
    assert outcome.code == 130
    assert "3 tokens; probability at the last" in outcome.out and "Traceback" not in outcome.err
    assert Page(page.read_text(encoding="utf-8")).titles != []


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--prompt", "x", "--temperature", "-1"), "--temperature -1"),
        (("--prompt", "x", "--max-new-tokens", "0"), "--max-new-tokens 0"),
        (("--prompt", "x", "--threshold", "2"), "--threshold 2"),
        (("--prompt", "x", "--stop", ""), '--stop ""'),
        (("--prompt", "x", "--system", "y"), "--system: only with --chat"),
        (("--prompt", "x", "--chat"), "no chat template"),
        (("--prompt", "x", "--html", "page.txt"), "ends in .html"),
        (("--prompt", "word " * 200), "leave no room in the model's context"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(refused, folder, flags, says):
    assert says in refused("detect", "watch", folder, *flags)


@pytest.mark.parametrize(
    ("made", "says"),
    [({"on": "metrics"}, "compares a finished completion"), ({"position": "end-of-turn"}, "reads at end-of-turn")],
)
def test_detectors_that_need_a_finished_text_are_refused(refused, tiny_model, tmp_path, made, says):
    other = make_detector(tmp_path / "d", tiny_model, **made)
    assert says in refused("detect", "watch", other, "--prompt", "x")


def example():
    """The lines of the docs that score a text without Bluffscope."""
    section = DOCS.read_text(encoding="utf-8").partition("## Without Bluffscope")[2].partition("\n## ")[0]
    (code,) = [block for block in re.findall(r"(?:^    .*\n|^\n)+", section, re.MULTILINE) if "load_file" in block]
    return textwrap.dedent(code).strip()


def test_the_example_of_the_docs_gives_the_probabilities_of_detect_score(
    call, tiny_model, tmp_path, monkeypatch, capsys
):
    code = example()
    assert len(code.splitlines()) <= 20 and "bluffscope" not in code.lower()
    folder = make_detector(tmp_path / "d", tiny_model, scale=0.2)
    assert call("detect", "export", folder, "--out", tmp_path / "cwd" / "known.safetensors").code == 0
    (tmp_path / "cwd" / "model").symlink_to(tiny_model)
    seen = set()
    for text in (*PROMPTS, "The capital of France is Rome"):
        capsys.readouterr()
        namespace = {}
        exec(compile(re.sub(r"(?m)^text = .*$", f"text = {text!r}", code), "docs/detect.md", "exec"), namespace)
        printed = float(capsys.readouterr().out.strip().splitlines()[-1])
        data = tmp_path / "in.jsonl"
        data.write_text(json.dumps({"text": text}) + "\n")
        outcome = call("detect", "score", folder, "--data", data)
        assert printed == pytest.approx(json.loads(outcome.out)["probability"], abs=1e-5)
        seen.add(round(printed, 3))
    assert len(seen) > 2


def test_exported_weights_are_the_detector_s(call, refused, folder, tiny_model, tiny_saes, tmp_path):
    out = tmp_path / "known.safetensors"
    assert call("detect", "export", folder, "--out", out).code == 0
    content, detector = load_file(out), read_detector(folder)
    assert set(content) == {"layer.0.weight", "layer.2.weight", "bias", "calibration"}
    assert np.array_equal(np.hstack([content["layer.0.weight"], content["layer.2.weight"]]), detector.linear.weights)
    assert "there is a file already" in refused("detect", "export", folder, "--out", out)
    sae = make_detector(tmp_path / "sae", tiny_model, saes=tiny_saes, layers=(0, 3), on="sae")
    assert call("detect", "export", sae, "--out", tmp_path / "sae.safetensors").code == 0
    content = load_file(tmp_path / "sae.safetensors")
    assert content["layer.3.weight"].shape == content["layer.3.feature"].shape == (30,)
    metrics = make_detector(tmp_path / "metrics", tiny_model, on="metrics")
    assert "weighs metrics" in refused("detect", "export", metrics, "--out", tmp_path / "m.safetensors")
    assert "ends in .safetensors" in refused("detect", "export", folder, "--out", tmp_path / "m.bin")


def test_help_names_both(capsys):
    assert main(["detect", "watch", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(flag in said for flag in ("--prompt", "--max-new-tokens", "--temperature", "--stop", "--html", "--chat"))
