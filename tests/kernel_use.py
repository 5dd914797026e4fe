"""Which tests call the compiled kernel: ``make test-without-kernel`` runs their files once more, with the kernel switched off.

A file whose tests do not call the kernel does the same with and without it, so it is not run twice. The list cannot become too short:
in the rooms that call the kernel, a test that does and whose file is not listed fails (``tests/conftest.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from stream.native import KERNEL

ROOMS: Final = ("tests/unit/transform/", "tests/unit/aws/", "tests/unit/audit/", "tests/contract/")
"""Where the rooms that use the kernel are tested; what is tested above them uses it only through them."""

WHOLE: Final = ("tests/unit/transform", "tests/unit/audit")
"""Folders of which nearly every file uses it."""

EXCEPT: Final = (
    "tests/unit/audit/test_arrivals.py",
    "tests/unit/audit/test_completeness.py",
    "tests/unit/audit/test_operations.py",
    "tests/unit/transform/stages/test_cast.py",
    "tests/unit/transform/stages/test_validate.py",
    "tests/unit/transform/test_expressions.py",
)
"""Files in those folders that do not, and take a third of a second or more."""

PROCESSES: Final = ("tests/unit/worker/process/test_allocators.py",)
"""Files whose tests start processes of the service: what these call is not seen here."""

FILES: Final = (
    "tests/contract/test_compaction.py",
    "tests/contract/test_decoder.py",
    "tests/contract/test_encryption.py",
    "tests/contract/test_excerpt.py",
    "tests/contract/test_iceberg.py",
    "tests/contract/test_iceberg_on_aws.py",
    "tests/contract/test_json_faults.py",
    "tests/contract/test_private_authority.py",
    "tests/contract/test_queue.py",
    "tests/contract/test_retrieval.py",
    "tests/contract/test_s3_faults.py",
    "tests/contract/test_simulated_store.py",
    "tests/contract/test_source.py",
    "tests/contract/test_stage.py",
    "tests/contract/test_warehouse.py",
    "tests/unit/aws/test_kinesis.py",
    "tests/unit/aws/test_pages.py",
)

ABOVE: Final = (
    "tests/unit/test_native.py",
    "tests/unit/sink/test_encode.py",
    "tests/unit/hosts/test_answer.py",
    "tests/unit/hosts/test_transforming.py",
    "tests/unit/operations/status/test_inspector.py",
    "tests/unit/operations/progress/test_stream_lookahead.py",
    "tests/unit/operations/changes/test_pauses.py",
    "tests/unit/operations/progress/test_object_lookahead.py",
    "tests/unit/operations/changes/test_rewinds.py",
    "tests/unit/operations/status/test_outcomes.py",
    "tests/unit/operations/records/test_searching.py",
    "tests/unit/operations/records/test_tracing.py",
    "tests/unit/operations/progress/test_merged_rows.py",
    "tests/unit/operations/progress/test_table_rows.py",
    "tests/unit/worker/opening/test_evidence.py",
    "tests/unit/worker/receivers/test_collector.py",
    "tests/unit/worker/receivers/test_recent_segments.py",
    "tests/unit/worker/recipes/test_refreshing.py",
    "tests/unit/worker/shards/test_reread.py",
)
"""Files of rooms above that take little time: the parts together, without the kernel. Complete workers: ``tests/chaos/test_formats.py``."""

called: Final[set[str]] = set()
"""Names of the kernel's functions that were called since this was cleared."""


def is_listed(file: str) -> bool:
    """Whether ``file``, relative to the root of the repository, is run without the kernel, or need not be."""
    in_whole = file.startswith(tuple(f"{folder}/" for folder in WHOLE)) and file not in EXCEPT
    return in_whole or not file.startswith(ROOMS) or file in FILES


@contextmanager
def made_once() -> Iterator[None]:
    """What is made once for many tests is not called by the one of them that happens to be the first."""
    before = set(called)
    yield
    called.clear()
    called.update(before)


def watch() -> None:
    """From now on, the functions of the kernel note their calls."""
    for name, function in list(vars(KERNEL).items()) if KERNEL is not None else ():
        if callable(function) and not name.startswith("_"):
            setattr(KERNEL, name, _noted(name, function))


def _noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        called.add(name)
        return function(*given, **named)

    return call


if __name__ == "__main__":
    sys.stdout.write(" ".join((*(f"--ignore={file}" for file in EXCEPT), *WHOLE, *PROCESSES, *FILES, *ABOVE)))
