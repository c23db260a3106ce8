"""How commands close: the answer in at most 15 lines, all tables with --full, the result's path alone with -q."""

from __future__ import annotations

import io
import shlex
from dataclasses import replace

import pytest

import make_first_lines as pages
from bluffscope.cli.brief import MOST_LINES, print_brief
from bluffscope.cli.console import LastingConsole
from bluffscope.report.answer import Answer
from bluffscope.report.results import Effect, ScopeAnswer
from made_runs import make_run

WORDS = ("feature cloud more elongated at layer 5", "reconstructions less alike across layers", "longer [red]residual")


def effects(scope: str, factor: float = 1.0) -> tuple[Effect, ...]:
    return tuple(
        Effect(f"m{k}", WORDS[k % 3], scope, 152, factor * (k - 5.21), -6.0, -4.0, "large", "separates", "")
        for k in range(5)
    )


ANSWER = Answer(
    ran="bluff200: 200 pairs; bluffscope-demo, layers 2 5 8, SAEs bluffscope-demo",
    health="Health: healthy (47 checks); lint: 2 warnings",
    sentence="Of what the model knows (152 pairs), hallucinations differ from facts at equal length and wording, above "
    "all: feature cloud more elongated at layer 5 (d_z -5.21, 95 % -6.08 to -4.35, large); of what it does not know "
    "(48 pairs), nothing is shown to differ (d_z 0.41 would be found with 80 % power).",
    headline="25 of 32 metrics separate.",
    kind="some",
    effects=effects("known=true"),
    where="known=true",
    symbol="d_z",
    scopes=tuple(
        ScopeAnswer(name, "", "", name, 9, 1, 2, None, 0.4, "", effects(name, factor))
        for name, factor in (("known=true", 1.0), ("known=false", 0.01))
    ),
    detector="Detector (SAE features): AUROC 1.00 (0.95 to 1.00) known, 0.52 (chance) unknown; length alone 0.50.",
    next=(f"bluffscope features {'runs/' + 'x' * 80} --tokens", "bluffscope detect train runs/x --out runs/x-detector"),
)


