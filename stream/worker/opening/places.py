"""Resolves the URLs and queues that a pipeline names."""

from __future__ import annotations

import os
from pathlib import Path

from stream.aws.session import AwsSession
from stream.aws.sqs import QueuePlace
from stream.contracts import CONSOLE, ObjectStore
from stream.errors import DefinitionError
from stream.pipeline.model import Pipeline
from stream.pipeline.replay import Queue
from stream.storage.console import ConsoleStore
from stream.storage.open import open_store
from stream.storage.s3 import KmsKey
from stream.transform.stages.enrich import REDSHIFT
from stream.worker.opening.queries import read_query


def session_of(pipeline: Pipeline) -> AwsSession:
    """The AWS session that ``pipeline`` asks for."""
    kinesis = pipeline.source.kinesis
    return AwsSession(region=kinesis.region, endpoints={"kinesis": kinesis.endpoint} if kinesis.endpoint else None)


def located(url: str, base: Path) -> str:
    """``url``, with a relative ``file:`` path made absolute from ``base``."""
    scheme, _, path = url.partition(":")
    if scheme != "file" or path.startswith("//"):
        return url
    return f"file:{(base / path).absolute()}"


def kms_key(pipeline: Pipeline) -> KmsKey | None:
    """The KMS key for the pipeline's objects on S3; None for the bucket's own setting."""
    encryption = pipeline.encryption
    return None if encryption is None else KmsKey(encryption.kms_key, encryption.bucket_key)


def former_place(url: str, session: AwsSession, key: KmsKey | None) -> ObjectStore:
    """The store at ``url``, where a sink was that this pipeline does not have there; what was printed once is not printed again.

    Raises:
        DefinitionError: it is a directory of another machine, or ``url`` names no store.
    """
    if url == CONSOLE:
        return ConsoleStore(os.open(os.devnull, os.O_WRONLY))
    scheme, _, path = url.partition(":")
    if scheme == "file" and not Path(path).parent.is_dir():
        msg = f"there is no directory {Path(path).parent} here: it was moved, or is on another machine"
        raise DefinitionError(msg)
    return open_store(url, session, key)


async def read_object(session: AwsSession, url: str) -> bytes:
    """The object at an ``s3://`` URL, or the result of the query of a ``redshift:`` URL.

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
    """Whether there is an object at ``url``, or under it if it ends in a slash. On S3 this lists the folder, starting at that key.

    Raises:
        Fatal: the bucket is missing or may not be listed.
        Retryable: S3 did not answer.
    """
    folder, _, key = located(url.removesuffix("/"), base).rpartition("/")
    if url.endswith("/"):
        folder, key = f"{folder}/{key}", ""
    # S3 itself skips everything that sorts before the key.
    async for info in open_store(folder, session).list(key, after=key[:-1]):
        if not key or info.key == key:
            return True
    return False


def queue_place(text: str) -> QueuePlace:
    """The queue with that ARN or URL."""
    queue = Queue.of(text)
    return QueuePlace(queue.name, queue.account, queue.region, queue.url)
