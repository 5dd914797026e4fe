"""A verb that takes long to load its libraries says so, since it shows nothing else meanwhile."""

import sys
import threading

from stream.cli.loading import telling_if_slow


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