def printed(answer: Answer, width: int, *, terminal: bool = False, **options) -> list[str]:
    file = io.StringIO()
    console = LastingConsole(file=file, width=width, force_terminal=terminal, color_system=None)
    print_brief(console, answer, "Report: runs/x/report.html", **options)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_the_answer_takes_at_most_fifteen_lines_and_commands_are_never_broken(width):
    terminal = [line.rstrip() for line in printed(ANSWER, width, terminal=True)]
    assert sum(-(-len(line) // width) for line in terminal) <= MOST_LINES
    lines = printed(ANSWER, width)
    assert len(lines) <= MOST_LINES
    assert lines[-3:-1] == [f"Next: {ANSWER.next[0]}", f"      {ANSWER.next[1]}"]
    assert lines[-1] == "Report: runs/x/report.html"
    assert max(map(len, lines[:-3])) <= width
    assert all(line == line.rstrip() and "\x1b" not in line for line in lines)
    assert ANSWER.sentence in " ".join(lines) and ANSWER.detector in " ".join(lines)
    head = next((place for place, line in enumerate(lines) if line.startswith("Strongest effects (d_z)")), None)
    assert head is not None or width < 80  # the sentence names the strongest where no effect has room
    assert width < 80 or "-5.21 large" in lines[head + 1]
    assert width < 100 or sum("longer [red]residual" in line for line in lines) == 1


def test_five_effects_stand_in_a_hundred_columns_with_both_scopes():
    lines = printed(ANSWER, 100)
    head = next(place for place, line in enumerate(lines) if line.startswith("Strongest effects (d_z)"))
    assert lines[head].split()[3:] == ["known=true", "known=false"]
    assert lines[head + 1].split("  ")[0] == WORDS[0]
    assert [line.rsplit("  ", 2)[-2].strip() for line in lines[head + 1 : head + 6]] == [
        f"{k - 5.21:+.2f} large" for k in range(5)
    ]


def test_where_nothing_separates_the_verdict_stands_beside_each_effect():
    effects = tuple(replace(effect, verdict="inconclusive", scope="pooled") for effect in ANSWER.effects)
    lines = printed(replace(ANSWER, effects=effects, where="all", kind="nothing"), 100)
    assert any(line.split() == ["Strongest", "effects", "(d_z)", "all", "verdict"] for line in lines)
    assert sum(line.endswith("inconclusive") for line in lines) == 5


def test_more_to_say_leaves_room_for_fewer_effects():
    own = ("The model gave 346 right and 1,895 wrong answers to 226 questions: " + "0 always answered right, " * 3,)
    lines = printed(replace(ANSWER, own=own), 80, first=["2 labels by hand kept."])
    assert len(lines) <= MOST_LINES and lines[0] == "2 labels by hand kept."
    assert lines[3].startswith("The model gave 346 right")


@pytest.fixture
def made(tmp_path):
    return make_run(tmp_path / "run", effect=1.0)


@pytest.mark.thorough
def test_report_and_stats_say_the_same_in_as_few_lines(call, made):
    report = call("report", made)
    stats = call("stats", made, "--detectors")
    assert (report.code, stats.code) == (0, 0)
    assert len(report.out.splitlines()) <= MOST_LINES and len(stats.out.splitlines()) <= MOST_LINES + 1
    assert report.out.splitlines()[-1] == f"Report: {made / 'report.html'}"
    assert stats.out.splitlines()[-1].startswith(f"Statistics: {made / 'stats.parquet'}, stats.json (")
    said = "Hallucinations differ from facts at equal length and wording, above all: strongest features more even"
    assert said in " ".join(report.out.split()) and said in " ".join(stats.out.split())
    page = (made / "report.html").read_text("utf-8")
    assert "strongest features more even" in page


def test_quiet_prints_where_the_result_is_and_nothing_else(call, made):
    for command, file in (("report", "report.html"), ("stats", "stats.parquet")):
        for flag in ("-q", "--quiet"):
            outcome = call(command, made, flag)
            assert (outcome.code, outcome.out, outcome.err) == (0, f"{made / file}\n", "")


def test_quiet_hides_no_error(refused, tmp_path):
    refused("report", tmp_path / "nowhere", "-q", says="nowhere")
    for flag in ("--full", "-v"):
        refused("stats", tmp_path, "-q", flag, says="contradict each other: give one")


def test_full_prints_all_tables_and_verbose_what_stands_behind(call, made):
    brief, full, verbose = (call("stats", made, *flags).out for flags in ((), ("--full",), ("-v",)))
    assert "each cell: the verdict" in full and "1 of 5 metrics separate fact from hallucination" in full
    assert "each cell" not in brief and "each cell" not in verbose
    assert "Correction: " in verbose and verbose.endswith(brief)
    full, verbose = (call("report", made, flag).out for flag in ("--full", "-v"))
    assert full.startswith("Summary of 60 pairs") and "Layer sensitivity, layer 2" in full
    assert verbose.startswith("Seconds by stage: load 1.0")


@pytest.mark.usefixtures("drawn")
def test_analyze_closes_with_the_answer_and_quiet_shows_no_progress(call, tiny_flags, tmp_path):
    outcome = call("analyze", *tiny_flags)
    lines = outcome.out.splitlines()
    assert len(lines) <= MOST_LINES
    assert lines[0] == f"pairs: 5 pairs; gemma2, layers 0 1 3, SAEs {tiny_flags[3].name}"
    said = " ".join(lines[1:])
    assert said.startswith("Health: UNSOUND: 4 errors and ")
    assert "verdicts are shown anyway (--allow-unsound); lint: 2 warnings Whether anything tells facts from" in said
    assert "hallucinations cannot be judged: only" in said
    assert lines[-1] == f"Report: {tmp_path / 'run' / 'report.html'}"
    outcome = call("analyze", *tiny_flags[:-1], tmp_path / "quiet", "-q")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"{tmp_path / 'quiet' / 'report.html'}\n", "")


@pytest.mark.thorough
@pytest.mark.usefixtures("drawn")
def test_the_pages_show_what_the_demo_prints_and_the_commands_that_it_names_work(call):
    outcome = call(*pages.COMMAND[1:])
    assert outcome.code == 0, outcome.err
    assert len(outcome.out.splitlines()) <= MOST_LINES
    for page in pages.PAGES:
        assert pages.shown(page.read_text("utf-8")) == outcome.out, f"{page.name}: run tools/make_first_lines.py"
    said = " ".join(outcome.out.split())
    assert said.split("Of what the model knows (152 pairs), ")[1].startswith("hallucinations differ from facts")
    assert "; of what it does not know (48 pairs), nothing is shown to differ (" in said
    assert "AUROC 1.00 (" in said and "(chance) unknown; not shown to beat log-probability alone 1.00." in said
    assert "known=true   known=false" in outcome.out
    lines = outcome.out.splitlines()
    commands = [line.removeprefix("Next:").strip() for line in lines[-3:-1]]
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "bluffscope"
        done = call(*arguments)
        assert done.code == 0, (command, done.err)
