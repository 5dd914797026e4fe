"""The roles that a pipeline's processes run under, and whose tokens they take."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

AUDIENCE: Final = "sts.amazonaws.com"
"""Of tokens that STS takes, as the identity webhook of EKS asks for them."""


class Role(StrEnum):
    """One for each job, so that none has the rights of another."""

    BOOTSTRAP = "bootstrap"
    WORKER = "worker"
    REDSHIFT_COPY = "redshift-copy"
    BACKFILL = "backfill"
    READER = "reader"
