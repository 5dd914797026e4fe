"""Translates data formats: columns with their types, separators, regular expressions, and the options of COPY."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

_HIVE: Final = {
    "string": "string", "varchar": "string", "char": "string", "text": "string", "int": "int32", "integer": "int32", "bigint": "int64",
    "long": "int64", "smallint": "int16", "tinyint": "int8", "float": "float32", "double": "float64", "boolean": "bool", "bool": "bool",
    "timestamp": "timestamp", "datetime": "timestamp", "date": "date",
}  # fmt: skip
"""https://cwiki.apache.org/confluence/display/Hive/LanguageManual+Types"""

_SQL: Final = {
    "varchar": "string", "char": "string", "character": "string", "nvarchar": "string", "nchar": "string", "bpchar": "string",
    "text": "string", "int": "int32", "int4": "int32", "integer": "int32", "bigint": "int64", "int8": "int64", "smallint": "int16",
    "int2": "int16", "real": "float32", "float4": "float32", "float": "float64", "float8": "float64", "double": "float64",
    "boolean": "bool", "bool": "bool", "timestamp": "timestamp", "timestamptz": "timestamp", "date": "date",
}  # fmt: skip
"""Amazon Redshift Database Developer Guide, "Data types"."""

_DECIMAL: Final = frozenset({"decimal", "numeric"})
_TYPE: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)(?:\s+(?:varying|precision))?\s*(?:\(\s*(\d{1,5}|max)\s*(?:,\s*(\d{1,3})\s*)?\))?")
MAX_VARCHAR: Final = 65_535


@dataclass(frozen=True, slots=True)
class Column:
    """A column with its ``type`` in a pipeline's schema. ``max_bytes``: the limit of a text, 0 without one.

    ``known``: the definition's type has this counterpart; otherwise string stands in for it.
    """

    name: str
    type: str
    max_bytes: int = 0
    known: bool = True


def columns_of(texts: Iterable[str]) -> list[Column]:
    """The columns of a data format, such as `Name STRING`; a value holds one of them, or several separated by commas."""
    parts = [part.strip() for text in texts for part in _split(text)]
    return [_column(part, _HIVE, ("10", "0")) for part in parts if part]


@dataclass(frozen=True, slots=True)
class Table:
    """The columns and the primary key of a table, according to its `CREATE TABLE` statement."""

    columns: tuple[Column, ...]
    keys: tuple[str, ...]


_CREATE: Final = re.compile(r"\s*create\s+(?:table)\s+(?:if\s+not\s+exists\s+)?[^\s(]+\s*\(", re.IGNORECASE)
_PRIMARY: Final = re.compile(r"primary\s+key\s*\(([^)]*)\)", re.IGNORECASE)
_CONSTRAINT: Final = re.compile(r"(?:primary\s+key|unique|foreign\s+key|constraint|like)\b", re.IGNORECASE)


def table_of(statement: str) -> Table | None:
    """The table that a `CREATE TABLE` statement describes; None if its columns cannot be recognized."""
    masked = re.sub(r"'[^']*'", lambda text: "_" * len(text[0]), statement)  # texts may hold commas and parentheses
    begun = _CREATE.match(masked)
    if begun is None:
        return None
    body = _inside(masked, begun.end())
    if body is None:
        return None
    columns, keys = [], []
    for part in _split(body):
        text = part.strip()
        primary = _PRIMARY.match(text) or (_PRIMARY.search(text) if _CONSTRAINT.match(text) else None)
        if primary:
            keys += [each.strip().strip('"') for each in primary[1].split(",")]
        elif text and not _CONSTRAINT.match(text):
            columns.append(_column(text, _SQL, ("18", "0")))
            if re.search(r"\bprimary\s+key\b", text, re.IGNORECASE):
                keys.append(columns[-1].name)
    return Table(tuple(columns), tuple(keys)) if columns else None


def _inside(text: str, begin: int) -> str | None:
    """The text from ``begin``, which follows an opening parenthesis, to the closing one."""
    depth = 1
    for at in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return text[begin:at]
    return None


