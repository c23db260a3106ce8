"""The lines of the page's table: what they say of runs, studies, detectors, and of what anybody left in a folder."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml

from bluffscope.cli.main import main
from bluffscope.config.presets import DEMO_NAME
from bluffscope.report import headlines
from bluffscope.report.labels import in_words
from bluffscope.report.view import underway
from bluffscope.report.view.catalogue import Catalogue
from bluffscope.report.view.folders import look, open_inside, walk
from bluffscope.report.write import write_report
from made_runs import UNSOUND, make_run, sweep_and_carry


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A run with statistics and a report."""
    folder = make_run(tmp_path_factory.mktemp("made") / "run", 60, effect=1.2)
    write_report(folder)
    return folder


def lines(root: Path) -> dict[str, dict]:
    return {row["name"]: row for row in Catalogue(root).listing(60)["rows"]}


def stopped(folder: Path, pairs: int = 600, size: int = 100, shards: tuple[int, ...] = (0, 1)) -> Path:
    """The folder of a run that was stopped, as a run leaves it."""
    (folder / "shards").mkdir(parents=True)
    config = {"model": {"model": "/models/made-up"}, "data": {"data": "pairs.jsonl"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    identity = {"data": {"pairs": pairs}, "options": {"shard_pairs": size}}
    (folder / "shards" / "run.json").write_text(json.dumps(identity))
    for number in shards:
        (folder / "shards" / f"{number:06d}.{'0' * 16}.{'0' * 32}.parquet").write_bytes(b"")
    return folder


def aged(folder: Path, seconds: float) -> None:
    """All files of a folder, as if written so long ago."""
    for path in folder.rglob("*"):
        found = path.stat()
        os.utime(path, (found.st_atime - seconds, found.st_mtime - seconds))


def test_a_finished_run_says_what_ran_whether_it_is_sound_and_what_came_out(measured):
    row = lines(measured.parent)["run"]
    assert (row["kind"], row["state"], row["model"], row["data"]) == ("run", "finished", "made-up", "made-up pairs")
    assert (row["n"], row["items"], row["health"]) == (60, "pairs", "not checked")
    assert row["date"] == "2026-01-02T03:04:05+00:00"
    stats = pl.read_parquet(measured / "stats.parquet").filter(scope="pooled", metric="entropy").row(0, named=True)
    effect = {
        "of": "",
        "metric": "entropy",
        "words": in_words("entropy", stats["adj_dz"]),
        "value": stats["adj_dz"],
        "text": f"d_z {stats['adj_dz']:+.2f}, large",
        "verdict": "separates",
    }
    assert row["effects"] == [effect]
    area = pl.read_parquet(measured / "detectors.parquet").filter(scope="pooled", detector="sae").row(0, named=True)
    ends = {name: area[name] for name in ("auroc", "lo", "hi")}
    assert row["detectors"] == [{"of": "", "detector": "SAE features", **ends}]
    names = [name for name, _ in row["files"]]
    assert names[0] == "report.html"
    assert {"metrics.parquet", "stats.json", "manifest.json", "config.yaml"} <= set(names)


def test_the_strongest_effect_is_the_largest_that_separates_or_else_the_largest_of_all(measured, tmp_path):
    table = pl.read_parquet(measured / "stats.parquet")
    nothing = shutil.copytree(measured, tmp_path / "nothing")
    table.with_columns(verdict=pl.lit("inconclusive")).write_parquet(nothing / "stats.parquet")
    other = shutil.copytree(measured, tmp_path / "other")
    verdicts = pl.when(metric="l5_gini").then(pl.lit("separates")).otherwise(pl.lit("confounded"))
    table.with_columns(verdict=verdicts).write_parquet(other / "stats.parquet")
    doubtful = shutil.copytree(measured, tmp_path / "untested")
    table.with_columns(q=pl.lit(None, pl.Float64)).write_parquet(doubtful / "stats.parquet")
    found = {name: row["effects"][0] if row["effects"] else None for name, row in lines(tmp_path).items()}
    assert (found["nothing"]["metric"], found["nothing"]["verdict"]) == ("entropy", "inconclusive")
    assert (found["other"]["metric"], found["other"]["verdict"]) == ("l5_gini", "separates")
    assert found["other"]["words"].endswith(" at layer 5")
    assert found["untested"] is None


def test_the_footers_of_a_run_s_tables_say_what_the_tables_say(measured, tmp_path):
    """The page reads footers alone, where they are there; their content is anybody's."""
    whole = lines(measured.parent)["run"]
    assert whole["effects"] and whole["detectors"]
    for name in ("plain", "odd", "large"):
        shutil.copytree(measured, tmp_path / name)
    for file in ("stats.parquet", "detectors.parquet"):
        table = pl.read_parquet(measured / file)
        assert json.loads(pl.read_parquet_metadata(measured / file)[headlines.MARK])[0]["scope"] == "pooled"
        table.write_parquet(tmp_path / "plain" / file)
        odd = [3, {"scope": 4}, {"scope": "pooled", "metric": ["x"]}, {"scope": "pooled", "q": {}, "detector": "sae"}]
        table.write_parquet(tmp_path / "odd" / file, metadata={headlines.MARK: json.dumps(odd)})
        table.write_parquet(tmp_path / "large" / file, metadata={headlines.MARK: json.dumps(["x" * headlines.MOST])})
    found = lines(tmp_path)
    assert [found["plain"][name] for name in ("effects", "detectors")] == [whole["effects"], whole["detectors"]]
    assert (found["odd"]["effects"], found["odd"]["detectors"], found["odd"]["problem"]) == ([], [], None)
    assert found["large"]["problem"] == "stats.parquet is damaged"


def test_labelled_texts_have_their_own_words(tmp_path):
    run = make_run(tmp_path / "run", manifest={"files": {"metrics.parquet": {}, "texts.parquet": {}}})
    row = {"metric": "entropy", "scope": "pooled", "n_true": 30, "g": -0.3, "q": 0.01, "verdict": "separates"}
    pl.DataFrame([row]).write_parquet(run / "stats.parquet")
    found = lines(tmp_path)["run"]
    assert found["items"] == "texts"
    (effect,) = found["effects"]
    assert (effect["words"], effect["text"]) == (in_words("entropy", -0.3), "g -0.30, small")


KNOWN = ("known=true", "known=false")


@pytest.mark.parametrize(("model", "said"), [(DEMO_NAME, ("known", "unknown")), ("another", KNOWN)])
def test_what_the_model_knows_stands_apart_from_what_it_does_not(model, said, tmp_path):
    """`known` of the bundled pairs speaks of the demo model alone."""
    run = make_run(tmp_path / "run", 8, manifest={"model": {"name": model}})
    of_stats = [("pooled", 0.4, "separates"), (KNOWN[0], -2.0, "separates"), (KNOWN[1], 0.1, "inconclusive")]
    rows = [
        {"metric": "entropy", "scope": scope, "dz": dz, "q": 0.1, "verdict": verdict} for scope, dz, verdict in of_stats
    ]
    pl.DataFrame(rows).write_parquet(run / "stats.parquet")
    areas = [("pooled", 0.7), (KNOWN[0], 0.95), (KNOWN[1], 0.5)]
    detectors = [{"detector": "sae", "scope": scope, "auroc": auroc} for scope, auroc in areas]
    pl.DataFrame(detectors).write_parquet(run / "detectors.parquet")
    row = lines(tmp_path)["run"]
    assert [(one["of"], one["value"], one["verdict"]) for one in row["effects"]] == [
        (said[0], -2.0, "separates"),
        (said[1], 0.1, "inconclusive"),
    ]
    assert [(one["of"], one["auroc"]) for one in row["detectors"]] == [(said[0], 0.95), (said[1], 0.5)]
    pl.DataFrame(rows[:2]).write_parquet(run / "stats.parquet")
    assert [one["of"] for one in lines(tmp_path)["run"]["effects"]] == [""]


def test_comparisons_transfers_and_reports_of_the_linter_have_lines_of_their_own(tmp_path):
    first, other = (make_run(tmp_path / name, 60, effect=1.5, seed=seed) for seed, name in enumerate(("one", "two")))
    assert main(["compare", str(first), str(other), "--out", str(tmp_path / "both")]) == 0
    (tmp_path / "carried").mkdir()
    sweep_and_carry(tmp_path / "carried")
    (tmp_path / "linted").mkdir()
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "a", "fact": "b", "hallucination": "b"}\n')
    assert main(["lint", str(data), "--json", str(tmp_path / "linted" / "lint.json")]) == 1
    found = {name: (row["kind"], row["state"], row["n"], row["said"]) for name, row in lines(tmp_path).items()}
    assert found["both"][:3] == ("comparison", "finished", 60)
    assert re.fullmatch(r"With one: two: verdicts agree in \d of 5 metrics", found["both"][3])
    assert found["carried"][:3] == ("transfer", "finished", None) and "SAE features" in found["carried"][3]
    assert found["linted"][:3] == ("lint", "finished", 1) and found["linted"][3].startswith("1 error")
    for name, file in (("both", "compare.json"), ("carried", "transfer_matrix.parquet"), ("linted", "lint.json")):
        for content in (b"{", b"[]", b'{"rows": 3, "others": 4}'):
            (tmp_path / name / file).write_bytes(content)
            row = lines(tmp_path)[name]
            assert row["state"] == "unreadable" or content.startswith(b'{"rows"')
            assert row["state"] == "finished" or file in row["problem"]
    pl.DataFrame({"detector": ["sae"], "train": [3], "auroc": ["x"]}).write_parquet(
        tmp_path / "carried" / "transfer_matrix.parquet"
    )
    assert lines(tmp_path)["carried"]["problem"] == "transfer_matrix.parquet is damaged"


def test_health_is_said_in_a_word(tmp_path):
    make_run(tmp_path / "bad", manifest={"health": UNSOUND})
    warned = {"status": "healthy", "findings": [{"severity": "warning", "message": "m"}] * 2}
    make_run(tmp_path / "warned", manifest={"health": warned})
    make_run(tmp_path / "good", manifest={"health": {"status": "healthy", "findings": []}})
    said = {name: (row["health"], row["sound"]) for name, row in lines(tmp_path).items()}
    assert said == {"bad": ("failed", False), "warned": ("passed, 2 warnings", True), "good": ("passed", True)}


def test_runs_are_found_however_deep_they_lie_and_nothing_else_is_taken_for_one(measured, tmp_path):
    shutil.copytree(measured, tmp_path / "a" / "b" / "c" / "run")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text("{}")
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "config.yaml").write_text("x: 1")
    (tmp_path / ".hidden").mkdir()
    make_run(tmp_path / ".hidden" / "run", 4)
    assert [*lines(tmp_path)] == ["a/b/c/run"]
    assert [*lines(tmp_path / "a" / "b" / "c" / "run")] == ["run"]


