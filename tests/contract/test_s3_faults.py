"""The S3 store with responses that moto never gives, over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from aiohttp import web

from stream.aws.session import AwsSession, Credentials
from stream.clock import SystemClock
from stream.contracts import ObjectStore
from stream.errors import Fatal, Retryable
from stream.storage import s3
from stream.storage.open import open_store
from tests.unit.aws.test_wire import certified

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def with_s3(handler: Handler, use: Callable[[ObjectStore], Awaitable[None]]) -> int:
    """Runs ``use`` against an S3 that answers by ``handler``; returns how many requests came."""
    seen = 0

    async def counted(request: web.Request) -> web.StreamResponse:
        nonlocal seen
        seen += 1
        return await handler(request)

    runner = web.ServerRunner(web.Server(counted))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        await use(open_store("s3://bucket/p", AwsSession(region="us-east-1", endpoints={"s3": f"http://{host}:{port}"})))
    finally:
        await runner.cleanup()
    return seen


def failing(status: int, code: str) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(status=status, text=f"<Error><Code>{code}</Code><Message>why not</Message></Error>")

    return handler


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (409, "ConditionalRequestConflict")])
def test_a_conditional_write_of_unknown_outcome_is_retryable_and_sent_once(aws_env: None, status: int, code: str) -> None:
    async def use(store: ObjectStore) -> None:
        with pytest.raises(Retryable, match="s3:PutObject"):
            await store.create("k", b"body")
        with pytest.raises(Retryable, match="s3:PutObject"):
            await store.replace("k", b"body", '"tag"')

    assert asyncio.run(with_s3(failing(status, code), use)) == 2


def test_every_write_has_a_checksum_as_a_bucket_requires_that_retains_objects(aws_env: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_PART_BYTES", 5 * 2**20)
    bodies: list[int] = []

    async def retaining(request: web.Request) -> web.StreamResponse:
        body = await request.content.read()
        if request.method == "POST":
            kind, rest = ("Initiate", "<UploadId>u</UploadId>") if "uploads" in request.query else ("Complete", '<ETag>"tag"</ETag>')
            assert kind == "Complete" or request.headers["x-amz-checksum-algorithm"] == "SHA256"
            return web.Response(text=f"<{kind}MultipartUploadResult>{rest}</{kind}MultipartUploadResult>")
        checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
        if request.headers.get("x-amz-checksum-sha256") != checksum:
            return web.Response(status=400, text="<Error><Code>InvalidRequest</Code><Message>a checksum is required</Message></Error>")
        bodies.append(len(body))
        return web.Response(headers={"etag": '"tag"', "x-amz-checksum-sha256": checksum})

    async def use(store: ObjectStore) -> None:
        await store.create("k", b"1")
        await store.replace("k", b"22", '"tag"')
        await store.put("k", b"333")
        await store.put("k", bytes(6 * 2**20))

    asyncio.run(with_s3(retaining, use))
    assert bodies[:3] == [1, 2, 3]
    assert sum(bodies[3:]) == 6 * 2**20


async def accepting(request: web.Request) -> web.StreamResponse:
    """Accepts every write, whole or in parts."""
    await request.content.read()
    if request.method != "POST":
        return web.Response(headers={"etag": '"tag"'})
    kind, rest = ("Initiate", "<UploadId>u</UploadId>") if "uploads" in request.query else ("Complete", '<ETag>"tag"</ETag>')
    return web.Response(text=f"<{kind}MultipartUploadResult>{rest}</{kind}MultipartUploadResult>")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """An entry for each time that the store has asked for credentials."""
    found: list[object] = []
    given = AwsSession.credentials

    async def counted(session: AwsSession) -> Credentials:
        found.append(session)
        return await given(session)

    monkeypatch.setattr(AwsSession, "credentials", counted)
    return found


async def writes_with_pauses(store: ObjectStore) -> None:
    """One write in parts after others; between them passes a moment in which the library does not even ask for credentials again."""
    for size in (1, 2, 11 * 2**20, 11 * 2**20):
        await store.put("k", bytes(size))
        threading.Event().wait(0.15)


def test_objects_are_written_in_parts_when_credentials_have_to_be_renewed(
    aws_env: None, monkeypatch: pytest.MonkeyPatch, asked: list[object]
) -> None:
    """Parts are sent by tasks of the library that know no event loop."""
    monkeypatch.setattr(s3, "_PART_BYTES", 5 * 2**20)
    monkeypatch.setattr(s3, "_CREDENTIAL_LIFE", timedelta(0))
    assert asyncio.run(with_s3(accepting, writes_with_pauses)) == 1 + 1 + 2 * 5
    assert len(asked) >= 4


def test_credentials_are_kept_for_minutes(aws_env: None, monkeypatch: pytest.MonkeyPatch, asked: list[object]) -> None:
    monkeypatch.setattr(s3, "_PART_BYTES", 5 * 2**20)
    asyncio.run(with_s3(accepting, writes_with_pauses))
    assert len(asked) == 1


def test_credentials_that_end_soon_are_not_kept_beyond_their_end(aws_env: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library keeps credentials until five minutes before the end that it is told."""
    ends, found = SystemClock().now() + timedelta(minutes=4), []

    async def given(session: AwsSession) -> Credentials:
        found.append(session)
        return Credentials("key", "secret", None, ends)

    monkeypatch.setattr(AwsSession, "credentials", given)
    asyncio.run(with_s3(accepting, writes_with_pauses))
    assert len(found) >= 4


