"""Does the lake hold what the stream says? Judged from objects and records alone, without any code of the service.

The commit log is read as JSON, the files as Parquet, the expected rows are plain Python.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq

from tests.chaos.truth import Record, ShardTruth

Place = tuple[str, int, int]


@dataclass(frozen=True)
class Definition:
    """What a pipeline must make of one record, written in Python; ``mark`` is text that only its recorded definition contains."""

    mark: str
    keeps: Callable[[dict[str, Any]], bool]
    partition: str = "kind"
    masked: frozenset[str] = frozenset()
    """Columns whose values depend on a secret and are not compared."""

    def outcome(self, record: Record) -> tuple[str, dict[str, Any] | None]:
        if not record.here:
            return "out_of_range", None
        row = read(record.data)
        if row is None:
            return "dead_lettered", None
        return ("written", {**row, "doubled": row["value"] * 2}) if self.keeps(row) else ("filtered", None)


def read(data: bytes) -> dict[str, Any] | None:
    """A record of the schema {id: int64, kind: string, value: int64?, note: string?}, or None where it is not one."""
    try:
        row = json.loads(data.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("id")) is not int or not isinstance(row.get("kind"), str):
        return None
    value, note = row.get("value"), row.get("note")
    if (value is not None and type(value) is not int) or not isinstance(note, str | None):
        return None
    return {"id": row["id"], "kind": row["kind"], "value": value, "note": note}


@dataclass
class Judgement:
    """Everything that is wrong, in words: the results are right only if ``problems`` is empty."""

    problems: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def expect(self, good: bool, problem: str) -> bool:
        if not good:
            self.problems.append(problem)
        return good


@dataclass
class Oracle:
    """Judges ``objects``, all keys and bytes of ``state/``, ``lake/`` and ``sea/``, against the records of ``shards``.

    ``leftovers``: whether files may remain that no sealed manifest lists, which strict readers do not see.
    tests/chaos/test_oracle.py damages correct results in many ways and checks that each damage is found.
    """

    objects: Mapping[str, bytes]
    shards: Mapping[str, ShardTruth]
    stream: str
    definitions: Sequence[Definition]
    application: str = "chaos"
    leftovers: bool = False
    whole: bool = True
    """Whether everything must be committed; else the chains may end anywhere."""
    begins: Callable[[Record], bool] = lambda _: True
    """Whether the pipeline's start position lets the record in."""

    def judge(self) -> Judgement:
        verdict = Judgement()
        listed: set[str] = set()
        ends: dict[str, str] = {}
        for shard in self.shards.values():
            records = [record for record in shard.records if self.begins(record)]
            done = 0
            for manifest in self._chain(shard, verdict):
                if manifest["kind"] == "end":
                    ends[shard.shard_id] = manifest["created_at"]
                    verdict.expect(shard.closed, f"{shard.shard_id} is open, yet its chain has an end")
                    verdict.expect(manifest.get("children", []) == list(shard.children), f"{shard.shard_id}: wrong children")
                    continue
                inside = [record for record in records if int(manifest["after"]) < record.sequence <= int(manifest["last"])]
                verdict.expect(inside == records[done : done + len(inside)], f"{shard.shard_id}: unit {manifest['after']} skips records")
                done += len(inside)
                listed |= self._unit(shard, manifest, inside, verdict)
            if self.whole:
                verdict.expect(done == len(records), f"{shard.shard_id}: {done} of {len(records)} records are committed")
                verdict.expect(
                    (shard.shard_id in ends) == shard.closed, f"{shard.shard_id}: closed {shard.closed}, end {shard.shard_id in ends}"
                )
        self._files(listed, verdict)
        self._order_of_shards(ends, verdict)
        places = Counter((row["_shard"], row["_sequence"], row["_subsequence"]) for row in verdict.rows)
        verdict.expect(all(count == 1 for count in places.values()), "a record is in the lake more than once")
        return verdict

    def _chain(self, shard: ShardTruth, verdict: Judgement) -> list[dict[str, Any]]:
        folder = f"state/{self.application}/commits/{self.stream}/{shard.shard_id}/"
        bodies = {key.removeprefix(folder): body for key, body in self.objects.items() if key.startswith(folder)}
        if not bodies:
            verdict.expect(not self.whole, f"{shard.shard_id} has no chain")
            return []
        previous = bodies.pop("genesis.json", b"")
        verdict.expect(previous != b"", f"{shard.shard_id} has no genesis")
        chain: list[dict[str, Any]] = []
        after, heads = "0", {0}
        while (body := bodies.pop(f"{after.zfill(60)}.json", None)) is not None:
            manifest = json.loads(body)
            if not verdict.expect(manifest["state"] == "sealed", f"{shard.shard_id}: the unit after {after} is not sealed"):
                break
            digest = hashlib.sha256(previous).hexdigest()
            verdict.expect(manifest["previous"] == digest, f"{shard.shard_id}: the link after {after} is broken")
            chain.append(manifest)
            if manifest["kind"] == "end":
                heads.add(-1)
                break
            previous, after = body, manifest["last"]
            heads.add(int(after))
        verdict.expect(not bodies, f"{shard.shard_id}: manifests outside of the chain: {sorted(bodies)}")
        self._checkpoint(shard, heads, verdict)
        return chain

    def _checkpoint(self, shard: ShardTruth, heads: set[int], verdict: Judgement) -> None:
        body = self.objects.get(f"state/{self.application}/checkpoints/{self.stream}/{shard.shard_id}.json")
        if body is None:
            return
        position = json.loads(body)["position"]
        checkpointed = -1 if position is None else int(position)
        verdict.expect(checkpointed in heads, f"{shard.shard_id}: the checkpoint {position} is not the end of a committed unit")

    def _unit(self, shard: ShardTruth, manifest: dict[str, Any], inside: list[Record], verdict: Judgement) -> set[str]:
        where = f"{shard.shard_id} after {manifest['after']}"
        definition = self._definition(manifest["pipeline"])
        expected = [definition.outcome(record) for record in inside]
        counts = Counter(outcome for outcome, _ in expected)
        verdict.outcomes += counts
        verdict.expect(
            manifest.get("outcomes", {}) == dict(counts), f"{where}: outcomes {manifest.get('outcomes')}, expected {dict(counts)}"
        )
        verdict.expect(manifest.get("records", 0) == len(inside), f"{where}: {manifest.get('records')} records, expected {len(inside)}")
        wanted = {record_place(shard, record): row for record, (_, row) in zip(inside, expected, strict=True) if row is not None}
        refused = [record for record, (outcome, _) in zip(inside, expected, strict=True) if outcome == "dead_lettered"]
        listed, placed, segment = set(), {}, None
        for file in manifest.get("files", []):
            beside = {"rejects": f"state/{self.application}/rejects/", "ledger": f"state/{self.application}/ledger/v1/"}
            folder = manifest["targets"][file["sink"]].rstrip("/").rpartition("/")[2]
            key = beside.get(file["sink"], f"{folder}/") + file["key"]
            listed.add(key)
            body = self.objects.get(key, b"")
            if not verdict.expect(hashlib.sha256(body).hexdigest() == file["sha256"], f"{where}: {key} is missing or another"):
                continue
            content = pq.ParquetFile(io.BytesIO(body))
            rows = content.read().to_pylist()
            verdict.expect(len(rows) == file["rows"], f"{where}: {key} has {len(rows)} rows, the manifest says {file['rows']}")
            if file["sink"] == "ledger":
                segment = json.loads(content.metadata.metadata[b"stream.ledger"]), rows
                self._ledger(where, rows, inside, expected, verdict)
                continue
            placed[file["sink"], file["key"]] = self._places(rows)
            if file["sink"] == "rejects":
                self._rejects(where, rows, refused, verdict)
                refused = []
            else:
                self._data(where, key, rows, wanted, definition, verdict)
        if verdict.expect(segment is not None or manifest["kind"] != "unit", f"{where}: the unit has no ledger segment") and segment:
            self._destinations(where, shard, *segment, placed, verdict)
        verdict.expect(not wanted, f"{where}: {len(wanted)} rows are missing, the first {next(iter(wanted.items()), None)}")
        verdict.expect(not refused, f"{where}: {len(refused)} dead letters are missing")
        return listed

    def _data(self, where: str, key: str, rows: list[Any], wanted: dict[Place, Any], definition: Definition, verdict: Judgement) -> None:
        places = self._places(rows)
        verdict.expect(places == sorted(places), f"{where}: {key} is out of order")
        verdict.rows += rows
        for place, row in zip(places, rows, strict=True):
            expected = wanted.pop(place, None)
            if not verdict.expect(expected is not None, f"{where}: {place} in {key} should not be there"):
                continue
            names = expected.keys() - definition.masked
            found = {name: row[name] for name in names}
            verdict.expect(found == {name: expected[name] for name in names}, f"{where}: {place} is {found}, expected {expected}")
            directory = unquote(key.split("/")[1])
            wish = f"{definition.partition}={row[definition.partition]}"
            verdict.expect(directory == wish, f"{where}: {place} lies in {directory}, expected {wish}")

    def _places(self, rows: list[Any]) -> list[Place]:
        named = f"{self.stream}/"  # where several streams share the lake
        return [(row["_shard"].removeprefix(named), int(row["_sequence"]), row["_subsequence"]) for row in rows]

    def _ledger(self, where: str, rows: list[Any], inside: list[Record], expected: list[Any], verdict: Judgement) -> None:
        found = [(int(row["seq"]), row["sub"], row["outcome"], row["bytes"]) for row in rows]
        wanted = [(each.sequence, each.subsequence, outcome, len(each.data)) for each, (outcome, _) in zip(inside, expected, strict=True)]
        verdict.expect(found == wanted, f"{where}: the ledger differs from the records")

    def _destinations(
        self, where: str, shard: ShardTruth, header: Any, rows: list[Any], placed: dict[tuple[str, str], list[Place]], verdict: Judgement
    ) -> None:
        """Each row of the ledger leads to the rows of its record, and every row is led to."""
        led: dict[tuple[str, str], set[Place]] = {file: set() for file in placed}
        for row in rows:
            place = shard.shard_id, int(row["seq"]), row["sub"]
            for index in range(len(header["targets"])):
                if row[f"dest_{index}"] is None:
                    continue
                named, line = header["objects"][row[f"dest_{index}"]], row[f"row_{index}"]
                file = named["sink"], named["key"]
                good = file in placed and placed[file][line : line + 1] == [place]
                verdict.expect(good, f"{where}: the ledger says that {place} is in row {line} of {file}, and it is not")
                led.setdefault(file, set()).add(place)
        for file, places in placed.items():
            verdict.expect(led[file] == set(places), f"{where}: the ledger does not lead to all rows of {file}")

    def _rejects(self, where: str, rows: list[Any], refused: list[Record], verdict: Judgement) -> None:
        found = [(int(row["_sequence"]), row["_subsequence"], row["_data"]) for row in rows]
        verdict.expect(found == [(each.sequence, each.subsequence, each.data) for each in refused], f"{where}: dead letters differ")
        verdict.expect(all(row["stage"] and row["reason"] for row in rows), f"{where}: a dead letter has no stage or no reason")

    def _definition(self, digest: str) -> Definition:
        if len(self.definitions) == 1:
            return self.definitions[0]
        text = self.objects[f"state/{self.application}/pipelines/{digest}.yaml"].decode()
        (found,) = [definition for definition in self.definitions if definition.mark in text]
        return found

    def _files(self, listed: set[str], verdict: Judgement) -> None:
        data = ("lake/", "sea/", f"state/{self.application}/rejects/", f"state/{self.application}/ledger/")
        extra = {key for key in self.objects if key.startswith(data)} - listed
        verdict.expect(self.leftovers or not extra, f"files that no sealed manifest lists: {sorted(extra)}")

    def _order_of_shards(self, ends: dict[str, str], verdict: Judgement) -> None:
        for shard in self.shards.values():
            body = self.objects.get(f"state/{self.application}/commits/{self.stream}/{shard.shard_id}/genesis.json")
            begun = json.loads(body)["created_at"] if body else None
            for parent in set(shard.parents) & self.shards.keys():
                good = begun is None or (parent in ends and ends[parent] <= begun)
                verdict.expect(good, f"{shard.shard_id} began at {begun}, its parent {parent} ended at {ends.get(parent)}")


def record_place(shard: ShardTruth, record: Record) -> Place:
    """What identifies a record."""
    return shard.shard_id, record.sequence, record.subsequence