def _split(text: str) -> list[str]:
    """``text`` at the commas outside parentheses and angle brackets."""
    parts, depth, begin = [], 0, 0
    for at, letter in enumerate(text):
        depth += 1 if letter in "(<" else -1 if letter in ")>" else 0
        if letter == "," and depth <= 0:
            parts.append(text[begin:at])
            begin = at + 1
    return [*parts, text[begin:]]


def _column(text: str, types: Mapping[str, str], unsized: tuple[str, str]) -> Column:
    quoted = re.match(r'\s*(?:`([^`]+)`|"([^"]+)"|(\S+))\s*:?\s*', text)
    if quoted is None:
        return Column(text, "string", known=False)
    name = (quoted[1] or quoted[2] or quoted[3]).rstrip(":")
    found = _TYPE.match(text, quoted.end())
    if found is None:
        return Column(name, "string", known=not text[quoted.end() :].strip())
    word, size, scale = found[1].lower(), found[2], found[3]
    if word in _DECIMAL:
        return Column(name, f"decimal({size or unsized[0]},{(scale or '0') if size else unsized[1]})")
    if word not in types:
        return Column(name, "string", known=False)
    max_bytes = int(size) if size and size.isdigit() and types[word] == "string" else 0
    return Column(name, types[word], max_bytes if max_bytes <= MAX_VARCHAR else 0)


@dataclass(frozen=True, slots=True)
class ReadFormat:
    """How objects are read: `source.s3.format`, `decode` and the columns; no columns if they are not known yet."""

    format: str
    decode: str | Mapping[str, Any]
    columns: tuple[Column, ...] = ()
    compression: str = ""
    line: str = ""
    """The regular expression with named groups that reads a line; empty for other formats."""
    empty_is_null: bool = False
    """For separated values: whether an empty value is null in text columns, too. In all other columns it always is."""

    def option(self, name: str, value: Any) -> ReadFormat:
        """The same with an option of the decoder `csv`; unchanged if another decoder is used."""
        if self.format != "csv":
            return self
        known = dict(self.decode["csv"]) if isinstance(self.decode, Mapping) and "csv" in self.decode else {}
        return replace(self, decode={"csv": {**known, name: value}})


CSV: Final = ReadFormat("csv", "csv")
NO_QUOTE: Final = "\x02"
"""The quote character for values that are not quoted: no text contains it."""

COPY_DEFAULT: Final = CSV.option("delimiter", "|").option("quote", NO_QUOTE)
"""What COPY reads without any option (Amazon Redshift Database Developer Guide, "COPY": DELIMITER, REMOVEQUOTES)."""


@dataclass(slots=True)
class CopyOptions:
    """COPY's options, translated: how to read, the role, what was handled and what is left to do, each as a text."""

    reading: ReadFormat
    role: str = ""
    handled: list[str] = field(default_factory=list)
    to_do: list[str] = field(default_factory=list)


_HANDLED: Final = {
    "EMPTYASNULL": "empty values are read as null",
    "IGNOREBLANKLINES": "blank lines are skipped",
    "BLANKSASNULL": "a text that consists of blanks is kept; use a `derive` stage to make it null",
    "COMPUPDATE": "the loader copies into a temporary table, where compression makes no difference",
    "STATUPDATE": "Redshift analyzes tables automatically",
    "COMPROWS": "the loader copies into a temporary table, where compression makes no difference",
    "EXPLICIT_IDS": "columns that the pipeline does not write get their defaults",
    "REGION": "COPY reads from the sink's `staging`, whose bucket must be in the region of the database",
    "PARALLEL": "it only has a meaning for UNLOAD",
    "TRIMBLANKS": "blanks at the end of a text are kept; use `rtrim()` in a `derive` stage to remove them",
    "ROUNDEC": "a decimal with too many digits is not rounded: its row becomes a dead letter",
    "FILLRECORD": "a line with fewer values than columns becomes a dead letter with the reason csv_fields",
    "MAXERROR": "set `rejects.max_ratio` to say how many dead letters are too many",
    "TRUNCATECOLUMNS": "a text that is too long is not shortened: its row becomes a dead letter; use a `derive` stage to shorten it",
    "ACCEPTINVCHARS": "a line that is not UTF-8 becomes a dead letter with the reason invalid_utf8",
    "ACCEPTANYDATE": "a date that cannot be read is not replaced by null: its row becomes a dead letter",
}
_LOSSY: Final = frozenset(
    {"BLANKSASNULL", "ROUNDEC", "FILLRECORD", "MAXERROR", "TRUNCATECOLUMNS", "ACCEPTINVCHARS", "ACCEPTANYDATE", "TRIMBLANKS"}
)
_CODECS: Final = {"GZIP": "gzip", "BZIP2": "bz2", "ZSTD": "zstd"}
_WORDS: Final = re.compile(r"'((?:[^']|'')*)'|([^\s']+)")
_AUTO: Final = frozenset({"auto", "yyyy-mm-dd", "yyyy-mm-dd hh:mi:ss", "yyyy-mm-dd hh24:mi:ss", "iso"})


