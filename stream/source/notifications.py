"""What a message of a queue says about objects: S3's own notifications, through SNS or not, and those of EventBridge. Pure.

The forms: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html (keys are URL-encoded) and
https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html (keys are not).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import unquote_plus

import msgspec


class Beside(StrEnum):
    """Why a message, or a part of it, names no object to read."""

    TEST = "test_event"
    OTHER_EVENT = "other_event"
    OTHER_PLACE = "other_place"


@dataclass(frozen=True, slots=True)
class Named:
    """An object that a message names, by its key under the source's URL; ``etag`` without quotes and ``size``, if the message says them."""

    key: str
    size: int | None
    etag: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What one message says: the objects that it names, and why other parts of it name none. ``unreadable``: why it is no notification."""

    named: tuple[Named, ...] = ()
    beside: tuple[Beside, ...] = ()
    unreadable: str = ""


class _Unreadable(ValueError):
    """The message is no notification."""


_CREATED: Final = "ObjectCreated:"
_CREATED_ON_BUS: Final = "Object Created"
_WRAPPED: Final = 2
"""SNS wraps a message once. EventBridge may send to SNS, and the message that SNS wraps is then one of its own."""


def place_of_notices(url: str) -> tuple[str, str]:
    """Bucket and prefix of the objects under an ``s3://`` URL, as notifications name them; empty for a directory, which sends none."""
    if not url.startswith("s3://"):
        return "", ""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    prefix = prefix.removesuffix("/")
    return bucket, f"{prefix}/" if prefix else ""


def read_notice(body: str, bucket: str, prefix: str) -> Notice:
    """What the message ``body`` says about objects of ``bucket`` whose keys begin with ``prefix`` (empty, or ending in a slash)."""
    try:
        return _read(_object(body), bucket, prefix, _WRAPPED)
    except _Unreadable as error:
        return Notice(unreadable=str(error))


def _read(content: dict[str, Any], bucket: str, prefix: str, wraps: int) -> Notice:
    if content.get("Type") == "Notification" and isinstance(content.get("Message"), str):
        if not wraps:
            msg = "it is wrapped by SNS more than twice"
            raise _Unreadable(msg)
        return _read(_object(content["Message"]), bucket, prefix, wraps - 1)
    if content.get("Event") == "s3:TestEvent":
        return Notice(beside=(Beside.TEST,))
    if content.get("source") == "aws.s3" and isinstance(content.get("detail"), dict):
        created = content.get("detail-type") == _CREATED_ON_BUS
        return _gathered([_one(content["detail"], bucket, prefix, "etag", encoded=False) if created else Beside.OTHER_EVENT])
    records = content.get("Records")
    if not isinstance(records, list) or not records:
        msg = f"it has none of the members Records, detail and Message of a notification, but {', '.join(sorted(content)[:8]) or 'none'}"
        raise _Unreadable(msg)
    return _gathered([_of_record(record, bucket, prefix) for record in records])


def _of_record(record: Any, bucket: str, prefix: str) -> Named | Beside:
    if not isinstance(record, dict) or record.get("eventSource") != "aws:s3" or not isinstance(record.get("s3"), dict):
        msg = "a record of it is none of S3"
        raise _Unreadable(msg)
    # Events of S3 itself have no `s3:` before the name; configurations do.
    if not str(record.get("eventName", "")).removeprefix("s3:").startswith(_CREATED):
        return Beside.OTHER_EVENT
    return _one(record["s3"], bucket, prefix, "eTag", encoded=True)


def _one(content: dict[str, Any], bucket: str, prefix: str, tag: str, *, encoded: bool) -> Named | Beside:
    try:
        where, about = content["bucket"]["name"], content["object"]
        key, size, etag = about["key"], about.get("size"), about.get(tag, "")
    except (KeyError, TypeError, AttributeError):
        msg = "it names no bucket or no object"
        raise _Unreadable(msg) from None
    if not isinstance(where, str) or not isinstance(key, str) or not key:
        msg = "the bucket or the key that it names is no text"
        raise _Unreadable(msg)
    if encoded:
        key = unquote_plus(key)
    if where != bucket or not key.startswith(prefix) or key == prefix:
        return Beside.OTHER_PLACE
    return Named(key.removeprefix(prefix), size if isinstance(size, int) else None, etag.strip('"') if isinstance(etag, str) else "")


def _gathered(found: list[Named | Beside]) -> Notice:
    return Notice(tuple(each for each in found if isinstance(each, Named)), tuple(each for each in found if isinstance(each, Beside)))


def _object(text: str) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        content = None
    if not isinstance(content, dict):
        msg = "it is no JSON object"
        raise _Unreadable(msg)
    return content
