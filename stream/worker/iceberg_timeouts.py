"""PyIceberg's catalogs with time-outs. By default, the REST catalog waits for ever, and the Glue catalog for ten minutes."""

from __future__ import annotations

import functools
from typing import Any, Final

from pyiceberg.catalog import BOTOCORE_SESSION, Catalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.typedef import Properties
from pyiceberg.utils.properties import property_as_int
from requests import Session

from stream.aws.session import AwsSession

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0
"""Time-out for a response; a catalog writes a file or two before it answers a commit."""

RETRIES: Final = 2
"""Attempts per call to Glue; the loader itself retries for as long as necessary."""


class RestCatalogWithTimeouts(RestCatalog):
    """The same catalog; a call without a response raises after a time-out, and its outcome is then unknown."""

    def _create_session(self) -> Session:
        session = super()._create_session()
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
