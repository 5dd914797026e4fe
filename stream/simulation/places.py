"""The stores and the stream as a simulated worker sees them: the real semantics, with calls that fail."""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, TypeVar

from stream.aws.errors import CONNECTION, EXPIRED_ITERATOR, AccessRefused, AwsRetryable, explain
from stream.aws.kinesis import KinesisClient
from stream.contracts import Checkpoint, Checkpoints, ObjectInfo, Shard, Stored
from stream.errors import Retryable
from stream.local.kinesis.errors import ApiError
from stream.local.kinesis.operations import OPERATIONS
from stream.local.kinesis.protocol import Params, Wire, encode
from stream.local.kinesis.state import Call, State
from stream.simulation.process import THROTTLED, Caller, Denied, NoReply, Process, Refused
from stream.simulation.virtual_time import loop_seconds
from stream.storage.memory import MemoryStore

T = TypeVar("T")

EPOCH_MS: Final = 1_767_225_600_000
"""``virtual_time.EPOCH`` in Unix milliseconds."""


class Bucket(MemoryStore):
    """Objects in memory with the tags of S3: the MD5 of what they hold, so that a change and its reversal give the first tag again."""

    async def create(self, key: str, body: bytes) -> str | None:
        """See ``contracts.ObjectStore``."""
        return None if await super().create(key, body) is None else tag_of(body)

    async def replace(self, key: str, body: bytes, etag: str) -> str | None:
        """See ``contracts.ObjectStore``."""
        stored = await super().get(key)
        if stored is None or tag_of(stored.body) != etag:
            return None
        await super().put(key, body)
        return tag_of(body)

    async def get(self, key: str) -> Stored | None:
        """See ``contracts.ObjectStore``."""
        stored = await super().get(key)
        return None if stored is None else Stored(stored.body, tag_of(stored.body))


def tag_of(body: bytes) -> str:
    """The tag that S3 gives to an object that was put in one part."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


class SimulatedStore:
    """The objects under ``url`` in ``bucket``, which holds those of all places, as ``process`` sees them.

    A ``contracts.ObjectStore``: as long as nothing goes wrong it does what ``MemoryStore`` does. ``touched`` is called for every write.
    """

    def __init__(self, bucket: MemoryStore, url: str, process: Caller, touched: Callable[[str, str], None]) -> None:
        self._bucket = bucket
        self._url = url
        self._prefix = prefix_of(url)
        self._process = process
        self._touched = touched

    @property
    def url(self) -> str:
        """The root, as the pipeline file has it."""
        return self._url

    async def create(self, key: str, body: bytes) -> str | None:
        """See ``contracts.ObjectStore``."""
        return await self._written("create", key, lambda: self._bucket.create(self._prefix + key, body))

    async def replace(self, key: str, body: bytes, etag: str) -> str | None:
        """See ``contracts.ObjectStore``."""
        return await self._written("replace", key, lambda: self._bucket.replace(self._prefix + key, body, etag))

    async def put(self, key: str, body: bytes) -> None:
        """See ``contracts.ObjectStore``."""
        await self._write("put", key, lambda: self._bucket.put(self._prefix + key, body))

    async def delete(self, key: str) -> None:
        """See ``contracts.ObjectStore``."""
        await self._write("delete", key, lambda: self._bucket.delete(self._prefix + key))

    async def get(self, key: str) -> Stored | None:
        """See ``contracts.ObjectStore``."""
        return await self._call("get", key, lambda: at_once(self._bucket.get(self._prefix + key)))

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See ``contracts.ObjectStore``."""
        found: list[ObjectInfo] = await self._call("list", prefix, lambda: self._listed(prefix, after))
        for info in found:
            yield info

    def _listed(self, prefix: str, after: str) -> builtins.list[ObjectInfo]:
        cut, start = len(self._prefix), self._prefix + after if after else ""

        async def gather() -> builtins.list[ObjectInfo]:
            found = self._bucket.list(self._prefix + prefix, start)
            return [ObjectInfo(info.key[cut:], info.size, info.modified, info.version) async for info in found]

        listed: builtins.list[ObjectInfo] = at_once(gather())
        return listed

    async def folders(self, prefix: str) -> builtins.list[str]:
        """See ``contracts.ObjectStore``."""
        return await self._call("list", prefix, lambda: at_once(self._bucket.folders(self._prefix + prefix)))

    async def _written(self, what: str, key: str, call: Callable[[], Any]) -> str | None:
        tag: str | None = await self._write(what, key, call)
        return tag

    async def _write(self, what: str, key: str, call: Callable[[], Any]) -> Any:
        def apply() -> Any:
            result = at_once(call())
            if result is not None or what in {"put", "delete"}:
                self._touched(what, self._prefix + key)
            return result

        return await self._call(what, key, apply, writes=True)

    async def _call(self, what: str, key: str, apply: Callable[[], T], *, writes: bool = False) -> T:
        try:
            return await self._process.call(f"{what} {key}", apply, writes=writes)
        except NoReply:
            msg = f"no reply to {what} of {key}"
        except Refused:
            msg = f"{what} of {key} was refused: SlowDown"
        except Denied as error:
            msg = f"{what} of {key} was refused: AccessDenied"
            raise AccessRefused(msg, code="AccessDenied") from error
        raise Retryable(msg)


