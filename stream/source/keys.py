"""The load of each partition key, counted exactly over some pages of one shard. Pure.

A record's hash key is the MD5 of its partition key, unless its producer set an explicit one. GetRecords does not return explicit hash keys.
So a record whose MD5 is outside its shard was certainly put with one, and its hash key is unknown. User records inside a KPL aggregate
carry their own partition keys, and their explicit hash keys if they have any. After a split the KPL aggregates them separately for each
child, so each counts with its own hash key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from stream.batch import DATA, PARTITION_KEY
from stream.source.aggregated import UserRecord, marked, user_records

_SIZE: Final = "size"
_PART: Final = "part"
_EXPLICIT: Final = "explicit"
_PAYLOAD: Final = "payload"
_USER_RECORDS: Final = pl.Schema(
    {PARTITION_KEY: pl.String(), _EXPLICIT: pl.String(), _SIZE: pl.Float64(), _PART: pl.Float64(), _PAYLOAD: pl.Float64()}
)


@dataclass(frozen=True, slots=True)
class KeyLoad:
    """The load of one partition key.

    ``place``: its hash key; None if unknown. ``size``: bytes as Kinesis counts them, including the partition key. ``records``: Kinesis
    records; a user record inside an aggregate counts as a fraction. ``users``: user records.
    """

    key: str
    place: int | None
    size: float
    records: float
    users: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The keys in a sample of one shard, most bytes first. A partition key appears once for each of its explicit hash keys.

    ``worth_bytes`` and ``worth_records``: effective sample sizes for estimates of bytes and of records. ``payload``: bytes of user records
    alone, as a ledger counts them.
    """

    keys: tuple[KeyLoad, ...]
    size: float
    records: float
    users: int
    worth_bytes: float
    worth_records: float
    payload: float = 0.0


def counted(pages: Sequence[pl.DataFrame], first: int, last: int, shown: Callable[[pl.Series], pl.Series] | None = None) -> Sample:
    """The keys in ``pages`` (with ``_partition_key`` and ``_data``) of the shard with the hash keys ``first`` to ``last``.

    ``shown``: transforms keys for the result, such as by hashing; hash keys are those of the original keys.
    """
    rows = pl.concat([_user_records(page) for page in pages]) if pages else _USER_RECORDS.to_frame()
    each = rows.group_by(PARTITION_KEY, _EXPLICIT).agg(pl.len().alias("users"), pl.col(_SIZE).sum(), pl.col(_PART).sum())
    each = each.sort([_SIZE, PARTITION_KEY, _EXPLICIT], descending=[True, False, False])
    names = each[PARTITION_KEY]
    places = [_place(key, explicit, first, last) for key, explicit in each.select(PARTITION_KEY, _EXPLICIT).iter_rows()]
    shown_names = (names if shown is None else shown(names)).to_list()
    columns = (each[_SIZE].to_list(), each[_PART].to_list(), each["users"].to_list())
    keys = tuple(KeyLoad(*row) for row in zip(shown_names, places, *columns, strict=True))
    size, records, payload = (float(rows[name].sum()) for name in (_SIZE, _PART, _PAYLOAD))
    return Sample(keys, size, records, rows.height, _effective_size(rows[_SIZE]), _effective_size(rows[_PART]), payload)


def hash_key(partition_key: str) -> int:
    """The hash key of records with this partition key, unless they were put with an explicit one.

    "An MD5 hash function is used to map partition keys to 128-bit integer values" (PutRecord in the Kinesis API reference).
    """
    return int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest())


def _user_records(page: pl.DataFrame) -> pl.DataFrame:
    """One row per user record of ``page``."""
    aggregates = {at: users for at in marked(page) if (users := user_records(page.item(at, DATA))) is not None} if page.height else {}
    plain = page.with_row_index("at").filter(~pl.col("at").is_in(list(aggregates))) if aggregates else page
    ordinary = plain.select(
        pl.col(PARTITION_KEY),
        pl.lit(None, pl.String).alias(_EXPLICIT),
        (pl.col(DATA).bin.size() + pl.col(PARTITION_KEY).str.len_bytes()).cast(pl.Float64).alias(_SIZE),
        pl.lit(1.0).alias(_PART),
        pl.col(DATA).bin.size().cast(pl.Float64).alias(_PAYLOAD),
    )
    inside = [_inside(len(page.item(at, DATA)) + len(page.item(at, PARTITION_KEY).encode()), users) for at, users in aggregates.items()]
    return pl.concat([ordinary, *inside])


def _inside(size: int, users: list[UserRecord]) -> pl.DataFrame:
    """The user records of one aggregate of ``size`` bytes; each gets its share of the bytes and of the one Kinesis record."""
    own = np.array([len(user.data) + len(user.partition_key.encode()) for user in users], np.float64)
    columns = {
        PARTITION_KEY: [user.partition_key for user in users],
        _EXPLICIT: [None if user.explicit_hash is None else str(user.explicit_hash) for user in users],
        _SIZE: own * (size / own.sum()) if own.any() else np.full(len(users), size / len(users)),
        _PART: np.full(len(users), 1.0 / len(users)),
        _PAYLOAD: np.array([len(user.data) for user in users], np.float64),
    }
    return pl.DataFrame(columns, schema=_USER_RECORDS)


def _place(key: str, explicit: str | None, first: int, last: int) -> int | None:
    place = hash_key(key) if explicit is None else int(explicit)
    return place if first <= place <= last else None


def _effective_size(weights: pl.Series) -> float:
    """Kish's effective sample size: the square of the sum of the weights over the sum of their squares."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0
