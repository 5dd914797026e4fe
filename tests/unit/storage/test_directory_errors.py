"""What a directory that cannot be used is told from one that is only out of order for a while."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from stream.aws.errors import AccessRefused
from stream.errors import Fatal, Retryable
from stream.storage.directory import DirectoryStore
from stream.storage.directory_errors import translate

NOWHERE = "it is a symbolic link that leads nowhere"


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "place")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ESTALE, errno.ENOTCONN, errno.EIO, errno.EMFILE, errno.ETIMEDOUT, errno.ENOENT])
def test_what_may_pass_is_tried_again(number: int) -> None:
    assert isinstance(translate(error(number), "file:lake"), Retryable)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTCONN, errno.EIO, errno.ENOSPC])
def test_what_a_person_can_do_about_it_is_said(number: int) -> None:
    assert "Remedy: " in str(translate(error(number), "file:lake"))


@pytest.mark.parametrize(
    "number", [errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV]
)
def test_what_stays_as_it_is_is_not_tried_again(number: int) -> None:
    refused = translate(error(number), "file:lake")
    assert type(refused) is Fatal
    assert f"place: {os.strerror(number)}. Remedy: " in str(refused)


def unusable(folder: Path) -> dict[str, Path]:
    """Places at which no directory can be made, not even by root."""
    (folder / "file").touch()
    (folder / "nowhere").symlink_to(folder / "missing")
    (folder / "loop").symlink_to(folder / "loop")
    return {
        "file": folder / "file",
        "below a file": folder / "file" / "a" / "b",
        "link to nowhere": folder / "nowhere",
        "below a link to nowhere": folder / "nowhere" / "a",
        "loop": folder / "loop",
        "long name": folder / ("n" * (os.pathconf(folder, "PC_NAME_MAX") + 1)),
    }


@pytest.mark.parametrize("kind", ["file", "below a file", "link to nowhere", "below a link to nowhere", "loop", "long name"])
def test_a_place_for_no_directory_is_refused_by_both_checks_and_by_writes(tmp_path: Path, kind: str) -> None:
    before = set(tmp_path.iterdir())
    place = unusable(tmp_path)[kind]
    store = DirectoryStore(place)
    for call in (store.check_writable, store.prove_writable, lambda: store.put("a/k", b""), lambda: store.create("a/k", b"")):
        with pytest.raises(Fatal, match="cannot use the store") as refused:
            asyncio.run(call())
        assert not isinstance(refused.value, AccessRefused)
        assert ("nowhere" in kind) == (NOWHERE in str(refused.value))
    assert {path.name for path in set(tmp_path.iterdir()) - before} == {"file", "nowhere", "loop"}


def test_a_place_below_which_nothing_can_be_made_is_refused_until_something_is_mounted_there() -> None:
    store = DirectoryStore(Path("/proc/lake/below"))
    for call in (store.prove_writable, lambda: store.put("k", b"")):
        with pytest.raises(AccessRefused, match="no directory can be made at it"):
            asyncio.run(call())


def test_a_file_system_without_a_size_of_its_own_is_not_taken_for_a_full_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = os.statvfs(tmp_path)
    sizeless = os.statvfs_result((facts.f_bsize, facts.f_frsize, 0, 0, 0, *facts[5:10]))
    full = os.statvfs_result((facts.f_bsize, facts.f_frsize, 9, 0, 0, *facts[5:10]))
    monkeypatch.setattr("stream.storage.directory_errors.os.statvfs", lambda _: sizeless)
    asyncio.run(DirectoryStore(tmp_path).check_writable())
    monkeypatch.setattr("stream.storage.directory_errors.os.statvfs", lambda _: full)
    with pytest.raises(Retryable, match="No space left on device"):
        asyncio.run(DirectoryStore(tmp_path).check_writable())


@pytest.mark.parametrize("link", ["hardlink_to", "symlink_to"])
def test_a_file_system_without_links_is_found_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    """Such file systems answer that links are not permitted, which sounds as if write access were missing."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), "k")

    monkeypatch.setattr(Path, link, refuse)
    with pytest.raises(Fatal, match="no hard or symbolic links") as refused:
        asyncio.run(DirectoryStore(tmp_path).prove_writable())
    assert not isinstance(refused.value, AccessRefused)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_a_directory_that_can_be_used_is_proved_and_nothing_but_folders_is_left(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "new" / "lake")
    asyncio.run(store.prove_writable())
    asyncio.run(store.prove_writable())
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    asyncio.run(store.put("k", b"1"))


def test_a_link_to_nowhere_in_the_place_of_an_object_or_its_folder_is_no_object_of_somebody_else(tmp_path: Path) -> None:
    """Taken for one, it would be read, not found, and written again, without end."""
    (tmp_path / "folder").symlink_to(tmp_path / "missing")
    (tmp_path / "object").symlink_to(tmp_path / "missing")
    store = DirectoryStore(tmp_path)
    for key in ("folder/k", "object"):
        for call in (store.create, store.put):
            with pytest.raises(Fatal, match=NOWHERE):
                asyncio.run(call(key, b""))


def test_a_pipe_in_the_place_of_an_object_is_no_object(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "k")
    for call in (DirectoryStore(tmp_path).create, DirectoryStore(tmp_path).put):
        with pytest.raises(Fatal, match="it is not a file"):
            asyncio.run(call("k", b""))
