"""Limits on the length of modules and functions, and no import cycles."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

import stream

ROOT = Path(stream.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50


# One test for all modules: that a test is begun and reported takes longer than reading a module.


def test_no_module_is_too_long():
    lines = {named(module): len(module.read_text().splitlines()) for module in MODULES}
    long = {name: count for name, count in lines.items() if count > MAX_MODULE_LINES}
    assert long == {}, "move what has its own subject to a module of its own"


def test_no_function_is_too_long():
    lines = {
        f"{named(module)}:{each.lineno} {each.name}": lines_of(each)
        for module in MODULES
        for each in ast.walk(ast.parse(module.read_text()))
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: count for name, count in lines.items() if count > MAX_FUNCTION_LINES} == {}


def test_modules_are_found():
    assert len(MODULES) > 100


def named(path):
    return str(path.relative_to(ROOT))


def lines_of(function):
    """Lines of code from ``def`` to the end, without the docstring."""
    last = function.end_lineno
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return last - function.lineno + 1 - (first.end_lineno - first.lineno + 1 if is_docstring else 0)


def test_no_module_imports_itself_through_others():
    """Imports inside functions and under ``TYPE_CHECKING`` count, too: they hide a cycle without breaking it."""
    assert cycle_in(grimp.build_graph("stream", cache_dir=None)) == []


def test_a_cycle_is_found():
    graph = grimp.ImportGraph()
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "b")):
        graph.add_import(importer=importer, imported=imported)
    assert sorted(set(cycle_in(graph))) == ["b", "c"]


def cycle_in(graph):
    """The modules of one cycle, in the order of their imports; empty if there is none."""
    try:
        TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}).prepare()
    except CycleError as error:
        return error.args[1]
    return []
