"""rotel, a third-party collector, which forwards what it receives to a listener of ours that counts ids."""

from __future__ import annotations

import os
import socket
import subprocess
import sysconfig
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import rotel
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.integration.narration import Received, collector
from tests.ports import free_port

PATIENCE = 60.0
STEP = 0.1
SILENCE = 50
"""Steps without anything new after which the agent has forwarded everything."""


@dataclass
class Agent:
    """``http`` and ``grpc``: where it listens. ``output``: what it has forwarded."""

    http: str
    grpc: str
    output: Received
    process: subprocess.Popen[bytes]
    records: Counter[tuple[bytes, bytes]] = field(default_factory=Counter)

    def drain(self) -> Counter[tuple[bytes, bytes]]:
        """End the agent once it has forwarded everything. Returns how often each record span was forwarded.

        It takes requests faster than it hands them on, and when it is told to end it gives up after a few seconds.
        """
        seen, silent, waited = -1, 0, threading.Event()
        for _ in range(int(5 * PATIENCE / STEP)):
            waited.wait(STEP)
            silent, seen = (silent + 1 if seen == len(self.output.bodies) else 0), len(self.output.bodies)
            if silent == SILENCE:
                break
        self.process.terminate()
        self.process.wait(PATIENCE)
        for path, body in self.output.bodies:
            assert path == "/v1/traces", path
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    named = ((span.trace_id, span.span_id) for span in scope.spans if span.name.startswith("process "))
                    self.records.update(named)
        return self.records


@contextmanager
def agent(folder: Path) -> Iterator[Agent]:
    program = Path(rotel.__file__).with_name("rotel-agent")
    log = folder / "rotel.log"
    with collector() as output, log.open("wb") as said, free_port() as http, free_port() as grpc:
        command = [str(program), "start", "--exporter", "otlp", "--otlp-exporter-protocol", "http"]
        command += ["--otlp-exporter-endpoint", output.url, "--pid-file", str(folder / "rotel.pid")]
        command += ["--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http}"]
        # The agent runs Python itself, by the shared library of this version, which need not be where the system looks.
        environment = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))}
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
        try:
            waited = threading.Event()
            for _ in range(int(PATIENCE / 0.05)):
                with socket.socket() as probe:
                    if process.poll() is not None or probe.connect_ex(("127.0.0.1", http)) == 0:
                        break
                waited.wait(0.05)
            assert process.poll() is None, log.read_text()
            yield Agent(f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}", output, process)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
