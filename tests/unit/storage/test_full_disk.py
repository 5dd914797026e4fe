"""What is written where there is no room: all of it or nothing, and a message that says what to do."""

import asyncio
import errno
import os
from pathlib import Path

import pytest

from stream.aws.errors import AccessRefused
from stream.errors import Retryable
from stream.storage.console import ConsoleStore
from stream.storage.directory import DirectoryStore
from stream.storage.whole import write_whole
from tests.disks import CAN_MOUNT, KINDS, PAGE, disk

LARGE = bytes(5 * PAGE)


@pytest.fixture(params=KINDS)
def place(request, tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    with disk(request.param, folder) as made:
        yield made


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_symlink())


@pytest.mark.parametrize("pages", [0, 1])
def test_an_object_for_which_there_is_no_room_is_not_there_in_part_and_works_once_there_is(place, pages):
    async def main():
        store = DirectoryStore(place.folder)
        etag = await store.create("old", b"old")
        for call in (lambda: store.create("new", LARGE), lambda: store.put("old", LARGE), lambda: store.replace("old", LARGE, etag)):
            with place.full(pages), pytest.raises(Retryable, match=r"Remedy: .*goes on by itself") as refused:
                await call()
            assert os.strerror(errno.ENOSPC) in str(refused.value) or os.strerror(errno.EFBIG) in str(refused.value)
            assert files(place.folder) == ["old"]
            assert (await store.get("old")).body == b"old"
        assert await store.create("new", LARGE) is not None
        assert await store.replace("old", LARGE, etag) is not None

    asyncio.run(main())


def test_a_claim_for_which_there_is_no_room_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def main():
        store = DirectoryStore(tmp_path)
        etag = await store.create("old", b"old")
        with monkeypatch.context() as context:
            context.setattr(Path, "symlink_to", full)
            with pytest.raises(Retryable):
                await store.replace("old", b"new", etag)
        assert files(tmp_path) == ["old"]
        assert await store.replace("old", b"new", etag) is not None

    asyncio.run(main())


if CAN_MOUNT:

    def test_a_disk_that_is_mounted_read_only_is_waited_for_as_access_that_was_taken_away(tmp_path):
        async def main(place):
            store = DirectoryStore(place.folder)
            await store.put("old", b"old")
            with place.read_only():
                with pytest.raises(AccessRefused, match="mount its file system for writing"):
                    await store.put("old", b"new")
                assert (await store.get("old")).body == b"old"
            await store.put("old", b"new")
            assert files(place.folder) == ["old"]

        with disk("small", tmp_path) as place:
            asyncio.run(main(place))


def lines(mark):
    return b"".join(b"%s %d\n" % (mark, number) for number in range(3000))


def test_rows_of_which_a_part_was_printed_are_completed_before_others_and_none_is_printed_twice(place):
    first, second = lines(b"first"), lines(b"second")

    async def main(out):
        store = ConsoleStore(out)
        with place.full(2):
            for key, body in (("a", first), ("b", second)):
                with pytest.raises(Retryable, match="Remedy: make room"):
                    await store.put(key, body)
        await store.put("b", second)
        await store.put("a", first)
        await store.put("a", first)

    with (place.folder / "out").open("wb", buffering=0) as out:
        asyncio.run(main(out.fileno()))
    assert (place.folder / "out").read_bytes() == first + second + first


@pytest.mark.parametrize("before", [None, b"before"])
def test_a_file_that_cannot_be_written_whole_stays_as_it_was(place, before):
    path = place.folder / "result.json"
    if before is not None:
        path.write_bytes(before)
    with place.full(1), pytest.raises(OSError, match=r"result\.json") as refused:
        write_whole(path, LARGE)
    assert refused.value.filename == str(path)
    assert files(place.folder) == (["result.json"] if before else [])
    assert before is None or path.read_bytes() == before
    write_whole(path, LARGE)
    assert (path.read_bytes(), files(place.folder)) == (LARGE, ["result.json"])


def test_a_claim_that_may_be_there_in_spite_of_the_error_keeps_its_file_and_is_completed_by_the_next_writer(tmp_path, monkeypatch):
    make = Path.symlink_to

    def made_all_the_same(claim, target):
        make(claim, target)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def main():
        store = DirectoryStore(tmp_path)
        etag = await store.create("old", b"old")
        with monkeypatch.context() as context:
            context.setattr(Path, "symlink_to", made_all_the_same)
            with pytest.raises(Retryable):
                await store.replace("old", b"new", etag)
        assert await DirectoryStore(tmp_path).replace("old", b"of another one", etag) is None
        assert (await store.get("old")).body == b"new"
        assert files(tmp_path) == ["old"]

    asyncio.run(main())
