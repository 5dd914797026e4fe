"""Runs the stages once more in a process that differs as workers on other machines do: environment, clock, hash seed, threads.

``begin`` starts the process, whose program this module is too; ``Elsewhere.results`` waits for it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from stream.errors import DefinitionError, StreamError
from stream.pipeline.digest import canonical_text, read_canonical
from stream.pipeline.resources.fetching import fetch_resources
from stream.pipeline.resources.secrets import SecretReader
from stream.pipeline.trials.trial import batch_of
from stream.simulation.purity import Rows, results
from stream.simulation.subject import Subject

LATER: Final = dt.timedelta(days=401, hours=5, minutes=7)
"""How much later it is in the other process: another year, month, day of the week and hour."""

OTHER: Final = {
    "PYTHONHASHSEED": "12345",
    "TZ": "Pacific/Kiritimati",
    "LANG": "C",
    "LC_ALL": "C",
    "USER": "somebody",
    "LOGNAME": "somebody",
    "HOSTNAME": "elsewhere",
    "POD_NAME": "elsewhere-0",
    "NODE_NAME": "elsewhere",
    "POLARS_MAX_THREADS": "1",
}
"""Variables that differ from machine to machine. Others are left as they are, since a fleet gives them to all its workers."""

_PROGRAM: Final = "import gc; gc.disable(); from stream.simulation.elsewhere import main; main()"
"""It ends after a moment, in which most of what it makes are libraries: to look for garbage takes a sixth of that."""

PATIENCE: Final = 120.0
"""Seconds that the other process may take."""


class Elsewhere:
    """The other process, which runs while this one does something else."""

    def __init__(self, process: subprocess.Popen[bytes], request: bytes, home: tempfile.TemporaryDirectory[str]) -> None:
        self._process = process
        self._request = request
        self._home = home

    def results(self) -> list[Rows]:
        """What each stage gave there for all records at once.

        Raises:
            DefinitionError: the stages cannot be run there; the message has the last line of what the process said.
        """
        try:
            answer, said = self._process.communicate(self._request, timeout=PATIENCE)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            self._process.communicate()
            msg = f"the stages did not come to an end in another process within {PATIENCE:.0f} s"
            raise DefinitionError(msg) from error
        finally:
            self._home.cleanup()
        if self._process.returncode:
            lines = said.decode(errors="replace").strip().splitlines()
            why = lines[-1] if lines else "no reason given"
            msg = f"the stages cannot be run in another process (with {', '.join(OTHER)} and HOME changed): {why}"
            raise DefinitionError(msg)
        return [{int(record): tuple(rows) for record, rows in each.items()} for each in json.loads(answer)]


def begin(subject: Subject, secrets: Mapping[str, str], *, newer: bool = False) -> Elsewhere:
    """Start the process for one of the subject's files; ``secrets``: values of managed secrets, by name."""
    pipeline, fetched = subject.version(newer=newer)
    request = {
        "path": [str(Path(each).absolute()) if each else str(Path.cwd()) for each in sys.path],
        "pipeline": canonical_text(pipeline),
        "base": str(subject.base.absolute()),
        "env": dict(subject.env),
        "secrets": dict(secrets),
        "contents": {url: content.hex() for url, content in fetched.contents.items()},
        "records": [record.hex() for record in subject.records],
    }
    home = tempfile.TemporaryDirectory()
    environment = {**os.environ, **OTHER, "HOME": home.name, "TMPDIR": home.name, "PYTHONPATH": os.pathsep.join(request["path"])}
    process = subprocess.Popen(  # noqa: S603 - it is our own module
        [sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=home.name,
    )
    return Elsewhere(process, json.dumps(request).encode(), home)


def main() -> None:
    """Read a request from standard input, and write the results to standard output, where nothing else is printed."""
    request, answer = json.load(sys.stdin), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    set_time_later()
    try:
        found = asyncio.run(_run(request))
    except StreamError as error:
        sys.exit(" ".join(str(error).split()))
    json.dump(found, answer)
    answer.close()


async def _run(request: Mapping[str, Any]) -> list[Rows]:
    pipeline = read_canonical(request["pipeline"])
    contents = {url: bytes.fromhex(content) for url, content in request["contents"].items()}
    managed: SecretReader = _of(request["secrets"])
    fetched = await fetch_resources(pipeline, Path(request["base"]), request["env"], known=contents, managed=managed)
    set_dates_later({path.partition(".")[0].partition(":")[0] for path in fetched.resources.functions})
    chain = pipeline.compiled(fetched.resources, lambda: 0.0)
    return results(chain, batch_of((), [bytes.fromhex(record) for record in request["records"]]))


def _of(secrets: Mapping[str, str]) -> SecretReader:
    async def managed(name: str) -> bytes:
        return secrets[name].encode()

    return managed


class _OfDatetime(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, dt.datetime)


class _LaterDatetime(dt.datetime, metaclass=_OfDatetime):
    """``datetime.datetime`` with a later clock. What it makes are ordinary moments."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        return dt.datetime(*args, **options)  # noqa: DTZ001 - as the caller says

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        return dt.datetime.now(tz) + LATER  # noqa: TID251 - this is the clock

    @classmethod
    def utcnow(cls) -> Any:
        return dt.datetime.now(dt.UTC).replace(tzinfo=None) + LATER  # noqa: TID251 - this is the clock

    @classmethod
    def today(cls) -> Any:
        return dt.datetime.now() + LATER  # noqa: DTZ005, TID251 - as the original does


class _OfDate(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, dt.date)


class _LaterDate(dt.date, metaclass=_OfDate):
    """``datetime.date`` with a later clock."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        return dt.date(*args, **options)

    @classmethod
    def today(cls) -> Any:
        return _LaterDatetime.today().date()


def set_time_later() -> None:
    """Make ``time.time`` of this process later, for all modules that import it from now on."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + LATER.total_seconds()
    time.time_ns = lambda: now_ns() + round(LATER.total_seconds() * 1e9)


def set_dates_later(packages: Collection[str]) -> None:
    """Give the modules of ``packages`` a later ``datetime`` and ``date``, under whatever names they have imported them.

    Only those: libraries that make moments in compiled code must keep the real classes.
    """
    module = types.ModuleType("datetime")
    vars(module).update({**vars(dt), "datetime": _LaterDatetime, "date": _LaterDate})
    later = {id(dt.datetime): _LaterDatetime, id(dt.date): _LaterDate, id(dt): module}
    for name, loaded in list(sys.modules.items()):
        if name.partition(".")[0] in packages:
            for variable, value in list(vars(loaded).items()):
                if id(value) in later:
                    setattr(loaded, variable, later[id(value)])
