"""The properties with which PyIceberg opens a catalog: from the pipeline, its secrets, and the AWS session of this process."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from stream.aws.session import AwsSession
from stream.pipeline.resources.secrets import SecretReader, find_secret
from stream.sink.iceberg import CatalogType, IcebergSinkConfig

AUTHORITIES: Final = "stream.authorities"
"""The property with the path of the certificates (PEM) of those who vouch for S3 and the catalog. PyIceberg has none for files."""

Properties = Callable[[], Awaitable[Mapping[str, str]]]
"""Gives the catalog's current properties: AWS keys change."""

Secret = Callable[[str], Awaitable[str]]
"""Gives the current value of a secret reference; raises as ``find_secret`` does."""


def secrets_of(env: Mapping[str, str], base: Path, managed: SecretReader) -> Secret:
    """Looks up secrets in ``env``, in files under ``base``, or with ``managed``."""

    async def secret(reference: str) -> str:
        return (await find_secret(reference, env, base, managed)).decode()

    return secret


def catalog_properties(config: IcebergSinkConfig, session: AwsSession, secret: Secret) -> Properties:
    """Properties from ``config`` and its secrets; if the catalog uses AWS, also this process's own keys, region and endpoints."""
    aws = config.url.startswith("s3:") or config.catalog["type"] == CatalogType.GLUE

    @functools.cache
    def endpoints() -> dict[str, str | None]:
        # Glue's client is botocore's, which knows of FIPS and the like by itself; that of the files is not.
        return {"s3.endpoint": session.unusual_endpoint("s3"), "glue.endpoint": session.endpoint_override("glue")}

    async def now() -> Mapping[str, str]:
        secrets = {name: await secret(reference) for name, reference in config.secrets.items()}
        # A proxy that opens TLS does so for a catalog over REST, too.
        trusted = {AUTHORITIES: file} if session.trust() is not None and (file := session.authorities()) is not None else {}
        return (await ours() if aws else {}) | trusted | config.catalog | secrets

    async def ours() -> dict[str, str]:
        keys = await session.credentials()
        given = endpoints() | {
            "client.access-key-id": keys.access_key,
            "client.secret-access-key": keys.secret_key,
            "client.region": session.region,
        }
        given["client.session-token"] = keys.token
        if session.trust() is not None:
            given |= {"py-io-impl": "stream.worker.tables.iceberg_files.FilesWithAuthorities"}
        return {name: value for name, value in given.items() if value}

    return now
