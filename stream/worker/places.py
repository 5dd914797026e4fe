"""Where a pipeline's URLs lead on this machine."""

from __future__ import annotations

from pathlib import Path

from stream.aws.session import AwsSession
from stream.errors import DefinitionError
from stream.storage.open import open_store
from stream.transform.stages.enrich import REDSHIFT
from stream.worker.queries import read_query


def located(url: str, base: Path) -> str:
    """``url`` with a relative ``file:`` path made absolute, beginning at ``base``."""
    scheme, _, path = url.partition(":")
    if scheme != "file" or path.startswith("//"):
        return url
    return f"file:{(base / path).absolute()}"


async def read_object(session: AwsSession, url: str) -> bytes:
    """The object at an ``s3://`` URL, or what the query of a ``redshift:`` URL gives.

    Raises:
        DefinitionError: there is none, or the query fails.
        Fatal: the bucket or the database is missing or may not be read.
        Retryable: the service did not answer.
    """
    if url.startswith(REDSHIFT):
        return await read_query(session, url)
    folder, _, key = url.rpartition("/")
    stored = await open_store(folder, session).get(key)
    if stored is None:
        msg = f"there is no object {url}"
        raise DefinitionError(msg)
    return stored.body
