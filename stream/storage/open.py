"""Opens the store that a URL in a pipeline definition names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from stream.aws.session import AwsSession
from stream.contracts import CONSOLE, RangedStore
from stream.errors import DefinitionError
from stream.storage.console import ConsoleStore
from stream.storage.directory import DirectoryStore
from stream.storage.keys import problem_of_place
from stream.storage.memory import MemoryStore
from stream.storage.s3 import KmsKey, S3Store

FORMS: Final = "s3://bucket/prefix, file:./directory, file:///absolute/directory, memory:"


def open_store(
    url: str, session: AwsSession | None = None, key: KmsKey | None = None, *, requester_pays: bool | None = None
) -> RangedStore:
    """The store at ``url``; nothing is read or written yet.

    ``session`` is needed for ``s3:`` only, and ``key`` is for what is written there; ``requester_pays``: whether requests to a bucket
    that wants it are paid for by who makes them; None where the pipeline file cannot say so. A path in a ``file:`` URL is taken literally,
    without percent-decoding, and relative to the working directory. Every ``memory:`` store is a new, empty one, and ``console:`` prints.

    Raises:
        DefinitionError: ``url`` is none of ``FORMS``, or the region is not known.
    """
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise _refused(url, "it has no scheme")
    if scheme == "memory":
        return MemoryStore(url=url)
    if url == CONSOLE:
        return ConsoleStore()
    if scheme == "file":
        return _open_directory(url, rest)
    if scheme == "s3":
        return _open_s3(url, rest, session, key, requester_pays=requester_pays)
    raise _refused(url, f"the scheme {scheme!r} is not supported")


def _open_directory(url: str, rest: str) -> DirectoryStore:
    if rest.startswith("//") and not rest.startswith("///"):
        host = rest[2:].partition("/")[0]
        raise _refused(url, f"{host!r} is in the place of a host; for a relative path write file:./...")
    path = rest[2:] if rest.startswith("///") else rest
    if not path or "\0" in path:
        raise _refused(url, "the path is empty" if not path else "the path holds a NUL character")
    return DirectoryStore(Path(path), url=url)


def _open_s3(url: str, rest: str, session: AwsSession | None, key: KmsKey | None, *, requester_pays: bool | None) -> S3Store:
    if not rest.startswith("//"):
        raise _refused(url, "two slashes must follow s3:")
    if problem := problem_of_place(url):
        raise _refused(url, problem)
    bucket, _, prefix = rest[2:].partition("/")
    prefix = prefix.removesuffix("/")
    if session is None:
        raise _refused(url, "there is no AWS session; this command only works with local stores")
    return S3Store(bucket, prefix, session, key, pays=requester_pays)


def _refused(url: str, why: str) -> DefinitionError:
    return DefinitionError(f"the URL {url!r} does not name a store: {why}. Allowed forms: {FORMS}.")
