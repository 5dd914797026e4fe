from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stream.aws.errors import AccessRefused
from stream.errors import Fatal, Retryable
from stream.storage.aside import Aside
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


def test_internal_files_are_neither_listed_nor_reachable(tmp_path: Path) -> None:
    async def main() -> None:
        store = DirectoryStore(tmp_path)
        await store.put("k", b"1")
        assert (tmp_path / ".stream").is_dir()
        assert [info.key async for info in store.list("")] == ["k"]
        with pytest.raises(Fatal, match="reserved"):
            await store.put(".stream/claims/00", b"")

    asyncio.run(main())


def test_no_temporary_file_is_left_behind(tmp_path: Path) -> None:
    async def main() -> None:
        store = DirectoryStore(tmp_path, fsync=False)
        tag = await store.create("k", b"1")
        assert tag is not None
        await store.create("k", b"2")
        await store.replace("k", b"2", tag)
        await store.replace("k", b"3", tag)
        await store.put("k", b"4")

    asyncio.run(main())
    assert [path for path in (tmp_path / ".stream").rglob("*") if not path.is_dir()] == []


def test_a_root_that_is_a_file_is_fatal(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_bytes(b"")

    async def main() -> None:
        with pytest.raises(Fatal, match=f"cannot use the store file://{root}"):
            await DirectoryStore(root).put("k", b"")

    asyncio.run(main())


def test_writability_is_checked_without_writing(tmp_path: Path) -> None:
    asyncio.run(DirectoryStore(tmp_path / "not" / "there" / "yet").check_writable())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Fatal, match=r"file: Not a directory\. Remedy: check that the path is a writable directory"):
            asyncio.run(DirectoryStore(root).check_writable())


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_directory_that_may_not_be_written_to_any_more_is_access_refused_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A file system that the kernel has mounted read-only after an error, say: a person repairs that, and the process is all right."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number), "k")

    async def main() -> None:
        store = DirectoryStore(tmp_path)
        await store.put("k", b"")
        with monkeypatch.context() as context:
            context.setattr("stream.storage.directory.os.open", refuse)
            with pytest.raises(AccessRefused, match="Remedy: give the user in use write access") as refused:
                await store.put("k", b"")
            assert refused.value.code == errno.errorcode[number]
        await store.put("k", b"")

    asyncio.run(main())


def test_a_name_too_long_for_the_file_system_is_fatal(tmp_path: Path) -> None:
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
        self._aside = Aside(self.url, threads=parties)
        self._barrier = threading.Barrier(parties, timeout=120)

    @contextmanager
    def _written_temporary(self, body: bytes) -> Iterator[tuple[Path, str]]:
        with super()._written_temporary(body) as written:
            self._barrier.wait()
            yield written


def test_colliding_creates_leave_one_winner_and_its_bytes(tmp_path: Path) -> None:
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


class FrozenStore(DirectoryStore):
    """Stops when it is about to complete a claim, once before it reads it and once before it acts, until the test lets it continue."""

    def __init__(self, root: Path, at: str) -> None:
        super().__init__(root, fsync=False)
        self._at = at
        self.frozen, self.go_on = threading.Event(), threading.Event()

    def _stop(self, at: str) -> None:
        if at == self._at and not self.frozen.is_set():
            self.frozen.set()
            assert self.go_on.wait(120)

    def _complete(self, path: Path, tag: str) -> None:
        self._stop("claimed")
        super()._complete(path, tag)
        self._stop("completed")

    def _install(self, aside: Path, path: Path) -> None:
        self._stop("checked")
        super()._install(aside, path)


