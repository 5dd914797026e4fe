"""A verb that takes long to load its libraries says so, since it shows nothing else meanwhile; and it does nothing else meanwhile."""

import gc
import importlib
import subprocess
import sys
import threading

import pytest

from stream.cli.loading import telling_if_slow, uncollected


class Heard:
    """A standard error that keeps what is written, and tells when it is flushed."""

    def __init__(self):
        self.text = ""
        self.flushed = threading.Event()

    def write(self, text):
        self.text += text

    def flush(self):
        self.flushed.set()


def test_loading_that_takes_long_is_told_once_with_its_likely_cause(monkeypatch):
    heard = Heard()
    monkeypatch.setattr(sys, "stderr", heard)
    with telling_if_slow(0.0):
        assert heard.flushed.wait(120)
    assert heard.text.startswith("still loading libraries after 0 s, with ")
    assert heard.text.endswith("this machine is busy, or the CPU limit of the container is low\n")
    assert heard.text.count("\n") == 1


def test_usual_loading_is_silent_and_leaves_no_thread(monkeypatch):
    monkeypatch.setattr(sys, "stderr", heard := Heard())
    before = set(threading.enumerate())
    with telling_if_slow(120.0):
        (timer,) = set(threading.enumerate()) - before
    timer.join(120)
    assert not timer.is_alive()
    assert heard.text == ""


PROGRAM = """
import gc
full = []
gc.callbacks.append(lambda phase, about: full.append(about["generation"]) if phase == "start" else None)
from stream.cli.loading import load
full.clear()
load("stream.cli.check")
print(full, gc.isenabled(), gc.get_freeze_count() > 100_000)
"""


def test_loading_looks_for_no_garbage_and_exempts_what_it_loaded():
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert found.stdout == "[] True True\n"


def test_a_library_that_cannot_be_loaded_leaves_the_collector_as_it_was():
    with pytest.raises(ModuleNotFoundError), uncollected():
        importlib.import_module("stream.cli.no_such_verb")
    assert gc.isenabled()
