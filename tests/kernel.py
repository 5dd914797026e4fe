"""Decoders bound as if there were no compiled kernel, to compare with those that use it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from hypothesis import settings
from polars.testing import assert_frame_equal

from stream.contracts import Transformed
from stream.transform.decode import DecoderConfig
from stream.transform.decoders import avro, csv, envelope, json, json_lines, protobuf
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources
from tests.frames import batch, ticks

_READERS: Final[list[tuple[Any, str]]] = [
    (json, "json_reader"),
    (json_lines, "json_lines_reader"),
    (csv, "csv_reader"),
    (envelope, "kernel_opener"),
    (avro, "avro_reader"),
    (protobuf, "protobuf_reader"),
]


def compared(examples: int) -> settings:
    """For a test that compares the kernel with the Python path, and does nothing else.

    ``make native-check`` tries all ``examples``, with a kernel that also watches its memory; the other targets, of which some run it once
    more beside that, try a quarter of them.
    """
    return settings(max_examples=examples if os.environ.get("STREAM_COMPARE") == "all" else examples // 4, deadline=None)


@contextmanager
def no_kernel() -> Iterator[None]:
    """Decoders bound inside this context read every record without the kernel."""
    kept = [getattr(module, name) for module, name in _READERS]
    for module, name in _READERS:
        setattr(module, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for (module, name), reader in zip(_READERS, kept, strict=True):
            setattr(module, name, reader)


def settled_alike(decoder: DecoderConfig, payloads: Sequence[bytes]) -> Transformed:
    """What ``decoder`` makes of records, without a schema of the source. Asserts that the kernel gives the same."""
    chains = [compile_chain(decoder, None, [], Resources(), ticks())]
    with no_kernel():
        chains.append(compile_chain(decoder, None, [], Resources(), ticks()))
    fast, plain = (chain.run(batch(payloads), "s") for chain in chains)
    assert_frame_equal(fast.frame, plain.frame)
    assert_frame_equal(fast.settled, plain.settled)
    return plain