def test_credentials_may_be_asked_for_before_a_first_call_returns(aws_env: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library begins with a request as soon as it is called, in a thread of its own."""
    put_async = obstore.put_async

    def overtaken(*args: Any, **options: Any) -> Any:
        begun = put_async(*args, **options)
        threading.Event().wait(0.2)
        return begun

    monkeypatch.setattr(obstore, "put_async", overtaken)

    async def first_call(store: ObjectStore) -> None:
        await store.put("k", b"body")

    assert asyncio.run(with_s3(accepting, first_call)) == 1


@pytest.mark.parametrize(("status", "code"), [(409, "OperationAborted"), (412, "PreconditionFailed")])
def test_an_unconditional_write_that_meets_a_conflict_is_retryable(aws_env: None, status: int, code: str) -> None:
    async def use(store: ObjectStore) -> None:
        with pytest.raises(Retryable, match="s3:PutObject"):
            await store.put("k", b"body")

    assert asyncio.run(with_s3(failing(status, code), use)) >= 1


def test_a_lost_reply_to_a_conditional_write_is_retryable_and_not_a_lost_race(aws_env: None) -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse:
        await request.read()
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async def use(store: ObjectStore) -> None:
        with pytest.raises(Retryable, match="s3:PutObject"):
            await store.create("k", b"body")

    assert asyncio.run(with_s3(hang_up, use)) == 1


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (403, "AccessDenied", "was refused: allow it for the role in use"),
        (403, "InvalidObjectState", r"was refused, since the object is archived: restore it \(S3 Glacier\)"),
        (403, "SignatureDoesNotMatch", "was refused: check the credentials and this machine's clock"),
        (403, "RequestTimeTooSkewed", "was refused: check the credentials and this machine's clock"),
        (400, "AuthorizationHeaderMalformed", "cannot work: the bucket is not in us-east-1"),
        (301, "PermanentRedirect", "cannot work: the bucket is not in us-east-1"),
    ],
)
def test_a_refusal_is_fatal_and_names_action_and_remedy(aws_env: None, status: int, code: str, remedy: str) -> None:
    async def use(store: ObjectStore) -> None:
        for action, call in (
            ("s3:PutObject", store.create("k", b"")),
            ("s3:GetObject", store.get("k")),
            ("s3:DeleteObject", store.delete("k")),
        ):
            with pytest.raises(Fatal, match=f"{action} on 'k' under s3://bucket/p {remedy}") as caught:
                await call
            # Without that permission, S3 refuses to say that an object is not there.
            assert ("and s3:ListBucket" in str(caught.value)) == (action == "s3:GetObject" and code == "AccessDenied")

    assert asyncio.run(with_s3(failing(status, code), use)) == 3


def test_a_denied_kms_key_is_reported_with_the_actions_to_allow(aws_env: None) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await request.read()
        said = "User: arn:aws:sts::1:assumed-role/w/s is not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:k"
        return web.Response(status=403, text=f"<Error><Code>AccessDenied</Code><Message>{said}</Message></Error>")

    async def use(store: ObjectStore) -> None:
        with pytest.raises(Fatal, match=r"was refused: allow the role in use kms:GenerateDataKey and kms:Decrypt on the bucket's key"):
            await store.create("k", b"")

    assert asyncio.run(with_s3(handler, use)) == 1


async def error_of_a_write_to(url: str) -> str:
    store = open_store("s3://bucket/p", AwsSession(region="us-east-1", endpoints={"s3": url}))
    with pytest.raises(Retryable) as found:
        await store.create(KEY, b"")
    return str(found.value)


def test_the_reason_of_a_failed_connection_is_reported(aws_env: None, tmp_path: Path) -> None:
    async def strangers() -> tuple[str, str]:
        async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certified(tmp_path))
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await error_of_a_write_to(f"https://127.0.0.1:{port}"), await error_of_a_write_to("http://127.0.0.1:1")

    unknown, refused = asyncio.run(strangers())
    assert "error sending request (its certificate is not accepted: UnknownIssuer)" in unknown
    assert "error sending request (tcp connect error; Connection refused)" in refused
    assert "TAGGED" not in unknown + refused


def test_a_write_without_an_etag_is_fatal(aws_env: None) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response()

    async def use(store: ObjectStore) -> None:
        with pytest.raises(Fatal, match="without an ETag, which conditional writes need: use a store that supports If-Match"):
            await store.create("k", b"")

    asyncio.run(with_s3(handler, use))


def test_a_listing_out_of_order_is_fatal(aws_env: None) -> None:
    def entry(key: str) -> str:
        return f"<Contents><Key>p/{key}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=f"<ListBucketResult><IsTruncated>false</IsTruncated>{entry('b')}{entry('a')}</ListBucketResult>")

    async def use(store: ObjectStore) -> None:
        with pytest.raises(Fatal, match="general purpose bucket"):
            assert [info async for info in store.list("")]

    asyncio.run(with_s3(handler, use))


def test_reading_without_credentials_is_fatal_and_says_where_it_looked(monkeypatch: pytest.MonkeyPatch, aws_env: None) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "nowhere")

    async def use(store: ObjectStore) -> None:
        with pytest.raises(Fatal, match=r"^no AWS credentials found: .* Give the pod a role"):
            await store.get("k")

    assert asyncio.run(with_s3(failing(500, "never"), use)) == 0


def test_credentials_that_are_unavailable_for_now_are_retryable(monkeypatch: pytest.MonkeyPatch, aws_env: None) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/flights")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "not-there-yet")

    async def use(store: ObjectStore) -> None:
        for call in (store.get("k"), store.create("k", b""), store.delete("k")):
            with pytest.raises(Retryable, match=r"^AWS credentials are not available"):
                await call

    assert asyncio.run(with_s3(failing(500, "never"), use)) == 0


def test_an_expired_session_token_is_reported_with_what_to_do(aws_env: None) -> None:
    async def use(store: ObjectStore) -> None:
        for call in (store.get("k"), store.create("k", b""), store.replace("k", b"", '"tag"'), store.put("k", b"")):
            with pytest.raises(Retryable, match=r"ExpiredToken.*Remedy: the credentials in use have ended"):
                await call

    asyncio.run(with_s3(failing(400, "ExpiredToken"), use))


KEY = "mail=ada%40TAGGED.example/day=TAGGED/shardId-0-1-2-0123456789abcdef.parquet"
"""Of a data file: partition columns hold what came in records."""


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (403, "AccessDenied"), (400, "BadDigest")])
def test_errors_do_not_contain_values_of_partition_columns(aws_env: None, status: int, code: str) -> None:
    async def use(store: ObjectStore) -> None:
        for call in (store.create(KEY, b""), store.replace(KEY, b"", '"tag"'), store.get(KEY), store.delete(KEY), store.put(KEY, b"")):
            with pytest.raises((Fatal, Retryable)) as caught:
                await call
            assert "TAGGED" not in str(caught.value)
            assert "mail=*/day=*/shardId-0-1-2-0123456789abcdef.parquet" in str(caught.value)

    asyncio.run(with_s3(failing(status, code), use))


def test_a_file_is_written_in_one_request_so_a_broken_upload_leaves_nothing(aws_env: None) -> None:
    asked: list[tuple[str, str, int]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        size = sum([len(piece) async for piece in request.content.iter_any()])
        asked.append((request.method, request.query_string, size))
        return web.Response(headers={"ETag": '"tag"'})

    async def use(store: ObjectStore) -> None:
        await store.put("k", b"x" * (12 * 2**20))

    asyncio.run(with_s3(handler, use))
    assert asked == [("PUT", "", 12 * 2**20)]
