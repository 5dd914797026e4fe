"""The contestants, and how each is run: in a process of its own, whose CPU time includes that of its children."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from replay import SMALL
from shapes import Shape

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
PIPELINE: Final = """
application: bench
source:
  kinesis: {{stream: "{stream}"}}
  schema: {schema}
stages: {stages}
sinks: [s3: {{url: "file:lake"}}]
state: file:state
flush: {{age: {age}, rows: {rows}}}
memory: {{budget: {budget}}}
metrics: {{port: 0}}
"""


ROWS_A_UNIT: Final = 50_000
"""As many as the peers write to a file."""


@dataclass(frozen=True, slots=True)
class Used:
    """What one run used: CPU seconds, wall seconds, peak memory in MiB."""

    cpu: float
    wall: float
    rss: float


@dataclass(frozen=True, slots=True)
class Job:
    """What to read, and where its output goes (``lake`` below ``folder``)."""

    shape: Shape
    url: str
    stream: str
    records: int
    folder: Path


def environment(url: str) -> dict[str, str]:
    """Credentials, which the replay server ignores, and the server's address."""
    keys = {"AWS_ACCESS_KEY_ID": "t", "AWS_SECRET_ACCESS_KEY": "t", "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
    return {
        **os.environ,
        **keys,
        "AWS_ENDPOINT_URL_KINESIS": url,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }


def service(
    job: Job,
    *,
    budget: str = "256MiB",
    age: str = "10s",
    options: tuple[str, ...] = (),
    program: tuple[str, ...] = ("-m", "stream", "run"),
    more: str = "",
    variables: Mapping[str, str] = MappingProxyType({}),
    settled: Callable[[], object] = lambda: None,
) -> Used:
    """This service: until everything is sealed and ``settled`` has returned, then drained.

    ``program`` takes the pipeline file, which ends with ``more``.
    """
    age = "1s" if job.stream == SMALL else age
    text = PIPELINE.format(stream=job.stream, schema=job.shape.schema, stages=job.shape.stages, budget=budget, age=age, rows=ROWS_A_UNIT)
    (job.folder / "pipeline.yaml").write_text(text + more)
    command = [sys.executable, *program, str(job.folder / "pipeline.yaml"), *options]

    def until_sealed(process: subprocess.Popen[bytes]) -> None:
        done = 0
        assert process.stderr is not None
        for line in process.stderr:
            if not line.startswith(b"{"):
                sys.exit(f"{' '.join(command)} wrote this instead of a log line:\n{(line + process.stderr.read()).decode()[-4000:]}")
            event = json.loads(line)
            done += sum(event["outcomes"].values()) if event["event"] == "unit_sealed" else 0
            if done >= job.records:
                break
        settled()
        if "--once" not in options:  # for a run that ends by itself, a signal means to stop before its end
            process.send_signal(signal.SIGTERM)
        threading.Thread(target=process.stderr.read).start()

    return _run(command, job, until_sealed, variables)


def pure_python(job: Job) -> Used:
    """The service without the compiled kernel."""
    return service(job, variables={"STREAM_NATIVE": "off"})


def peer(client: str, work: str, lock: str) -> Callable[[Job], Used]:
    """A loop of ``peers/consume.py`` in the environment that ``peers/<lock>.txt`` locks."""

    def run(job: Job, variables: Mapping[str, str] = MappingProxyType({})) -> Used:
        (job.folder / "lake").mkdir()
        arguments = [client, work, job.shape.name, job.url, job.stream, str(job.folder / "lake"), str(job.records)]
        return _run([str(interpreter(lock)), str(HERE / "peers" / "consume.py"), *arguments], job, lambda _: None, variables)

    return run


def with_leases(job: Job) -> Used:
    """kcl-rs, which keeps leases in DynamoDB and sends metrics to CloudWatch; moto serves both, and its CPU time does not count."""
    from stream.local.moto import moto

    with moto() as aws:
        variables = {"AWS_ENDPOINT_URL_DYNAMODB": aws.url, "AWS_ENDPOINT_URL_CLOUDWATCH": aws.url}
        return peer("kcl-rs", "dict", "kclrs")(job, variables)  # type: ignore[call-arg]


def interpreter(lock: str) -> Path:
    """The Python of a peer's environment, made on first use with exactly the versions in its lock file."""
    wanted = HERE / "peers" / f"{lock}.txt"
    folder = ROOT / ".make" / "peers" / f"{lock}-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])) or sys.exit("uv is not there")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), "--require-hashes", "-r", str(wanted)]
        subprocess.run(install, check=True)
        (folder / "complete").touch()
    return python


def _run(
    command: list[str], job: Job, attend: Callable[[subprocess.Popen[bytes]], None], variables: Mapping[str, str] = MappingProxyType({})
) -> Used:
    """Run ``command`` and measure it as GNU time does: memory is read before it ends, CPU time from the accounting for child processes."""
    before, peak = resource.getrusage(resource.RUSAGE_CHILDREN), [0.0]
    begun = _seconds()
    with subprocess.Popen(command, env={**environment(job.url), **variables}, stderr=subprocess.PIPE) as process:
        watch = threading.Thread(target=_watch, args=(process, peak))
        watch.start()
        attend(process)
        errors = (
            process.stderr.read() if process.stderr is not None and not process.stderr.closed and attend.__name__ == "<lambda>" else b""
        )
        process.wait()
        wall = _seconds() - begun
        watch.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{errors.decode()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Used(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, peak[0])


def _watch(process: subprocess.Popen[bytes], peak: list[float]) -> None:
    while process.poll() is None:
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc", str(process.pid), "status").read_text())
        except OSError:
            return
        peak[0] = max(peak[0], int(found[1]) / 1024 if found else 0.0)
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue


def _seconds() -> float:
    import time

    return time.monotonic()


CONTESTANTS: Final[dict[str, Callable[[Job], Used]]] = {
    "stream": service,
    "stream (pure Python)": pure_python,
    "aiobotocore loop": peer("aiobotocore", "dict", "aws"),
    "boto3 + Polars": peer("boto3", "polars", "aws"),
    "capo-kinesis loop": peer("capo", "dict", "capo"),
    "capo-kinesis + Polars": peer("capo", "polars", "capo"),
    "async-kinesis": peer("async-kinesis", "dict", "asynckinesis"),
    "kcl-rs": with_leases,
}

WHOLE_CONSUMERS: Final = frozenset({"async-kinesis", "kcl-rs"})
"""Slow to run: a CPU second per 12,000 records, or a minute until they have leases. One shape is enough for a comparison."""
LOCKS: Final = ("aws", "capo", "asynckinesis", "kclrs")
