"""Libraries in a process of tests as the service has them in its own."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping


def loaded(settings: Mapping[str, str]) -> int:
    """Import the libraries that read ``settings`` of the environment when they are loaded; returns the number of Polars' threads.

    Afterwards the environment is as it was: processes that tests start find their settings themselves.
    """
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        importlib.import_module("numpy")
        importlib.import_module("pyarrow").default_memory_pool()
        threads: int = importlib.import_module("polars").thread_pool_size()  # which starts them
    finally:
        for name in settings.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
    return threads