def prefix_of(url: str) -> str:
    """The folder for the objects at ``url`` in the one bucket of a simulation; ``s3://lake`` and ``s3://lake/`` are the same place."""
    scheme, _, place = url.partition(":")
    parts = [part for part in place.split("/") if part]
    return "/".join([scheme, *parts]) + "/"


def at_once(coroutine: Any) -> Any:
    """The result of a coroutine that never waits, as those of ``MemoryStore`` do not."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    msg = "a call that should not wait did"
    raise RuntimeError(msg)


class SimulatedKinesis(KinesisClient):
    """The real client in front of the emulator's own operations, called directly: everything but signing and HTTP is as in production."""

    def __init__(self, state: State, process: Process) -> None:
        self._state = state
        self._process = process

    @property
    def place(self) -> str:
        """For messages."""
        return "simulated"

    async def _exchange(self, operation: str, stream: str, request: Mapping[str, Any]) -> tuple[bytes, bytes]:
        def apply() -> bytes | ApiError:
            now_ms = EPOCH_MS + round(loop_seconds() * 1000)
            try:
                return encode(OPERATIONS[operation](self._state, Call(Params(dict(request)), now_ms)), Wire.JSON)
            except ApiError as error:
                return error

        call = self.describe_call(operation, stream)
        try:
            answer = await self._process.call(operation, apply)
        except NoReply as error:
            msg = f"{call} had no answer"
            raise AwsRetryable(msg, code=CONNECTION) from error
        except Refused as error:
            code = EXPIRED_ITERATOR if error.expired and operation == "GetRecords" else THROTTLED
            raise explain(call, code, "as the schedule says", 400) from error
        except Denied as error:
            raise explain(call, "AccessDeniedException", "as the schedule says", 400) from error
        if isinstance(answer, ApiError):
            raise explain(call, answer.code, answer.message, answer.status)
        return answer, b""


class LeasedCheckpoints:
    """Checkpoints right before which, as the schedule says, another worker takes the lease: ``taken`` does that, or refuses."""

    def __init__(self, inner: Checkpoints, process: Process, taken: Callable[[Shard], None]) -> None:
        self._inner = inner
        self._process = process
        self._taken = taken

    async def read(self, shard: Shard) -> Checkpoint | None:
        """See ``contracts.Checkpoints``."""
        return await self._inner.read(shard)

    async def advance(self, shard: Shard, checkpoint: Checkpoint) -> None:
        """See ``contracts.Checkpoints``."""
        if self._process.loses_lease():
            self._taken(shard)
        await self._inner.advance(shard, checkpoint)
