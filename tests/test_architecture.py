"""The import direction, read from the source: one way of data, no cycle, slow parts late."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import bluffscope
from bluffscope.metrics import METRICS

ROOT = Path(bluffscope.__file__).parent
GROUND = {"errors", "records", "config", "host"}
DECLARED = GROUND | {"metrics"}
"""`metrics` stands below the other stages: it declares what the table's columns, labels and statistics are made of."""
STAGES = {"pairs", "model", "sae", "metrics", "table"}
MAY_IMPORT = {
    "errors": set(),
    "records": {"errors"},
    "config": {"errors"},
    "host": {"errors", "records"},
    "metrics": GROUND,
    "model": GROUND,
    "sae": GROUND,
    "pairs": DECLARED,
    "table": DECLARED,
    "reference": GROUND,
    "engine": GROUND,
    "pipeline": GROUND | STAGES | {"reference"},
    "stats": DECLARED | {"pairs", "table"},
    "linter": GROUND | STAGES | {"pipeline", "stats"},
    "features": GROUND | STAGES | {"pipeline", "stats"},
    "detectors": GROUND | STAGES | {"pipeline", "stats"},
    "health": GROUND | STAGES | {"pipeline", "reference"},
    "runs": GROUND | STAGES | {"engine", "pipeline", "linter", "health"},
    "compare": GROUND | STAGES | {"engine", "pipeline", "reference", "stats", "runs"},
    "report": DECLARED | {"table", "stats", "features", "detectors", "compare"},
}
"""What each folder or file directly under the package may import; `api`, `cli` and `__main__` stand above all."""
ABOVE = {"api", "cli", "__main__"}
SLOW = {"torch", "transformers", "sae_lens", "transformer_lens", "ray", "torchao", "bitsandbytes"}

LATE = SLOW | {"altair", "huggingface_hub", "pyarrow", "safetensors", "scipy", "sklearn", "vl_convert"}
"""Libraries that are slow or optional: importing them inside a function needs no further reason."""


@dataclass(frozen=True)
class Import:
    """One imported module, and when it is imported."""

    name: str
    """`bluffscope.x.y` for our own modules, the first part of the name for others'."""
    line: int
    when: str
    """ "start" of the importing module, "call" of a function, or "typing": never."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(("bluffscope", *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return found


MODULES = modules()


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> tuple[Import, ...]:
    """All imports of a module."""
    return tuple(_walk(tree(module), "start"))


def _walk(node: ast.AST, when: str) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(_known(alias.name), child.lineno, when)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: a relative import"
            for alias in child.names:
                yield Import(_known(f"{child.module}.{alias.name}"), child.lineno, when)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _walk(child, "call" if when == "start" else when)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for branch, at in ((child.body, "typing"), (child.orelse, when)):
                yield from _walk(ast.Module(branch, []), at)
        else:
            yield from _walk(child, when)


def _known(name: str) -> str:
    """The longest beginning of a dotted name that is one of our modules; of others' names the first part."""
    if name.split(".")[0] != "bluffscope":
        return name.split(".")[0]
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def part(module: str) -> str:
    """The folder or the file directly under the package that a module belongs to; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def own(part_name: str) -> list[str]:
    return [module for module in MODULES if part(module) == part_name]


def parts_imported(part_name: str, *, typing: bool = True) -> set[str]:
    """Other parts of the package that a part imports, whenever it does."""
    found = {
        part(item.name)
        for module in own(part_name)
        for item in imports(module)
        if item.name.startswith("bluffscope") and (typing or item.when != "typing")
    }
    return found - {part_name, ""}


def loaded_by(module: str) -> set[str]:
    """Everything that importing a module imports at once, parents of packages included."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in MODULES:
            waiting += [item.name for item in imports(name) if item.when == "start"]
            waiting += [name.rpartition(".")[0]] if "." in name else []
    return seen


