import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

RUN = """\
import asyncio, atexit, sys, types
import obstore
import typer
from obstore.store import MemoryStore
from stream.cli import main, process

async def ask():
    store = MemoryStore()
    await obstore.put_async(store, "a", b"b")
    return [obstore.get_async(store, "a") for _ in range(5000)]

def verb(how: str) -> None:
    left = asyncio.run(ask())
    atexit.register(print, "at the end")
    print("done", end=" ")
    if how == "none":
        return
    if how == "crash":
        raise LookupError("nobody foresaw it")
    raise typer.Exit(int(how))

main.VERBS["late"] = "late:verb"
sys.modules["stream.cli.late"] = types.SimpleNamespace(verb=verb)
process.command()
"""


@pytest.mark.parametrize(("how", "code"), [("7", 7), ("0", 0), ("none", 0), ("crash", 1)])
def test_the_exit_code_is_that_of_the_command_whatever_threads_of_the_object_store_do(how, code):
    """Without ``process.leave`` every other such process dies of SIGABRT or SIGSEGV."""
    done = subprocess.run([sys.executable, "-c", RUN, "late", how], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (code, "done at the end\n"), done.stderr
    # Threads of the object store write there too, also in the middle of a line.
    assert ("nobody foresaw it" in done.stderr) == (how == "crash")


LEAVES_DUCKDB_ALIVE = """\
import duckdb, gc, sys, types
from stream.cli import main, process

def verb(how: str) -> None:
    gc.freeze()  # as a worker does
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "crash":
        raise LookupError("nobody foresaw it")

main.VERBS["late"] = "late:verb"
sys.modules["stream.cli.late"] = types.SimpleNamespace(verb=verb)
process.command()
"""


@pytest.mark.parametrize(("how", "code"), [("ends", 0), ("interrupt", 130), ("crash", 1)])
def test_no_library_complains_about_what_is_still_alive_at_the_end(how, code):
    """DuckDB, which `stream demo` uses, prints pages of it when the interpreter is finalized."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_DUCKDB_ALIVE, "late", how], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, "leaked" in done.stderr) == (code, False), done.stderr


def test_the_installed_command_is_this_function():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"stream": "stream.cli.process:command"}