def copy_options(texts: Iterable[str], reading: ReadFormat) -> CopyOptions:
    """Translate the options of COPY, starting from ``reading``. Credentials are only searched for a role; their values go nowhere."""
    found = [each for text in texts for each in _WORDS.finditer(text)]
    words = [each[1] if each[1] is not None else each[2] for each in found]
    quoted = any(each[2] is not None and each[2].upper().rstrip(",;") == "CSV" for each in found)
    made = CopyOptions(CSV if quoted and reading is COPY_DEFAULT else reading)
    at = 0
    while at < len(words):
        name = words[at].upper().rstrip(",;")
        at += 1
        rest = words[at:]
        while rest and rest[0].upper() in {"AS", "WITH"}:
            rest, at = rest[1:], at + 1
        at += _option(made, name, rest)
    return made


_KEYS: Final = frozenset({"CREDENTIALS", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "MASTER_SYMMETRIC_KEY"})
_WITHOUT_COUNTERPART: Final = frozenset(
    {"ESCAPE", "FIXEDWIDTH", "ENCRYPTED", "LZOP", "SSH", "ENCODING", "NOLOAD", "READRATIO", "SHAPEFILE", "SIMPLIFY"}
)
"""Options that the report may name. Any other word could be part of a secret."""

_SWITCHES: Final = frozenset({"ON", "OFF", "TRUE", "FALSE", "PRESET"})
_WITH_VALUE: Final = frozenset({"REGION", "MAXERROR", "COMPROWS"})


