"""Loads a verb in two steps: its signature for help, usage errors and completion; its libraries once the verb does its work.

Libraries take a second of processor time to import, which nobody wants to wait for who presses Tab or has mistyped an option. So a verb's
module imports them under ``if libraries_wanted():``, and everything outside its functions does without them. ``command`` executes the
module without its libraries, makes the command from that, and imports the module as usual when the command is carried out.
"""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Final

import typer

from stream.malloc import share_one_heap

_SIGNATURES_ONLY = ContextVar("_SIGNATURES_ONLY", default=False)


def libraries_wanted() -> bool:
    """Whether the module that asks is to be imported completely; false while only its signatures are read."""
    return not _SIGNATURES_ONLY.get()


def settings_of_libraries(env: Mapping[str, str], cores: int) -> dict[str, str]:
    """Environment variables that libraries read when they are loaded, except those that ``env`` sets already.

    Arrow uses the system allocator, because two allocators would each keep their own peak. OpenBLAS gets one thread, since linear algebra
    is not used. Polars gets half as many threads as there are transform threads (``STREAM_THREADS``, or else ``cores``): those share its
    pool, and passing small frames between threads costs more than it gains.
    """
    threads = env.get("STREAM_THREADS", "")
    polars = max(1, (int(threads) if threads.isdecimal() else cores) // 2)
    wanted = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": str(polars)}
    return {name: value for name, value in wanted.items() if name not in env}


LOADING_SECONDS: Final = 30.0
"""Seconds for which a verb may load its libraries silently; usually that takes one or two."""

BEFORE_LIBRARIES: Final[list[Callable[[], None]]] = []
"""Called before the libraries of a verb are imported, and with them the first threads are started."""


def load(name: str) -> ModuleType:
    """The module ``name`` with its libraries, which find the process set up for them."""
    if name not in sys.modules:
        os.environ.update(settings_of_libraries(os.environ, len(os.sched_getaffinity(0))))
        share_one_heap()
        for call in BEFORE_LIBRARIES:
            call()
        with telling_if_slow(LOADING_SECONDS), uncollected():
            return importlib.import_module(name)
    return importlib.import_module(name)


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing is looked for as garbage within the block, nor ever again among what exists after it.

    Libraries make hundreds of thousands of objects that live until the end. To look through them again and again takes a sixth of the time
    of loading.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if collecting:
            gc.enable()


@contextmanager
def telling_if_slow(seconds: float) -> Iterator[None]:
    """Say so on standard error, once, if the block takes longer than ``seconds``: a verb that loads shows nothing else."""

    def tell() -> None:
        with suppress(OSError, ValueError, AttributeError):  # standard error is closed
            sys.stderr.write(
                f"still loading libraries after {seconds:g} s, with {time.process_time():.1f} s of processor time, of which some 2 s are "
                "needed: this machine is busy, or the CPU limit of the container is low\n"
            )
            sys.stderr.flush()

    timer = threading.Timer(seconds, tell)
    timer.daemon = True
    with suppress(RuntimeError):  # no thread can be started, as is said elsewhere
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def verb(module: str, name: str) -> Any:
    """The function or ``typer.Typer`` called ``name`` in ``module``, for a command of the command line.

    It is read without the module's libraries. A call of the function, or of any command of the application, imports them and is
    then passed on to the function of the same name in the module proper.
    """
    found = getattr(sys.modules[module] if module in sys.modules else _signatures(module), name)
    if not isinstance(found, typer.Typer):
        return _at_work(module, found)
    for each in found.registered_commands:
        each.callback = _at_work(module, each.callback)
    return found


def _at_work(module: str, signature: Any) -> Callable[..., Any]:
    @functools.wraps(signature)
    def work(*arguments: Any, **options: Any) -> Any:
        return getattr(load(module), signature.__name__)(*arguments, **options)

    return work


def _signatures(name: str) -> ModuleType:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        msg = f"no module named {name}"
        raise ModuleNotFoundError(msg, name=name)
    module = importlib.util.module_from_spec(spec)
    with _registered(module):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _registered(module: ModuleType) -> Iterator[None]:
    """Known by its name while it is executed, since dataclasses look there.

    Not afterwards, since it is incomplete, and so are modules that it has imported if they leave out libraries, too.
    """
    before, known = _SIGNATURES_ONLY.set(True), set(sys.modules)
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        for name in set(sys.modules) - known:
            if name == module.__name__ or vars(sys.modules[name]).get(libraries_wanted.__name__) is libraries_wanted:
                package, _, attribute = name.rpartition(".")
                vars(sys.modules[package]).pop(attribute, None)
                del sys.modules[name]
        _SIGNATURES_ONLY.reset(before)
