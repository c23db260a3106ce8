"""What may import what (docs/definitions and CONTRIBUTING rely on it), read from the syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "bluffscope"
STAGES = ("pairs", "plan", "model", "sae", "metrics", "table")
LEAVES = ("config", "records", "errors", "noise", "identity", "timing", "precision")


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """Modules that a file imports at run time, those inside functions too unless only the top level is asked for."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in modules if (SOURCE.parent / Path(*name.split("."))).with_suffix(".py").exists()}
        if is_typing_only(node):
            continue
        if top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        waiting += ast.iter_child_nodes(node)
    return found


FILES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def part(module: str) -> str:
    """The first name below bluffscope."""
    return (module.split(".") + [""])[1] if module.startswith("bluffscope") else ""


def inside(module: str) -> set[str]:
    return {part(name) for name in imports(FILES[module]) if name.startswith("bluffscope.")}


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_leaf_knows_other_leaves_only(leaf):
    assert inside(f"bluffscope.{leaf}") <= set(LEAVES)


@pytest.mark.parametrize("module", [name for name in FILES if part(name) in STAGES])
def test_stages_never_import_each_other(module):
    assert not inside(module) & (set(STAGES) - {part(module)})


@pytest.mark.parametrize("module", [name for name in FILES if part(name) == "engine"])
def test_the_engine_takes_a_worker_and_knows_no_pipeline(module):
    assert not inside(module) & {"pipeline", "worker", "run", *STAGES}


@pytest.mark.parametrize("module", [name for name in FILES if part(name).startswith("reference")])
def test_the_reference_shares_no_code_with_the_engine(module):
    assert not inside(module) & {*STAGES, "pipeline", "worker", "run", "rows"}


@pytest.mark.parametrize("module", list(FILES))
def test_sae_lens_is_imported_only_where_a_run_needs_it(module):
    assert not {name for name in imports(FILES[module], top_level=True) if name.split(".")[0] == "sae_lens"}


def test_there_is_no_cycle():
    graph = {name: {other for other in imports(path, top_level=True) if other in FILES} for name, path in FILES.items()}
    for name, needed in graph.items():
        needed.discard(name)
        if FILES[name].name == "__init__.py":  # a package re-exports its own modules
            graph[name] = {other for other in needed if not other.startswith(name + ".")}
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("module", list(FILES))
def test_nothing_prints(module):
    calls = [
        node for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
    ]
    assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


@pytest.mark.parametrize("module", ["bluffscope", "bluffscope.report", "bluffscope.table", "bluffscope.pairs"])
def test_importing_it_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
