"""Decides how requests to a collector are compressed.

OTLP/HTTP requires gzip of every collector, and zstd, which takes half the CPU time, of none. A collector cannot be asked which it supports,
so it is given zstd, and gzip if that is what it accepts.
"""

from __future__ import annotations

from typing import Final

from stream.audit.otlp_responses import RETRYABLE, TOO_LARGE, UNREADABLE
from stream.audit.packing import Compression

ACCEPTED_AS_GZIP_ONLY: Final = 3
"""So many requests that got through as gzip only make it gzip. One is not enough: the collector may just have been starting."""


class Negotiation:
    """The compression for one collector. ``chosen`` is what the next request should use: ``preferred``, or gzip where zstd fails."""

    def __init__(self, preferred: Compression) -> None:
        self.chosen = preferred
        self._zstd_works = False
        self._as_gzip_only = 0

    def blames(self, used: Compression, status: int) -> bool:
        """Whether zstd may be the reason for the answer ``status``, so that the same request should be sent as gzip at once.

        A collector that has accepted zstd before must say so. One that has not may use any status for what it cannot read.
        """
        if used is not Compression.ZSTD:
            return False
        verdict = status >= 300 and status != TOO_LARGE and status not in RETRYABLE
        return status in UNREADABLE or (verdict and not self._zstd_works)

    def after_pause(self, used: Compression) -> Compression:
        """What a request sent with ``used``, to be tried again, should use: gzip and zstd in turn, until it is known that zstd works.

        Whatever stands before a collector may close the connection when it sees a body that it cannot read.
        """
        if self.chosen is not Compression.ZSTD or self._zstd_works:
            return used
        return Compression.GZIP if used is Compression.ZSTD else Compression.ZSTD

    def accepted(self, used: Compression, *, blamed: bool) -> None:
        """Take note of a request that the collector accepted; ``blamed``: it was refused as zstd immediately before."""
        if used is Compression.ZSTD:
            self._zstd_works = True
        elif self.chosen is Compression.ZSTD and (blamed or not self._zstd_works):
            self._as_gzip_only += 1
            if blamed or self._as_gzip_only == ACCEPTED_AS_GZIP_ONLY:
                self.chosen = Compression.GZIP