def _option(made: CopyOptions, name: str, rest: list[str]) -> int:
    """Translate the option ``name`` into ``made``. Returns how many of the following words, ``rest``, belong to it."""
    value = rest[0] if rest else ""
    if name in {"CSV", "DELIMITER", "QUOTE", "NULL", "IGNOREHEADER"}:
        return _separated(made, name, value)
    if name in {"FORMAT", "JSON", "AVRO", "PARQUET", "ORC"}:
        return _format(made, name, rest)
    if name == "IAM_ROLE" or name in _KEYS:
        found = re.search(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+", value)
        made.role = found[0] if found else made.role
        made.handled.append(
            f"{name}: {'its role became' if found else 'keys are never written to a file; COPY reads with'} `iam_role` of the sink"
        )
        return 1
    if name in {"DATEFORMAT", "TIMEFORMAT"}:
        fits = value.lower() in _AUTO
        remedy = (
            "ISO 8601 is read without an option"
            if fits
            else "give the column the type string, and read it with a `parse` stage that names its format"
        )
        (made.handled if fits else made.to_do).append(f"{name}: {remedy}")
        return 1
    return _switch(made, name, value)


def _switch(made: CopyOptions, name: str, value: str) -> int:
    """Translate an option that has no value, or whose value makes no difference."""
    if name == "REMOVEQUOTES":
        made.reading = made.reading.option("quote", '"')
        made.handled.append("REMOVEQUOTES: became `decode.csv.quote`")
    elif name in _CODECS:
        made.reading = replace(made.reading, compression=_CODECS[name])
        made.handled.append(f"{name}: became `source.s3.compression`")
    elif name == "MANIFEST":
        made.handled.append("MANIFEST: became `source.s3.manifest`")
    elif name in _HANDLED:
        made.reading = replace(made.reading, empty_is_null=made.reading.empty_is_null or name == "EMPTYASNULL")
        (made.to_do if name in _LOSSY else made.handled).append(f"{name}: {_HANDLED[name]}")
    elif name in _WITHOUT_COUNTERPART:
        made.to_do.append(f"{name}: it has no counterpart; write the files so that they can be read without it")
    else:
        made.to_do.append("it contains a word that is not an option of COPY (not shown, because it could be a secret): remove it")
    one_letter = name == "ACCEPTINVCHARS" and len(value) == 1
    return 1 if name in _WITH_VALUE or one_letter or (name in _HANDLED and value.upper() in _SWITCHES) else 0


def _separated(made: CopyOptions, name: str, value: str) -> int:
    if name == "CSV":
        made.handled.append("CSV: became `decode: csv`")
        return 0
    if name == "IGNOREHEADER":
        if value == "1":
            made.reading = made.reading.option("header", value=True)
            made.to_do.append(
                "IGNOREHEADER: became `decode.csv.header`, for which the first line must have the names of the columns in `schema`, in "
                "any order: give the columns the names that the files use"
            )
        else:
            made.to_do.append("IGNOREHEADER: only one header line can be read: remove the others from the files")
        return 1
    text = value.replace("\\t", "\t").replace("\\\\", "\\")
    if name == "NULL":
        made.reading = replace(made.reading.option("null", ["", text]), empty_is_null=True)
        made.to_do.append(
            "NULL: became `decode.csv.null`, which reads empty text as null, too; to keep empty text, remove the `?` from the column's type"
        )
    else:
        made.reading = made.reading.option(name.lower(), text)
        made.handled.append(f"{name}: became `decode.csv.{name.lower()}`")
    return 1


def _format(made: CopyOptions, name: str, rest: list[str]) -> int:
    words = [each for each in rest if each.upper() != "AS"]
    skipped = len(rest) - len(words) if name == "FORMAT" and rest and rest[0].upper() == "AS" else 0
    kind = name if name != "FORMAT" else words[0].upper() if words else ""
    taken = skipped + (1 if name == "FORMAT" else 0)
    if kind == "JSON":
        path = words[1] if name == "FORMAT" and len(words) > 1 else words[0] if name != "FORMAT" and words else ""
        made.reading = replace(made.reading, format="ndjson", decode="json")
        fits = path.lower() in {"", "auto", "auto ignorecase"}
        (made.handled if fits else made.to_do).append(
            "JSON: became `decode: json`, with one object per line"
            if fits
            else "JSON: a file of JSONPath expressions has no counterpart: get at nested fields with a `flatten` stage"
        )
        return taken + (1 if path and not path.isupper() else 0)
    if kind == "PARQUET":
        made.reading = replace(made.reading, format="parquet", decode="json")
        made.handled.append("PARQUET: became `source.s3.format`")
    elif kind == "CSV":
        _separated(made, "CSV", "")
    else:
        made.to_do.append(
            f"FORMAT: {kind.lower() if kind.isalpha() else 'this format'} cannot be read from S3 objects: convert them to Parquet or NDJSON"
        )
    return taken


def with_named_groups(expression: str, output: str, columns: tuple[Column, ...]) -> str | None:
    """``expression`` with each group named after its column, in the order of ``output`` (`%1$s %2$s`); None if that is impossible."""
    numbers = [int(each) for each in re.findall(r"%(\d{1,3})\$s", output)] or list(range(1, len(columns) + 1))
    if len(numbers) < len(columns) or len(set(numbers)) != len(numbers):
        return None
    names = {number: column.name for number, column in zip(numbers, columns, strict=False)}
    if not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", each) for each in names.values()):
        return None
    made, at, group, within = [], 0, 0, False
    while at < len(expression):
        letter = expression[at]
        if letter == "\\":
            made.append(expression[at : at + 2])
            at += 2
            continue
        within = letter == "[" or (within and letter != "]")
        if letter == "(" and not within and expression[at + 1 : at + 2] != "?":
            group += 1
            made.append(f"(?P<{names[group]}>" if group in names else "(?:")
        else:
            made.append(letter)
        at += 1
    return "".join(made) if group >= max(numbers) else None
