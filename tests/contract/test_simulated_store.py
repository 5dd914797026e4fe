"""The store of the simulations, as long as no call fails, does what ``MemoryStore`` does, which test_object_store.py holds to S3."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from stream.simulation.places import Bucket, SimulatedStore, tag_of
from stream.simulation.process import Process
from stream.simulation.virtual_time import leaping
from stream.storage.memory import MemoryStore

KEYS = ("a", "a/b", "b")


async def listed(store: Any, prefix: str, after: str) -> list[tuple[str, int]]:
    return [(found.key, found.size) async for found in store.list(prefix, after)]


@pytest.mark.parametrize("seed", range(5))
def test_without_trouble_the_store_of_simulated_workers_answers_as_the_store_in_memory(seed: int) -> None:
    """Other places in the same bucket are not touched, and writes are told to whoever listens."""

    async def body() -> set[tuple[str, bool]]:
        touched: list[tuple[str, str]] = []
        process = Process("w", 0, seed, 0.0, (), lambda _at, _who, _what: None)
        dice, memory, bucket = Random(seed), MemoryStore(), Bucket()
        await bucket.put("s3/lake/other/a", b"beside")
        simulated = SimulatedStore(bucket, "s3://lake/data", process, lambda what, key: touched.append((what, key)))
        outcomes, tags = set(), {}
        for number in range(300):
            key, what = dice.choice(KEYS), dice.choice(("create", "replace", "put", "get", "delete", "list", "folders"))
            if what == "list":
                assert await listed(simulated, key, "a") == await listed(memory, key, "a")
                continue
            if what == "folders":
                assert await simulated.folders("a/") == await memory.folders("a/")
                continue
            # Each body is written once: unlike those of the memory, S3's tags say only what the content is.
            arguments = (b"%d" % number,) if what in {"create", "put", "replace"} else ()
            known = tags.get(key, ("none", "none")) if dice.random() < 0.7 else ("other", "other")
            more = [((tag,) if what == "replace" else ()) for tag in known]
            expected = await getattr(memory, what)(key, *arguments, *more[0])
            found = await getattr(simulated, what)(key, *arguments, *more[1])
            assert (found is None) == (expected is None), what
            if what == "get" and expected is not None:
                assert found.body == expected.body
                assert found.etag == tag_of(found.body)
                tags[key] = (expected.etag, found.etag)
            outcomes.add((what, expected is None))
        assert {key for _, key in touched} == {f"s3/lake/data/{key}" for key in KEYS}
        assert (await bucket.get("s3/lake/other/a")) is not None
        return outcomes

    assert {(what, missing) for what in ("create", "replace", "get") for missing in (True, False)} <= leaping(body)
