"""Objects as files in a local directory, with the same compare-and-swap that S3 offers.

Writes go to a file aside that is then linked (create) or renamed (replace, put) into place, so a reader sees a whole object or
none. ``<root>/.stream`` holds those files and the locks; it is no part of the objects.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from stream.contracts import ObjectInfo, Stored
from stream.errors import Fatal, Retryable
from stream.storage.keys import check_key

_RESERVED: Final = ".stream"
_LIST_CHUNK: Final = 1000
_PERMANENT: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
)
_P = ParamSpec("_P")
_T = TypeVar("_T")


class DirectoryStore:
    """An ``ObjectStore`` over the directory ``root``, shared by any number of threads and processes of one machine.

    With ``fsync`` (the default) an acknowledged write survives a power cut. Locking needs a local file system: NFS without
    ``flock`` is not supported.
    """

    def __init__(self, root: Path, *, fsync: bool = True, url: str | None = None) -> None:
        self._root = root.absolute()
        self._aside = self._root / _RESERVED / "aside"
        self._locks = self._root / _RESERVED / "locks"
        self._fsync = fsync
        self._url = url or f"file://{self._root}"

    @property
    def url(self) -> str:
        """The root, as a person would write it."""
        return self._url

    async def create(self, key: str, body: bytes) -> str | None:
        """Write ``key`` if it does not exist and return its tag; None if it exists."""
        return await self._run(self._create, self._path(key), body)

    async def replace(self, key: str, body: bytes, etag: str) -> str | None:
        """Write ``key`` if its tag is ``etag`` and return the new tag; None if it is not."""
        return await self._run(self._replace, self._path(key), body, etag)

    async def put(self, key: str, body: bytes) -> None:
        """Write ``key`` whatever is there."""
        await self._run(self._put, self._path(key), body)

    async def get(self, key: str) -> Stored | None:
        """The object, or None."""
        body = await self._run(_read, self._path(key))
        return None if body is None else Stored(body, _tag(body))

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects whose key starts with ``prefix`` and sorts behind ``after``, in ascending order of key."""
        found = _walk(self._root, "", prefix, after)
        while chunk := await self._run(lambda: list(islice(found, _LIST_CHUNK))):
            for info in chunk:
                yield info

    async def read_range(self, key: str, start: int, end: int, version: str) -> bytes | None:
        """Bytes ``[start, end)`` of ``key`` as it was listed with ``version``; None if it is gone or has another version now."""
        return await self._run(_read_range, self._path(key), start, end, version)

    async def delete(self, key: str) -> None:
        """Remove ``key``; fine if it is not there."""
        await self._run(self._delete, self._path(key))

    def _path(self, key: str) -> Path:
        check_key(key, self._url)
        if key.split("/", 1)[0] == _RESERVED:
            msg = f"the object key {key!r} under {self._url} is reserved: the store's own locks are there. Use another key."
            raise Fatal(msg)
        return self._root / key

    async def _run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await asyncio.to_thread(function, *args, **kwargs)
        except OSError as error:
            raise _translate(error, self._url) from error

    def _create(self, path: Path, body: bytes) -> str | None:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a key must not also be the prefix of other keys", str(path))
        with self._written_aside(path, body) as aside:
            try:
                os.link(aside, path)
            except FileExistsError:
                return None
            self._sync_directory(path.parent)
        return _tag(body)

    def _replace(self, path: Path, body: bytes, etag: str) -> str | None:
        with self._written_aside(path, body) as aside:
            with self._locked(path):
                current = _read(path)
                if current is None or _tag(current) != etag:
                    return None
                aside.rename(path)
            self._sync_directory(path.parent)
        return _tag(body)

    def _put(self, path: Path, body: bytes) -> None:
        with self._written_aside(path, body) as aside:
            # Unlocked, a put could fall between the comparison and the rename of a replace and be lost without a trace. A process
            # frozen while it holds the lock stops all others, so nothing that takes time is done under it.
            with self._locked(path):
                aside.rename(path)
            self._sync_directory(path.parent)

    def _delete(self, path: Path) -> None:
        try:
            exists = path.is_file()
        except NotADirectoryError:
            exists = False
        if not exists:
            return
        with self._locked(path):
            path.unlink(missing_ok=True)
            self._sync_directory(path.parent)

    @contextmanager
    def _written_aside(self, path: Path, body: bytes) -> Iterator[Path]:
        self._aside.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._aside / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            with aside.open("xb") as file:
                file.write(body)
                file.flush()
                if self._fsync:
                    os.fsync(file.fileno())
            yield aside
        finally:
            aside.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        self._locks.mkdir(parents=True, exist_ok=True)
        # 256 files serve all keys: a lock file can never be removed safely, so one for each key would pile up.
        name = hashlib.sha256(os.fsencode(path.relative_to(self._root))).hexdigest()[:2]
        with (self._locks / name).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _sync_directory(self, directory: Path) -> None:
        if not self._fsync:
            return
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _tag(body: bytes) -> str:
    # A tag made of the content comes back when the content comes back, as S3's does. Whoever compares and swaps must therefore
    # never return to an earlier content; manifests cannot, since each state of a unit's manifest is written at most once.
    return hashlib.sha256(body).hexdigest()


def _walk(directory: Path, base: str, prefix: str, after: str) -> Iterator[ObjectInfo]:
    """Files below ``directory`` in ascending order of key; ``base`` is the directory's own key with its slash, or empty."""
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


def _info(path: Path, key: str) -> ObjectInfo | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC), _version(status))


def _version(status: os.stat_result) -> str:
    # Without reading the file there is nothing better; a rewrite within the clock's grain that keeps the size is not seen.
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


def _translate(error: OSError, root: str) -> Fatal | Retryable:
    where = f"{error.filename or root}: {error.strerror or error}"
    if error.errno in _PERMANENT:
        return Fatal(f"cannot use the store {root}: {where}. Check that the path is a writable directory, and the key in use.")
    return Retryable(f"the store {root} failed: {where}")
