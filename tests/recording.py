"""A proxy in front of an emulator that records which IAM action each request needs, on which resource, and can deny actions."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from stream.pipeline.access.grants import allows
from tests.models import TARGETS, problems
from tests.serving import serving

ACCOUNT, REGION = "123456789012", "us-east-1"
"""Account and region of local AWS."""

_S3 = {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}
"""Actions by method, from the Service Authorization Reference; a conditional PUT needs no more than PutObject."""

_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/[^/]+/([^/]+)/aws4_request")
"""The part of a signature that names the service."""

OF_CONSUMERS = {"SubscribeToShard", "DescribeStreamConsumer"}
"""Operations of Kinesis that are about a consumer, not a stream."""

_ALWAYS_ALLOWED = {"sts:GetCallerIdentity"}
"""Actions that every caller may use, whatever its policies say."""


@dataclass(frozen=True, order=True)
class Asked:
    """One kind of request; ``prefix`` is what ``s3:prefix`` would be."""

    action: str
    resource: str
    prefix: str | None = field(default=None)


@dataclass(frozen=True)
class Request:
    """A request as it came in; header names in lower case."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def service(self) -> str:
        """As it is called in signatures."""
        found = _SCOPE.search(self.headers.get("authorization", ""))
        assert found, f"{self.method} {self.url} is not signed"
        return found[1]


@dataclass(frozen=True)
class Naming:
    """How to find the ARNs that requests do not contain.

    ``stream``: the stream of shard iterators, which do not name it. ``secrets``: ARNs by name of secret.
    """

    account: str = ACCOUNT
    stream: str = "*"
    secrets: Mapping[str, str] = field(default_factory=dict)

    def arn(self, service: str, name: str) -> str:
        return f"arn:aws:{service}:{REGION}:{self.account}:{name}"

    def asked(self, request: Request) -> Asked:
        """The action and resource that IAM would check."""
        if request.service == "s3":
            return _of_objects(request)
        if target := request.headers.get("x-amz-target"):
            operation, given = target.partition(".")[2], json.loads(request.body)
        else:
            fields = parse_qs(request.body.decode())
            given = {name: values[0] for name, values in fields.items()}
            operation = given["Action"]
        return Asked(f"{request.service}:{operation}", self._resource(request.service, operation, given))

    def _resource(self, service: str, operation: str, given: Mapping[str, Any]) -> str:
        match service:
            case "kinesis":
                return self._of_kinesis(operation, given)
            case "dynamodb":
                index = f"/index/{given['IndexName']}" if "IndexName" in given else ""
                return self.arn("dynamodb", f"table/{given.get('TableName') or str(given['ResourceArn']).rpartition('/')[2]}{index}")
            case "secretsmanager":
                return self.secrets.get(given["SecretId"], given["SecretId"])
            case "sns":
                return str(given["TopicArn"])
            case "redshift-data" if "Id" in given:
                return "*"
            case "redshift-data" if "ClusterIdentifier" in given:
                return self.arn("redshift", f"cluster:{given['ClusterIdentifier']}")
            case "redshift-data":
                return self.arn("redshift-serverless", "workgroup/00000000-0000-0000-0000-000000000000")
            case "glue":
                database, table = given.get("DatabaseName"), given.get("Name") or given.get("TableInput", {}).get("Name")
                return self.arn("glue", f"table/{database}/{table}" if database else f"database/{table}")
            case "sts":
                return "*"
            case _:
                msg = f"what is {service}:{operation} about? {given}"
                raise AssertionError(msg)

    def _of_kinesis(self, operation: str, given: Mapping[str, Any]) -> str:
        if operation in OF_CONSUMERS:
            # The ARN ends in the second of the registration, which a request by name does not tell.
            arn = given.get("ConsumerARN") or f"{given['StreamARN']}/consumer/{given['ConsumerName']}:0"
            return str(arn)
        name = given.get("StreamName") or str(given.get("StreamARN", self.stream)).rpartition("/")[2]
        return self.arn("kinesis", f"stream/{name}")


def _of_objects(request: Request) -> Asked:
    parts = urlsplit(request.url)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    if key:
        return Asked(_S3[request.method], f"arn:aws:s3:::{bucket}/{key}")
    assert request.method == "GET"
    assert "list-type" in query, f"what is {request.method} {request.url}?"
    return Asked("s3:ListBucket", f"arn:aws:s3:::{bucket}", query.get("prefix", [""])[0])


