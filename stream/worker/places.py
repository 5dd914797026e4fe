"""Where a pipeline's URLs lead on this machine."""

from __future__ import annotations

from pathlib import Path

from stream.aws.session import AwsSession
from stream.errors import DefinitionError
from stream.pipeline.model import Pipeline
from stream.storage.open import open_store
from stream.storage.s3 import KmsKey
from stream.transform.stages.enrich import REDSHIFT
from stream.worker.queries import read_query


def located(url: str, base: Path) -> str:
    """``url`` with a relative ``file:`` path made absolute, beginning at ``base``."""
    scheme, _, path = url.partition(":")
    if scheme != "file" or path.startswith("//"):
        return url
    return f"file:{(base / path).absolute()}"


def kms_key(pipeline: Pipeline) -> KmsKey | None:
    """What ``pipeline`` wants its objects on S3 encrypted with; None for what the bucket says."""
    given = pipeline.encryption
    return None if given is None else KmsKey(given.kms_key, given.bucket_key)


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


async def is_there(session: AwsSession, url: str, base: Path) -> bool:
    """Whether there is an object at ``url``, or below it where it ends in a slash. On S3 that asks for a list of its folder, from there on.

    Raises:
        Fatal: the bucket is missing or may not be listed.
        Retryable: S3 did not answer.
    """
    folder, _, key = located(url.removesuffix("/"), base).rpartition("/")
    if url.endswith("/"):
        folder, key = f"{folder}/{key}", ""
    # What sorts before the key is passed over by the service, however much it is.
    async for info in open_store(folder, session).list(key, after=key[:-1]):
        if not key or info.key == key:
            return True
    return False
