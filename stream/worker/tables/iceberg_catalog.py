"""An Iceberg table in its catalog, reached by PyIceberg, whose calls block and are made in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from stream.aws.errors import AwsFatal
from stream.errors import DefinitionError, Retryable, StreamError
from stream.sink.iceberg import CatalogType, IcebergSinkConfig
from stream.sink.loads import Failure
from stream.worker.tables.iceberg_properties import Properties
from stream.worker.tables.warehouse import LoadFailed

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

T = TypeVar("T")

_DENIED: Final = ("AccessDenied", "Forbidden", "Unauthorized", "not authorized", "InvalidAccessKeyId", "SignatureDoesNotMatch")


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
                    self._forget()
                    self._known = properties, _open(properties)
                return work(self._known[1])

        return await _in_thread_left_behind(carry_out)

    def close(self) -> None:
        """Close the connections of the catalog, unless a call that was left behind still uses them; the next call opens others."""
        if self._one_at_a_time.acquire(blocking=False):
            try:
                self._forget()
            finally:
                self._one_at_a_time.release()

    def _forget(self) -> None:
        known, self._known = self._known, None
        if known is not None:
            known[1].close()

    async def describe(self) -> str:
        """A phrase that says what there is."""
        return await self.ask(self._describe)

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

    def _describe(self, catalog: Catalog) -> str:
        namespace = self.config.table.rpartition(".")[0]
        if not catalog.namespace_exists(namespace) and self.config.catalog["type"] == CatalogType.GLUE:
            msg = f"Glue has no database {namespace}"
            remedy = "create it: it determines where tables are and who may see them"
            raise AwsFatal(msg, code="EntityNotFoundException", remedy=remedy)
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
