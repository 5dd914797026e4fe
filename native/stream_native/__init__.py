"""Compiled inner loops of kinesis-stream. Only ``stream.native`` imports this."""

from stream_native import _kernel

INTERFACE = 12
"""Raised with every change of what a function takes or gives; ``stream.native`` uses the kernel only if it knows the number."""

__all__ = ["INTERFACE", "_kernel"]