@pytest.mark.parametrize("at", ["claimed", "checked", "completed"])
@pytest.mark.parametrize("puts", [0, 1, 2])
def test_a_frozen_writer_blocks_nobody_and_wins_what_it_had_claimed(tmp_path: Path, at: str, puts: int) -> None:
    async def main() -> None:
        frozen, other = FrozenStore(tmp_path, at), DirectoryStore(tmp_path, fsync=False)
        first = await other.create("k", b"first")
        assert first is not None
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(frozen.replace("k", b"of the frozen one", first))
            await asyncio.to_thread(frozen.frozen.wait)
            assert await other.replace("k", b"of the other one", first) is None
            between = await other.get("k")
            for _ in range(puts):
                await other.put("k", b"of the other one")
            found = await other.get("k")
            frozen.go_on.set()
        assert between is not None
        assert (between.body, between.etag) == (b"of the frozen one", waiting.result())
        assert found is not None
        assert found.body == (b"of the other one" if puts else b"of the frozen one")
        assert await other.get("k") == found

    asyncio.run(main())
    assert [path for path in (tmp_path / ".stream").rglob("*") if not path.is_dir()] == []


def test_a_writer_that_claims_an_outdated_version_changes_nothing(tmp_path: Path) -> None:
    class Late(DirectoryStore):
        """Lets its version be replaced after it looked and before it claims."""

        def _written_temporary(self, body: bytes) -> AbstractContextManager[tuple[Path, str]]:
            other = DirectoryStore(tmp_path, fsync=False)
            asyncio.run(other.put("k", b"second"))
            asyncio.run(other.put("k", b"third"))
            return super()._written_temporary(body)

    async def main() -> None:
        late = Late(tmp_path, fsync=False)
        first = await DirectoryStore(tmp_path, fsync=False).create("k", b"first")
        assert first is not None
        assert await late.replace("k", b"late", first) is None
        found = await late.get("k")
        assert found is not None
        assert found.body == b"third"

    asyncio.run(main())
    assert [path for path in (tmp_path / ".stream").rglob("*") if not path.is_dir()] == []


def test_folders_that_another_process_makes_meanwhile_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(made: Callable[..., Any], folder_of: Callable[..., Path]) -> Callable[..., Any]:
        def make(*given: Any) -> Any:
            try:
                return made(*given)
            except FileNotFoundError:
                folder_of(*given).mkdir(parents=True)
                raise

        return make

    monkeypatch.setattr(os, "link", overtaken(os.link, lambda _, target: target.parent))
    monkeypatch.setattr(os, "open", overtaken(os.open, lambda path, *_: path.parent))

    async def main() -> None:
        store = DirectoryStore(tmp_path, fsync=False)
        assert await store.create("a/b/k", b"mine") is not None
        found = await store.get("a/b/k")
        assert found is not None
        assert found.body == b"mine"

    asyncio.run(main())


@pytest.mark.parametrize("there", [False, True])
def test_what_is_put_is_there_although_another_writer_has_created_or_replaced_it_meanwhile(tmp_path: Path, there: bool) -> None:
    class Late(DirectoryStore):
        """Lets another one write once, after it looked and before it writes."""

        overtaken = False

        def _written_temporary(self, body: bytes) -> AbstractContextManager[tuple[Path, str]]:
            if not self.overtaken:
                self.overtaken = True
                asyncio.run(self._let_another_one_write())
            return super()._written_temporary(body)

        async def _let_another_one_write(self) -> None:
            other = DirectoryStore(tmp_path, fsync=False)
            before = await other.get("k")
            written = await (other.replace("k", b"other", before.etag) if before else other.create("k", b"other"))
            assert written is not None

    async def main() -> None:
        if there:
            await DirectoryStore(tmp_path, fsync=False).create("k", b"before")
        late = Late(tmp_path, fsync=False)
        await late.put("k", b"put")
        found = await late.get("k")
        assert late.overtaken
        assert found is not None
        assert found.body == b"put"

    asyncio.run(main())


def test_a_claim_whose_file_was_removed_is_an_error_and_not_an_endless_wait(tmp_path: Path) -> None:
    async def main() -> None:
        store = DirectoryStore(tmp_path, fsync=False)
        tag = await store.create("k", b"first")
        assert tag is not None
        claim = store._claim(tmp_path / "k", tag)
        claim.parent.mkdir()
        claim.symlink_to("gone")
        for call in (store.put("k", b""), store.replace("k", b"", tag)):
            with pytest.raises(Fatal, match=r"the file .*gone.* was removed from under .*remove .* while no worker runs"):
                await call

    asyncio.run(main())


