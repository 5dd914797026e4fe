"""Everything that is written to S3 is encrypted with the key that the pipeline names, whatever the bucket says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from stream.aws.session import AwsSession
from stream.storage import s3
from stream.storage.open import open_store
from stream.storage.s3 import KmsKey
from tests.replays import Place, row

KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.fixture
def client(moto_url: str, aws_env: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of S3 with one bucket, ``encrypted``; the service under test finds the same S3."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto_url)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    made = boto3.client("s3", endpoint_url=moto_url, region_name="us-east-1")
    made.create_bucket(Bucket="encrypted")
    yield made
    made.close()


def encryption(client: Any) -> dict[str, tuple[Any, ...]]:
    """How each object of the bucket is encrypted, by key."""
    found = {}
    for entry in client.list_objects_v2(Bucket="encrypted").get("Contents", []):
        head = client.head_object(Bucket="encrypted", Key=entry["Key"])
        found[entry["Key"]] = head.get("ServerSideEncryption"), head.get("SSEKMSKeyId"), head.get("BucketKeyEnabled", False)
    return found


@pytest.mark.parametrize("bucket_key", [True, False])
def test_every_kind_of_write_names_the_kms_key(client: Any, bucket_key: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_PART_BYTES", 5 * 2**20)

    async def write() -> None:
        store = open_store(f"s3://encrypted/{bucket_key}", AwsSession(region="us-east-1"), KmsKey(KEY, bucket_key))
        tag = await store.create("made", b"1")
        assert tag is not None
        assert await store.replace("made", b"2", tag) is not None
        assert await store.create("once", b"1") is not None
        await store.put("put", b"1")
        await store.put("in parts", bytes(6 * 2**20))

    asyncio.run(write())
    found = {key: said for key, said in encryption(client).items() if key.startswith(f"{bucket_key}/")}
    # Of an object in parts moto forgets the bucket key.
    assert found.pop(f"{bucket_key}/in parts")[:2] == ("aws:kms", KEY)
    assert found == {f"{bucket_key}/{name}": ("aws:kms", KEY, bucket_key) for name in ("made", "once", "put")}


def test_data_files_state_dead_letters_and_ledger_are_encrypted(client: Any, tmp_path: Path) -> None:
    place = Place(tmp_path, {"more": f'encryption: {{kms_key: "{KEY}"}}'})
    place.lines("a.json", range(50), render=lambda number: "{broken" if number % 10 == 3 else json.dumps(row(number)))
    remote = place.text().replace('"file:./lake"', '"s3://encrypted/run/lake/"').replace('"file:./state"', '"s3://encrypted/run/state/"')
    place.text = lambda: remote  # type: ignore[method-assign]
    assert place.run().code == 0
    assert place.proof() == []
    found = {key: said for key, said in encryption(client).items() if key.startswith("run/")}
    assert set(found.values()) == {("aws:kms", KEY, True)}
    for part in ("run/lake/", "/commits/", "/rejects/", "/ledger/", "/pipelines/", "/checkpoints/"):
        assert any(part in key for key in found), (part, sorted(found))
