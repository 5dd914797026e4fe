"""Objects as files in a local directory, with the same compare-and-swap as S3.

Writes go to a temporary file that is then linked (create) or renamed (replace, put) into place, so a reader sees a whole object or
none, and an object never changes in place. ``<root>/.stream`` holds those files and the claims; it is not part of the objects.

There are no locks: a process that is frozen or killed at any point stops nobody. To replace a version, a process first puts up a *claim*
on it: a symbolic link that exists only once and names the next file. From then on everybody can complete the claim, and the
file that it names can be renamed into place only once:

- Only the claim on the current version can end that version, so a claim put up while its version is current is fulfilled by
  its own file and no other. It is taken down only after that, so no second claim on that version can count.
- A claim on a version that had already ended is detected by looking at the object *after* reading the claim; it has no effect.
"""

from __future__ import annotations

import builtins
import errno
import hashlib
import os
import random
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice, takewhile
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from stream.contracts import ObjectInfo, Stored
from stream.errors import Fatal
from stream.storage.aside import Unanswered, aside_for
from stream.storage.directory_errors import FULL, make_folder, refuse_unwritable, translate, unanswered, without_links
from stream.storage.keys import by_place, check_key, without_values
from stream.storage.temporary_files import hold, remove_leftovers

_RESERVED: Final = ".stream"
_LIST_CHUNK: Final = 1000
_P = ParamSpec("_P")
_T = TypeVar("_T")


