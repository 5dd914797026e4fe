"""A read-only Kinesis endpoint at memory speed: responses are prepared beforehand, and a request only copies bytes.

``python benchmarks/replay.py --shape click --records 50000 --shards 4`` prints ``{"url": ...}`` and serves two streams until its standard
input closes: ``bench``, with ``--records`` records on every shard, and ``small``, with ``SMALL_RECORDS``. Every shard of a stream has the
same records under the same sequence numbers. With ``--rate``, that many records a second become visible on each shard, with their real
time of arrival. It serves JSON 1.1 over HTTP/1.1 to any client, with only the operations needed for reading.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from pages import ARRIVED, PAGE_RECORDS, record_json
from shapes import SHAPES

from stream.local.kinesis.sequence import base, number, parts

BENCH: Final = "bench"
SMALL: Final = "small"
SMALL_RECORDS: Final = 200
MAX_PAGE_BYTES: Final = 10 * 2**20
_HASHES: Final = 2**128


class Canned:
    """Records of one shape in the form of a response, and where each begins."""

    def __init__(self, lines: list[bytes]) -> None:
        texts = [record_json(line, 0, at) + b"," for at, line in enumerate(lines)]
        self.starts = np.cumsum([0, *map(len, texts)])
        self.text = memoryview(b"".join(texts))
        self.payload = np.cumsum([0, *map(len, lines)])
        self.lines = lines

    def page(self, first: int, limit: int) -> tuple[memoryview, int]:
        """At most ``limit`` records and 10 MiB from ``first`` on, and the number after them."""
        fitting = int(np.searchsorted(self.payload, self.payload[first] + MAX_PAGE_BYTES, side="right")) - 1
        end = max(min(first + limit, fitting, len(self.lines)), min(first + 1, len(self.lines)))
        return self.text[self.starts[first] : max(self.starts[first], self.starts[end] - 1)], end


class Live:
    """The same records arriving one by one, at ``rate`` per second from the first read on."""

    def __init__(self, lines: list[bytes], rate: float) -> None:
        self.rate = rate
        self.begun = 0.0
        self.data = [base64.b64encode(line).decode() for line in lines]
        self.shard_base = base(ARRIVED - 3600, 0)

    def page(self, first: int, limit: int) -> tuple[memoryview, int]:
        """Up to ``limit`` of the records that have arrived."""
        self.begun = self.begun or time.time()
        end = min(first + limit, int((time.time() - self.begun) * self.rate), len(self.data))
        texts = [
            f'{{"SequenceNumber":"{number(self.shard_base, at + 1, ARRIVED + at // 1000)}",'
            f'"ApproximateArrivalTimestamp":{self.begun + at / self.rate:.3f},"Data":"{self.data[at]}","PartitionKey":"k{at}"}}'
            for at in range(first, end)
        ]
        return memoryview(",".join(texts).encode()), max(first, end)


class Endpoint:
    """The operations of the endpoint."""

    def __init__(self, streams: dict[str, tuple[Canned | Live, int, int]]) -> None:
        self.streams = streams
        self.operations: dict[str, Callable[[dict[str, Any]], Any]] = {
            "ListShards": self.list_shards,
            "DescribeStream": self.describe_stream,
            "DescribeStreamSummary": self.summary,
            "GetShardIterator": self.iterator,
        }
        self.calls = 0

    def answer(self, operation: str, request: dict[str, Any]) -> tuple[int, list[bytes | memoryview]]:
        self.calls += 1
        if operation == "GetRecords":
            return 200, self.records(request)
        found = self.operations.get(operation)
        if found is None:
            return 400, [json.dumps({"__type": "UnknownOperationException", "message": operation}).encode()]
        return 200, [json.dumps(found(request)).encode()]

    def records(self, request: dict[str, Any]) -> list[bytes | memoryview]:
        stream, shard, first = request["ShardIterator"].split("/")
        source, records, _ = self.streams[stream]
        limit = min(request.get("Limit", PAGE_RECORDS), records - int(first))
        text, end = source.page(int(first), limit)
        behind = 0 if end >= records or isinstance(source, Live) else 60_000
        tail = b'],"NextShardIterator":"%b/%b/%d","MillisBehindLatest":%d}' % (stream.encode(), shard.encode(), end, behind)
        return [b'{"Records":[', text, tail]

    def iterator(self, request: dict[str, Any]) -> dict[str, Any]:
        first, kind = 0, request["ShardIteratorType"]
        if kind.endswith("SEQUENCE_NUMBER"):
            found = parts(int(request["StartingSequenceNumber"]))
            first = 0 if found is None else found.counter - (kind[0] == "A" and kind[1] == "T")
        return {"ShardIterator": f"{_name(request)}/{request['ShardId']}/{first}"}

    def list_shards(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"Shards": self.shards(_name(request))}

    def shards(self, stream: str) -> list[dict[str, Any]]:
        count, width = self.streams[stream][2], _HASHES // self.streams[stream][2]
        return [
            {
                "ShardId": f"shardId-{shard:012d}",
                "HashKeyRange": {"StartingHashKey": str(shard * width), "EndingHashKey": str((shard + 1) * width - 1)},
                "SequenceNumberRange": {"StartingSequenceNumber": str(base(ARRIVED - 3600, 0))},
            }
            for shard in range(count)
        ]

    def summary(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"StreamDescriptionSummary": {**self.described(_name(request)), "OpenShardCount": self.streams[_name(request)][2]}}

    def describe_stream(self, request: dict[str, Any]) -> dict[str, Any]:
        name = _name(request)
        return {"StreamDescription": {**self.described(name), "Shards": self.shards(name), "HasMoreShards": False}}

    def described(self, name: str) -> dict[str, Any]:
        arn = f"arn:aws:kinesis:us-east-1:000000000000:stream/{name}"
        fixed = {"StreamStatus": "ACTIVE", "RetentionPeriodHours": 24, "StreamCreationTimestamp": ARRIVED - 3600, "EnhancedMonitoring": []}
        return {"StreamName": name, "StreamARN": arn, **fixed}


class Connection(asyncio.Protocol):
    """The connection of one client: requests are answered at once, in order."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(64 * 2**20)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        while (end := self.waiting.find(b"\r\n\r\n")) >= 0:
            headers = dict(line.lower().split(b": ", 1) for line in self.waiting[:end].split(b"\r\n")[1:] if b": " in line)
            size = int(headers.get(b"content-length", b"0"))
            if len(self.waiting) < end + 4 + size:
                return
            body, self.waiting = self.waiting[end + 4 : end + 4 + size], self.waiting[end + 4 + size :]
            self.reply(headers, json.loads(body or b"{}"))

    def reply(self, headers: dict[bytes, bytes], request: dict[str, Any]) -> None:
        names = {name.lower(): name for name in ("GetRecords", *self.endpoint.operations)}
        target = headers.get(b"x-amz-target", b"").rpartition(b".")[2].decode()
        status, parts_ = self.endpoint.answer(names.get(target, target), request)
        head = b"HTTP/1.1 %d %b\r\nContent-Type: application/x-amz-json-1.1\r\nx-amzn-RequestId: 0\r\nContent-Length: %d\r\n\r\n"
        self.transport.writelines([head % (status, b"OK" if status == 200 else b"Bad Request", sum(map(len, parts_))), *parts_])


def _name(request: dict[str, Any]) -> str:
    return str(request.get("StreamName") or request["StreamARN"].rpartition("/")[2])


async def serve(options: argparse.Namespace) -> None:
    lines = list(SHAPES[options.shape].lines(options.records))
    bench = Live(lines, options.rate) if options.rate else Canned(lines)
    small = Canned(lines[:SMALL_RECORDS])
    endpoint = Endpoint({BENCH: (bench, len(lines), options.shards), SMALL: (small, len(small.lines), options.shards)})
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(endpoint), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{port}", "payload": sum(map(len, lines))}) + "\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="click")
    parser.add_argument("--records", type=int, default=50_000, help="on each shard")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rate", type=float, default=0.0, help="records a second and shard; 0: all are there from the start")
    asyncio.run(serve(parser.parse_args()))
