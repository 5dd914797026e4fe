"""The simulation's store, as long as no call fails, does what ``MemoryStore`` does, which test_object_store.py holds to S3."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any

import pytest

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