class DirectoryStore:
    """An ``ObjectStore`` over the directory ``root``, shared by any number of threads and processes of one machine.

    A call that does not return within ``HUNG_SECONDS``, as on a dead NFS mount, raises ``Retryable``; it may have an effect later, like a
    write of a stale worker. With ``fsync`` (the default) an acknowledged write survives a power cut. The file system must have hard and
    symbolic links and times in nanoseconds, as the local ones of Linux do. A ``delete`` is not ordered against a ``replace`` of the same
    key at the same moment.
    """

    def __init__(self, root: Path, *, fsync: bool = True, url: str | None = None) -> None:
        self._root = root.absolute()
        self._temporary_folder = self._root / _RESERVED / "aside"
        self._claims = self._root / _RESERVED / "claims"
        self._fsync = fsync
        self._tidy = False
        """Whether files that killed processes left behind have been removed, which happens once, before the first write."""
        self._url = url or f"file://{self._root}"
        self._aside = aside_for(self._url)

    @property
    def url(self) -> str:
        """The root, as a person would write it."""
        return self._url

    async def create(self, key: str, body: bytes) -> str | None:
        """See ``contracts.ObjectStore``."""
        return await self._run("create", self._create, self._path(key), body)

    async def replace(self, key: str, body: bytes, etag: str) -> str | None:
        """See ``contracts.ObjectStore``."""
        return await self._run("replace", self._replace, self._path(key), body, etag)

    async def put(self, key: str, body: bytes) -> None:
        """See ``contracts.ObjectStore``."""
        await self._run("write", self._put, self._path(key), body)

    async def get(self, key: str) -> Stored | None:
        """See ``contracts.ObjectStore``."""
        return await self._run("read", _read, self._path(key))

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See ``contracts.ObjectStore``."""
        found = _walk(self._root, "", prefix, after)

        def next_chunk(_: Path) -> builtins.list[ObjectInfo]:
            return builtins.list(islice(found, _LIST_CHUNK))

        while chunk := await self._run("list", next_chunk, self._root / prefix):
            for info in chunk:
                yield info

    async def folders(self, prefix: str) -> builtins.list[str]:
        """Names of the directories right under ``prefix``, which ends in a slash, that have files below them."""
        return await self._run("list", _folders, self._root, prefix)

    async def read_range(self, key: str, start: int, end: int, version: str) -> bytes | None:
        """See ``contracts.RangedStore``."""
        return await self._run("read", _read_range, self._path(key), start, end, version)

    async def stat(self, key: str) -> ObjectInfo | None:
        """See ``contracts.RangedStore``."""
        path = self._path(key)
        info = await self._run("look at", _info, path, key)
        return None if info is None or await self._run("look at", Path.is_dir, path) else info

    async def delete(self, key: str) -> None:
        """See ``contracts.ObjectStore``."""
        await self._run("delete", self._delete, self._path(key))

    async def check_writable(self) -> None:
        """Make sure that objects could be written here, as far as can be determined without writing one.

        Raises:
            Fatal: this user may not write here, or the file system is mounted read-only.
            Retryable: no space is left.
        """
        await self._run("look at", refuse_unwritable, self._temporary_folder)

    async def prove_writable(self) -> None:
        """Make the store's own folders, and make sure that objects can be written here and replaced.

        Raises:
            Fatal: the folders cannot be made, this user may not write here, or the file system lacks links.
            Retryable: no space is left, or the file system does not answer.
        """
        await self._run("write to", self._prove_writable, self._temporary_folder)

    def _path(self, key: str) -> Path:
        check_key(key, self._url)
        if key.split("/", 1)[0] == _RESERVED:
            msg = f"the object key {key!r} under {self._url} is reserved: the store's own files are there. Use another key."
            raise Fatal(msg)
        return self._root / key

    async def _run(self, what: str, function: Callable[Concatenate[Path, _P], _T], path: Path, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        call = f"to {what} {without_values(str(path))}"
        try:
            return await self._aside(call, function, path, *args, **kwargs)
        except OSError as error:
            raise translate(error, self._url) from error
        except Unanswered as error:
            raise unanswered(self._url, error.call, error.seconds) from error

    def _prove_writable(self, _folder: Path) -> None:
        make_folder(self._claims)
        with self._written_temporary(b"") as (temporary, _):
            try:
                trial = temporary.with_name(_unused_name())
                for link in (trial.hardlink_to, trial.symlink_to):
                    with without_links():
                        link(temporary)
                    trial.unlink()
            finally:
                temporary.unlink()

    def _create(self, path: Path, body: bytes) -> str | None:
        with self._written_temporary(body) as (temporary, tag):
            try:
                self._link(temporary, path)
                self._sync_directory(path.parent)
            except FileExistsError:
                _refuse_what_is_no_object(path)
                return None
            else:
                return tag
            finally:
                temporary.unlink()

    def _link(self, temporary: Path, path: Path) -> None:
        try:
            os.link(temporary, path)
        except FileNotFoundError:
            new = [*takewhile(lambda each: not each.exists(), path.parents)]
            make_folder(path.parent)
            for each in new:
                # Else the folder, with all that is in it, may be gone after a power cut.
                self._sync_directory(each.parent)
            os.link(temporary, path)

    def _replace(self, path: Path, body: bytes, etag: str) -> str | None:
        if _tag_at(path) != etag:
            return None
        with self._written_temporary(body) as (temporary, tag):
            try:
                self._make_claim(self._claim(path, etag), temporary.name)
            except FileExistsError:
                temporary.unlink()
                self._complete(path, etag)
                return None
            except OSError as error:
                if error.errno in FULL:  # else the claim may be there all the same
                    temporary.unlink()
                raise
            # From here on others may put the file in place, so only proof that the claim came too late allows removing it.
            self._complete(path, etag)
            if temporary.exists():
                temporary.unlink()
                return None
            return tag

    def _put(self, path: Path, body: bytes) -> None:
        while True:
            current = _tag_at(path)
            done = self._create(path, body) if current is None else self._replace(path, body, current)
            if done is not None:
                return

    def _complete(self, path: Path, tag: str) -> None:
        """Afterwards version ``tag`` of ``path`` is not the current one and no claim on it is left; its successor is in place."""
        claim = self._claim(path, tag)
        try:
            claimed = claim.readlink()
        except FileNotFoundError:
            return
        if _tag_at(path) == tag:
            self._install(self._temporary_folder / claimed, path)
        self._sync_directory(path.parent)
        if _tag_at(path) == tag:
            msg = (
                f"{path} cannot be replaced: the file {self._temporary_folder / claimed}, which was to be its next version, was removed "
                f"from under {self._url}. Restore it, or remove {claim} while no worker runs on this store."
            )
            raise Fatal(msg)
        claim.unlink(missing_ok=True)

    def _install(self, temporary: Path, path: Path) -> None:
        with suppress(FileNotFoundError):
            temporary.rename(path)

    def _make_claim(self, claim: Path, name: str) -> None:
        try:
            claim.symlink_to(name)
        except FileNotFoundError:
            make_folder(self._claims)
            claim.symlink_to(name)

    def _claim(self, path: Path, tag: str) -> Path:
        return self._claims / f"{hashlib.sha256(os.fsencode(path.relative_to(self._root))).hexdigest()}-{tag}"

    def _delete(self, path: Path) -> None:
        if path.is_file():
            path.unlink(missing_ok=True)
            self._sync_directory(path.parent)

    @contextmanager
    def _written_temporary(self, body: bytes) -> Iterator[tuple[Path, str]]:
        """A new file with ``body``, and its tag; it is held as long as the context, so that it is not taken for a leftover."""
        if not self._tidy:
            self._tidy = True
            remove_leftovers(self._temporary_folder, self._claims)
        temporary = self._temporary_folder / _unused_name()
        descriptor = self._opened(temporary)
        try:
            hold(descriptor)
            try:
                tag = self._written(descriptor, body)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            yield temporary, tag
        finally:
            os.close(descriptor)

    def _written(self, descriptor: int, body: bytes) -> str:
        rest = memoryview(body)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        # The file system's time advances only every few milliseconds, in which an inode can be freed and reused.
        os.utime(descriptor, ns=(now := time.time_ns(), now))
        if self._fsync:
            os.fsync(descriptor)
        return _tag(os.fstat(descriptor))

    def _opened(self, temporary: Path) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(temporary, flags, 0o666)
        except FileNotFoundError:
            make_folder(self._temporary_folder)
            return os.open(temporary, flags, 0o666)

    def _sync_directory(self, directory: Path) -> None:
        if not self._fsync:
            return
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unused_name() -> str:
    """The name of a new file beside the objects, which no other process of any machine has in use."""
    return f"{os.getpid()}-{_NAMES.getrandbits(64):016x}"


def _refuse_what_is_no_object(path: Path) -> None:
    """Raise if what is at ``path``, where an object was to be created, never becomes one: then nobody else was faster either."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a key must not also be the prefix of other keys", str(path))
    if path.is_symlink() and not path.exists():
        raise FileExistsError(errno.EEXIST, "it is a symbolic link that leads nowhere, in the place of an object", str(path))
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "it is not a file, in the place of an object", str(path))


