from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stream.errors import Fatal
from stream.storage.directory import DirectoryStore


def test_a_key_cannot_also_be_the_prefix_of_other_keys(tmp_path: Path) -> None:
    async def main() -> None:
        store = DirectoryStore(tmp_path)
        assert await store.create("a/b", b"") is not None
        for call in (store.create("a", b""), store.put("a", b""), store.create("a/b/c", b""), store.put("a/b/c", b"")):
            with pytest.raises(Fatal, match="cannot use the store"):
                await call
        assert await store.get("a") is None
        assert await store.get("a/b/c") is None
        await store.delete("a")
        await store.delete("a/b/c")
        assert [info.key async for info in store.list("")] == ["a/b"]

    asyncio.run(main())


def test_the_stores_own_files_are_neither_listed_nor_reachable(tmp_path: Path) -> None:
    async def main() -> None:
        store = DirectoryStore(tmp_path)
        await store.put("k", b"1")
        assert (tmp_path / ".stream").is_dir()
        assert [info.key async for info in store.list("")] == ["k"]
        with pytest.raises(Fatal, match="reserved"):
            await store.put(".stream/locks/00", b"")

    asyncio.run(main())


def test_nothing_is_left_aside(tmp_path: Path) -> None:
    async def main() -> None:
        store = DirectoryStore(tmp_path, fsync=False)
        tag = await store.create("k", b"1")
        assert tag is not None
        await store.create("k", b"2")
        await store.replace("k", b"2", tag)
        await store.replace("k", b"3", tag)
        await store.put("k", b"4")

    asyncio.run(main())
    assert list((tmp_path / ".stream" / "aside").iterdir()) == []


def test_a_root_that_is_a_file_is_fatal(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_bytes(b"")

    async def main() -> None:
        with pytest.raises(Fatal, match=f"cannot use the store file://{root}"):
            await DirectoryStore(root).put("k", b"")

    asyncio.run(main())


def test_a_name_longer_than_the_file_system_takes_is_fatal(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(Fatal, match="cannot use the store"):
            await DirectoryStore(tmp_path).create("n" * (os.pathconf(tmp_path, "PC_NAME_MAX") + 1), b"")

    asyncio.run(main())


def test_listing_a_root_that_was_never_written_is_empty_and_writes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        store = DirectoryStore(tmp_path / "later")
        assert [info async for info in store.list("")] == []
        await store.delete("k")
        assert await store.get("k") is None

    asyncio.run(main())
    assert not (tmp_path / "later").exists()


class MeetingStore(DirectoryStore):
    """Lets several creates reach the decisive step at the same moment."""

    def __init__(self, root: Path, parties: int) -> None:
        super().__init__(root, fsync=False)
        self._barrier = threading.Barrier(parties, timeout=10)

    @contextmanager
    def _written_aside(self, path: Path, body: bytes) -> Iterator[Path]:
        with super()._written_aside(path, body) as aside:
            self._barrier.wait()
            yield aside


def test_creates_that_collide_leave_one_winner_and_its_bytes(tmp_path: Path) -> None:
    async def main() -> None:
        store = MeetingStore(tmp_path, 4)
        for number in range(100):
            bodies = [f"{number} {i}".encode() for i in range(4)]
            tags = await asyncio.gather(*(store.create(f"k/{number}", body) for body in bodies))
            [winner] = [i for i, tag in enumerate(tags) if tag is not None]
            found = await store.get(f"k/{number}")
            assert found is not None
            assert found.body == bodies[winner]

    asyncio.run(main())
