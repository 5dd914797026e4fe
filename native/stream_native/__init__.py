"""A compiled reader of flat JSON records for kinesis-stream, which uses it where it is installed and does without where it is not."""

from __future__ import annotations

from stream_native import _kernel

LIBRARY: str = _kernel.__file__
"""The shared library with ``stream_decode``."""
INTERFACE = 1
"""Changes with the arguments of ``stream_decode``."""
