"""An Iceberg table in its catalog, reached by PyIceberg, whose calls block and are made in a thread."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from stream.aws.session import AwsSession
from stream.errors import DefinitionError, Retryable, StreamError
from stream.pipeline.secrets import SecretReader, find_secret
from stream.sink.iceberg import CatalogType, IcebergSinkConfig
from stream.sink.loads import Failure
from stream.worker.tables.warehouse import LoadFailed

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

T = TypeVar("T")

AUTHORITIES: Final = "stream.authorities"
"""The property with the path of the certificates (PEM) of those who vouch for S3 and the catalog. PyIceberg has none for files."""

_DENIED: Final = ("AccessDenied", "Forbidden", "Unauthorized", "not authorized", "InvalidAccessKeyId", "SignatureDoesNotMatch")

Properties = Callable[[], Awaitable[Mapping[str, str]]]
"""Gives the catalog's current properties: AWS keys change."""

Secret = Callable[[str], Awaitable[str]]
"""Gives the current value of a secret reference; raises as ``find_secret`` does."""


class CatalogTable:
    """The table of one sink. ``root`` is its location as a URL.

    Every method raises ``LoadFailed`` if a person has to act, and ``Retryable`` if the outcome is unknown.
    """

    def __init__(self, config: IcebergSinkConfig, root: str, properties: Properties) -> None:
        self.config = config
        self.root = as_iceberg(root).rstrip("/") + "/"
        self._properties = properties
        self._known: tuple[Mapping[str, str], Catalog] | None = None
        # A cancelled call leaves its thread running, and the next call must see its result: hence one at a time.
        self._one_at_a_time = threading.Lock()

    async def ask(self, work: Callable[[Catalog], T]) -> T:
        """The result of ``work``, run in a thread, one call at a time; the end of the process does not wait for that thread."""
        properties = await self._properties()

        def carry_out() -> T:
            with self._one_at_a_time, understood(self.config.table):
                if self._known is None or self._known[0] != properties:
                    self._known = properties, _open(properties)
                return work(self._known[1])

        return await _in_thread_left_behind(carry_out)

    async def look(self) -> str:
        """A phrase that says what there is."""
        return await self.ask(self._look)

    async def files(self) -> list[str]:
        """Keys, relative to the location, of the data files that the table consists of now."""
        return await self.ask(self._files)

    def found(self, catalog: Catalog) -> Table | None:
        """The table as it is now, or None."""
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        try:
            return catalog.load_table(self.config.table)
        except (NoSuchTableError, NoSuchNamespaceError):
            return None

    def _files(self, catalog: Catalog) -> list[str]:
        table = self.found(catalog)
        paths = [] if table is None else table.inspect.data_files()["file_path"].to_pylist()
        return [path.removeprefix(self.root) for path in paths if path.startswith(self.root)]

    def _look(self, catalog: Catalog) -> str:
        namespace = self.config.table.rpartition(".")[0]
        if not catalog.namespace_exists(namespace) and self.config.catalog["type"] == CatalogType.GLUE:
            msg = f"Glue has no database {namespace}; create it, since it determines where tables are and who may see them"
            raise LoadFailed(msg, Failure.SETUP)
        table = self.found(catalog)
        if table is not None:
            return f"allowed; the table has {len(table.schema().fields)} columns"
        if not self.config.create:
            msg = f"there is no table {self.config.table}"
            raise LoadFailed(msg, Failure.SETUP)
        return "allowed; the table does not exist yet"


async def _in_thread_left_behind(work: Callable[[], T]) -> T:
    """The result of ``work``, run in a thread that may be left behind: it is no thread of the loop's, which are all waited for at the end.

    What it does then is known to nobody, as with a worker that is killed.
    """
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()

    def carry_out() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            done.set_exception(error)

    threading.Thread(target=carry_out, name="iceberg", daemon=True).start()
    return await asyncio.wrap_future(done)


def as_iceberg(url: str) -> str:
    """A location in Iceberg's notation; this project also accepts ``file:/path``."""
    return f"file://{url.removeprefix('file:')}" if url.startswith("file:") and not url.startswith("file://") else url


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


def _open(properties: Mapping[str, str]) -> Catalog:
    from pyiceberg import catalog as known

    from stream.worker.tables.iceberg_timeouts import open_glue, open_rest

    known.AVAILABLE_CATALOGS |= {known.CatalogType.REST: open_rest, known.CatalogType.GLUE: open_glue}
    # An SQL catalog distinguishes the tables of several catalogs by name; to the other types, the name means nothing.
    return known.load_catalog(**{"name": "default", **properties})


@contextmanager
def understood(table: str) -> Iterator[None]:
    """Translates what PyIceberg and its libraries raise into what the loader has to do about it."""
    try:
        yield
    except StreamError:
        raise
    except ImportError as error:
        msg = f"loading Iceberg tables needs a library; install it: pip install 'kinesis-stream[iceberg]' ({error})"
        raise DefinitionError(msg) from error
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        if any(word.lower() in words.lower() for word in _DENIED):
            msg = f"access to the catalog or the files of {table} is denied: {words}"
            raise LoadFailed(msg, Failure.SETUP) from error
        if isinstance(error, _lasting()):
            msg = f"the catalog refuses {table}: {words}"
            raise LoadFailed(msg, Failure.SETUP) from error
        msg = f"{table}: {words}"
        raise Retryable(msg) from error


def _lasting() -> tuple[type[Exception], ...]:
    """Errors that would be the same next time."""
    from pyiceberg import exceptions as known

    return known.BadRequestError, known.OAuthError, known.NotInstalledError, known.ValidationError, known.NoSuchNamespaceError
