"""A pipeline under load on local AWS, scraped by Prometheus, to check and draw the dashboards with."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event
from time import monotonic, time

import boto3
import yaml

from stream.local.aws import LocalClients
from stream.local.flights import flights_table, produce
from stream.local.start import LocalAws
from tests.ports import free_port

ROOT = Path(__file__).parents[3]
LABELS = {"namespace": "data", "pod": "flights-stream-0"}
PATIENCE = 240
BROKEN = b'{"carrier": '
LIFE = timedelta(hours=6)


@contextmanager
def answering(handle):
    """A loopback server; ``handle`` gives content type and body for a path."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kind, body = handle(self.path)
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 - names of the library

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def credentials(_):
    """Credentials as the Pod Identity agent gives them, with an expiry."""
    ends = (datetime.now(UTC) + LIFE).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: TID251
    keys = {"AccessKeyId": "test", "SecretAccessKey": "test", "Token": "t", "Expiration": ends}
    return "application/json", json.dumps(keys).encode()


def accepted(_):
    """An empty ExportTraceServiceResponse: everything was accepted."""
    return "application/x-protobuf", b""


class Prometheus:
    """The HTTP API of a server that scrapes every second."""

    def __init__(self, url):
        self.url = url

    def ask(self, path, **parameters):
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=30) as reply:
            answer = json.load(reply)
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def now(self, expr):
        """Labels and value of each series."""
        return [(each["metric"], float(each["value"][1])) for each in self.ask("query", query=expr)]

    def over(self, expr, seconds, step):
        """Labels and (time, value) pairs of each series."""
        end = time()
        found = self.ask("query_range", query=expr, start=end - seconds, end=end, step=step)
        return [(each["metric"], [(float(at), float(value)) for at, value in each["values"]]) for each in found]


@contextmanager
def ended(command, log, **options):
    """A process that runs until the context ends; it is terminated, and then killed if necessary."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, **options) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def prometheus_at(folder, target, stack):
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ROOT / "deploy/eks/chart/rules/stream.yaml")],
        "scrape_configs": [{"job_name": "stream", "static_configs": [{"targets": [target], "labels": LABELS}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = stack.enter_context(free_port())
    command = ["prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    stack.enter_context(ended([*command, f"--web.listen-address=127.0.0.1:{port}"], folder / "prometheus.log"))
    return Prometheus(f"http://127.0.0.1:{port}")


def pipeline_at(folder, collector):
    text = (ROOT / "examples/flights/pipeline.yaml").read_text()
    path = folder / "pipeline.yaml"
    path.write_text(f"{text}audit: {{otlp: {{endpoint: '{collector}'}}}}\n")
    return path


@contextmanager
def demo(folder, shards=2):
    """Prometheus, scraping a worker that reads flights; a thread puts a few at a time until the context ends."""
    with ExitStack() as stack:
        aws = stack.enter_context(LocalAws())
        clients = stack.enter_context(LocalClients(aws.environment()))
        clients.create_bucket("lake")
        clients.create_stream("flights", shards)
        collector, agent = stack.enter_context(answering(accepted)), stack.enter_context(answering(credentials))
        (folder / "token").write_text(
            "e30." + base64.urlsafe_b64encode(b'{"aud": "pods.eks.amazonaws.com"}').decode().rstrip("=") + ".c2ln"
        )
        environment = {name: value for name, value in aws.environment().items() if "ACCESS_KEY" not in name}
        environment |= {"AWS_CONTAINER_CREDENTIALS_FULL_URI": agent, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(folder / "token")}
        given = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        given |= {**environment, "MASK_KEY": "any", "FLUSH_AGE": "2s", "PYTHONPATH": str(ROOT)}
        port = stack.enter_context(free_port())
        command = [sys.executable, "-m", "stream", "run", str(pipeline_at(folder, collector)), f"--metrics-port={port}"]
        stack.enter_context(ended(command, folder / "worker.log", env=given, cwd=ROOT))
        over = Event()
        stack.callback(over.set)

        def load():
            table, at = flights_table(), 0
            where = aws.environment()
            keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": where["AWS_REGION"]}
            client = boto3.client("kinesis", endpoint_url=where["AWS_ENDPOINT_URL_KINESIS"], **keys)
            stack.callback(client.close)
            while not over.is_set():
                client.put_records(StreamName="flights", Records=[{"Data": BROKEN, "PartitionKey": str(key)} for key in range(at, at + 3)])
                produce(where["AWS_ENDPOINT_URL_KINESIS"], where["AWS_REGION"], "flights", table.slice(at, 500), 1, lambda _: None)
                at = (at + 500) % len(table)
                over.wait(1.0)

        thread = threading.Thread(target=load)
        thread.start()
        stack.callback(thread.join)
        stack.callback(over.set)
        yield prometheus_at(folder, f"127.0.0.1:{port}", stack)


def until(condition):
    """Whether ``condition`` came true in time."""
    end = monotonic() + PATIENCE
    while monotonic() < end:
        if condition():
            return True
        Event().wait(0.5)
    return False
