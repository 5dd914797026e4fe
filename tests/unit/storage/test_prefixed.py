import asyncio

from stream.storage.memory import MemoryStore
from stream.storage.prefixed import PrefixedStore


def test_a_prefixed_store_is_a_separate_store_inside_another():
    async def run():
        outer = MemoryStore()
        await outer.put("other/a", b"0")
        await outer.put("app2/a", b"0")
        inner = PrefixedStore(outer, "app/")
        tag = await inner.create("a/1", b"x")
        assert await inner.create("a/1", b"y") is None
        assert await inner.replace("a/1", b"y", "stale") is None
        assert await inner.replace("a/1", b"z", tag) is not None
        await inner.put("a/2", b"2")
        await inner.put("b", b"3")
        assert (await inner.get("a/1")).body == b"z"
        assert (await outer.get("app/a/1")).body == b"z"
        assert [info.key async for info in inner.list("")] == ["a/1", "a/2", "b"]
        assert [info.key async for info in inner.list("a/", after="a/1")] == ["a/2"]
        await inner.delete("b")
        assert await inner.get("b") is None
        assert [info.key async for info in outer.list("")] == ["app/a/1", "app/a/2", "app2/a", "other/a"]
        assert inner.url == f"{outer.url.removesuffix('/')}/app/"

    asyncio.run(run())
