"""Tests do not run the benchmarks, so they check here that what these use of the service and of the tests exists."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "benchmarks").rglob("*.py"))


def found(module, name):
    """What ``from module import name`` gives; raises ``ImportError`` if there is none."""
    parent = importlib.import_module(module)
    return getattr(parent, name) if hasattr(parent, name) else importlib.import_module(f"{module}.{name}")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_a_benchmark_imports_from_elsewhere_exists(script):
    tree = ast.parse(script.read_text())
    imports = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"stream", "tests"}
    ]
    used = {alias.asname or alias.name: found(node.module, alias.name) for node in imports for alias in node.names}
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    modules = [node for node in uses if inspect.ismodule(used.get(node.value.id))]
    assert [f"{script.name}:{node.lineno}" for node in modules if not hasattr(used[node.value.id], node.attr)] == []
