from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from stream.local.kinesis.server import running
from tests.clocks import ShiftedClock
from tests.integration.stage import Stage


@pytest.fixture
def stage(tmp_path: Path, aws_keys: None) -> Iterator[Stage]:
    clock = ShiftedClock()
    with running(clock=clock) as emulator:
        client = boto3.client("kinesis", endpoint_url=emulator.url, region_name="us-east-1")
        yield Stage(client, emulator.url, clock, tmp_path)
        client.close()
