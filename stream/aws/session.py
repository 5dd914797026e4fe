"""The one place that makes AWS credentials, endpoints and clients.

Everything is resolved by botocore's own chains, so environment variables, profiles, IRSA, Pod Identity and SSO behave as they do
in every other AWS tool.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import ssl
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import aiobotocore.session
import aiohttp
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError, UnknownRegionError

from stream.aws.authorities import tls
from stream.aws.errors import AccessRefused, AwsFatal, AwsRetryable, Call, error_text, translate, unreadable
from stream.clock import SystemClock
from stream.errors import DefinitionError, StreamError

_CONFIG: Final[dict[str, Any]] = {"connect_timeout": 5, "read_timeout": 30, "tcp_keepalive": True, "max_pool_connections": 50}

# When a renewal fails, botocore logs a traceback that contains the response, with keys. The caller gets the error without it.
logging.getLogger("aiobotocore.credentials").addHandler(logging.NullHandler())


_USUAL: Final = frozenset({"aws", "aws-us-gov"})
"""Partitions whose services are below amazonaws.com."""

_TRUST: Final = "let the trust policy of the role name who asks; `stream iam --role worker --trust` prints one"

_AUDIENCE: Final = (
    "give the pod a token for the audience sts.amazonaws.com, from an identity provider that the role's account has; `stream doctor` says "
    "what the one in use is"
)

_CLOCK: Final = SystemClock()
_LAST_SECONDS: Final = 60
"""Keys with less than this left are not used any more: a request that is about to be sent must arrive while they are valid."""
_ANSWER_SECONDS: Final = 50.0
"""How long whoever gives keys may take; botocore alone waits for STS for five minutes. A request to S3 waits for a little longer."""
_RENEWAL_PAUSE: Final = 15.0
"""Seconds between attempts to renew keys that are valid still: a fleet must not flood an STS that is in trouble."""

_ENDED_SIGN: Final = "credentials are still expired"
_ENDED: Final = "those that were given have ended already; check this machine's clock"

_HOST_AND_PORT: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?/?")

_TOKEN_FILES: Final = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
"""Variables that name the file from which a token is read."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """Keys that are valid now; ask again before each use, since they change. ``expires``: None if never, or unknown."""

    access_key: str
    secret_key: str
    token: str | None
    expires: datetime | None = None

    def __repr__(self) -> str:
        """Never the secret."""
        return f"Credentials(access_key=...{self.access_key[-4:]})"


@dataclass(frozen=True, slots=True)
class CredentialLife:
    """Where the credentials come from, by botocore's name, and when they expire; None: never, or unknown.

    ``failure``: why they could not be renewed just now, if that is known.
    """

    method: str
    expires: datetime | None
    failure: str = field(default="", compare=False)


def _unsigned() -> Config:
    """A new one for each client, because botocore notes in it what a client found, such as that dual stack is asked for."""
    return Config(signature_version=UNSIGNED, s3={"us_east_1_regional_endpoint": "regional"})


class AwsSession:
    """Region, endpoints and refreshed credentials of one process.

    ``endpoints`` maps service names as botocore spells them (``kinesis``, ``s3``, ``dynamodb``) to URLs and wins over
    ``AWS_ENDPOINT_URL_<SERVICE>``, ``AWS_ENDPOINT_URL`` and the profile.
    """

    def __init__(self, *, region: str | None = None, profile: str | None = None, endpoints: Mapping[str, str] | None = None) -> None:
        self._profile = profile
        self._region = region
        self._endpoints = dict(endpoints or {})
        self._session: Any = aiobotocore.session.AioSession(profile=profile)
        self._renewal: asyncio.Future[str] | None = None
        """The newest renewal of keys that are valid still; its result is why it failed, or empty."""
        self._renewed_at = float("-inf")

    def elsewhere(self, region: str) -> AwsSession:
        """The same credentials and endpoints in another region."""
        return AwsSession(region=region, profile=self._profile, endpoints=self._endpoints)

    @property
    def region(self) -> str:
        """The region in use.

        Raises:
            DefinitionError: none is configured anywhere.
        """
        region = self._region or self._setting("region") or os.environ.get("AWS_REGION")
        if not region:
            msg = "no AWS region is set: set AWS_REGION or AWS_DEFAULT_REGION, or `region` in the AWS profile"
            raise DefinitionError(msg)
        return str(region)

    def endpoint_override(self, service: str) -> str | None:
        """The endpoint URL configured for ``service``, or None if AWS's own applies.

        Raises:
            DefinitionError: what is configured is no URL, or the profile cannot be read.
        """
        if service in self._endpoints:
            return self._endpoints[service]
        try:
            found = ConfiguredEndpointProvider(
                full_config=self._session.full_config,
                scoped_config=self._session.get_scoped_config(),
                client_name=service,
                environ=dict(os.environ),
            ).provide()
        except BotoCoreError as error:
            raise _unusable(error) from error
        return None if found is None else _checked_endpoint(str(found), service)

    def unusual_endpoint(self, service: str) -> str | None:
        """The endpoint URL for a library that by itself uses ``<service>.<region>.amazonaws.com``: None if that is right.

        It is not if another endpoint is configured, with FIPS or dual stack, or in partitions with other domains, such as China.
        """
        if (override := self.endpoint_override(service)) is not None:
            return override
        # Only a client tells an endpoint, and making one takes a tenth of a second.
        asked = self.fips or self._setting("use_dualstack_endpoint")
        return self.endpoint(service) if asked or self._is_elsewhere() else None

    @property
    def fips(self) -> bool:
        """Whether only endpoints that are validated by FIPS 140 may be used."""
        return bool(self._setting("use_fips_endpoint"))

    def _is_elsewhere(self) -> bool:
        """Whether services are not below amazonaws.com; false for a region that botocore does not know."""
        with suppress(UnknownRegionError):
            return self._session.get_partition_for_region(self.region) not in _USUAL
        return False

    def endpoint(self, service: str) -> str:
        """The endpoint URL to call ``service`` at, by botocore's rules for partitions, FIPS and dual stack."""
        if (override := self.endpoint_override(service)) is not None:
            return override
        try:
            # botocore tells endpoints only through a client; an unsigned one needs no credentials and makes no call.
            session = botocore.session.Session(profile=self._profile)
            client = session.create_client(service, region_name=self.region, config=_unsigned())
        except BotoCoreError as error:
            raise _unusable(error) from error
        return str(client.meta.endpoint_url)

    def authorities(self) -> str | None:
        """Path of the CA certificates (PEM) that verify AWS: ``AWS_CA_BUNDLE`` or the profile's; None: the system's."""
        found = self._setting("ca_bundle")
        return str(found) if found else None

    def trust(self) -> ssl.SSLContext | None:
        """The TLS settings for connections to AWS; None: the default ones.

        Raises:
            DefinitionError: the file with the authorities cannot be used.
        """
        file = self.authorities()
        try:
            return None if file is None else tls(file)
        except OSError as error:
            what = f"AWS_CA_BUNDLE or `ca_bundle` of the AWS profile names {file}, which cannot be used: {error}"
            msg = f"{what}. Name a file of certificates in PEM."
            raise DefinitionError(msg) from error

    @staticmethod
    def bounded(connect: float, read: float) -> botocore.session.Session:
        """A botocore session for libraries that must not wait forever: ``connect`` seconds to connect, ``read`` seconds without a byte."""
        session = botocore.session.Session()
        session.set_default_client_config(Config(connect_timeout=connect, read_timeout=read))
        return session

    async def credentials(self) -> Credentials:
        """Keys valid now. While those in use are, they are renewed in the background, and nobody waits for that, nor fails because of it.

        Raises:
            AwsFatal: no provider has any, or STS refuses the role.
            AwsRetryable: a provider did not answer, or not as it should.
        """
        found = await self._answered(self._session.get_credentials())
        if found is None:
            msg = (
                "no AWS credentials found: looked at the environment, the AWS profile, web identity (IRSA), "
                "the container endpoint (EKS Pod Identity, ECS) and instance metadata. Give the pod a role, "
                "or set AWS_PROFILE or AWS_ACCESS_KEY_ID."
            )
            raise AwsFatal(msg, code="NoCredentials")
        if isinstance(found, RefreshableCredentials) and found.refresh_needed() and not found.refresh_needed(_LAST_SECONDS):
            self._renew(found)
            frozen = cast("Any", found)._frozen_credentials  # noqa: SLF001 - every other way to them waits for the renewal
        else:
            frozen = await self._answered(found.get_frozen_credentials())
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token, _expiry(found))

    def _renew(self, found: Any) -> None:
        """Begin to renew keys that are valid still, unless that goes on already or was tried just now."""
        now, loop = _CLOCK.monotonic(), asyncio.get_running_loop()
        goes_on = self._renewal is not None and not self._renewal.done() and self._renewal.get_loop() is loop
        if not goes_on and now - self._renewed_at >= _RENEWAL_PAUSE:
            self._renewed_at = now
            self._renewal = asyncio.ensure_future(self._renewed(found))

    async def _renewed(self, found: Any) -> str:
        try:
            await self._answered(found.get_frozen_credentials())
        except StreamError as error:
            return str(error)
        return ""

    async def _answered(self, answer: Awaitable[_T]) -> _T:
        """What a provider of credentials gives; raises as ``credentials``."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await answer
        except ClientError as error:
            raise self._refused(error) from error
        except TimeoutError as error:
            msg = f"AWS credentials are not available: there was no answer within {_ANSWER_SECONDS:.0f} s"
            raise AwsRetryable(msg, code="CredentialsUnavailable") from error
        except (BotoCoreError, OSError, ValueError) as error:
            # Besides its own errors, botocore passes on those of a token file: missing, or with a line break inside.
            msg = f"AWS credentials are not available: {error_text(error)}{_token_file(error)}"
            raise AwsRetryable(msg, code="CredentialsUnavailable") from error
        except Exception as error:  # noqa: BLE001 - botocore stumbles over answers that are none in its own ways
            what = _ENDED if _ENDED_SIGN in str(error) else f"the answer is not as documented ({type(error).__name__})"
            msg = f"AWS credentials are not available: {what}"
            # The error may quote the answer, and with it keys.
            raise AwsRetryable(msg, code="CredentialsUnavailable") from None

    def _refused(self, error: ClientError) -> AwsRetryable | AwsFatal:
        role = os.environ.get("AWS_ROLE_ARN") or "the role in use"
        found = translate(Call(f"sts:{error.operation_name}", role, f"region {self.region}, for credentials"), error)
        if isinstance(found, AwsRetryable):
            return found
        remedy = _AUDIENCE if found.code == "InvalidIdentityToken" else _TRUST
        return AccessRefused(str(found).replace(found.remedy, remedy), code=found.code, remedy=remedy)

    async def credential_life(self) -> CredentialLife:
        """Origin and expiry of the credentials that ``credentials`` returns next: it waits for a renewal that goes on.

        Raises:
            AwsFatal, AwsRetryable: as ``credentials``.
        """
        await self.credentials()
        failure = "" if self._renewal is None or self._renewal.get_loop() is not asyncio.get_running_loop() else await self._renewal
        found = await self._session.get_credentials()
        return CredentialLife(str(found.method), _expiry(found), failure)

    async def ask(self, service: str, operation: str, call: Call, *, retries: int = 0, **given: Any) -> Mapping[str, Any]:
        """The answer to ``operation``, as aiobotocore's client of ``service`` calls it; a failed call is repeated up to ``retries`` times.

        Raises:
            AwsFatal: refused, or there are no credentials.
            AwsRetryable: no answer, or one that is not as documented.
        """
        await self.credentials()
        config = Config(retries={"mode": "standard", "total_max_attempts": retries + 1}, **_CONFIG)
        override = self.endpoint_override(service)
        try:
            async with self._session.create_client(service, region_name=self.region, endpoint_url=override, config=config) as client:
                answer = await getattr(client, operation)(**given)
        except (ClientError, BotoCoreError, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise translate(call, error) from error
        except Exception as error:  # noqa: BLE001 - botocore stumbles over answers that are none in its own ways
            # The error may quote the answer, and with it a secret.
            raise unreadable(call, type(error).__name__) from None
        if not isinstance(answer, Mapping):
            raise unreadable(call, f"it is a {type(answer).__name__}")
        return answer

    def _setting(self, name: str) -> Any:
        try:
            return self._session.get_config_variable(name)
        except BotoCoreError as error:
            raise _unusable(error) from error


def _expiry(found: Any) -> datetime | None:
    # botocore keeps the end to itself; it is the one thing about credentials that an operator must see.
    expires = getattr(found, "_expiry_time", None)
    return expires.astimezone(UTC) if isinstance(expires, datetime) else None


def _token_file(error: Exception) -> str:
    """The file with a token that cannot be read, if ``error`` does not name it itself."""
    names = [f"{os.environ[name]} of {name}" for name in _TOKEN_FILES if os.environ.get(name)]
    return f", in the token file {names[0]}" if names and isinstance(error, ValueError) else ""


def _checked_endpoint(url: str, service: str) -> str:
    """``url``; the clients of AWS would fail over one without a scheme in ways that name neither it nor where it comes from.

    Raises:
        DefinitionError: it is not an HTTP URL with a host.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the brackets of an address, or of the port
        usable = False
    if not usable:
        variable = f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_').replace(' ', '_')}"
        example = f"http://{url}" if _HOST_AND_PORT.fullmatch(url) else "http://127.0.0.1:4566"
        msg = (
            f"the endpoint of {service} is {url!r}, which is not a URL: write one such as {example}. It comes from {variable}, "
            "AWS_ENDPOINT_URL, or `endpoint_url` in the AWS config file."
        )
        raise DefinitionError(msg)
    return url


def _unusable(error: BotoCoreError) -> DefinitionError:
    return DefinitionError(f"the AWS configuration cannot be used: {error}. Check AWS_PROFILE and the AWS config file.")
