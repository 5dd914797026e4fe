"""Ways to damage an intact log: any object, or any kind of row inside one, is lost, duplicated, moved or changed."""

from __future__ import annotations

import io

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stream.audit.verify import Scope, Verifier
from stream.commit.manifest import FileEntry, decode, digest, encode, with_seal
from stream.commit.naming import sha256_hex
from tests.sealed import StillClock, shard_id, three_units

KINDS = {
    "data file": ("lake", ""),
    "ledger file": ("state", "flights/ledger/"),
    "rejects file": ("state", "flights/rejects/"),
    "manifest": ("state", "flights/commits/"),
    "checkpoint": ("state", "flights/checkpoints/"),
}


def store_of(sealed, kind):
    place, prefix = KINDS[kind]
    return (sealed.stores.targets["s3"] if place == "lake" else sealed.root), prefix


async def keys(store, prefix):
    return [info.key async for info in store.list(prefix)]


async def deleted(store, key):
    await store.delete(key)


async def doubled(store, key):
    stem, dot, suffix = key.rpartition(".")
    await store.put(f"{stem}-copy{dot}{suffix}", (await store.get(key)).body)


async def moved(store, key):
    folder, _, name = key.rpartition("/")
    await store.put(f"{folder}/moved-{name}", (await store.get(key)).body)
    await store.delete(key)


async def edited(store, key):
    body = (await store.get(key)).body
    at = len(body) * 2 // 3
    await store.put(key, body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])


async def cut_short(store, key):
    await store.put(key, (await store.get(key)).body[:-1])


OF_OBJECTS = {"deleted": deleted, "doubled": doubled, "moved": moved, "edited": edited, "cut short": cut_short}


def _without(frame):
    return pl.concat([frame[:1], frame[2:]])


def _twice(frame):
    return pl.concat([frame[:2], frame[1:]])


def _elsewhere(frame):
    return pl.concat([frame[1:2], frame[:1], frame[2:]])


def _changed(frame):
    name = "arrival_ms" if "arrival_ms" in frame.columns else "seq" if "seq" in frame.columns else "_sequence"
    value = frame[name][1]
    other = value + 1 if isinstance(value, int) else str(int(value) + 1)
    return frame.with_columns(pl.when(pl.int_range(pl.len()) == 1).then(pl.lit(other, frame.schema[name])).otherwise(name).alias(name))


OF_ROWS = {"deleted": _without, "doubled": _twice, "moved": _elsewhere, "edited": _changed}
"""Changes of the second row."""


def rewritten(body, change):
    """The Parquet file with changed rows and unchanged metadata."""
    table = pq.read_table(pa.BufferReader(body))
    changed = change(pl.from_arrow(table)).to_arrow().cast(table.schema).replace_schema_metadata(table.schema.metadata)
    out = io.BytesIO()
    pq.write_table(changed, out)
    return out.getvalue()


async def forged(sealed, sink, change, shard=0, which=1):
    """Rows of one file are changed by somebody who also corrects all checksums and seals of the chain from there on."""
    prefix = f"flights/commits/events/{shard_id(shard)}/0"
    links = await keys(sealed.root, prefix)
    previous = None
    for number, key in enumerate(links):
        manifest = decode((await sealed.root.get(key)).body, key)
        if number == which:
            old = next(entry for entry in manifest.files if entry.sink == sink)
            store = sealed.stores.targets[sink]
            body = rewritten((await store.get(old.key)).body, change)
            stem, _, rest = old.key.rpartition(old.sha256[:16])
            new = FileEntry(sink, f"{stem}{sha256_hex(body)[:16]}{rest}", len(body), old.rows, sha256_hex(body))
            await store.delete(old.key)
            await store.put(new.key, body)
            files = tuple(new if entry == old else entry for entry in manifest.files)
            manifest = msgspec.structs.replace(manifest, files=files)
        if previous is not None and number > which:
            manifest = msgspec.structs.replace(manifest, previous=previous)
        body = encode(with_seal(manifest))
        await sealed.root.put(key, body)
        previous = digest(body)


async def report_on(tamper):
    """The verdict on the small application after ``tamper``; the stream is not read."""
    sealed = await three_units()
    await tamper(sealed)
    return await Verifier(sealed.evidence(), Scope(source=False), StillClock()).run()


def on_object(kind, how, key=None):
    async def tamper(sealed):
        store, prefix = store_of(sealed, kind)
        found = await keys(store, prefix)
        await OF_OBJECTS[how](store, key or found[len(found) // 2])

    return tamper


def on_row(sink, how, *, mended):
    async def tamper(sealed):
        if mended:
            await forged(sealed, sink, OF_ROWS[how])
            return
        store = sealed.stores.targets[sink]
        key = (await keys(store, ""))[0]
        await store.put(key, rewritten((await store.get(key)).body, OF_ROWS[how]))

    return tamper


CASES = {
    **{f"{kind} {how}": on_object(kind, how) for kind in KINDS for how in OF_OBJECTS},
    **{f"{sink} row {how}": on_row(sink, how, mended=False) for sink in ("s3", "ledger", "rejects") for how in OF_ROWS},
    **{f"{sink} row {how}, chain sealed again": on_row(sink, how, mended=True) for sink in ("s3", "ledger") for how in OF_ROWS},
}
