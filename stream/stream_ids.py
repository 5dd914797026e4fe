"""What a Kinesis stream is called: by its name, or by its ARN if another account or region has it.

In the commit log, in lineage columns, ledger, metrics and messages, a stream given by name is called by that name, and one given by its ARN
by its id: ``name@account.region``. Names have no ``@``, so neither two streams of one name in two accounts nor a name and an id are ever
taken for each other. The id contains all that the ARN does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

NAME: Final = r"[a-zA-Z0-9_.-]{1,128}"
"""https://docs.aws.amazon.com/kinesis/latest/APIReference/API_CreateStream.html"""
EXAMPLE: Final = "arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"
_USUAL: Final = "aws"
_ARN: Final = re.compile(rf"arn:(aws[a-z-]*):kinesis:([a-z0-9-]+):([0-9]{{12}}):stream/({NAME})")
_ID: Final = re.compile(rf"({NAME})@([0-9]{{12}})\.([a-z0-9-]+)(?:\.(aws-[a-z-]+))?")


@dataclass(frozen=True, slots=True)
class StreamId:
    """A stream anywhere in AWS."""

    name: str
    account: str
    region: str
    partition: str = _USUAL

    def __str__(self) -> str:
        """The id."""
        usual = f"{self.name}@{self.account}.{self.region}"
        return usual if self.partition == _USUAL else f"{usual}.{self.partition}"

    @property
    def arn(self) -> str:
        """The ARN."""
        return f"arn:{self.partition}:kinesis:{self.region}:{self.account}:stream/{self.name}"


def parse(stream: str) -> StreamId | None:
    """The stream with that id or ARN; None if ``stream`` is a name, or none of the three."""
    if found := _ARN.fullmatch(stream):
        partition, region, account, name = found.groups()
        return StreamId(name, account, region, partition)
    if found := _ID.fullmatch(stream):
        name, account, region, partition = found.groups()
        return StreamId(name, account, region, partition or _USUAL)
    return None


def stream_id(stream: str) -> str:
    """The id of a stream given by its ARN; anything else as it is."""
    found = parse(stream)
    return stream if found is None else str(found)


def as_written(stream: str) -> str:
    """The ARN of a stream given by its id; anything else as it is."""
    found = parse(stream)
    return stream if found is None else found.arn


def name_of(stream: str) -> str:
    """The bare name of a stream given by name, id or ARN."""
    found = parse(stream)
    return stream if found is None else found.name
