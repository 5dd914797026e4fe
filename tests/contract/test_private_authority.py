"""Behind a proxy that terminates TLS with a private certificate authority, every client uses the bundle that AWS's own tools use."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pyiceberg.io import load_file_io

from stream.aws.dynamodb import open_dynamodb
from stream.aws.errors import Call
from stream.aws.kinesis import open_kinesis
from stream.aws.redshift_data import Database, open_redshift_data
from stream.aws.session import AwsSession
from stream.clock import SystemClock
from stream.errors import DefinitionError, StreamError
from stream.local.kinesis.server import running
from stream.sink.iceberg import IcebergSinkConfig
from stream.storage.open import open_store
from stream.worker.tables.iceberg_catalog import CatalogTable
from stream.worker.tables.iceberg_properties import catalog_properties


def authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """The certificate of a new authority, and the TLS context of a server at 127.0.0.1 whose certificate it has signed."""
    now = SystemClock().now()
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("Proxy Authority", "here")]

    def signed(which: int) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(
            names[0], names[which], keys[which].public_key(), 1 + which, now - timedelta(hours=1), now + timedelta(hours=1)
        )

    # Python 3.13 verifies strictly, by RFC 5280: an authority says what its key is for, and a certificate who has signed it.
    signs = x509.KeyUsage(
        key_cert_sign=True,
        crl_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    of_root = x509.SubjectKeyIdentifier.from_public_key(keys[0].public_key())
    root = signed(0).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).add_extension(signs, critical=True)
    root = root.add_extension(of_root, critical=False).sign(keys[0], SHA256())
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    by_root = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(of_root)
    leaf = signed(1).add_extension(address, critical=False).add_extension(by_root, critical=False).sign(keys[0], SHA256())
    bundle, chain = folder / "bundle.pem", folder / "chain.pem"
    # Bundles name authorities beside their certificates, in any language.
    bundle.write_bytes("# Autorité\n".encode() + root.public_bytes(Encoding.PEM))
    own = keys[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain.write_bytes(leaf.public_bytes(Encoding.PEM) + own)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return bundle, context


@asynccontextmanager
async def behind_tls(url: str, context: ssl.SSLContext) -> AsyncIterator[str]:
    """The service at ``url`` behind TLS."""
    parts, open_ones = urlsplit(url), set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(asyncio.current_task())
        behind, onwards = await asyncio.open_connection(parts.hostname, parts.port)
        await asyncio.gather(pump(reader, onwards), pump(behind, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*open_ones, return_exceptions=True)


async def kinesis(session: AwsSession) -> None:
    async with open_kinesis(session) as client:
        await client.list_shards("none")


async def fan_out(session: AwsSession) -> None:
    async with open_kinesis(session) as client, await client.post("SubscribeToShard", "none", {}) as answer:
        raise AssertionError(await answer.text())


async def dynamodb(session: AwsSession) -> None:
    async with open_dynamodb(session, SystemClock()) as client:
        await client.call("DescribeTable", "none", {})


async def redshift(session: AwsSession) -> None:
    async with open_redshift_data(session, Database("db", workgroup="w")) as client:
        await client.describe("00000000-0000-0000-0000-000000000000")


async def s3(session: AwsSession) -> None:
    await open_store("s3://none/p", session).get("k")


async def sns(session: AwsSession) -> None:
    topic = "arn:aws:sns:us-east-1:111122223333:none"
    await session.ask("sns", "get_topic_attributes", Call("sns:GetTopicAttributes", topic, "here"), TopicArn=topic)


CLIENTS = {
    kinesis: "ResourceNotFoundException",
    fan_out: "SubscribeToShard on stream none",
    dynamodb: "ResourceNotFoundException",
    redshift: "ResourceNotFoundException",
    s3: "the bucket of s3://none/p does not exist",
    sns: "NotFound",
}
"""What each client is told by its service when it asks for what is not there."""


def reported(ask: Callable[[AwsSession], Awaitable[None]], url: str, context: ssl.SSLContext) -> str:
    """The answer, or the error, of a request over TLS."""

    async def body() -> str:
        async with behind_tls(url, context) as front:
            services = ("kinesis", "dynamodb", "redshift-data", "s3", "sns")
            session = AwsSession(region="us-east-1", endpoints=dict.fromkeys(services, front))
            with pytest.raises(StreamError) as found:
                await asyncio.wait_for(ask(session), 120)
            return f"{type(found.value).__name__}: {found.value}"

    return asyncio.run(body())


@pytest.fixture
def url(request: pytest.FixtureRequest, ask: Callable[[AwsSession], Awaitable[None]]) -> str:
    if ask in {kinesis, fan_out}:
        return request.getfixturevalue("emulator")
    return request.getfixturevalue("moto_url")


@pytest.fixture(scope="module")
def emulator():
    with running() as server:
        yield server.url


@pytest.mark.parametrize("ask", CLIENTS, ids=lambda ask: ask.__name__)
def test_the_bundle_named_in_the_environment_is_trusted(ask, url, aws_env, tmp_path, monkeypatch):
    bundle, context = authority(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    reached = reported(ask, url, context)
    assert CLIENTS[ask] in reached
    assert "certificate" not in reached
    monkeypatch.delenv("AWS_CA_BUNDLE")
    assert "certificate" in reported(ask, url, context)


def test_the_bundle_named_in_the_profile_is_trusted(moto_url, aws_env, tmp_path, monkeypatch):
    bundle, context = authority(tmp_path)
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    (tmp_path / "config").write_text(f"[profile p]\nca_bundle = {bundle}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "p")
    assert CLIENTS[s3] in reported(s3, moto_url, context)
    assert "ResourceNotFoundException" in reported(dynamodb, moto_url, context)


def pyiceberg_finds_a_file(url: str, context: ssl.SSLContext, tmp_path: Path) -> bool:
    """Whether PyIceberg finds a file by TLS, with the properties that a loader gives it."""
    config = IcebergSinkConfig.model_validate(
        {"location": "s3://iceberg/t/", "table": "d.t", "catalog": {"type": "sql", "uri": f"sqlite:///{tmp_path}/c.db"}}
    )

    async def body() -> bool:
        async with behind_tls(url, context) as front:
            session = AwsSession(region="us-east-1", endpoints={"s3": front})
            properties = await catalog_properties(config, session, None)()
            files = load_file_io(dict(properties), "s3://iceberg/t")
            return await asyncio.to_thread(files.new_input("s3://iceberg/t/there").exists)

    return asyncio.run(body())


def test_pyiceberg_trusts_the_bundle_for_files_too(moto_url, aws_env, tmp_path, monkeypatch):
    client = boto3.client("s3", endpoint_url=moto_url, region_name="us-east-1")
    client.create_bucket(Bucket="iceberg")
    client.put_object(Bucket="iceberg", Key="t/there", Body=b"x")
    client.close()
    bundle, context = authority(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    assert pyiceberg_finds_a_file(moto_url, context, tmp_path)
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with pytest.raises(OSError, match="certificate"):
        pyiceberg_finds_a_file(moto_url, context, tmp_path)


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), ("no certificate", "NO_CERTIFICATE")])
@pytest.mark.parametrize("ask", [kinesis, dynamodb, redshift, s3], ids=lambda ask: ask.__name__)
def test_an_unusable_bundle_is_named(ask, content, why, aws_env, tmp_path, monkeypatch):
    if content is not None:
        (tmp_path / "bundle.pem").write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "bundle.pem"))
    session = AwsSession(region="us-east-1", endpoints=dict.fromkeys(("kinesis", "dynamodb", "redshift-data", "s3"), "https://127.0.0.1:1"))
    with pytest.raises(DefinitionError, match=f"AWS_CA_BUNDLE.*{why}") as found:
        asyncio.run(ask(session))
    assert str(tmp_path / "bundle.pem") in str(found.value)


def test_without_a_bundle_the_authorities_of_the_system_are_trusted(aws_env, monkeypatch):
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    session = AwsSession(region="us-east-1")
    assert (session.authorities(), session.trust()) == (None, None)


class EmptyCatalog(BaseHTTPRequestHandler):
    """A REST catalog without tables."""

    def do_GET(self) -> None:
        there = self.path.endswith("/v1/config")
        said = {"defaults": {}, "overrides": {}} if there else {"error": {"message": "none", "type": "NoSuchTableException", "code": 404}}
        body = json.dumps(said).encode()
        self.send_response(200 if there else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def asked_of_a_rest_catalog(context: ssl.SSLContext, folder: Path) -> str:
    """What a REST catalog behind TLS says of a table that it does not have, with the properties that a loader gives PyIceberg."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), EmptyCatalog)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()

    async def body() -> str:
        catalog = {"type": "rest", "uri": f"https://127.0.0.1:{server.server_port}"}
        config = IcebergSinkConfig.model_validate({"location": f"file:{folder}/t/", "table": "d.t", "catalog": catalog})
        table = CatalogTable(config, config.url, catalog_properties(config, AwsSession(region="us-east-1"), None))
        try:
            return "nothing" if await table.ask(table.found) is None else "something"
        finally:
            if table._known is not None:
                await table.ask(lambda catalog: catalog.close())

    try:
        return asyncio.run(asyncio.wait_for(body(), 120))
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def test_a_rest_catalog_is_reached_with_the_bundle_too(aws_env, tmp_path, monkeypatch):
    bundle, context = authority(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    assert asked_of_a_rest_catalog(context, tmp_path) == "nothing"
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with pytest.raises(StreamError, match="certificate verify failed"):
        asked_of_a_rest_catalog(context, tmp_path)
