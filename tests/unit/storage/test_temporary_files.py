"""Files that killed processes left behind are removed; files that running processes still use stay."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stream.storage import temporary_files
from stream.storage.directory import DirectoryStore
from stream.storage.temporary_files import OLD_SECONDS

KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from stream.storage.directory import DirectoryStore

class Killed(DirectoryStore):
    def _die(self, *_):
        os.kill(os.getpid(), signal.SIGKILL)
    {where} = _die

store = Killed(Path(sys.argv[1]), fsync=False)
asyncio.run(store.put("k", b"of the killed one"))
"""


def killed(root: Path, where: str) -> Path:
    """The temporary file of a process that is killed at ``where``, with its time set back, as if that had been long ago."""
    done = subprocess.run([sys.executable, "-c", KILLED.format(where=where), str(root)], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = (root / ".stream" / "aside").iterdir()
    aged(left)
    return left


def aged(path: Path) -> None:
    long_ago = time.time() - OLD_SECONDS - 60
    os.utime(path, (long_ago, long_ago))


def put(root: Path, key: str, body: bytes) -> None:
    asyncio.run(DirectoryStore(root, fsync=False).put(key, body))


def got(root: Path, key: str) -> bytes | None:
    found = asyncio.run(DirectoryStore(root, fsync=False).get(key))
    return None if found is None else found.body


def test_the_first_write_removes_temporary_files_of_a_killed_writer(tmp_path: Path) -> None:
    left = killed(tmp_path, "_link")
    put(tmp_path, "other", b"1")
    assert not left.exists()
    assert (got(tmp_path, "k"), got(tmp_path, "other")) == (None, b"1")


def test_recent_temporary_files_are_kept(tmp_path: Path) -> None:
    left = killed(tmp_path, "_link")
    os.utime(left)
    put(tmp_path, "other", b"1")
    assert left.exists()


def test_a_file_that_a_killed_writer_had_claimed_still_becomes_the_next_version(tmp_path: Path) -> None:
    put(tmp_path, "k", b"first")
    left = killed(tmp_path, "_complete")
    put(tmp_path, "other", b"1")
    assert left.exists()
    assert got(tmp_path, "k") == b"first"
    tag = asyncio.run(DirectoryStore(tmp_path).get("k"))
    assert tag is not None
    assert asyncio.run(DirectoryStore(tmp_path).replace("k", b"late", tag.etag)) is None
    assert got(tmp_path, "k") == b"of the killed one"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_writer_frozen_for_days_still_finds_its_file(tmp_path: Path, replaced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen, go_on = threading.Event(), threading.Event()

    class Frozen(DirectoryStore):
        def _link(self, aside: Path, path: Path) -> None:
            self._stop()
            super()._link(aside, path)

        def _claim(self, path: Path, tag: str) -> Path:
            self._stop()
            return super()._claim(path, tag)

        def _stop(self) -> None:
            frozen.set()
            assert go_on.wait(120)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(Frozen(tmp_path, fsync=False).put("k", b"of the frozen one"))
            await asyncio.to_thread(frozen.wait)
            await DirectoryStore(tmp_path, fsync=False).put("other", b"1")
            go_on.set()

    if replaced:
        put(tmp_path, "k", b"first")
    monkeypatch.setattr(temporary_files, "OLD_SECONDS", -OLD_SECONDS)  # every file is old
    asyncio.run(main())
    assert got(tmp_path, "k") == b"of the frozen one"
    assert list((tmp_path / ".stream" / "aside").iterdir()) == []


def test_foreign_files_are_kept(tmp_path: Path) -> None:
    put(tmp_path, "k", b"1")
    strange = tmp_path / ".stream" / "aside" / "notes.txt"
    strange.write_text("mine")
    aged(strange)
    put(tmp_path, "k", b"2")
    assert strange.read_text() == "mine"
