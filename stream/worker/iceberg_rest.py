"""PyIceberg's REST catalog with time-outs: by itself it waits forever for a catalog that does not answer."""

from __future__ import annotations

import functools
from typing import Final

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.typedef import Properties
from requests import Session

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0
"""Without a byte of an answer; a catalog writes a file or two before it answers to a commit."""


class PatientCatalog(RestCatalog):
    """The same catalog; a call without an answer raises in the end, and its outcome is not known."""

    def _create_session(self) -> Session:
        session = super()._create_session()
        session.request = functools.partial(session.request, timeout=(CONNECT_SECONDS, READ_SECONDS))  # type: ignore[method-assign]
        return session


def open_patiently(name: str, properties: Properties) -> Catalog:
    """The catalog called ``name``."""
    return PatientCatalog(name, **properties)
