"""What every store must do, run over each of them."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stream.aws.errors import Call
from stream.aws.session import AwsSession
from stream.contracts import ObjectStore
from stream.errors import DefinitionError, Fatal, Retryable
from stream.storage.directory import DirectoryStore
from stream.storage.open import open_store
from stream.storage.prefixed import PrefixedStore

_buckets = itertools.count()
Run = Callable[[Callable[[ObjectStore], Coroutine[Any, Any, None]]], None]


@pytest.fixture(params=["directory", "memory", "s3"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs an async function with a fresh store of each kind."""
    kind: str = request.param
    if kind == "s3":
        request.getfixturevalue("aws_env")
        session = AwsSession(region="us-east-1", endpoints={"s3": request.getfixturevalue("moto_url")})
    else:
        session = AwsSession(region="us-east-1")

    async def make() -> ObjectStore:
        if kind == "directory":
            return DirectoryStore(tmp_path / "root", fsync=False)
        if kind == "memory":
            return open_store("memory:")
        bucket = f"bucket-{next(_buckets)}"
        await session.ask("s3", "create_bucket", Call("s3:CreateBucket", bucket, "moto"), Bucket=bucket)
        return open_store(f"s3://{bucket}/some/prefix", session)

    def go(body: Callable[[ObjectStore], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            await body(await make())

        asyncio.run(main())

    return go


async def keys(store: ObjectStore, prefix: str = "", after: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix, after)]


def every_call(store: ObjectStore, key: str) -> list[Callable[[], Coroutine[Any, Any, object]]]:
    return [
        lambda: store.create(key, b""),
        lambda: store.put(key, b""),
        lambda: store.replace(key, b"", '"tag"'),
        lambda: store.get(key),
        lambda: store.delete(key),
    ]


def test_create_writes_once_and_keeps_the_first(run: Run) -> None:
    async def body(store: ObjectStore) -> None:
        tag = await store.create("a/b", b"first")
        assert tag
        assert await store.create("a/b", b"second") is None
        found = await store.get("a/b")
        assert found is not None
        assert (found.body, found.etag) == (b"first", tag)

    run(body)


def test_replace_requires_the_current_tag(run: Run) -> None:
    async def body(store: ObjectStore) -> None:
        one = await store.create("k", b"1")
        assert one is not None
        two = await store.replace("k", b"2", one)
        assert two not in {None, one}
        assert await store.replace("k", b"3", one) is None
        found = await store.get("k")
        assert found is not None
        assert (found.body, found.etag) == (b"2", two)

    run(body)


def test_replacing_a_missing_key_writes_nothing(run: Run) -> None:
    async def body(store: ObjectStore) -> None:
        tag = await store.create("k", b"1")
        assert tag is not None
        assert await store.replace("other", b"2", tag) is None
        assert await store.get("other") is None
        await store.delete("k")
        assert await store.replace("k", b"2", tag) is None
        assert await store.get("k") is None

    run(body)


def test_put_overwrites_and_changes_the_tag(run: Run) -> None:
    async def body(store: ObjectStore) -> None:
        tag = await store.create("k", b"1")
        assert tag is not None
        await store.put("k", b"22")
        await store.put("new", b"")
        assert await store.replace("k", b"3", tag) is None
        found, empty = await store.get("k"), await store.get("new")
        assert found is not None
        assert empty is not None
        assert (found.body, empty.body) == (b"22", b"")
        assert await store.replace("k", b"3", found.etag) is not None

    run(body)


def test_large_and_binary_bodies_are_read_back_whole(run: Run) -> None:
    async def body(store: ObjectStore) -> None:
        large = bytes(range(256)) * (7 * 4096)
        await store.put("large", large)
        tag = await store.create("created", large)
        for key in ("large", "created"):
            found = await store.get(key)
            assert found is not None
            assert found.body == large
        assert tag is not None
        assert await store.replace("created", b"", tag) is not None

    run(body)


def test_deleting_a_missing_key_does_nothing(run: Run) -> None:
    async def body(store: ObjectStore) -> None:
        await store.delete("never/there")
        await store.create("k", b"")
        await store.delete("k")
        await store.delete("k")
        assert await store.get("k") is None
        assert await store.create("k", b"again") is not None

    run(body)


ODD = ["a b+c", "ü/é😀", "x=%2F%20", "q?x#y", "a*~!'()&,;:@$", "back\\slash", '"quoted"', "tail.", ".hidden", "%", "e\u0301"]


def test_odd_keys_stay_distinct_and_are_read_back(run: Run) -> None:
    async def body(store: ObjectStore) -> None:
        for key in ODD:
            assert await store.create(key, key.encode()) is not None, key
        assert await keys(store) == sorted(ODD)
        for key in ODD:
            found = await store.get(key)
            assert found is not None
            assert found.body == key.encode()
            await store.delete(key)
        assert await keys(store) == []

    run(body)


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", ".", "a/../b", "./a", "a\nb", "a\0b", "x" * 1025, "\ud800"])
def test_unusable_keys_are_refused_before_anything_is_written(run: Run, key: str) -> None:
    async def body(store: ObjectStore) -> None:
        for call in every_call(store, key):
            with pytest.raises(Fatal, match="cannot be used"):
                await call()
        assert await keys(store) == []

    run(body)


LISTED = ["a", "a-b", "a.b", "b/1", "b/10", "b/2", "b/c/1", "b-/x", "b0", "ba/1", "c/ü", "c/z"]


@pytest.mark.parametrize("prefix", ["", "b", "b/", "b/1", "b/c/", "c/", "nothing", "b/nothing/"])
@pytest.mark.parametrize("after", ["", "a-b", "b", "b/", "b/10", "b/c", "b/c/", "c/z", "zzz"])
def test_list_is_ordered_by_key_and_respects_prefix_and_after(tmp_path: Path, prefix: str, after: str) -> None:
    async def main() -> None:
        for store in (DirectoryStore(tmp_path, fsync=False), open_store("memory:")):
            for key in reversed(LISTED):
                await store.put(key, b"")
            assert await keys(store, prefix, after) == [key for key in sorted(LISTED) if key.startswith(prefix) and key > after]

    asyncio.run(main())


def test_list_order_prefix_and_after_hold_for_every_store(run: Run) -> None:
    async def body(store: ObjectStore) -> None:
        for key in reversed(LISTED):
            await store.put(key, key.encode())
        assert await keys(store, "") == sorted(LISTED)
        for prefix, after in [
            ("b", ""),
            ("b/", ""),
            ("b/1", ""),
            ("b/", "b/10"),
            ("", "b/"),
            ("", "b"),
            ("b/", "b/c/"),
            ("c/", "c/ü"),
        ]:
            assert await keys(store, prefix, after) == [key for key in sorted(LISTED) if key.startswith(prefix) and key > after]

    run(body)


FOLDERS = {
    "of_the_store": (["", "a"], ["a"]),
    "before_its_objects": (["a/", "a/1", "a/b/", "a/b/2"], ["a/1", "a/b/2"]),
    "after_keys_that_sort_before_a_slash": (["a-b", "a.json", "a/", "a/1"], ["a-b", "a.json", "a/1"]),
    "beside_an_object_of_its_name": (["a", "a/", "a/1"], ["a", "a/1"]),
    "beside_an_empty_object": (["empty", "empty-b", "empty/1"], ["empty", "empty-b", "empty/1"]),
    "at_the_end": (["a", "b-1", "b/"], ["a", "b-1"]),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_objects_that_stand_for_folders_are_not_listed(name: str, moto_url: str, aws_env: None) -> None:
    made, listed = FOLDERS[name]

    async def main() -> None:
        session, bucket = AwsSession(region="us-east-1", endpoints={"s3": moto_url}), f"bucket-{next(_buckets)}"
        await session.ask("s3", "create_bucket", Call("s3:CreateBucket", bucket, "moto"), Bucket=bucket)
        for key in made:
            body = b"" if key.endswith("/") or key in {"", "empty"} else b"1"
            call = Call("s3:PutObject", key, "moto")
            await session.ask("s3", "put_object", call, Bucket=bucket, Key=f"some/prefix/{key}", Body=body)
        store = open_store(f"s3://{bucket}/some/prefix", session)
        assert await keys(store) == listed
        assert await keys(store, "a/") == [key for key in listed if key.startswith("a/")]
        assert await keys(store, "", "a") == [key for key in listed if key > "a"]

    asyncio.run(main())


def test_a_key_that_obstore_cannot_list_is_named_with_a_remedy(moto_url: str, aws_env: None) -> None:
    async def main() -> None:
        session, bucket = AwsSession(region="us-east-1", endpoints={"s3": moto_url}), f"bucket-{next(_buckets)}"
        await session.ask("s3", "create_bucket", Call("s3:CreateBucket", bucket, "moto"), Bucket=bucket)
        await session.ask("s3", "put_object", Call("s3:PutObject", "x", "moto"), Bucket=bucket, Key="in//x", Body=b"1")
        with pytest.raises(Fatal, match=r"rename or delete the one.*in//x"):
            await keys(open_store(f"s3://{bucket}/in", session))

    asyncio.run(main())


def test_folders_are_listed_once_in_the_order_of_their_objects(run: Run) -> None:
    async def body(store: ObjectStore) -> None:
        names = ["a", "a-b", "a.b", "a0", "a_r1", "ab", "b%20c"]
        for name in names:
            for key in ("1", "2/3", "z"):
                await store.put(f"in/{name}/{key}", b"")
        await store.put("in/file", b"")
        await store.put("inner/other/1", b"")
        await store.put("in/gone/1", b"")
        await store.delete("in/gone/1")
        assert await store.folders("in/") == ["a-b", "a.b", "a", "a0", "a_r1", "ab", "b%20c"]
        assert await store.folders("in/a/") == ["2"]
        assert await store.folders("") == ["in", "inner"]
        assert await store.folders("nothing/") == []
        assert await PrefixedStore(store, "in/a/").folders("") == ["2"]

    run(body)


def test_list_gives_size_and_time(run: Run) -> None:
    async def body(store: ObjectStore) -> None:
        await store.put("k", b"12345")
        [info] = [info async for info in store.list("")]
        assert (info.key, info.size) == ("k", 5)
        assert info.modified.tzinfo is not None
        assert abs(info.modified - datetime.fromtimestamp(_wall(), UTC)) < timedelta(minutes=5)

    run(body)


def _wall() -> float:
    import time

    return time.time()


def test_a_listing_continues_beyond_one_page_of_the_store(run: Run) -> None:
    async def body(store: ObjectStore) -> None:
        names = [f"n/{i:04d}/x" for i in range(1003)]
        for start in range(0, len(names), 100):
            async with asyncio.TaskGroup() as group:
                for name in names[start : start + 100]:
                    group.create_task(store.put(name, b""))
        assert await keys(store, "n/") == names
        assert await keys(store, "n/", names[998]) == names[999:]
        assert await store.folders("n/") == [name[2:6] for name in names]

    run(body)


def test_of_concurrent_creates_exactly_one_wins(run: Run) -> None:
    async def body(store: ObjectStore) -> None:
        for key in ("k/1", "k/2", "k/3"):
            tags = await asyncio.gather(*(store.create(key, f"{i}".encode()) for i in range(24)))
            [winner] = [i for i, tag in enumerate(tags) if tag is not None]
            found = await store.get(key)
            assert found is not None
            assert (found.body, found.etag) == (f"{winner}".encode(), tags[winner])

    run(body)


def test_of_concurrent_replaces_exactly_one_wins_each_round(run: Run) -> None:
    async def body(store: ObjectStore) -> None:
        tag = await store.create("k", b"start")
        for number in range(4):
            assert tag is not None
            tags = await asyncio.gather(*(store.replace("k", f"{number} {i}".encode(), tag) for i in range(16)))
            [(winner, tag)] = [(i, new) for i, new in enumerate(tags) if new is not None]
            found = await store.get("k")
            assert found is not None
            assert found.body == f"{number} {winner}".encode()

    run(body)


PROCESS = """
import asyncio, sys
from pathlib import Path
from stream.storage.directory import DirectoryStore

async def main():
    store = DirectoryStore(Path(sys.argv[1]), fsync=False)
    sys.stdin.readline()
    created = 0
    for i in range(1000):
        created += await store.create(f"made/{i}", sys.argv[2].encode()) is not None
    added = 0
    while added < 50:
        found = await store.get("counter")
        added += await store.replace("counter", str(int(found.body) + 1).encode(), found.etag) is not None
    print(created)

asyncio.run(main())
"""


def test_processes_sharing_a_directory_lose_no_write(tmp_path: Path) -> None:
    asyncio.run(DirectoryStore(tmp_path).put("counter", b"0"))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path), f"worker {i}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(3)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    created = [int(worker.communicate()[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert sum(created) == 1000
    counter = asyncio.run(DirectoryStore(tmp_path).get("counter"))
    assert counter is not None
    assert counter.body == b"150"


def test_a_missing_bucket_is_fatal_and_named(moto_url: str, aws_env: None) -> None:
    async def main() -> None:
        store = open_store("s3://not-there/p", AwsSession(region="us-east-1", endpoints={"s3": moto_url}))
        for call in every_call(store, "k"):
            with pytest.raises(Fatal, match="bucket of s3://not-there/p does not exist"):
                await call()
        with pytest.raises(Fatal, match="bucket of s3://not-there/p does not exist"):
            await keys(store)

    asyncio.run(main())


def test_an_unreachable_s3_is_retryable(aws_env: None) -> None:
    async def main() -> None:
        store = open_store("s3://any-bucket", AwsSession(region="us-east-1", endpoints={"s3": "http://127.0.0.1:9"}))
        with pytest.raises(Retryable, match="s3:PutObject on 'k'"):
            await store.create("k", b"")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("state", "no scheme"),
        ("gs://x/y", "'gs' is not supported"),
        ("file:", "path is empty"),
        ("file://host/x", "'host' is in the place of a host"),
        ("s3:bucket", "two slashes"),
        ("s3://Bad_Bucket/x", "no bucket name"),
        ("s3://bucket/a//b", "cannot be used"),
        ("s3://bucket/a", "no AWS session"),
    ],
)
def test_a_bad_url_is_refused_with_the_allowed_forms(url: str, why: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        open_store(url)
    assert why in str(caught.value)
    assert "s3://bucket/prefix, file:./directory" in str(caught.value)


def test_every_form_of_file_url_opens_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        for url in ("file:./here", "file:here", f"file://{tmp_path}/here", f"file:{tmp_path}/here"):
            store = open_store(url)
            assert store.url == url
            await store.put(url.replace("/", "_").replace(":", "_"), b"")
        assert len(await keys(open_store("file:./here"))) == 4

    asyncio.run(main())


def test_a_range_is_read_only_from_the_version_that_was_listed(run: Run) -> None:
    async def body(store: Any) -> None:
        await store.put("x", b"0123456789")
        (info,) = [each async for each in store.list("")]
        assert await store.read_range("x", 2, 5, info.version) == b"234"
        assert await store.read_range("x", 8, 10, info.version) == b"89"
        assert await store.read_range("gone", 0, 1, info.version) is None
        await store.put("x", b"another content")
        assert await store.read_range("x", 2, 5, info.version) is None
        (changed,) = [each async for each in store.list("")]
        assert changed.version != info.version

    run(body)


def test_stat_says_of_an_object_what_a_listing_says(run: Run) -> None:
    async def body(store: Any) -> None:
        for key, content in (("a/b c+ü.json", b"0123"), ("empty", b"")):
            await store.put(key, content)
            (listed,) = [info async for info in store.list(key)]
            found = await store.stat(key)
            assert (found.key, found.size, found.version) == (listed.key, listed.size, listed.version)
            # A look may be exact to the second only.
            assert abs(found.modified - listed.modified) < timedelta(seconds=1)
        await store.put("a/b c+ü.json", b"other")
        assert (await store.stat("a/b c+ü.json")).version != listed.version
        for missing in ("a", "a/b", "empty/x", "none"):
            assert await store.stat(missing) is None

    run(body)
