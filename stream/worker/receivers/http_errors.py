"""Describes errors of HTTP calls to receivers: a collector, a lineage endpoint, a webhook."""

from __future__ import annotations

from typing import Final

import aiohttp

MOST: Final = 160
"""Characters of what the far side sent instead."""


def describe_failure(error: Exception) -> str:
    """The kind of ``error`` and what is known about it, without any part of the request."""
    kind = type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"{kind}: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{kind}: {error.os_error}"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{kind}: the answer is not HTTP/1.1: {' '.join(error.message.split())[:MOST]}"
    text = " ".join(str(error).split())[:MOST]
    return f"{kind}: {text}" if text and isinstance(error, OSError) and not isinstance(error, aiohttp.ClientError) else kind
