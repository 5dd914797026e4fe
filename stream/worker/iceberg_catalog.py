"""An Iceberg table in its catalog, reached by PyIceberg, whose calls block and are made in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from stream.aws.session import AwsSession
from stream.errors import DefinitionError, Retryable, StreamError
from stream.pipeline.secrets import SecretReader, find_secret
from stream.sink.iceberg import CatalogType, IcebergSinkConfig
from stream.sink.loads import Failure
from stream.worker.warehouse import LoadFailed

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

T = TypeVar("T")

_DENIED: Final = ("AccessDenied", "Forbidden", "Unauthorized", "not authorized", "InvalidAccessKeyId", "SignatureDoesNotMatch")

Properties = Callable[[], Awaitable[Mapping[str, str]]]
"""The catalog's properties as they are now: keys of AWS change."""

Secret = Callable[[str], Awaitable[str]]
"""What a reference leads to now; raises as ``find_secret`` does."""


class CatalogTable:
    """The table of one sink. ``root`` is its location as a URL.

    Every method raises ``LoadFailed`` where a person has to act, and ``Retryable`` where the outcome is not known.
    """

    def __init__(self, config: IcebergSinkConfig, root: str, properties: Properties) -> None:
        self.config = config
        self.root = as_iceberg(root).rstrip("/") + "/"
        self._properties = properties
        self._known: tuple[Mapping[str, str], Catalog] | None = None
        # Whoever is cancelled leaves a thread behind that goes on: what comes next has to see what came of it.
        self._one_at_a_time = threading.Lock()

    async def ask(self, work: Callable[[Catalog], T]) -> T:
        """What ``work`` gives, in a thread, one at a time."""
        properties = await self._properties()

        def carry_out() -> T:
            with self._one_at_a_time, understood(self.config.table):
                if self._known is None or self._known[0] != properties:
                    self._known = properties, _open(properties)
                return work(self._known[1])

        return await asyncio.to_thread(carry_out)

    async def look(self) -> str:
        """What there is, in a few words."""
        return await self.ask(self._look)

    async def files(self) -> list[str]:
        """Keys, relative to the location, of the data files that the table consists of now."""
        return await self.ask(self._files)

    def found(self, catalog: Catalog) -> Table | None:
        """The table as it is now; None where there is none."""
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
            msg = f"Glue has no database {namespace}; create it, since it says where tables lie and who may see them"
            raise LoadFailed(msg, Failure.SETUP)
        table = self.found(catalog)
        if table is not None:
            return f"allowed; the table has {len(table.schema().fields)} columns"
        if not self.config.create:
            msg = f"there is no table {self.config.table}"
            raise LoadFailed(msg, Failure.SETUP)
        return "allowed; the table is not there yet"


def as_iceberg(url: str) -> str:
    """A location as Iceberg writes it, where this project also takes ``file:/path``."""
    return f"file://{url.removeprefix('file:')}" if url.startswith("file:") and not url.startswith("file://") else url


def secrets_of(env: Mapping[str, str], base: Path, managed: SecretReader) -> Secret:
    """Secrets out of ``env``, of files below ``base``, or read by ``managed``."""

    async def secret(reference: str) -> str:
        return (await find_secret(reference, env, base, managed)).decode()

    return secret


def catalog_properties(config: IcebergSinkConfig, session: AwsSession, secret: Secret) -> Properties:
    """Properties of ``config`` and its secrets, with this process's own keys, region and endpoints of AWS where AWS is used at all."""
    aws = config.url.startswith("s3:") or config.catalog["type"] == CatalogType.GLUE

    async def now() -> Mapping[str, str]:
        secrets = {name: await secret(reference) for name, reference in config.secrets.items()}
        return (await ours() if aws else {}) | config.catalog | secrets

    async def ours() -> dict[str, str]:
        given = {f"{service}.endpoint": session.endpoint_override(service) for service in ("s3", "glue")}
        keys = await session.credentials()
        given |= {"client.access-key-id": keys.access_key, "client.secret-access-key": keys.secret_key, "client.region": session.region}
        given["client.session-token"] = keys.token
        return {name: value for name, value in given.items() if value}

    return now


def _open(properties: Mapping[str, str]) -> Catalog:
    from pyiceberg import catalog as known

    from stream.worker.iceberg_rest import open_patiently

    known.AVAILABLE_CATALOGS[known.CatalogType.REST] = open_patiently
    # A catalog in SQL tells the tables of several catalogs apart by their names; to the others a name means nothing.
    return known.load_catalog(**{"name": "default", **properties})


@contextmanager
def understood(table: str) -> Iterator[None]:
    """What PyIceberg and what it calls raise, as what the loader has to do about it."""
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
            msg = f"the catalog or the files of {table} may not be used: {words}"
            raise LoadFailed(msg, Failure.SETUP) from error
        if isinstance(error, _lasting()):
            msg = f"the catalog refuses {table}: {words}"
            raise LoadFailed(msg, Failure.SETUP) from error
        msg = f"{table}: {words}"
        raise Retryable(msg) from error


def _lasting() -> tuple[type[Exception], ...]:
    """What is the same next time."""
    from pyiceberg import exceptions as known

    return known.BadRequestError, known.OAuthError, known.NotInstalledError, known.ValidationError, known.NoSuchNamespaceError
