"""Opaque tokens: shard iterators and list continuations. They contain their age, and forged or foreign ones are refused."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any, Final

import orjson

from stream.local.kinesis.errors import ApiError, invalid

_DIGEST: Final = 16
_PADDING: Final = 96
"""Makes iterators as long as real ones, over 200 characters, so that clients that store them are tested with that length."""


@dataclass(frozen=True, slots=True)
class Iterator:
    """Where the next read begins: after position ``after`` of one shard of the stream created at ``stream_ms``."""

    stream: str
    stream_ms: int
    shard_id: str
    after: int
    made_ms: int


class Tokens:
    """Makes and reads tokens; those of another ``seed`` are refused."""

    def __init__(self, seed: int) -> None:
        self._key = hashlib.sha256(b"%d" % seed).digest()

    def iterator(self, content: Iterator) -> str:
        """The token of a shard iterator."""
        return self._seal([content.stream, content.stream_ms, content.shard_id, str(content.after), content.made_ms], _PADDING)

    def read_iterator(self, token: str, now_ms: int, life_ms: int) -> Iterator:
        """The content of ``token``.

        Raises:
            ApiError: ``InvalidArgumentException`` for anything this emulator did not make, ``ExpiredIteratorException`` if it is
                older than ``life_ms``.
        """
        content = self._open(token)
        if content is None or len(content) != 5:
            message = "Invalid ShardIterator."
            raise invalid(message)
        stream, stream_ms, shard_id, after, made_ms = content
        if now_ms - made_ms > life_ms:
            age = now_ms - made_ms
            code, message = (
                "ExpiredIteratorException",
                f"Iterator expired: {age} ms old, lives {life_ms} ms; get a new one.",
            )
            raise ApiError(code, message)
        return Iterator(stream, stream_ms, shard_id, int(after), made_ms)

    def page(self, content: dict[str, object], now_ms: int) -> str:
        """The ``NextToken`` of a listing that continues."""
        return self._seal([content, now_ms], 0)

    def read_page(self, token: str, now_ms: int) -> dict[str, str]:
        """The content of a ``NextToken``; such tokens are valid for 300 seconds.

        Raises:
            ApiError: ``InvalidArgumentException`` or ``ExpiredNextTokenException``.
        """
        content = self._open(token)
        if content is None or len(content) != 2:
            message = "NextToken is invalid."
            raise invalid(message)
        page, made_ms = content
        if now_ms - made_ms > 300_000:
            code, message = (
                "ExpiredNextTokenException",
                f"NextToken expired at {made_ms + 300_000} ms; list again.",
            )
            raise ApiError(code, message)
        contents: dict[str, str] = page
        return contents

    def _seal(self, content: object, padding: int) -> str:
        body = orjson.dumps(content).ljust(padding)
        return base64.b64encode(self._digest(body) + body).decode()

    def _open(self, token: str) -> list[Any] | None:
        try:
            sealed = base64.b64decode(token, validate=True)
        except (binascii.Error, ValueError):
            return None
        if self._digest(sealed[_DIGEST:]) != sealed[:_DIGEST]:
            return None
        content: list[Any] = orjson.loads(sealed[_DIGEST:])
        return content

    def _digest(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, digest_size=_DIGEST, key=self._key).digest()
