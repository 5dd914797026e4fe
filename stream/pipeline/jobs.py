"""The roles that a pipeline's processes run under, and whose tokens they take."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

AUDIENCE: Final = "sts.amazonaws.com"
"""Audience of the tokens that the EKS pod identity webhook requests and STS accepts."""


class Role(StrEnum):
    """One role for each job, so that none has the permissions of another."""

    BOOTSTRAP = "bootstrap"
    WORKER = "worker"
    REDSHIFT_COPY = "redshift-copy"
    BACKFILL = "backfill"
    READER = "reader"
    OPERATOR = "operator"
