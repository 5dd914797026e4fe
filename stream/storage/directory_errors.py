"""What an error of the file system means: whether waiting may help, and what a person has to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from stream.aws.errors import AccessRefused
from stream.errors import Fatal, Retryable
from stream.storage.keys import without_values

_WRITE_ACCESS: Final = "give the user in use write access to that path, and mount its file system for writing"
_REFUSED: Final = {
    errno.EACCES: _WRITE_ACCESS,
    errno.EPERM: _WRITE_ACCESS,
    errno.EROFS: _WRITE_ACCESS,
}
"""What somebody has taken away, and can give back without a new process."""

_NO_FOLDER: Final = "mount what belongs there, or correct the path: no directory can be made at it"

FULL: Final = {
    errno.ENOSPC: "make room on that file system, or give it more (`df -h`; `df -i` if it has room: it may have no inodes left)",
    errno.EDQUOT: "make room for the user in use, or raise the quota",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`)",
}
"""What to do about a disk that takes nothing more; whatever is then tried again works by itself."""

_DEAD_MOUNT: Final = "see why the file system no longer answers (`mount`, `dmesg`), and mount it again"
_UNREACHABLE: Final = {
    errno.ESTALE: _DEAD_MOUNT,
    errno.ENOTCONN: _DEAD_MOUNT,
    errno.EIO: "look for errors of the disk or of the network to it (`dmesg`)",
}

_DIRECTORY: Final = "check that the path is a writable directory, and the key in use"
_NO_LINKS: Final = (
    "use a local file system of Linux, or S3: this one has no hard or symbolic links, without which there is no compare-and-swap"
)
_PERMANENT: Final = {
    errno.ENOTDIR: _DIRECTORY,
    errno.EISDIR: _DIRECTORY,
    errno.EEXIST: _DIRECTORY,
    errno.ENAMETOOLONG: _DIRECTORY,
    errno.ELOOP: _DIRECTORY,
    errno.EINVAL: _DIRECTORY,
    errno.EILSEQ: _DIRECTORY,
    errno.EXDEV: "keep everything below the root on one file system: no symbolic link and no mount below it may lead to another one",
    errno.EMLINK: _NO_LINKS,
    errno.ENOSYS: _NO_LINKS,
    errno.EOPNOTSUPP: _NO_LINKS,
}


class NoFolder(OSError):
    """A directory cannot be made, since there is none in which to make it and none can be made either, as in /proc."""


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it, if they are not there.

    Raises:
        OSError: that is not possible; never ``FileNotFoundError`` or ``FileExistsError``, which writers expect of what is in the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise NoFolder(error.errno, error.strerror, error.filename) from error
    except FileExistsError as error:
        raise _no_directory(Path(error.filename)) from error


@contextmanager
def without_links() -> Iterator[None]:
    """Make a file system without links known as one. In the block, a link is made beside a file that was just written there."""
    try:
        yield
    except PermissionError as error:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), error.filename) from error


def translate(error: OSError, root: str) -> Fatal | Retryable:
    """The exception to raise for ``error``, which came up in the store at ``root``. Waiting may help against what is not listed here."""
    where = without_values(f"{error.filename or root}: {error.strerror or error}")
    number = error.errno or 0
    if remedy := _NO_FOLDER if isinstance(error, NoFolder) else _REFUSED.get(number):
        return AccessRefused(f"cannot use the store {root}: {where}. Remedy: {remedy}.", code=errno.errorcode[number], remedy=remedy)
    if remedy := _PERMANENT.get(number):
        return Fatal(f"cannot use the store {root}: {where}. Remedy: {remedy}.")
    known = (FULL | _UNREACHABLE).get(number)
    remedy = f". Remedy: {known}; what waits for it then goes on by itself" if known else ""
    return Retryable(f"the store {root} failed: {where}{remedy}")


def unanswered(root: str, call: str, seconds: float) -> Retryable:
    """The exception to raise if ``call``, such as "to read PATH", has not returned for ``seconds`` in the store at ``root``."""
    return Retryable(f"the store {root} does not answer: {hanging(call, seconds)}; what waits for it then goes on by itself")


def hanging(call: str, seconds: float) -> str:
    """That ``call`` hangs, and what to do."""
    return f"the call {call} has not returned for {seconds:.0f} s. Remedy: {_DEAD_MOUNT}"


def refuse_unwritable(folder: Path) -> None:
    """Make sure that ``folder`` could be made and written to, as far as can be determined without changing anything.

    Raises:
        OSError: it could not.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        folder.lstat()  # what else it raises, such as a name that is too long, would be raised by a write, too
    nearest = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not nearest.is_dir():
        raise _no_directory(nearest)
    facts = os.statvfs(nearest)
    if facts.f_flag & os.ST_RDONLY:
        raise _problem(errno.EROFS, nearest)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _problem(errno.EACCES, nearest)
    # File systems that have no size of their own, such as /proc, say 0 of 0.
    if facts.f_blocks and not facts.f_bavail:
        raise _problem(errno.ENOSPC, nearest)


def _problem(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def _no_directory(path: Path) -> OSError:
    why = "it is a symbolic link that leads nowhere" if path.is_symlink() and not path.exists() else os.strerror(errno.ENOTDIR)
    return NotADirectoryError(errno.ENOTDIR, why, str(path))