def test_links_are_not_followed(measured, tmp_path):
    (tmp_path / "link").symlink_to(measured)
    run = shutil.copytree(measured, tmp_path / "run")
    secret = tmp_path.parent / f"{tmp_path.name}-secret.json"
    secret.write_text('{"model": {"name": "secret"}}')
    (run / "manifest.json").unlink()
    (run / "manifest.json").symlink_to(secret)
    assert [*lines(tmp_path)] == ["run"]
    assert "secret" not in json.dumps(lines(tmp_path))
    with pytest.raises(OSError):
        open_inside(tmp_path, ("run", "manifest.json"))
    with pytest.raises(OSError):
        open_inside(tmp_path, ("link", "stats.json"))
    with pytest.raises(OSError):
        open_inside(tmp_path, ("run",))
    for way in (("..", secret.name), ("run", "../../" + secret.name), ("",), (), ("run", "manifest.json\0")):
        with pytest.raises(OSError):
            open_inside(tmp_path, way)
    with open_inside(tmp_path, ("run", "stats.json")) as file:
        assert file.read(1) == b"{"


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path):
    run = make_run(tmp_path / "run", 4)
    (run / "manifest.json").unlink()
    os.mkfifo(run / "manifest.json")
    assert lines(tmp_path)["run"]["state"] == "stopped"
    with pytest.raises(OSError):
        open_inside(tmp_path, ("run", "manifest.json"))