class Recorder:
    """Forwards to ``target``. ``seen``: what was requested so far. Actions in ``denied`` are answered as IAM would deny them.

    What the model of a service excludes is answered with a ``ValidationException``: emulators are kinder than AWS.
    """

    def __init__(self, target: str, naming: Naming) -> None:
        parts = urlsplit(target)
        self.host, self.port = parts.hostname, parts.port
        self.naming = naming
        self.seen: set[Asked] = set()
        self.denied: frozenset[str] = frozenset()
        self.lock = threading.Lock()

    def note(self, what: Asked) -> bool:
        """Record the request; whether it may pass."""
        with self.lock:
            if what.action not in _ALWAYS_ALLOWED:
                self.seen.add(what)
        return what.action not in self.denied


KCL_3: Final = "-WorkerMetricStats"
"""Ending of the name of a table that exists in fleets of KCL 3.x only (tests/interop)."""


def judge(document: Any, seen: Iterable[Asked], *, in_vain: Iterable[str] = ()) -> None:
    """Assert that ``document`` allows all of ``seen`` and nothing more, by action and by resource, except the actions ``in_vain``."""
    seen, spared = set(seen), set(in_vain)
    refused = sorted(each for each in seen if not allows(document, each.action, each.resource, each.prefix))
    assert not refused, f"asked for and not allowed: {refused}"
    allowed = {action for statement in document["Statement"] for action in statement["Action"]}
    unused = allowed - {each.action for each in seen}
    assert unused == spared, f"allowed and not asked for: {unused}, expected {spared}"
    for statement in document["Statement"]:
        used = [action for action in statement["Action"] if action not in spared]
        for resource in (each for each in statement["Resource"] if used and not each.endswith(KCL_3)):
            part = {"Statement": [{**statement, "Resource": [resource]}]}
            assert any(allows(part, each.action, each.resource, each.prefix) for each in seen), f"{resource} is allowed in vain"


@contextmanager
def recording(target: str, naming: Naming | None = None) -> Iterator[tuple[str, Recorder]]:
    """The URL of a proxy in front of ``target``, and what it records, until the context ends."""
    recorder = Recorder(target, naming or Naming())
    with serving(_handler(recorder)) as url:
        yield url, recorder


def _handler(recorder: Recorder) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, body)
            asked = recorder.naming.asked(request)
            target = headers.get("x-amz-target", "")
            if target.partition(".")[0] in TARGETS and (wrong := problems(target, json.loads(body))):
                _answer(self, 400, "application/x-amz-json-1.1", json.dumps({"__type": "ValidationException", "message": "; ".join(wrong)}))
                return
            if not recorder.note(asked):
                _deny(self, request, asked)
                return
            connection = HTTPConnection(recorder.host, recorder.port, timeout=120)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                reply = connection.getresponse()
                # Recognised by the request: not every service that streams says so in the content type.
                pushed = asked.action == "kinesis:SubscribeToShard" and reply.status == 200
                _pass_on(self, reply, streamed=pushed)
            finally:
                connection.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815 - names of the library

    return Handler


_KEPT_BACK = {"transfer-encoding", "connection", "content-length", "date", "server"}


def _pass_on(handler: BaseHTTPRequestHandler, reply: HTTPResponse, *, streamed: bool) -> None:
    content = b"" if streamed else reply.read()
    handler.send_response(reply.status)
    for name, value in reply.getheaders():
        if name.lower() not in _KEPT_BACK:
            handler.send_header(name, value)
    if streamed:
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        _pump(reply.read1, handler.wfile.write)
        return
    bare = handler.command == "HEAD" or reply.status in {204, 304}
    if not bare or reply.getheader("Content-Length"):
        handler.send_header("Content-Length", str(reply.getheader("Content-Length") if bare else len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def _pump(read: Callable[[int], bytes], write: Callable[[bytes], Any]) -> None:
    """Pass on each part as soon as it arrives, in chunks."""
    while part := read(65536):
        write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    write(b"0\r\n\r\n")


def _deny(handler: BaseHTTPRequestHandler, request: Request, asked: Asked) -> None:
    """Answer as the service does if the caller's policies do not allow the request."""
    said = f"User is not authorized to perform: {asked.action} on resource: {asked.resource}"
    if "x-amz-target" in request.headers:
        status, kind = 400, "application/x-amz-json-1.1"
        text = json.dumps({"__type": "AccessDeniedException", "message": said, "Message": said})
    elif request.service == "s3":
        status, kind = 403, "application/xml"
        text = f"<Error><Code>AccessDenied</Code><Message>{said}</Message></Error>"
    else:
        status, kind = 403, "text/xml"
        text = f"<ErrorResponse><Error><Type>Sender</Type><Code>AuthorizationError</Code><Message>{said}</Message></Error></ErrorResponse>"
    _answer(handler, status, kind, "" if request.method == "HEAD" else text)


def _answer(handler: BaseHTTPRequestHandler, status: int, kind: str, text: str) -> None:
    body = text.encode()
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
