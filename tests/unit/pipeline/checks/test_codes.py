from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from stream.pipeline.checks.codes import CODES
from tests.unit.pipeline.checks.test_lint import CORPUS, expected

ROOT = Path(__file__).parents[4]
GIVERS = {"fail_at", "problem", "add", "_add", "_finding", "Finding", "Problem", "BadReference"}
WORD = re.compile(r"[a-z]+(_[a-z]+)+")


def words(tree):
    """Texts used as codes: arguments of functions that create findings, and values assigned to `code`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in GIVERS:
            yield from (each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str))
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and getattr(node.targets[0].elts[0], "id", "") == "code":
            yield from (each.value for each in getattr(node.value, "elts", [])[:1] if isinstance(each, ast.Constant))


def given():
    sources = sorted((ROOT / "stream" / "pipeline").rglob("*.py"))
    return {word for path in sources for word in words(ast.parse(path.read_text())) if WORD.fullmatch(word)}


def test_every_code_in_use_is_explained():
    assert len(given()) > 25
    assert given() - set(CODES) == set()


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_every_code_of_the_corpus_is_explained(path):
    assert {code for _, code in expected(path.read_text())} <= set(CODES)


def test_every_explained_code_is_in_use():
    text = "".join(path.read_text() for path in (ROOT / "stream" / "pipeline").rglob("*.py") if path.name != "codes.py")
    made = {f"{verb}_{what}" for verb in ("bad", "unknown") for what in ("stage", "decoder", "sink")}
    assert [code for code in CODES if f'"{code}"' not in text and code not in made] == []