_NAMES: Final = random.Random()  # noqa: S311 - names are no secrets, and asking the system for each is a call more
_ABSENT: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def _read(path: Path) -> Stored | None:
    try:
        with path.open("rb") as file:
            return Stored(file.read(), _tag(os.fstat(file.fileno())))
    except _ABSENT:
        return None


def _tag_at(path: Path) -> str | None:
    try:
        status = path.stat()
    except _ABSENT:
        return None
    return _tag(status) if stat.S_ISREG(status.st_mode) else None


def _tag(status: os.stat_result) -> str:
    """Distinguishes one write from every other, even of the same content: no two files have the same inode at the same nanosecond."""
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}"


def _walk(directory: Path, base: str, prefix: str, after: str) -> Iterator[ObjectInfo]:
    """Files under ``directory`` in ascending order of key; ``base`` is the directory's own key with its slash, or empty."""
    try:
        with os.scandir(directory) as entries:
            # A directory's keys all start with "name/", so sorting it under that text puts whole keys into order.
            names = sorted((entry.name + "/" if entry.is_dir() else entry.name) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        key = base + name
        if key == f"{_RESERVED}/":
            continue
        if name.endswith("/"):
            if (key.startswith(prefix) or prefix.startswith(key)) and (key > after or after.startswith(key)):
                yield from _walk(directory / name, key, prefix, after)
        elif key.startswith(prefix) and key > after and (info := _info(directory / name, key)) is not None:
            yield info


def _folders(root: Path, prefix: str) -> list[str]:
    directory = root / prefix
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and (prefix or entry.name != _RESERVED)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return by_place(name for name in names if _holds_files(directory / name))


def _holds_files(directory: Path) -> bool:
    try:
        with os.scandir(directory) as entries:
            return any(_holds_files(Path(entry.path)) if entry.is_dir() else True for entry in entries)
    except FileNotFoundError:
        return False


def _info(path: Path, key: str) -> ObjectInfo | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC), _version(status))


def _version(status: os.stat_result) -> str:
    # This is the best that can be done without reading the file. A rewrite of the same size within the clock's resolution goes unnoticed.
    return f"{status.st_size}-{status.st_mtime_ns}"


def _read_range(path: Path, start: int, end: int, version: str) -> bytes | None:
    try:
        with path.open("rb") as file:
            if _version(os.fstat(file.fileno())) != version:
                return None
            file.seek(start)
            body = file.read(end - start)
            return body if _version(os.fstat(file.fileno())) == version else None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
