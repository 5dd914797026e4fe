"""PyIceberg's catalogs with time-outs. By default, the REST catalog waits forever, and the Glue catalog for ten minutes."""

from __future__ import annotations

import functools
import ssl
from typing import Any, Final

from pyiceberg.catalog import BOTOCORE_SESSION, Catalog
from pyiceberg.catalog.rest import SIGV4, RestCatalog
from pyiceberg.typedef import Properties
from pyiceberg.utils.properties import property_as_bool, property_as_int
from requests import Session
from requests.adapters import HTTPAdapter

from stream.aws.session import AwsSession
from stream.worker.tables.iceberg_properties import AUTHORITIES

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0
"""Time-out for a response; a catalog writes a file or two before it answers a commit."""

RETRIES: Final = 2
"""Attempts per call to Glue; the loader itself retries for as long as necessary."""


class _AdapterWithAuthorities(HTTPAdapter):
    """Connections that trust the certificate authorities in the file ``authorities`` besides the usual ones."""

    def __init__(self, authorities: str) -> None:
        self._authorities = authorities
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **(options | {"ssl_context": self._context()}))

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **(options | {"ssl_context": self._context()}))

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.load_verify_locations(self._authorities)
        return context


class RestCatalogWithTimeouts(RestCatalog):
    """The same catalog; a call without a response raises after a time-out, and its outcome is then unknown."""

    def _create_session(self) -> Session:
        session = super()._create_session()
        if (authorities := self.properties.get(AUTHORITIES)) is not None:
            if property_as_bool(self.properties, SIGV4, False):
                # The catalog is a service of AWS, and for those these authorities replace the usual ones.
                session.verify = authorities
            else:
                session.mount("https://", _AdapterWithAuthorities(authorities))
        session.request = functools.partial(session.request, timeout=(CONNECT_SECONDS, READ_SECONDS))  # type: ignore[method-assign]
        return session


def open_rest(name: str, properties: Properties) -> Catalog:
    """The REST catalog with this name."""
    return RestCatalogWithTimeouts(name, **properties)


def open_glue(name: str, properties: Properties) -> Catalog:
    """The Glue catalog; ``name`` makes no difference."""
    from pyiceberg.catalog.glue import GLUE_MAX_RETRIES, GlueCatalog

    # As text, which properties are, the number would break every call.
    retries = property_as_int(properties, GLUE_MAX_RETRIES, RETRIES)
    bounds: dict[str, Any] = {BOTOCORE_SESSION: AwsSession.bounded(CONNECT_SECONDS, READ_SECONDS), GLUE_MAX_RETRIES: retries}
    return GlueCatalog(name, **(properties | bounds))
