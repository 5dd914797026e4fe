"""Which keys every store accepts: the strictest store decides, so that a pipeline tried on a laptop also works on S3."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from stream.errors import Fatal

MAX_KEY_BYTES = 1024
"""S3's limit for a key in UTF-8, prefix included."""

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_PARTITION_VALUE: Final = re.compile(r"(?:=|%3D)[^/\s'\"<>]*(?=/)")


def without_values(text: str) -> str:
    """``text`` that may name keys, such as an error's, without the values of partition columns, which come from records."""
    return _PARTITION_VALUE.sub("=*", text)


def by_place(folders: Iterable[str]) -> list[str]:
    """Names of folders in the order of the keys below them."""
    return sorted(folders, key=lambda name: f"{name}/")


def check_key(key: str, root: str) -> None:
    """Refuse a key that some store could not hold or would rewrite.

    Raises:
        Fatal: ``key`` is empty or too long, has an empty, ``.`` or ``..`` segment, or a control character.
    """
    if problem := _problem(key):
        msg = (
            f"the object key {without_values(repr(key))} under {root} cannot be used: {problem}. A key is 1 to {MAX_KEY_BYTES} bytes "
            "of UTF-8, made of segments separated by single slashes. Percent-encode the value that was put into the key."
        )
        raise Fatal(msg)


def problem_of_place(url: str) -> str | None:
    """Why no store can be opened at ``url``, which is `s3://bucket/prefix/`; None if one can."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if _BUCKET.fullmatch(bucket) is None:
        return f"{bucket!r} is no bucket name (3 to 63 of a-z 0-9 . -)"
    prefix = prefix.removesuffix("/")
    return f"its prefix {prefix!r} cannot be used, since {problem}" if prefix and (problem := _problem(prefix)) else None


def _problem(key: str) -> str | None:
    if not key:
        return "it is empty"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "it holds a lone surrogate, which has no UTF-8 form"
    if size > MAX_KEY_BYTES:
        return f"it has {size} bytes"
    for segment in key.split("/"):
        if segment in {"", ".", ".."}:
            return f"it has the segment {segment!r}"
    if _CONTROL.search(key):
        return "it holds a control character"
    return None
