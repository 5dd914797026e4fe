"""Real workers whose log nobody reads, or whose disk takes nothing more."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.workers import Worker, clean
from tests.chaos.world import World
from tests.disks import CAN_MOUNT, SmallDisk, disk
from tests.ports import free_port

SMALL = 4096
"""The smallest size of a pipe: some ten lines."""


@pytest.fixture
def port() -> Iterator[int]:
    with free_port() as number:
        yield number


@contextmanager
def into_pipe(world: World, path: Path) -> Iterator[tuple[Worker, int]]:
    """A worker whose standard error is a pipe, and the end of it that can be read."""
    log = world.folder / "log"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    worker = Worker([str(path)], world.environment, log)
    world.workers.append(worker)
    worker.log = world.folder / "copy"  # a pipe cannot be read twice
    try:
        yield worker, reader
    finally:
        os.close(reader)


def copy(reader: int, file: Path) -> None:
    """Copy what is read into ``file`` until all writers are gone."""
    with file.open("wb", buffering=0) as copied:
        while found := os.read(reader, SMALL):
            copied.write(found)


def test_a_log_that_nobody_reads_holds_up_neither_shards_nor_probes_and_is_complete_when_it_is_read(world: World, port: int) -> None:
    path = world.pipeline(age="20ms")
    path.write_text(path.read_text().replace("port: 0", f"port: {port}"))
    with into_pipe(world, path) as (worker, reader):
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, SMALL)
        for _ in range(20):
            world.produce(100)
            worker.until(world.committed)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
            assert answer.status == 200
        worker.signal(signal.SIGTERM)
        copy(reader, worker.log)
        assert worker.exit() == 0
    lines = [json.loads(line)["event"] for line in worker.said().splitlines()]
    assert lines.count("unit_sealed") == world.sealed_units() > 20
    assert lines.count("drain_started") == 1
    world.exact()


def test_a_disk_that_takes_nothing_is_named_and_the_worker_goes_on_when_it_does_again(world: World) -> None:
    """The limit on the size of files fails writes as a full disk does, and can be set for a process that runs."""
    with into_pipe(world, world.pipeline()) as (worker, reader):
        world.produce(100)
        worker.until(world.committed)
        # Not before the worker has opened it: a pipe that nobody writes into is at its end.
        reading = threading.Thread(target=copy, args=(reader, worker.log))
        reading.start()
        before = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (64, before[1]))
        world.produce(100)
        worker.until(lambda: "call_repeated" in worker.said())
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, before)
        worker.until(world.committed)
        assert worker.drain() == 0
        reading.join()
    goes_on_after(world, worker, "File too large. Remedy: raise the limit on the size of files")


def goes_on_after(world: World, worker: Worker, cause: str) -> None:
    """What the worker said of ``cause`` is useful, nothing is left of what it could not write, and nothing is missing."""
    lines = [json.loads(line) for line in worker.said().splitlines()]
    repeated = next(line for line in lines if line["event"] == "call_repeated")
    assert "the store file:" in repeated["detail"]
    assert cause in repeated["detail"]
    assert clean(worker.said())
    assert not list(world.folder.rglob(".stream/aside/*"))
    world.exact()


def at_rest(world: World) -> bool:
    """Whether everything is committed and the checkpoints, which follow, say so: the worker has no file open, and none left to remove."""
    if not world.committed():
        return False
    checkpoints = world.objects(f"state/chaos/checkpoints/{world.stream}/")
    stored = {Path(name).stem: int(json.loads(body)["position"]) for name, body in checkpoints.items()}
    return stored == world.ends() and not list(world.folder.rglob(".stream/aside/*"))


if CAN_MOUNT:

    @pytest.fixture
    def small(world: World) -> Iterator[SmallDisk]:
        """The file system that holds state and lake of ``world``, and nothing else."""
        folder = world.folder / "disk"
        folder.mkdir()
        for name in ("state", "lake"):
            (world.folder / name).symlink_to(folder / name)
        with disk("small", folder) as made:
            for name in ("state", "lake"):
                (folder / name).mkdir()
            assert isinstance(made, SmallDisk)
            yield made

    def test_a_worker_on_a_full_disk_says_so_and_goes_on_once_there_is_room(world: World, small: SmallDisk) -> None:
        worker = world.start(world.pipeline())
        world.produce(100)
        worker.until(world.committed)
        with small.full():
            world.produce(100)
            worker.until(lambda: "call_repeated" in worker.said())
        worker.until(world.committed)
        assert worker.drain() == 0
        goes_on_after(world, worker, "No space left on device. Remedy: make room on that file system")

    def test_a_worker_that_starts_on_a_full_disk_waits_until_there_is_room(world: World, small: SmallDisk) -> None:
        world.produce(100)
        with small.full():
            worker = world.start(world.pipeline())
            worker.until(lambda: "call_repeated" in worker.said())
        worker.until(world.committed)
        assert worker.drain() == 0
        goes_on_after(world, worker, "No space left on device. Remedy: make room on that file system")

    def test_a_worker_whose_disk_the_kernel_mounts_read_only_is_halted_and_then_goes_on(world: World, small: SmallDisk) -> None:
        worker = world.start(world.pipeline(age="10ms"))
        world.produce(100)
        worker.until(lambda: at_rest(world))
        with small.read_only():
            world.produce(100)
            worker.until(lambda: "shard_halted" in worker.said())
        worker.until(world.committed)
        assert worker.drain() == 0
        halted = next(json.loads(line) for line in worker.said().splitlines() if "shard_halted" in line)
        assert "Read-only file system" in halted["reason"]
        assert "mount its file system for writing" in halted["reason"]
        assert not list(world.folder.rglob(".stream/aside/*"))
        world.exact()
