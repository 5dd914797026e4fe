"""PyIceberg's catalogs with bounds on how long they wait: of its own, the one over REST waits for ever, and Glue's for ten minutes."""

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
"""Without a byte of an answer; a catalog writes a file or two before it answers to a commit."""

RETRIES: Final = 2
"""Of a call to Glue; the loader itself tries again, and later, as long as it must."""


class PatientCatalog(RestCatalog):
    """The same catalog; a call without an answer raises in the end, and its outcome is not known."""

    def _create_session(self) -> Session:
        session = super()._create_session()
        session.request = functools.partial(session.request, timeout=(CONNECT_SECONDS, READ_SECONDS))  # type: ignore[method-assign]
        return session


def open_rest(name: str, properties: Properties) -> Catalog:
    """The catalog over REST that is called ``name``."""
    return PatientCatalog(name, **properties)


def open_glue(name: str, properties: Properties) -> Catalog:
    """The catalog of Glue, which is the same by any ``name``."""
    from pyiceberg.catalog.glue import GLUE_MAX_RETRIES, GlueCatalog

    # As text, which properties are, the number would break every call.
    retries = property_as_int(properties, GLUE_MAX_RETRIES, RETRIES)
    bounds: dict[str, Any] = {BOTOCORE_SESSION: AwsSession.bounded(CONNECT_SECONDS, READ_SECONDS), GLUE_MAX_RETRIES: retries}
    return GlueCatalog(name, **(properties | bounds))
