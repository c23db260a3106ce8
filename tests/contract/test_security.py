"""What SECURITY.md promises, as far as it is not tested beside the code that keeps it."""

from __future__ import annotations

import ast
import logging
import sys
from pathlib import Path

import pytest

import bluffscope
from bluffscope.api import run
from bluffscope.cli.main import main
from bluffscope.host.hub import without_token
from bluffscope.host.redaction import redacted
from bluffscope.table.folder import RunFolder, default_run_path
from made_runs import make_run

ROOT = Path(bluffscope.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))


def calls() -> list[tuple[str, ast.Call]]:
    """Every call in the package, by the dotted name of what is called."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                found.append((ast.unparse(node.func), node))
    return found


def test_the_package_never_opens_a_pickle():
    unsafe = {
        "torch.load",
        "pickle.load",
        "pickle.loads",
        "joblib.load",
        "dill.load",
        "marshal.loads",
        "yaml.unsafe_load",
    }
    assert not unsafe & {name for name, _ in calls()}
    loads = [call for name, call in calls() if name in ("np.load", "numpy.load")]
    assert loads
    for call in loads:
        assert {k.arg: ast.unparse(k.value) for k in call.keywords}["allow_pickle"] == "False"


def test_the_package_neither_evaluates_text_nor_runs_a_shell():
    names = {name for name, _ in calls()}
    assert not {"eval", "exec", "compile", "os.system", "os.popen"} & names
    for name, call in calls():
        if name.startswith("subprocess."):
            assert "shell" not in {keyword.arg for keyword in call.keywords}, name


def test_yaml_is_read_with_a_loader_of_plain_values_only():
    loaders = [ast.unparse(call.args[1]) for name, call in calls() if name == "yaml.load"]
    ours = "_PlainLoader"
    of_saelens_s_own_table = "getattr(yaml, 'CSafeLoader', yaml.SafeLoader)"
    assert sorted(loaders) == [ours, of_saelens_s_own_table]
    assert "yaml.safe_load" not in {name for name, _ in calls()}


def test_code_that_comes_with_a_model_is_never_run():
    hub = [call for name, call in calls() if name.endswith(".from_pretrained") and "Auto" in name]
    assert hub
    for call in hub:
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert given.get("trust_remote_code", "False") == "False", ast.unparse(call)
    text = (ROOT / "model" / "load.py").read_text("utf-8")
    assert '"trust_remote_code": False' in text
    assert '"use_safetensors": True' in text


def test_csv_is_written_only_after_formulas_were_made_harmless():
    """Attributes and not calls: writers are handed on."""
    names = {"write_csv", "sink_csv", "to_csv", "writer", "DictWriter"}
    writers = [
        ast.unparse(node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in names
    ]
    assert writers
    assert all(writer.startswith("safe_for_spreadsheets(") for writer in writers)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..", ".", "", "a/../../b", "x\0y", "a\nb", "con:aux", "~root", "-rf"]
)
def test_a_runs_name_cannot_leave_its_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = default_run_path(name)
    assert path.parent == Path("runs")
    assert path.resolve().parent == tmp_path / "runs"
    assert RunFolder.create_default(name).path.resolve().parent == tmp_path / "runs"


COMMANDS = {
    "resume": ["analyze", "--resume", "RUN"],
    "report": ["report", "RUN"],
    "stats": ["stats", "RUN"],
    "features": ["features", "RUN"],
    "detectors": ["detect", "train", "RUN", "--out", "detector"],
    "comparison": ["compare", "RUN", "RUN"],
}


@pytest.mark.skipif(sys.platform == "win32", reason="making links takes rights there")
@pytest.mark.parametrize("command", list(COMMANDS))
@pytest.mark.parametrize("name", ["log.jsonl", ".lock", "figures", "shards", "metrics.parquet", "config.yaml"])
def test_every_command_refuses_a_run_with_a_link_and_touches_nothing(tmp_path, monkeypatch, capsys, command, name):
    monkeypatch.chdir(tmp_path)
    folder = make_run(tmp_path / "run", 6)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "profile").write_text("mine")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "outside" / ("" if name in ("figures", "shards") else "profile"))
    before = sorted(tmp_path.rglob("*"))
    assert main([str(folder) if part == "RUN" else part for part in COMMANDS[command]]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert f"{name} is a link" in said.err
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "outside" / "profile").read_text() == "mine"


@pytest.mark.parametrize("flag", ["--resume", "--config"])
def test_a_file_does_not_choose_the_cluster_that_runs_code_here(tmp_path, capsys, flag):
    folder = make_run(tmp_path / "run", 6)
    (folder / "config.yaml").write_text("engine: {engine: ray, address: '198.51.100.7:6379'}")
    assert main(["analyze", flag, str(folder if flag == "--resume" else folder / "config.yaml")]) == 2
    assert "if it is yours, add --address 198.51.100.7:6379" in capsys.readouterr().err


SECRET = "MARKER7f3a9c"


@pytest.fixture
def secretive(monkeypatch):
    """An environment full of secrets."""
    monkeypatch.setenv("HF_TOKEN", f"hf_{SECRET}")
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", f"hf_{SECRET}")
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{SECRET}@localhost:9")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def files_with(folder: Path, text: str) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_nothing_of_the_environment_is_in_a_runs_folder(secretive, tiny_model, tiny_saes, pairs_file, tmp_path):
    from bluffscope.config import DataOptions, ModelOptions, OutputOptions, RunConfig

    config = RunConfig(
        data=DataOptions(data=str(pairs_file)),
        model=ModelOptions(model=str(tiny_model), sae=str(tiny_saes), device="cpu"),
        output=OutputOptions(out=tmp_path / "run"),
    )

    class Talkative:
        """Has a message with secrets logged while the run goes on."""

        def start(self, total: int) -> None:
            logging.getLogger("bluffscope.host.hub").warning(
                "https://user:%s@hub.example does not answer; sent Bearer %s and ?token=%s and hf_%s",
                *[SECRET] * 4,
            )

        def advance(self, pairs: int) -> None:
            pass

        def finish(self) -> None:
            pass

    result = run(config, progress=Talkative())
    assert "does not answer" in (result.path / "log.jsonl").read_text()
    assert files_with(result.path, SECRET) == []
    assert files_with(result.path, "does not answer") == ["log.jsonl"]  # the search finds what is there


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pw@host/x", "https://***@host/x"),
        ("ray://tok@host:10001", "ray://***@host:10001"),
        ("token hf_abcdefghijklmnop is wrong", "token *** is wrong"),
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer ***"),
        ("https://s3/x?X-Amz-Signature=abc&y=1", "https://s3/x?X-Amz-Signature=***&y=1"),
        (
            "a plain sentence about tokens, me@example.org and hf_hub",
            "a plain sentence about tokens, me@example.org and hf_hub",
        ),
    ],
)
def test_what_lets_one_in_somewhere_is_hidden_and_nothing_else(text, shown):
    assert redacted(text) == shown


def test_the_token_of_the_hub_is_hidden_whatever_it_looks_like(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert without_token(f"asked with {SECRET} and hf_{'a' * 12}") == "asked with *** and ***"