def test_the_walk_sees_what_is_there():
    assert {
        "bluffscope",
        "bluffscope.records",
        "bluffscope.metrics.geometry",
        "bluffscope.reference.analyses",
    } <= MODULES.keys()
    found = {(item.name, item.when) for item in imports("bluffscope.sae.load")}
    assert {("sae_lens", "call"), ("torch", "typing"), ("bluffscope.sae.coder", "start")} <= found
    assert "torch" in loaded_by("bluffscope.pipeline.shard")
    assert part("bluffscope.metrics.geometry") == "metrics"


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_every_part_imports_only_what_stands_below_it(name):
    assert own(name)
    assert parts_imported(name) <= MAY_IMPORT[name]


def test_every_part_has_its_place_and_a_newcomer_can_take_in_all_of_them():
    parts = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts == MAY_IMPORT.keys() | ABOVE | {"__init__"}
    assert len(parts) <= 24
    assert len([path for path in ROOT.iterdir() if path.suffix == ".py"]) <= 10


@pytest.mark.parametrize("name", sorted(path.parent.name for path in ROOT.glob("*/__init__.py")))
def test_every_folder_says_in_a_sentence_what_it_is_for(name):
    said = ast.get_docstring(tree(f"bluffscope.{name}"))
    assert said is not None and said.split("\n")[0].endswith((".", "?"))


def test_no_file_is_longer_than_can_be_taken_in():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_the_reference_shares_nothing_with_the_engine_it_is_to_check():
    allowed = GROUND | {"reference", ""}
    assert {
        part(name) for name in loaded_by("bluffscope.reference.analyses") if name.startswith("bluffscope")
    } <= allowed
    for module in own("reference"):
        assert not {"importlib", "runpy"} & {item.name for item in imports(module)}


@pytest.mark.parametrize("name", sorted({"report", "stats"} & set(map(part, MODULES))))
def test_report_and_statistics_import_no_torch_and_no_ray_however_indirectly(name):
    for module in own(name):
        assert not SLOW & loaded_by(module), module
        assert not SLOW & {item.name for item in imports(module) if item.when != "typing"}, module


@pytest.mark.parametrize("library", ["sae_lens", "transformer_lens", "transformers", "torchao", "bitsandbytes"])
def test_libraries_that_take_seconds_to_import_are_imported_only_where_they_are_used(library):
    at_start = [
        f"{module}:{item.line}"
        for module in MODULES
        for item in imports(module)
        if item.name == library and item.when == "start"
    ]
    assert not at_start


def test_ray_is_imported_by_its_engine_alone():
    users = {module for module in MODULES for item in imports(module) if item.name == "ray"}
    assert users <= {f"bluffscope.engine.{name}" for name in ("ray", "cluster", "probe")}


def cycle(edges: dict[str, set[str]]) -> list[str]:
    """A way from a node back to itself, or nothing."""
    done: set[str] = set()

    def search(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(edges.get(node, ())):
            if found := search(following, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(edges) if (found := search(node, []))), [])


def test_no_module_imports_itself_in_a_circle():
    edges = {
        module: {item.name for item in imports(module) if item.name in MODULES and item.when != "typing"}
        for module in MODULES
    }
    assert not cycle({module: targets - {"bluffscope"} for module, targets in edges.items()})


def test_no_folder_imports_itself_in_a_circle():
    names = set(map(part, MODULES)) - {""}
    assert not cycle({name: parts_imported(name, typing=False) for name in names})


def test_a_circle_would_be_seen():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


LIGHT = (
    "bluffscope",
    "bluffscope.config",
    "bluffscope.metrics",
    "bluffscope.pairs",
    "bluffscope.table",
    "bluffscope.report",
    "bluffscope.stats",
)


