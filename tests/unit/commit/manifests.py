"""Manifests and files for tests."""

from stream.commit.committer import RenderedUnit
from stream.commit.manifest import FileEntry, Kind, Manifest, State
from stream.commit.naming import sha256_hex
from stream.contracts import OutputFile, Shard

SHARD = Shard("events", "shardId-1")


def file(name, body=b"body"):
    digest = sha256_hex(body)
    return OutputFile("s3", f"{name}.{digest[:16]}.parquet", body, 1, digest)


def intent(*files, after=0, last=10, previous="", **fields):
    entries = tuple(FileEntry.of(each) for each in files)
    return Manifest(
        Kind.UNIT, State.INTENT, "app", "events", "shardId-1", after=str(after), last=str(last), files=entries, previous=previous, **fields
    )


def unit(*files, **fields):
    return RenderedUnit(intent(*files, **fields), files)
