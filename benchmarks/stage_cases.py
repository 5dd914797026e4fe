"""The measured cases of each stage, and for each the Polars expression that does the same on clean data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from stream.transform import grok, urls

KEYS: Final = 100_000
MOMENT: Final = "%Y-%m-%dT%H:%M:%SZ"
GROUPS: Final = "^(?P<a>.)(?P<b>[0-9]+)$"
TYPED: Final = r"^(?P<host>\S+) (?P<verb>[A-Z]+) (?P<path>\S+) (?P<status>[0-9]{3}) (?P<size>[0-9]+)$"
DAY: Final = r"^\d{4}-\d\d-\d\d$"
CODE: Final = "^N[0-9]{5}$"
LATE: Final = "2013-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Case:
    """One stage with options; ``wide`` adds columns to the ten, for stages that work on them."""

    stage: str
    options: Any
    alone: Callable[[pl.DataFrame], Any] | None = None
    wide: tuple[str, ...] = ()


def columns(rows: int) -> pl.DataFrame:
    """Ten columns besides the system columns, the same in each run: six of numbers and four of text."""
    at = pl.int_range(rows, eager=True)
    mixed = at.hash(seed=1) // 256
    text = "N" + (mixed % KEYS).cast(pl.String).str.zfill(5)
    texts = {"s0": text, "s1": text.str.reverse(), "iso": at.cast(pl.Datetime("us")).dt.strftime(MOMENT)}
    numbers = {f"i{n}": (mixed // 2**n) % 1000 for n in range(6)}
    return pl.DataFrame(
        {**{name: value.cast(pl.Int64) for name, value in numbers.items()}, **texts, "num": (mixed % 100_000).cast(pl.String)}
    )


def wide(rows: int) -> dict[str, pl.Series]:
    """Columns for stages that do not work on the ten."""
    at = pl.int_range(rows, eager=True)
    mixed = at.hash(seed=1) // 256
    part = [(mixed // 10 ** (3 * n)) % 256 for n in range(4)]
    texts = [each.cast(pl.String) for each in part]
    digits = (mixed % 10_000).cast(pl.String).str.zfill(4)
    hexes = [pl.Series([f"{n:x}" for n in range(65_536)]).gather((mixed // (7 + n)) % 65_536) for n in range(4)]
    agents = pl.Series(
        [
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{n % 200}.0.{n}.0 Safari/537.36"
            for n in range(1000)
        ]
    )
    status = (200 + mixed % 300).cast(pl.String)
    return {
        "key": "N" + mixed.cast(pl.String),
        "card": "4111-" + digits + "-" + digits.str.reverse() + "-9876",
        "name": pl.Series(["Zoë Müller", "Ann Lee", "Bo Yi-Chen", "José Álvarez"]).gather(mixed % 4) + " " + digits,
        "url": "https://shop.example.com/items/" + digits + "/view?ref=" + mixed.cast(pl.String) + "&page=2#top",
        "path": "/items/" + digits + "/view?ref=" + mixed.cast(pl.String),
        "ip4": texts[0] + "." + texts[1] + "." + texts[2] + "." + texts[3],
        "ip6": "2001:db8:" + hexes[0] + ":" + hexes[1] + "::" + hexes[2] + ":" + hexes[3],
        "agent": agents.gather(mixed % 1000),
        "line": texts[0] + ".0.0.1 GET /items/" + digits + " " + status + " " + (mixed % 100_000).cast(pl.String),
        "local": at.cast(pl.Datetime("us")).dt.strftime("%d/%b/%Y:%H:%M:%S"),
        "float": (mixed % 1000).cast(pl.Float64) / 7,
        "price": (mixed % 1000).cast(pl.String) + "." + (mixed % 90 + 10).cast(pl.String),
        "flag": pl.Series(["true", "False"]).gather(mixed % 2),
        "day": at.cast(pl.Datetime("us")).dt.strftime("%Y-%m-%d"),
        "epoch": at.cast(pl.Int64),
        "obj": pl.DataFrame({"a": at, "b": mixed.cast(pl.String)}).to_struct(),
        "items": pl.DataFrame({"x": part[0], "y": part[1]}).select(pl.concat_list("x", "y")).to_series(),
    }


def _reads(column: str, pattern: str) -> Callable[[pl.DataFrame], Any]:
    return lambda frame: frame.select("_row", pl.col(column).str.extract_groups(pattern).alias("_g")).unnest("_g")


def _casts(column: str, kind: Any) -> Callable[[pl.DataFrame], Any]:
    return lambda frame: frame.with_columns(pl.col(column).cast(kind, strict=False))


def _keeps(condition: pl.Expr) -> Callable[[pl.DataFrame], Any]:
    return lambda frame: frame.filter(condition)


def casting() -> list[Case]:
    """Casts from type to type."""
    return [
        Case("cast", {"num": "int64"}, _casts("num", pl.Int64)),
        Case("cast", {"price": "float64"}, _casts("price", pl.Float64), ("price",)),
        Case("cast", {"price": "decimal(9,2)"}, _casts("price", pl.Decimal(9, 2)), ("price",)),
        Case(
            "cast",
            {"flag": "bool"},
            lambda frame: frame.with_columns(
                pl.col("flag").str.to_lowercase().replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
            ),
            ("flag",),
        ),
        Case(
            "cast",
            {"iso": "timestamp"},
            lambda frame: frame.with_columns(pl.col("iso").str.to_datetime(MOMENT, time_unit="us", time_zone="UTC", strict=False)),
        ),
        Case(
            "cast",
            {"day": "date"},
            lambda frame: frame.with_columns(
                pl.when(pl.col("day").str.contains(DAY)).then(pl.col("day")).str.to_date("%Y-%m-%d", strict=False).alias("day")
            ),
            ("day",),
        ),
        Case(
            "cast",
            {"epoch": "timestamp(ms)"},
            lambda frame: frame.with_columns((pl.col("epoch") * 1000).cast(pl.Datetime("us", "UTC"))),
            ("epoch",),
        ),
        Case("cast", {"i0": "int16"}, _casts("i0", pl.Int16)),
        Case("cast", {"i0": "float64"}, _casts("i0", pl.Float64)),
        Case("cast", {"i0": "string"}, _casts("i0", pl.String)),
        Case("cast", {"float": "string"}, _casts("float", pl.String), ("float",)),
        Case("cast", {"columns": {"num": "int64"}, "on_error": "null"}, _casts("num", pl.Int64)),
    ]


def deriving() -> list[Case]:
    """Expressions over one row, and stages that only rearrange columns."""
    iso = pl.col("iso").str.to_datetime(MOMENT, time_unit="us", time_zone="UTC", strict=False)
    return [
        Case(
            "derive",
            {"d": "i0 - i1", "late": "i0 > 500"},
            lambda frame: frame.with_columns(d=pl.col("i0") - pl.col("i1"), late=pl.col("i0") > 500),
        ),
        Case("derive", {"u": "lower(s0)"}, lambda frame: frame.with_columns(u=pl.col("s0").str.to_lowercase())),
        Case("derive", {"u": "concat(s0, '-', s1)"}, lambda frame: frame.with_columns(u=pl.concat_str("s0", pl.lit("-"), "s1"))),
        Case("filter", "i0 > 100", _keeps(pl.col("i0") > 100)),
        Case("filter", "s0 LIKE 'N1%' OR i1 IN (1, 2)", _keeps(pl.col("s0").str.starts_with("N1") | pl.col("i1").is_in([1, 2]))),
        Case("flatten", ["obj"], lambda frame: frame.unnest("obj", separator="_"), ("obj",)),
        Case("explode", "items", lambda frame: frame.explode("items"), ("items",)),
        Case("rename", {"i0": "z"}, lambda frame: frame.rename({"i0": "z"})),
        Case("select", ["i0", "s0"], lambda frame: frame.select("_row", "i0", "s0")),
        Case("sql", "SELECT * FROM batch WHERE i0 > 100", _keeps(pl.col("i0") > 100)),
        Case(
            "sql", "SELECT _row, i0, upper(s0) AS s FROM batch", lambda frame: frame.select("_row", "i0", s=pl.col("s0").str.to_uppercase())
        ),
        Case("python", {"function": "it:f", "adds": {"d": "int64"}}, lambda frame: frame.with_columns(d=pl.col("i0") - pl.col("i1"))),
        Case("parse", {"column": "iso", "timestamp": MOMENT, "into": "x"}, lambda frame: frame.with_columns(x=iso)),
    ]


def _rows(frame: pl.DataFrame, *keys: str) -> Any:
    return frame.filter(pl.struct(*keys).is_first_distinct())


def joining(table: pl.DataFrame) -> list[Case]:
    """Stages that need a hash table, with 100,000 keys."""
    short, numbers = table.rename({"k": "s0"}), pl.DataFrame({"i0": range(KEYS), "v": range(KEYS)})

    def joined(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.join(short, on="s0", how="left", maintain_order="left")

    return [
        Case("lookup", {"table": "t", "on": {"s0": "k"}, "take": ["v"]}, joined),
        Case("lookup", {"table": "t", "on": {"s0": "k"}, "take": ["v"], "missing": "reject"}, joined),
        Case(
            "lookup",
            {"table": "n", "on": ["i0"], "take": ["v"]},
            lambda frame: frame.join(numbers, on="i0", how="left", maintain_order="left"),
        ),
        Case("enrich", {"table": "t", "on": {"s0": "k"}, "take": ["v"], "refresh": "1m"}, joined),
        Case("dedupe", "s0", lambda frame: frame.unique("s0", keep="first", maintain_order=True)),
        Case("dedupe", ["s0", "i0"], lambda frame: frame.unique(["s0", "i0"], keep="first", maintain_order=True)),
        Case("dedupe", {"by": ["i0", "i1"], "keep": "last"}, lambda frame: frame.unique(["i0", "i1"], keep="last", maintain_order=True)),
        Case(
            "sql",
            {"query": "SELECT b.*, t.v FROM batch b LEFT JOIN t ON t.k = b.s0", "tables": {"t": "t"}},
            joined,
        ),
    ]


def masking() -> list[Case]:
    """Masks; Polars has no counterpart of keyed hashes."""
    key = {"env": "K"}
    return [
        Case(
            "mask",
            {"columns": "s0", "method": "redact"},
            lambda frame: frame.with_columns(pl.when(pl.col("s0").is_not_null()).then(pl.lit("***")).alias("s0")),
        ),
        Case("mask", {"columns": "s0", "method": "truncate", "keep": 2}, lambda frame: frame.with_columns(pl.col("s0").str.head(2))),
        Case(
            "mask",
            {"columns": "card", "keep_last": 4},
            lambda frame: frame.with_columns(pl.col("card").str.head(-4).str.replace_all(r"[^\s\p{P}]", "*") + pl.col("card").str.tail(4)),
            ("card",),
        ),
        Case("mask", {"columns": "name", "keep_last": 4}, None, ("name",)),
        Case("mask", {"columns": "s0", "method": "keyed_hash", "key": key}, None),
        Case("mask", {"columns": "key", "method": "keyed_hash", "key": key}, None, ("key",)),
    ]


def parsing() -> list[Case]:
    """Text parsed; the expressions read the same columns with the same pattern."""
    logged = r"^%{IP:client} %{WORD:verb} %{PATH:path} %{INT:status:int16} %{INT:size:int64}$"
    zoned = pl.col("local").str.to_datetime("%d/%b/%Y:%H:%M:%S", time_unit="us", strict=False)
    return [
        Case("parse", {"column": "s0", "regex": GROUPS}, _reads("s0", GROUPS)),
        Case("parse", {"column": "line", "regex": TYPED, "types": {"status": "int16", "size": "int64"}}, _reads("line", TYPED), ("line",)),
        Case("parse", {"column": "line", "grok": logged}, _reads("line", grok.expand(logged, {}, ())[0]), ("line",)),
        Case(
            "parse",
            {"column": "local", "timestamp": "%d/%b/%Y:%H:%M:%S", "timezone": "Europe/Berlin", "into": "x"},
            lambda frame: frame.with_columns(
                x=zoned.dt.replace_time_zone("Europe/Berlin", ambiguous="null", non_existent="null").dt.convert_time_zone("UTC")
            ),
            ("local",),
        ),
        Case("parse", {"column": "iso", "timestamp": ["%d/%b/%Y", MOMENT], "into": "x"}, None),
        Case("parse", {"column": "url", "url": True}, _reads("url", urls.PATTERN), ("url",)),
        Case("parse", {"column": "url", "url": ["host", "path", "query"]}, _reads("url", urls.PATTERN), ("url",)),
        Case("parse", {"column": "path", "url": ["path", "query"]}, _reads("path", urls.PATTERN), ("path",)),
        Case("parse", {"column": "agent", "user_agent": True}, None, ("agent",)),
        Case("parse", {"column": "ip4", "ip": True}, None, ("ip4",)),
        Case("parse", {"column": "ip6", "ip": True}, None, ("ip6",)),
    ]


def validating() -> list[Case]:
    """Rules of ``validate``, one by one and together."""
    columns = {"i0": {"min": 0, "max": 2000}, "s0": {"matches": CODE}}
    fits = pl.col("i0").is_between(0, 2000) & pl.col("s0").str.contains(CODE)
    return [
        Case("validate", {"columns": columns}, _keeps(fits)),
        Case(
            "validate",
            {"columns": columns, "to": "column"},
            lambda frame: frame.with_columns(
                violations=pl.concat_list(
                    pl.when(~pl.col("i0").is_between(0, 2000)).then(pl.lit("i0")),
                    pl.when(~pl.col("s0").str.contains(CODE)).then(pl.lit("s0")),
                ).list.drop_nulls()
            ),
        ),
        Case("validate", {"columns": {"i0": {"null": False, "one_of": [1, 2, 3]}}, "to": "column"}, None),
        Case("validate", {"columns": {"s0": {"min_length": 1, "max_length": 9}}}, _keeps(pl.col("s0").str.len_chars().is_between(1, 9))),
        Case("validate", {"where": {"small": "i0 + i1 < 5000"}}, _keeps(pl.col("i0") + pl.col("i1") < 5000)),
    ]


def every(table: pl.DataFrame) -> list[Case]:
    """All cases, by stage."""
    cases = [*casting(), *deriving(), *joining(table), *masking(), *parsing(), *validating()]
    return sorted(cases, key=lambda case: case.stage)
