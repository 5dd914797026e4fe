"""Refuses what Redshift would refuse, and translates the rest for PostgreSQL. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_STATEMENTS = 40
MAX_STATEMENT_BYTES = 100_000
STEPS = ("LOCK", "CREATE TEMP", "INSERT", "SELECT", "COPY", "DELETE", "DROP", "CREATE TABLE", "ALTER")

_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_REFUSED = {
    "ON CONFLICT": 'syntax error at or near "ON"',
    "RETURNING": 'syntax error at or near "RETURNING"',
    "ARRAY[": 'Function "array" with brackets not supported',
    "SERIAL": 'Column type "serial" not supported',
    "CREATE INDEX": 'SQL command "create index" not supported',
    "CREATE UNIQUE INDEX": 'SQL command "create index" not supported',
    "JSONB": 'Column type "jsonb" not supported',
    "BYTEA": 'Column type "bytea" not supported',
    "TEXT[]": 'Column type "text[]" not supported',
    "GENERATE_SERIES": "Specified types or functions not supported on Redshift tables",
    "TRUNCATE": "the double refuses TRUNCATE: it would commit the transaction",
    "MERGE": "the double does not know MERGE",
}
_TRANSACTION = re.compile(r"^\s*(BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT)\b", re.IGNORECASE)
_COPY = re.compile(
    r"COPY (?P<table>\"[^\"]+\"(?:\.\"[^\"]+\")?) FROM '(?P<url>s3://[^']+)' "
    r"IAM_ROLE (?:default|'arn:aws[a-z-]*:iam::\d{12}:role/[^']+') FORMAT AS PARQUET MANIFEST(?P<nested> SERIALIZETOJSON)?"
)


class Refused(Exception):
    """The statement fails as Redshift would make it fail, in words like its own."""


@dataclass(frozen=True)
class Copy:
    table: str
    url: str
    nested: bool


def translated(sql: str) -> str | Copy:
    """``sql`` as PostgreSQL understands it; raises ``Refused``."""
    bare = _QUOTED.sub("''", sql)
    upper = bare.upper()
    if ";" in bare.strip().rstrip(";"):
        raise Refused("ERROR: cannot insert multiple commands into a prepared statement")
    if _TRANSACTION.match(sql):
        raise Refused("ERROR: transaction commands are not allowed in a batch")
    for words, why in _REFUSED.items():
        if re.search(rf"(?<![A-Z_]){re.escape(words)}(?![A-Z])", upper):
            raise Refused(f"ERROR: {why}")
    if "\\" in sql:
        raise Refused("the double refuses backslashes: Redshift reads them as escapes inside a text, PostgreSQL does not")
    if upper.startswith("COPY"):
        match = _COPY.fullmatch(sql)
        if match is None:
            raise Refused(f"ERROR: syntax error in COPY: {sql[:200]}")
        return Copy(match["table"], match["url"], match["nested"] is not None)
    pieces, at = [], 0
    for quoted in _QUOTED.finditer(sql):
        pieces += [_types(sql[at : quoted.start()]), quoted[0]]
        at = quoted.end()
    return "".join([*pieces, _types(sql[at:])])


def _types(sql: str) -> str:
    sql = re.sub(r"\bvarbyte\s*\(\d+\)", "bytea", sql, flags=re.IGNORECASE)
    return re.sub(r"\bsuper\b", "jsonb", sql, flags=re.IGNORECASE)


def step_of(sql: str) -> str:
    """The first words of a statement, by which faults name it."""
    return next((step for step in STEPS if sql.upper().startswith(step)), "OTHER")


TYPE_NAMES = {
    "character varying": "varchar", "bigint": "int8", "integer": "int4", "smallint": "int2", "boolean": "bool", "jsonb": "super",
    "bytea": "varbyte", "double precision": "float8", "real": "float4", "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz", "numeric": "numeric", "date": "date", "text": "varchar",
}  # fmt: skip