@pytest.mark.parametrize("module", [name for name in LIGHT if name in MODULES])
def test_importing_it_loads_no_torch(module):
    slow = sorted(SLOW - {"transformer_lens"})
    code = f"import sys, {module}; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_public_names_are_found_lazily_and_unknown_ones_refused():
    for name in bluffscope.__all__:
        assert getattr(bluffscope, name) is not None
    assert dir(bluffscope) == bluffscope.__all__
    # Importing a module of the package binds its name there, in place of a public object of that name.
    assert not set(bluffscope.__all__) & {name.split(".")[1] for name in MODULES if "." in name}
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = bluffscope.nonsense


def test_nothing_is_printed_past_logging_and_the_console():
    calls = [
        f"{module}:{node.lineno}"
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not calls


def test_no_folder_or_file_has_a_name_that_says_nothing():
    assert not {"utils", "util", "helpers", "common", "misc"} & {
        name for module in MODULES for name in module.split(".")
    }


NAMING_METRICS = {
    "report.dashboard",  # the panels that it shows
    "report.contents",  # the picture of the logit lens
    "report.summary",  # cross tables of shape classes
    "compare.tables",  # tolerances that follow from how a metric is computed
    "compare.bench.parts",  # the reference's geometry
    "health.table",  # what published SAEs reach
    "detectors.classifiers",  # baselines, and what is said of them
    "detectors.inputs",  # how a baseline is read
    "runs.identity",  # an option with the name of what it measures
}
"""Modules that speak of certain metrics; whatever holds for all of them is read from the declarations."""


def test_metrics_are_named_where_they_are_declared_so_that_a_new_one_needs_no_other_file():
    names = {metric.name for metric in METRICS if "_" in metric.name}
    found = {
        module.removeprefix("bluffscope.")
        for module in MODULES
        if part(module) not in ("metrics", "reference")
        and names & {node.value for node in ast.walk(tree(module)) if isinstance(node, ast.Constant)}
    }
    assert len(names) > 10
    assert found == NAMING_METRICS


WAITS = {"wait", "join", "communicate", "result", "acquire"}
"""Methods that wait for ever where they are given no arguments."""


def endless(tree: ast.AST) -> list[int]:
    """Lines of calls that wait for another process or thread without a limit."""
    found = []
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            runs = ast.unparse(call.func) in ("subprocess.run", "subprocess.check_output", "subprocess.check_call")
            bare = call.func.attr in WAITS and not call.args and not call.keywords
            if bare or (runs and "timeout" not in {keyword.arg for keyword in call.keywords}):
                found.append(call.lineno)
    return found


PROCESSES = {"bluffscope.compare.bench.processes", "bluffscope.engine.launch", "bluffscope.host.machine"}
"""Modules that start processes. Threads of our own may be waited for: they end with the process."""


def test_no_process_is_waited_for_for_ever():
    starting = {name for name in MODULES if {"subprocess", "multiprocessing"} & {item.name for item in imports(name)}}
    assert starting == PROCESSES
    assert {name: lines for name in PROCESSES if (lines := endless(tree(name)))} == {}


def test_no_test_waits_for_ever():
    assert endless(ast.parse("p.wait()\nt.join(1)\nsubprocess.run([])\nsubprocess.run([], timeout=1)")) == [1, 3]
    tests = Path(__file__).parent
    found = {str(path.relative_to(tests)): endless(ast.parse(path.read_text("utf-8"))) for path in tests.rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize("module", [name for name in MODULES if part(name) not in ("cli", "__main__")])
def test_what_is_imported_inside_a_function_is_slow_or_says_why(module):
    """In `cli` all of the package is, so that --help answers at once (see its docstring)."""
    lines = MODULES[module].read_text(encoding="utf-8").splitlines()
    for item in imports(module):
        if item.when == "call" and item.name not in LATE:
            block = item.line - 1
            while lines[block - 1].strip().startswith(("import ", "from ", "#")) or not lines[block - 1].strip():
                block -= 1
            assert "#" in "".join(lines[block : item.line]), f"{module}, line {item.line}: why inside a function?"
