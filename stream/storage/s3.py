"""Objects in an S3 bucket, or in anything that speaks S3 with conditional writes."""

from __future__ import annotations

import asyncio
import builtins
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import S3Store as RawStore

from stream.aws.errors import RENEW, AccessRefused, AwsFatal
from stream.aws.session import AwsSession
from stream.clock import SystemClock
from stream.contracts import ObjectInfo, Stored
from stream.errors import Fatal, Retryable, StreamError
from stream.storage.keys import by_place, check_key, without_values

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Credential

_LIST_CHUNK: Final = 1000
_PART_BYTES: Final = 64 * 2**20
"""Longer objects are sent in parts. A single request that breaks off leaves nothing; parts would stay, cost money, and be invisible."""
_FATAL: Final = (InvalidPathError, NotSupportedError, UnknownConfigurationKeyError)
_DENIED: Final = (PermissionDeniedError, UnauthenticatedError)
_ELSEWHERE: Final = ("<Code>AuthorizationHeaderMalformed</Code>", "<Code>PermanentRedirect</Code>", "redirect without LOCATION")
"""How S3, or obstore for it, says that the bucket is in another region."""
_UNPROVEN: Final = ("InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "RequestTimeTooSkewed")
"""S3's error codes for requests with an unknown key, a session token that is none, a wrong signature or a wrong time."""
_EXPIRED: Final = "ExpiredToken"
_THROTTLED: Final = "SlowDown"
_SLOWER: Final = " (S3 allows more by itself as the load on a prefix goes on; if not, write fewer, larger files: `flush`, `partition_by`)"
_MISSING: Final = "; and s3:ListBucket, without which S3 answers so, too, for an object that is not there"
_WITHOUT_ETAG: Final = "ETag Header missing"
"""obstore's message for an answer without the ETag that every S3 gives."""
_OTHER_STORE: Final = "use a store that supports If-Match"
_ODD_KEY: Final = (
    "no object below may have a key with an empty segment, `.` or `..` between slashes, or a control character; rename or delete the one "
    "that is named here, or use another prefix"
)
_KEY_ACTION: Final = "perform: kms:"
"""S3's message for a request that it allows but the bucket's key does not."""
_KEY_UNUSABLE: Final = re.compile(r"<Code>(KMS\.(?:Disabled|NotFound|KMSInvalidState|InvalidKeyUsage)Exception)</Code>")
"""S3's error codes for a KMS key that is disabled, waits for its deletion, or does not exist."""
_CODE: Final = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE: Final = re.compile(r"<Message>([^<]*)</Message>")
_PERFORMING: Final = re.compile(r"Error performing \S+ \S+ in .*? - (.*)", re.DOTALL)
"""obstore's message about a request. What is before the group names its URL again, which can be so long that the rest would be cut off."""
_SENDING: Final = re.compile(
    r'"([^"\\]+)"|InvalidCertificate\(\s*(\w+)|\b(TimedOut|IncompleteMessage|ProxyAuthRequired|TunnelUnsuccessful)\b'
)
"""The part of an obstore error about sending that says why nothing was sent."""
_CREDENTIAL_LIFE: Final = timedelta(minutes=10)
"""When credentials expire at the latest, for obstore, which asks for new ones five minutes earlier."""
_CREDENTIAL_SECONDS: Final = 60.0
"""How long a request may wait for credentials."""
_READ_RETRIES: Final[RetryConfig] = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}
_NO_RETRIES: Final[RetryConfig] = {"max_retries": 0}
"""A conditional write that is repeated after a lost reply meets its own first attempt and looks as if it had lost. Only the caller
can tell the two apart, by reading what is there; so it must be told about the lost reply."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class KmsKey:
    """The key with which S3 is to encrypt objects. ``bucket_key``: by a data key that is used for many of them."""

    arn: str
    bucket_key: bool = True


class S3Store:
    """An ``ObjectStore`` over ``s3://bucket/prefix``, with tags that are S3's ETags.

    Needs a general purpose bucket: directory buckets do not list in order of key. What is written is encrypted with ``key``, or as the
    bucket says. ``pays``: every request says that whoever makes it pays for it, as some buckets of others want; None: never an option.
    """

    def __init__(self, bucket: str, prefix: str, session: AwsSession, key: KmsKey | None = None, *, pays: bool | None = None) -> None:
        self._url = f"s3://{bucket}/{prefix}"
        self._session = session
        self._loop: asyncio.AbstractEventLoop
        """The loop of the newest call: obstore asks for credentials in threads of its own."""
        self._without_credentials: StreamError | None = None
        """Why the last request for credentials failed; obstore only passes on the text of that error."""
        endpoint, self._region = session.unusual_endpoint("s3"), session.region
        unpaid = "; if its owner has whoever requests pay for it (Requester Pays), set source.s3.request_payer: requester"
        self._allow = "allow it for the role in use, on that prefix" + (unpaid if pays is False else "")
        # A bucket whose default is to retain objects (Object Lock) accepts only writes with a checksum. Signing needs this one anyway.
        settings: S3Config = {"region": session.region, "disable_bulk_delete": True, "checksum_algorithm": "SHA256"}
        if endpoint is not None:
            settings["endpoint"] = endpoint
        if key is not None:
            settings |= {"server_side_encryption": "aws:kms", "sse_kms_key_id": key.arn, "sse_bucket_key_enabled": key.bucket_key}
        if pays:
            settings["request_payer"] = True
        client: ClientConfig = {
            "connect_timeout": "5s",
            "timeout": "60s",
            "allow_http": endpoint is not None and endpoint.startswith("http://"),
        }
        if session.trust() is not None and (authorities := session.authorities()) is not None:
            client["root_certificate"] = Path(authorities).read_bytes()

        def store(retries: RetryConfig) -> Any:
            return RawStore(
                bucket,
                prefix=prefix or None,
                config=settings,
                client_options=client,
                retry_config=retries,
                credential_provider=self._credentials,
            )

        self._store = store(_READ_RETRIES)
        self._conditional = store(_NO_RETRIES)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The options given to the library: region, endpoint, encryption."""
        return dict(self._store.config)

    @property
    def url(self) -> str:
        """The root, as a person would write it."""
        return self._url

    async def create(self, key: str, body: bytes) -> str | None:
        """Write ``key`` if it does not exist and return its tag; None if it exists."""
        check_key(key, self._url)
        return await self._write_if(key, body, "create")

    async def replace(self, key: str, body: bytes, etag: str) -> str | None:
        """Write ``key`` if its tag is ``etag`` and return the new tag; None if it is not."""
        check_key(key, self._url)
        return await self._write_if(key, body, {"e_tag": etag})

    async def put(self, key: str, body: bytes) -> None:
        """Write ``key`` whatever is there."""
        check_key(key, self._url)
        action = "s3:PutObject"
        try:
            await self._call(action, key, lambda: obstore.put_async(self._store, key, body, mode="overwrite", chunk_size=_PART_BYTES))
        except (AlreadyExistsError, PreconditionError) as error:
            raise self._translate(action, key, error) from error

    async def get(self, key: str) -> Stored | None:
        """The object, or None."""
        check_key(key, self._url)
        return await self._call("s3:GetObject", key, lambda: self._get(key))

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects whose key starts with ``prefix`` and sorts after ``after``, in ascending order of key.

        Not those that stand for folders, whose keys end in a slash, as consoles and file systems over S3 make them. One for a folder with
        nothing in it may come as an empty object without the slash: obstore does not tell the two apart.
        """
        directory = prefix.rpartition("/")[0] or None
        pages = obstore.list(self._store, directory, offset=_offset(after), chunk_size=_LIST_CHUNK).__aiter__()
        last, empty = "", None
        while (page := await self._call("s3:ListBucket", prefix, lambda: _next(pages))) is not None:
            for item in page:
                key: str = item["path"]
                if not key:
                    # The folder of the store itself.
                    continue
                # obstore leaves out the slash at the end of a key, so that it is found too late by whatever sorts before a slash.
                folder = key <= last < f"{key}/"
                if key <= last and not folder:
                    msg = f"{self._url} lists {key!r} after {last!r}: keys must come in order. Use a general purpose bucket."
                    raise Fatal(msg)
                last = max(last, key)
                if empty is not None and not key.startswith(f"{empty.key}/"):
                    yield empty
                empty = None
                if folder or not key.startswith(prefix) or key <= after:
                    continue
                info = ObjectInfo(key, item["size"], item["last_modified"], str(item.get("e_tag") or ""))
                if info.size:
                    yield info
                else:
                    # The next key says whether it stands for a folder.
                    empty = info
        if empty is not None:
            yield empty

    async def folders(self, prefix: str) -> builtins.list[str]:
        """Names of the folders right under ``prefix``, which ends in a slash: one request for a thousand of them."""
        directory = prefix.rstrip("/") or None
        found = await self._call("s3:ListBucket", prefix, lambda: obstore.list_with_delimiter_async(self._store, directory))
        return by_place(path.rpartition("/")[2] for path in found["common_prefixes"])

    async def read_range(self, key: str, start: int, end: int, version: str) -> bytes | None:
        """Bytes ``[start, end)`` of ``key`` as it was listed with ``version``; None if it is gone or has another version now."""
        check_key(key, self._url)
        try:
            return await self._call("s3:GetObject", key, lambda: self._read_range(key, start, end, version))
        except PreconditionError:
            return None

    async def stat(self, key: str) -> ObjectInfo | None:
        """What ``list`` would say of ``key`` now; None if there is no such object."""
        check_key(key, self._url)
        return await self._call("s3:GetObject", key, lambda: self._stat(key))

    async def delete(self, key: str) -> None:
        """Remove ``key``; fine if it is not there."""
        check_key(key, self._url)
        await self._call("s3:DeleteObject", key, lambda: self._delete(key))

    async def _get(self, key: str) -> Stored | None:
        try:
            found = await obstore.get_async(self._store, key)
        except FileNotFoundError as error:
            if _names_missing_bucket(error):
                raise
            return None
        return Stored(bytes(await found.bytes_async()), self._etag(key, found.meta["e_tag"]))

    async def _read_range(self, key: str, start: int, end: int, version: str) -> bytes | None:
        options: Any = {"range": (start, end), "if_match": version}
        try:
            found = await obstore.get_async(self._store, key, options=options)
        except FileNotFoundError as error:
            if _names_missing_bucket(error):
                raise
            return None
        return bytes(await found.bytes_async())

    async def _stat(self, key: str) -> ObjectInfo | None:
        try:
            found = await obstore.head_async(self._store, key)
        except FileNotFoundError as error:
            if _names_missing_bucket(error):
                raise
            return None
        return ObjectInfo(key, found["size"], found["last_modified"], str(found.get("e_tag") or ""))

    async def _delete(self, key: str) -> None:
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError as error:
            if _names_missing_bucket(error):
                raise

    async def _write_if(self, key: str, body: bytes, mode: Any) -> str | None:
        try:
            done = await self._call("s3:PutObject", key, lambda: obstore.put_async(self._conditional, key, body, mode=mode))
        except (AlreadyExistsError, PreconditionError) as error:
            if "409 Conflict" in str(error):
                what = f"s3:PutObject of {without_values(repr(key))} under {self._url}"
                msg = f"{what} met another write of the same key, and it is not known which was kept"
                raise Retryable(msg) from error
            return None
        return self._etag(key, done["e_tag"])

    def _etag(self, key: str, etag: str | None) -> str:
        if etag is None:
            what = f"{self._url} gave no ETag for {without_values(repr(key))}"
            msg = f"{what}: conditional writes need one; {_OTHER_STORE}"
            raise Fatal(msg)
        return etag

    def _credentials(self) -> S3Credential:
        """Credentials for obstore, which calls this in threads of its own.

        It could await a coroutine, but not where it sends an object in parts: the tasks that do so know no event loop.
        """
        found = asyncio.run_coroutine_threadsafe(self._session.credentials(), self._loop)
        try:
            frozen = found.result(_CREDENTIAL_SECONDS)
        except StreamError as error:
            self._without_credentials = error
            raise
        except TimeoutError as error:
            found.cancel()
            msg = f"there were no AWS credentials within {_CREDENTIAL_SECONDS:.0f} s; the event loop is blocked"
            self._without_credentials = Retryable(msg)
            raise self._without_credentials from error
        self._without_credentials = None
        expires = SystemClock().now() + _CREDENTIAL_LIFE
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": expires if frozen.expires is None else min(expires, frozen.expires),
        }

    async def _call(self, action: str, key: str, call: Callable[[], Awaitable[_T]]) -> _T:
        """The result of ``call``, which is made here because obstore asks for credentials as soon as it is called, before any await."""
        self._loop = asyncio.get_running_loop()
        try:
            return await call()
        except (BaseError, OSError) as error:
            if isinstance(error, (AlreadyExistsError, PreconditionError)) and not _names_missing_bucket(error):
                raise
            raise self._translate(action, key, error) from error

    def _translate(self, action: str, key: str, error: Exception) -> StreamError:
        if isinstance(error, UnauthenticatedError) and self._without_credentials is not None:
            return self._without_credentials
        text, _, source = str(error).partition("Debug source:")
        detail = without_values(_answer(text) + _cause(source))[:500]
        if _names_missing_bucket(error):
            remedy = "create it, or correct the URL"
            return AwsFatal(f"the bucket of {self._url} does not exist: {remedy}", code="NoSuchBucket", remedy=remedy)
        what = f"{action} on {without_values(repr(key))} under {self._url}"
        final = self._final(action, error)
        if final is None:
            return Retryable(f"{what} failed: {detail}{_SLOWER if _THROTTLED in detail else RENEW if _EXPIRED in detail else ''}")
        kind, code, why, remedy = final
        return kind(f"{what} {why}{remedy} ({detail})", code=code, remedy=remedy)

    def _final(self, action: str, error: Exception) -> tuple[type[AwsFatal], str, str, str] | None:
        """If the same call would fail again: of what kind that is, what S3 calls it, why, and what to do; None if it might succeed."""
        text = str(error)
        if any(sign in text for sign in _ELSEWHERE):
            why = f"cannot work: the bucket is not in {self._region}, the region of the stream and of this process; "
            return AwsFatal, "PermanentRedirect", why, f"use a bucket in {self._region}"
        if (code := next((code for code in _UNPROVEN if f"<Code>{code}</Code>" in text), None)) is not None:
            return AccessRefused, code, "was refused: ", "check the credentials and this machine's clock"
        if (about_object := _about_object(text)) is not None:
            return AccessRefused, *about_object
        if _WITHOUT_ETAG in text:
            return AwsFatal, "MissingETag", "was answered without an ETag, which conditional writes need: ", _OTHER_STORE
        if isinstance(error, _DENIED) or _says_forbidden(error):
            return AccessRefused, "AccessDenied", "was refused: ", self._allow + (_MISSING if action == "s3:GetObject" else "")
        why, remedy = ("cannot work: ", _ODD_KEY) if isinstance(error, InvalidPathError) else ("cannot work", "")
        return (AwsFatal, type(error).__name__, why, remedy) if isinstance(error, _FATAL) else None


def _about_object(text: str) -> tuple[str, str, str] | None:
    """As ``_final``, without the kind, for a refusal because of the KMS key or of the storage class."""
    if "<Code>InvalidObjectState</Code>" in text:
        return "InvalidObjectState", "was refused, since the object is archived: ", "restore it (S3 Glacier), or leave it out"
    if _KEY_ACTION in text:
        return "KMSAccessDeniedException", "was refused: ", "allow the role in use kms:GenerateDataKey and kms:Decrypt on the bucket's key"
    unusable = _KEY_UNUSABLE.search(text)
    if unusable is None:
        return None
    return unusable[1], "was refused, since its KMS key cannot be used: ", "enable the key, or encrypt with another one"


def _answer(text: str) -> str:
    """What S3 said: its code and message, or what obstore says in place of an answer."""
    code, message = _CODE.search(text), _MESSAGE.search(text)
    if code is not None:
        return f"{code[1]}: {' '.join(message[1].split())}" if message is not None and message[1].strip() else code[1]
    performing = _PERFORMING.search(text)
    return " ".join((performing[1] if performing is not None else text).split())


def _cause(source: str) -> str:
    """Why a request could not be sent, for people; empty where ``source`` is not about that."""
    _, found, inner = source.partition("reqwest::Error")
    words = [text or (f"its certificate is not accepted: {wrong}" if wrong else kind) for text, wrong, kind in _SENDING.findall(inner)]
    known = "; ".join(dict.fromkeys(each for each in words if "://" not in each))
    return f" ({known})" if found and known else ""


async def _next(pages: Any) -> Any:
    try:
        return await anext(pages)
    except StopAsyncIteration:
        return None


def _offset(after: str) -> str | None:
    # A trailing slash would be refused as a path; without it a few more keys come, which the caller's filter removes.
    return after.strip("/") or None


def _names_missing_bucket(error: Exception) -> bool:
    return "<Code>NoSuchBucket</Code>" in str(error)


def _says_forbidden(error: Exception) -> bool:
    # A refused listing comes as a general error; only its text tells the status.
    return "status code: 403" in str(error)
