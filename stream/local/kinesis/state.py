"""The arguments of every operation: the account with its streams, and the call."""

from __future__ import annotations

from dataclasses import dataclass

from stream.local.kinesis.errors import invalid, not_found
from stream.local.kinesis.faults import Fault
from stream.local.kinesis.limits import Limiter
from stream.local.kinesis.model import Account, Settings, Stream
from stream.local.kinesis.protocol import Members, Params
from stream.local.kinesis.shards import Shard
from stream.local.kinesis.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Call:
    """One request: its members, its time (Unix milliseconds), and the fault that its operation must act out, if any.

    ``account``: whose credentials signed it; empty for the emulator's own account.
    """

    params: Params
    now_ms: int
    fault: Fault | None = None
    account: str = ""


class State:
    """Everything that outlives a request. Equal settings, seeds, times and calls give equal replies."""

    def __init__(self, settings: Settings, seed: int = 0) -> None:
        self.settings = settings
        self.account = Account(settings)
        self.tokens = Tokens(seed)
        self.limiter = Limiter(enabled=settings.throttle)

    def stream(self, call: Call) -> Stream:
        """The stream that the call names.

        Raises:
            ApiError: none named, or it does not exist.
        """
        return self.account.find(stream_key(call.params, self.settings.account, call.account), call.now_ms)

    def changing(self, call: Call) -> Stream:
        """The stream that the call names, which must be ``ACTIVE``.

        Raises:
            ApiError: none named, it does not exist, or it is busy.
        """
        return self.account.changing(stream_key(call.params, self.settings.account, call.account), call.now_ms)

    def serving(self, call: Call) -> Stream:
        """The stream that the call names, which must already and still serve records.

        Raises:
            ApiError: none named, it does not exist, or it is being created or deleted.
        """
        stream = self.stream(call)
        status = stream.status(call.now_ms)
        if status in {"CREATING", "DELETING"}:
            message = f"Stream {stream.name} under account {self.settings.account} not found: it is {status}."
            raise not_found(message)
        return stream


def stream_key(params: Params, own: str, caller: str) -> str:
    """What the emulator calls the stream that ``StreamName``, ``StreamARN`` or ``ConsumerARN`` names, in whichever account.

    ``own``: the emulator's account; ``caller``: that of the credentials, in which a stream given by its name is.

    Raises:
        ApiError: none of them is given, or the ARN is not one of a stream.
    """
    if params.has("StreamName"):
        return key_of(params.text("StreamName"), own, caller)
    arn = params.text_or("StreamARN", "") or params.text_or("ConsumerARN", "")
    if not arn:
        message = "Either StreamName or StreamARN should be provided."
        raise invalid(message)
    _, found, path = arn.partition(":stream/")
    if not arn.startswith("arn:") or not found or not path:
        message = f"'{arn}' is not the ARN of a stream: arn:aws:kinesis:<region>:<account>:stream/<name> is expected."
        raise invalid(message)
    return key_of(path.split("/")[0], own, arn.split(":")[4])


def key_of(name: str, own: str, account: str) -> str:
    """What the emulator calls a stream of ``account``, or of its ``own`` if that is empty; regions are not told apart."""
    return name if account in {"", own} else f"{name}@{account}"


def hash_range(shard: Shard) -> Members:
    """A shard's ``HashKeyRange``."""
    return {"StartingHashKey": str(shard.first_hash), "EndingHashKey": str(shard.last_hash)}


def child_shards(shard: Shard) -> list[Members]:
    """``ChildShards`` of a closed shard."""
    return [{"ShardId": child.shard_id, "ParentShards": list(child.parents), "HashKeyRange": hash_range(child)} for child in shard.children]
