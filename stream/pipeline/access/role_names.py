"""The names of the IAM roles under which a pipeline's processes run, and the audience of their tokens."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

AUDIENCE: Final = "sts.amazonaws.com"
"""Audience of the tokens that the EKS pod identity webhook requests and STS accepts."""


class Role(StrEnum):
    """The roles: one for each kind of process, so that none has the permissions of another."""

    BOOTSTRAP = "bootstrap"
    WORKER = "worker"
    REDSHIFT_COPY = "redshift-copy"
    BACKFILL = "backfill"
    READER = "reader"
    ANALYST = "analyst"
    FUNCTION = "function"
    TRANSFORM = "transform"
    FIREHOSE = "firehose"
    OPERATOR = "operator"
    COMPACTOR = "compactor"
