"""What a loader works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stream.contracts import Clock, Emit, ObjectStore
from stream.lease.loader import LoaderLease
from stream.lease.paused import Pause
from stream.sink.tables import TableSinkConfig
from stream.worker.tables.loadlog import LoadLog, LoadState
from stream.worker.tables.warehouse import Warehouse


@dataclass(frozen=True, slots=True)
class LoaderParts:
    """The collaborators of one loader. ``staging``: the store at the sink's URL. ``pause`` returns why an operator has paused the loads."""

    config: TableSinkConfig
    stream: str
    log: LoadLog
    state: LoadState
    warehouse: Warehouse
    staging: ObjectStore
    lease: LoaderLease
    clock: Clock
    emit: Emit
    pause: Callable[[], Pause | None] = lambda: None
