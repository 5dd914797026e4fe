"""The stores of the two simulations, as long as no call fails, do what ``MemoryStore`` does, which test_object_store.py holds to S3."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any

import pytest

from stream.simulation.places import SimulatedStore
from stream.simulation.process import Process
from stream.simulation.virtual_time import leaping
from stream.storage.memory import MemoryStore
from tests.simulation.world import Objects, SimStore

KEYS = ("a", "a/b", "b")


def undisturbed(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine whose calls are all ``done``."""
    fate = None
    try:
        while True:
            coroutine.send(fate)
            fate = "done"
    except StopIteration as end:
        return end.value


async def listed(store: Any, prefix: str, after: str) -> list[tuple[str, int]]:
    return [(found.key, found.size) async for found in store.list(prefix, after)]


@pytest.mark.parametrize("seed", range(20))
def test_without_faults_it_answers_as_the_store_in_memory(seed: int) -> None:
    dice, memory, simulated = Random(seed), MemoryStore(), SimStore(Objects(), "sim:x")
    current: dict[str, tuple[str, str]] = {}
    outcomes = set()
    for number in range(400):
        # Each body is written once: the simulation's tags, like S3's, say only what the content is.
        key, body, what = dice.choice(KEYS), b"%d" % number, dice.choice(("create", "replace", "put", "get", "delete", "list"))
        if what == "list":
            assert undisturbed(listed(simulated, key, "a")) == asyncio.run(listed(memory, key, "a"))
            continue
        arguments = {"create": (body,), "put": (body,), "replace": (body,)}.get(what, ())
        tags = current.get(key, ("none", "none")) if dice.random() < 0.7 else ("other", "other")
        given = [(key, *arguments, *((tag,) if what == "replace" else ())) for tag in tags]
        expected, found = asyncio.run(getattr(memory, what)(*given[0])), undisturbed(getattr(simulated, what)(*given[1]))
        if what == "get" and expected is not None:
            assert found.body == expected.body
            current[key] = (expected.etag, found.etag)
        else:
            assert (found is None) == (expected is None), f"{what} {given}"
        outcomes.add((what, expected is None))
    wanted = {(what, missing) for what in ("create", "replace", "get") for missing in (True, False)}
    assert wanted <= outcomes


@pytest.mark.parametrize("seed", range(5))
def test_without_trouble_the_store_of_simulated_workers_answers_as_the_store_in_memory(seed: int) -> None:
    """Other places in the same bucket are not touched, and writes are told to whoever listens."""

    async def body() -> set[tuple[str, bool]]:
        touched: list[tuple[str, str]] = []
        process = Process("w", 0, seed, 0.0, (), lambda _at, _who, _what: None)
        dice, memory, bucket = Random(seed), MemoryStore(), MemoryStore()
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
            arguments = (b"%d" % number,) if what in {"create", "put", "replace"} else ()
            known = tags.get(key, ("none", "none")) if dice.random() < 0.7 else ("other", "other")
            more = [((tag,) if what == "replace" else ()) for tag in known]
            expected = await getattr(memory, what)(key, *arguments, *more[0])
            found = await getattr(simulated, what)(key, *arguments, *more[1])
            assert (found is None) == (expected is None), what
            if what == "get" and expected is not None:
                assert found.body == expected.body
                tags[key] = (expected.etag, found.etag)
            outcomes.add((what, expected is None))
        assert {key for _, key in touched} == {f"s3/lake/data/{key}" for key in KEYS}
        assert (await bucket.get("s3/lake/other/a")) is not None
        return outcomes

    assert {(what, missing) for what in ("create", "replace", "get") for missing in (True, False)} <= leaping(body)