HOSTILE = {
    "huge": b'{"model": "' + b"x" * 5_000_000 + b'"}',
    "deep": b'{"a":' * 200_000,
    "list": b"[1, 2]",
    "nothing": b"",
    "no text": b"\xff\xfe\x00",
    "not a number": b'{"counts": {"measured": NaN}}',
    "endless": b'{"counts": {"measured": Infinity}}',
    "digits": b'{"counts": {"measured": ' + b"9" * 100_000 + b"}}",
    "wrong model": b'{"model": ["x"]}',
    "wrong health": b'{"health": {"findings": "none"}}',
    "wrong files": b'{"files": 3}',
    "cut off": b'{"model": {"name": "x"',
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_manifest_that_nobody_should_trust_makes_a_line_that_says_so(kind, tmp_path):
    run = make_run(tmp_path / "run", 4)
    (run / "manifest.json").write_bytes(HOSTILE[kind])
    row = lines(tmp_path)["run"]
    assert row["state"] == "unreadable"
    assert row["problem"]
    assert str(tmp_path) not in row["problem"]
    json.dumps(row, allow_nan=False)


ODD = {
    "created": [None, 3, "yesterday", "9999-12-31T23:59:59-23:59", "x" * 100, "2026-01-02"],
    "counts": [None, {"measured": -1}, {"measured": 1e300}, {"measured": 0.5}, {"measured": 10**30}],
    "model": [None, {}, {"name": "a\x00\x1b[31m\u202eb" * 50}, {"name": "C:\\models\\x"}, {"name": "\ud800"}],
    "health": [None, {"status": 7}, {"status": "healthy", "findings": [{}]}],
    "files": [None, {}, {"texts.parquet": {}}],
}


@pytest.mark.parametrize(
    ("key", "place"), [(key, place) for key, values in ODD.items() for place in range(len(values))]
)
def test_strange_values_make_a_line_all_the_same(key, place, tmp_path):
    make_run(tmp_path / "run", 4, manifest={key: ODD[key][place]})
    row = lines(tmp_path)["run"]
    assert row["state"] == "finished"
    text = json.dumps(row, allow_nan=False, ensure_ascii=False)
    text.encode()
    assert all(sign.isprintable() for sign in text)
    assert row["n"] is None or row["n"] == 60
    assert len(text) < 3000


def test_damaged_statistics_leave_the_rest_of_the_line(measured, tmp_path):
    for name, content in {
        "cut": (measured / "stats.parquet").read_bytes()[:-20],
        "none": b"",
        "text": b"no table",
    }.items():
        run = shutil.copytree(measured, tmp_path / name)
        (run / "stats.parquet").write_bytes(content)
    run = shutil.copytree(measured, tmp_path / "kinds")
    table = pl.read_parquet(run / "stats.parquet")
    table.with_columns(metric=pl.lit(3), dz=pl.lit("x"), adj_dz=pl.lit("y"), q=pl.lit([1])).write_parquet(
        run / "stats.parquet"
    )
    run = shutil.copytree(measured, tmp_path / "numbers")
    table.with_columns(pl.lit(float("nan")).alias(name) for name in ("dz", "adj_dz")).write_parquet(
        run / "stats.parquet"
    )
    run = shutil.copytree(measured, tmp_path / "older")
    table.drop("verdict").write_parquet(run / "stats.parquet")
    found = lines(tmp_path)
    for name in ("cut", "none", "text"):
        assert (found[name]["state"], found[name]["n"], found[name]["effects"]) == ("finished", 60, [])
        assert "stats.parquet" in found[name]["problem"]
        assert found[name]["detectors"]
    for name in ("kinds", "numbers", "older"):
        assert (found[name]["effects"], found[name]["problem"]) == ([], None)


def test_a_run_under_way_says_how_far_it_is_how_fast_and_how_long_it_still_takes(tmp_path, monkeypatch):
    run = stopped(tmp_path / "run")
    (run / ".lock").touch()
    aged(run, 1000)
    now = (run / "shards" / "run.json").stat().st_mtime
    # Two shards of 100 pairs, the later one 40 s after measuring began: 5 pairs a second, and 10 s have passed since.
    for number, shard in enumerate(sorted((run / "shards").glob("*.parquet"))):
        os.utime(shard, (now + 20 * (number + 1),) * 2)
    held = frozenset({(run / ".lock").stat().st_ino})
    found = underway.progress(tmp_path, look(tmp_path, ("run",)), held, lambda: now + 50)
    assert (found.running, found.stage, found.done, found.total) == (True, "measuring", 200, 600)
    assert found.rate == pytest.approx(5)
    assert found.eta == pytest.approx(400 / 5 - 10)
    monkeypatch.setattr("bluffscope.report.view.catalogue.locks", lambda: held)
    row = lines(tmp_path)["run"]
    assert (row["state"], row["model"], row["data"], row["n"]) == ("running", "made-up", "pairs.jsonl", 600)


@pytest.mark.parametrize(("shards", "done"), [((), 0), ((5,), 50), ((0, 5), 150), (tuple(range(6)), 550), ((9,), 0)])
def test_the_last_shard_holds_what_is_left_over(shards, done, tmp_path):
    stopped(tmp_path / "run", pairs=550, shards=shards)
    found = underway.progress(tmp_path, look(tmp_path, ("run",)), frozenset())
    assert (found.running, found.done, found.total) == (False, done, 550)
    assert found.stage == ("writing tables" if done == 550 else "measuring")


def test_a_run_whose_lock_nobody_holds_has_stopped_once_it_has_been_silent(tmp_path):
    run = stopped(tmp_path / "run")
    assert lines(tmp_path)["run"]["state"] == "stopped"
    (run / ".lock").touch()
    assert lines(tmp_path)["run"]["state"] == "running"
    aged(run, 600)
    assert lines(tmp_path)["run"]["state"] == "stopped"


def test_a_run_that_was_killed_has_stopped_as_soon_as_its_lock_is_let_go(tmp_path, monkeypatch):
    run = stopped(tmp_path / "run")
    (run / ".lock").touch()
    held = {(run / ".lock").stat().st_ino}
    monkeypatch.setattr("bluffscope.report.view.catalogue.locks", lambda: frozenset(held))
    catalogue = Catalogue(tmp_path)

    def now():
        (row,) = catalogue.listing(60)["rows"]
        return row["state"], row["progress"]["seen"]

    assert now() == ("running", True)
    held.clear()
    assert now() == ("stopped", False)
    # Whoever looks for the first time does not know, and says how long the run has been silent.
    (row,) = lines(tmp_path).values()
    assert (row["state"], row["progress"]["seen"]) == ("running", False) and row["progress"]["sign"] < 60


def test_a_lock_that_is_held_is_seen_and_left_alone(tmp_path):
    from bluffscope.table.lock import locked

    run = stopped(tmp_path / "run")
    with locked(run):
        if not underway.locks():
            pytest.skip("this system does not say which files are locked")
        aged(run, 600)
        assert lines(tmp_path)["run"]["state"] == "running"
    with locked(run):  # nobody else has it
        pass


@pytest.mark.parametrize(
    "identity",
    [
        b"",
        b"[]",
        b'{"data": 3}',
        b'{"data": {"pairs": -5}, "options": {"shard_pairs": 0}}',
        b'{"data": {"pairs": 1e9}}',
    ],
)
def test_a_strange_identity_of_shards_makes_a_line_without_numbers(identity, tmp_path):
    run = stopped(tmp_path / "run")
    (run / "shards" / "run.json").write_bytes(identity)
    assert lines(tmp_path)["run"]["progress"]["total"] is None


def test_options_that_cannot_be_read_are_said(tmp_path):
    run = stopped(tmp_path / "run")
    (run / "config.yaml").write_text("a: &a [x]\nb: *a")
    assert lines(tmp_path)["run"]["state"] == "unreadable"


def test_the_last_messages_of_a_run_under_way_are_shown_on_a_line_each(tmp_path):
    run = stopped(tmp_path / "run")
    said = [json.dumps({"message": f"number {number}\n\x1b[31m{'y' * 400}"}) for number in range(30)]
    (run / "log.jsonl").write_text("\n".join(["cut o", *said, "[1]", "{"]) + "\n")
    messages = lines(tmp_path)["run"]["messages"]
    assert [message[:9] for message in messages] == ["number 27", "number 28", "number 29"]
    assert all(message.isprintable() and len(message) <= 200 for message in messages)


def test_answers_that_are_being_asked_for_are_counted(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "answers.jsonl.part").write_text("head\none\ntwo\ncut of")
    row = lines(tmp_path)["study"]
    assert (row["kind"], row["state"], row["progress"]["done"]) == ("answers", "running", 2)


def test_a_detector_says_what_it_reads_and_how_well_it_does(tmp_path):
    about = {
        "detector_version": 1,
        "on": "sae",
        "created": "2026-05-06T07:08:09+00:00",
        "model": {"name": "/somewhere/gemma2"},
        "config": {"data": {"data": "bluff200"}},
        "trained": {"pairs": 120},
        "evaluation": {
            "cross_validated": [
                {"detector": "length", "auroc": 0.5, "lo": 0.4, "hi": 0.6},
                {"detector": "sae", "auroc": 0.9, "lo": 0.8, "hi": 0.95},
            ]
        },
    }
    for name, content in {
        "good": about,
        "empty": {},
        "odd": about | {"evaluation": {"cross_validated": [3, {"detector": "sae", "auroc": "x"}]}, "trained": 7},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "detector.json").write_text(json.dumps(content))
    found = lines(tmp_path)
    good = found["good"]
    assert (good["kind"], good["state"], good["model"], good["data"]) == ("detector", "finished", "gemma2", "bluff200")
    assert (good["n"], good["items"], good["date"]) == (120, "pairs", "2026-05-06T07:08:09+00:00")
    assert good["detectors"] == [{"of": "", "detector": "SAE features", "auroc": 0.9, "lo": 0.8, "hi": 0.95}]
    assert found["empty"]["detectors"] == found["odd"]["detectors"] == []


def test_a_line_is_read_again_when_a_file_changes_and_not_before(measured, tmp_path, monkeypatch):
    run = shutil.copytree(measured, tmp_path / "run")
    catalogue = Catalogue(tmp_path)
    assert catalogue.listing(60)["rows"][0]["n"] == 60
    with monkeypatch.context() as broken:
        broken.setattr("bluffscope.report.view.catalogue.read", None)
        assert catalogue.listing(60)["rows"][0]["n"] == 60
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"counts": {"measured": 7}}))
    assert catalogue.listing(60)["rows"][0]["n"] == 7
    shutil.rmtree(run)
    assert catalogue.listing(60)["rows"] == []