def test_errors_do_not_contain_values_of_partition_columns(tmp_path: Path) -> None:
    too_long = "TAGGED" * 60

    async def run() -> str:
        with pytest.raises((Fatal, Retryable), match=r"mail=\*/a.parquet") as caught:
            await DirectoryStore(tmp_path).get(f"mail={too_long}/a.parquet")
        return str(caught.value)

    assert "TAGGED" not in asyncio.run(run())


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What was written to the disk (``sync``) or put in its place (``place``), by inode, in order."""
    found: list[tuple[str, int]] = []
    fsync, link, rename, unlink = os.fsync, os.link, os.rename, os.unlink

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        found.append(("sync", os.fstat(descriptor).st_ino))

    def noted_link(source: Path, target: Path) -> None:
        link(source, target)
        found.append(("place", Path(target).stat().st_ino))

    def noted_rename(source: Path, target: Path) -> None:
        rename(source, target)
        found.append(("place", Path(target).stat().st_ino))

    def noted_unlink(path: Path, **options: int) -> None:
        found.append(("remove", os.lstat(path).st_ino))
        unlink(path, **options)

    for name, noted in (("fsync", noted_fsync), ("link", noted_link), ("rename", noted_rename), ("unlink", noted_unlink)):
        monkeypatch.setattr(os, name, noted)
    return found


def test_what_is_acknowledged_is_on_the_disk(tmp_path: Path, steps: list[tuple[str, int]]) -> None:
    """The content before the name, then the folder that has the name, and each new folder in the one above."""
    path, above = tmp_path / "a" / "b" / "k", [tmp_path, tmp_path / "a"]

    async def acknowledged(call: Awaitable[object]) -> list[tuple[str, int]]:
        steps.clear()
        assert await call is not False
        inode, folder = path.stat().st_ino, path.parent.stat().st_ino
        wanted = [("sync", inode), ("place", inode), ("sync", folder)]
        at = iter(steps)
        assert all(step in at for step in wanted), (wanted, steps)
        return list(steps)

    async def main() -> None:
        store = DirectoryStore(tmp_path)
        first = await acknowledged(store.put("a/b/k", b"1"))
        assert {("sync", each.stat().st_ino) for each in above} <= set(first)
        stored = await store.get("a/b/k")
        assert stored is not None
        tag = stored.etag
        await acknowledged(store.replace("a/b/k", b"22", tag))
        await acknowledged(store.put("a/b/k", b"333"))
        inode, folder = path.stat().st_ino, path.parent.stat().st_ino
        steps.clear()
        await store.delete("a/b/k")
        assert steps == [("remove", inode), ("sync", folder)]
        steps.clear()
        await DirectoryStore(tmp_path, fsync=False).put("a/b/k", b"1")
        assert "sync" not in {what for what, _ in steps}

    asyncio.run(main())


def test_a_file_that_is_changed_in_place_while_it_is_read_is_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can tell what was read: some of it may be of the one, and some of the other."""
    from stream.storage import directory

    version, path, changes = directory._version, tmp_path / "k", [b"changed since"]

    def changing(status: os.stat_result) -> str:
        found = version(status)
        if changes:
            path.write_bytes(changes.pop())
        return found

    async def main() -> None:
        store = DirectoryStore(tmp_path)
        path.write_bytes(b"as listed")
        info = await store.stat("k")
        assert info is not None
        with monkeypatch.context() as patched:
            patched.setattr(directory, "_version", changing)
            assert await store.read_range("k", 0, 4, info.version) is None
        assert not changes
        again = await store.stat("k")
        assert again is not None
        assert await store.read_range("k", 0, 4, again.version) == b"chan"

    asyncio.run(main())
