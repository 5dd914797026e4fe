"""A KPL aggregator, written only from the description of the format."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class User:
    key: str
    data: bytes
    explicit: int | None = None
    tagged: bool = False


def user(key: str, data: bytes, explicit: int | None = None, *, tagged: bool = False) -> User:
    return User(key, data, explicit, tagged)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def delimited(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(users: list[User]) -> bytes:
    keys = list(dict.fromkeys(item.key for item in users))
    hashes = list(dict.fromkeys(item.explicit for item in users if item.explicit is not None))
    body = b"".join(delimited(1, key.encode()) for key in keys) + b"".join(delimited(2, str(value).encode()) for value in hashes)
    for item in users:
        inner = number(1, keys.index(item.key))
        if item.explicit is not None:
            inner += number(2, hashes.index(item.explicit))
        inner += delimited(3, item.data)
        if item.tagged:
            inner += delimited(4, delimited(1, b"tag") + delimited(2, b"value"))
        body += delimited(3, inner)
    return body


def sealed(body: bytes) -> bytes:
    return b"\xf3\x89\x9a\xc2" + body + hashlib.md5(body, usedforsecurity=False).digest()


def aggregate(users: list[User]) -> bytes:
    return sealed(message(users))