def test_a_link_is_followed_before_anything_was_listed(measured, tmp_path):
    shutil.copytree(measured, tmp_path / "run")
    catalogue = Catalogue(tmp_path)
    folder = catalogue.folder(("run",))
    assert folder is not None and "report.html" in folder.files
    assert catalogue.folder(("elsewhere",)) is None


def test_what_does_not_fit_into_the_time_follows(measured, tmp_path):
    for name in ("a", "b", "c"):
        shutil.copytree(measured, tmp_path / name)
    catalogue = Catalogue(tmp_path)
    first = catalogue.listing(0)
    assert (first["pending"], {row["state"] for row in first["rows"]}) == (3, {"reading"})
    assert catalogue.listing(60)["pending"] == 0


def test_only_so_many_folders_are_looked_into(tmp_path, monkeypatch):
    for name in "abcdef":
        (tmp_path / name).mkdir()
    assert walk(tmp_path).whole
    monkeypatch.setattr("bluffscope.report.view.folders.MOST_FOLDERS", 4)
    assert not walk(tmp_path).whole
    assert not Catalogue(tmp_path).listing()["whole"]


def test_nothing_is_written(measured, tmp_path):
    run = shutil.copytree(measured, tmp_path / "run")
    stopped(tmp_path / "other")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    lines(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert run in before
