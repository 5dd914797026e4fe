"""What decoders and stages need besides records, fetched before the chain runs: files, reference tables, secrets, user functions."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib
import importlib.resources
import io
import operator
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import polars as pl
from polars.exceptions import PanicException, PolarsError

from stream.errors import DefinitionError
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.databases import is_database, read_database
from stream.pipeline.resources.postgresql import read_postgresql
from stream.pipeline.resources.secrets import SecretReader, find_secret
from stream.transform.stage import Resources, StageConfig
from stream.transform.stages.enrich import POSTGRESQL, SERVERS
from stream.transform.types import near

Reader: TypeAlias = Callable[[str], Awaitable[bytes]]
"""Reads the object at an ``s3://`` URL, or the result of a ``redshift:`` query; raises ``stream.errors.StreamError`` if it cannot."""

UserFunction: TypeAlias = Callable[[pl.DataFrame], pl.DataFrame]

MAX_TABLE_BYTES: Final = 256 * 1024 * 1024
"""Largest stored size of a table or file. Every worker keeps its tables in memory, decompressed, as long as it runs."""

_CODE: Final = r"^[+-]?0[0-9]"
"""Matches digits with a leading zero: a postal code or the like, which would lose the zero as a number."""


def _read_csv(source: IO[bytes]) -> pl.DataFrame:
    """A CSV table. Types are inferred from all values; a column with a code such as 00501 is text."""
    content = source.read()
    table = pl.read_csv(content, infer_schema_length=None)
    numbers = [name for name, kind in table.schema.items() if kind.is_numeric()]
    if not numbers:
        return table
    texts = pl.read_csv(content, infer_schema=False).select(numbers)
    return table.with_columns(column for column in texts if column.str.contains(_CODE).any())


_FORMATS: Final[Mapping[str, Callable[[Any], pl.DataFrame]]] = {
    ".parquet": pl.read_parquet,
    ".csv": _read_csv,
    ".ndjson": lambda source: pl.read_ndjson(source, infer_schema_length=None),
    ".jsonl": lambda source: pl.read_ndjson(source, infer_schema_length=None),
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """``resources`` for a chain; ``contents`` of each table or file as stored, by URL, and their SHA-256, for the pipeline's digest."""

    resources: Resources = field(default_factory=Resources)
    digests: Mapping[str, str] = field(default_factory=dict)
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)


async def fetch_resources(
    pipeline: Pipeline,
    base: Path,
    env: Mapping[str, str],
    read: Reader | None = None,
    known: Mapping[str, bytes] | None = None,
    managed: SecretReader | None = None,
) -> Fetched:
    """Everything that the pipeline's decoder and stages need. Tables and files whose content is in ``known``, by URL, are not fetched.

    Tables are Parquet, CSV or NDJSON (by suffix), at an ``s3://`` URL (read by ``read``), ``package:name/path`` (a file inside an
    installed package), ``file:path`` or a bare path, relative to ``base``, the pipeline file's directory; or the result of a query, see
    ``enrich``. ``managed`` reads secrets from Secrets Manager.

    Raises:
        DefinitionError: something is missing or unreadable; the message names everything that is.
    """
    tables: dict[str, pl.DataFrame] = {}
    contents: dict[str, bytes] = {}
    files: dict[str, bytes] = {}
    problems: list[str] = []
    secrets: dict[str, bytes] = {}
    for name in _distinct(_secrets(stage, known or {}) for stage in pipeline.stages):
        try:
            secrets[name] = await find_secret(name, env, base, managed)
        except DefinitionError as error:
            problems.append(str(error))
    logins = {url: secrets.get(name) for stage in pipeline.stages for url, name in stage.table_logins().items()}
    for url in _distinct(stage.table_urls() for stage in pipeline.stages):
        if url in logins and logins[url] is None and url not in (known or {}):
            continue
        try:
            contents[url] = await _content(url, base, read, known or {}, logins.get(url))
            tables[url] = await asyncio.to_thread(parse_table, url, contents[url])
        except DefinitionError as error:
            problems.append(str(error))
    for url in pipeline.source.decode.file_urls():
        try:
            contents[url] = files[url] = await _content(url, base, read, known or {})
        except DefinitionError as error:
            problems.append(str(error))
    functions = _gather(pipeline, StageConfig.function_paths, functools.partial(load_function, base=base), problems)
    if problems:
        raise DefinitionError("\n".join(problems))
    digests = {url: hashlib.sha256(content).hexdigest() for url, content in contents.items()}
    return Fetched(Resources(tables=tables, secrets=secrets, functions=functions, files=files), digests, contents)


def _secrets(stage: StageConfig, known: Mapping[str, bytes]) -> tuple[str, ...]:
    """Secrets of ``stage``, except logins to databases whose tables are ``known``."""
    logins = stage.table_logins()
    return tuple(name for name in stage.secret_names() if name not in logins.values() or not logins.keys() <= known.keys())


async def _content(url: str, base: Path, read: Reader | None, known: Mapping[str, bytes], login: bytes | None = None) -> bytes:
    if url in known:
        return known[url]
    if url.startswith(POSTGRESQL) and read is not None:
        return _bounded(url, await read_postgresql(url, login))
    return await (_read_remote(url, read) if is_remote(url) else asyncio.to_thread(read_local, url, base))


def _gather(
    pipeline: Pipeline, ask: Callable[[StageConfig], tuple[str, ...]], find: Callable[[str], Any], problems: list[str]
) -> dict[str, Any]:
    found = {}
    for name in _distinct(getattr(stage, ask.__name__)() for stage in pipeline.stages):
        try:
            found[name] = find(name)
        except DefinitionError as error:
            problems.append(str(error))
    return found


def _distinct(groups: Iterable[tuple[str, ...]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def is_remote(url: str) -> bool:
    """Whether ``url`` can only be read over the network."""
    return url.startswith(("s3://", *SERVERS))


async def _read_remote(url: str, read: Reader | None) -> bytes:
    if read is None:
        where = "in a database" if is_database(url) else "on S3"
        msg = f"the table {url} is {where}, where this command does not look; use a local copy"
        raise DefinitionError(msg)
    return _bounded(url, await read(url))


def _bounded(url: str, content: bytes) -> bytes:
    if len(content) > MAX_TABLE_BYTES:
        msg = f"the table {url} has {len(content)} bytes; at most {MAX_TABLE_BYTES} are loaded"
        raise DefinitionError(msg)
    return content


def read_local(url: str, base: Path, what: str = "table") -> bytes:
    """The content of a table from a file, an installed package or a database on this machine; blocking. ``what`` names it in errors.

    Raises:
        DefinitionError: no such file, not readable, or too large.
    """
    if is_database(url):
        return _bounded(url, read_database(url, base))
    path = _package_path(url) if url.startswith("package:") else base / url.removeprefix("file://").removeprefix("file:")
    try:
        size = path.stat().st_size
        if size > MAX_TABLE_BYTES:
            msg = f"the {what} {url} has {size} bytes; at most {MAX_TABLE_BYTES} are loaded"
            raise DefinitionError(msg)
        return path.read_bytes()
    except FileNotFoundError as error:
        msg = f"there is no {what} {url}: no file {path} (relative paths begin at the pipeline file's directory)"
        raise DefinitionError(msg) from error
    except OSError as error:
        msg = f"the {what} {url} cannot be read: {error.strerror or error}"
        raise DefinitionError(msg) from error


def _package_path(url: str) -> Path:
    package, _, inside = url.removeprefix("package:").partition("/")
    try:
        found = importlib.resources.files(package).joinpath(inside)
    except (ModuleNotFoundError, ValueError, TypeError) as error:
        msg = f"there is no table {url}: no package `{package}` is installed; write package:name/path/inside"
        raise DefinitionError(msg) from error
    return Path(str(found))


def parse_table(url: str, content: bytes) -> pl.DataFrame:
    """The table in ``content``, in the format that the suffix of ``url`` names. Rows keep their order.

    Raises:
        DefinitionError: unknown suffix, or the content is not in that format.
    """
    suffix = ".parquet" if is_database(url) else Path(url).suffix.lower()
    if suffix not in _FORMATS:
        msg = f"the table {url} has the unknown suffix {suffix!r}; allowed: {', '.join(_FORMATS)}"
        raise DefinitionError(msg)
    try:
        return _FORMATS[suffix](io.BytesIO(content))
    except (PolarsError, PanicException, OSError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        msg = f"the table {url} cannot be read as {suffix[1:]}: {reason}"
        raise DefinitionError(msg) from error


def load_function(path: str, base: Path | None = None) -> UserFunction:
    """The callable at import path ``package.module:function``. ``base``: the pipeline file's directory, where the module may lie.

    Raises:
        DefinitionError: malformed path, the import fails, for whatever reason, or what is there is not callable.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module_name.split("."), *name.split("."))):
        msg = f"{path!r} is not an import path; write package.module:function"
        raise DefinitionError(msg)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        msg = f"the function {path} cannot be imported: {_why(error, module_name, base)}"
        raise DefinitionError(msg) from error
    try:
        found = operator.attrgetter(name)(module)
    except AttributeError as error:
        msg = f"the function {path} cannot be imported: {error}. {near(name, dir(module))}".rstrip()
        raise DefinitionError(msg) from error
    if not callable(found):
        msg = f"{path} is not a function; write package.module:function"
        raise DefinitionError(msg)
    return found  # type: ignore[no-any-return]


def _why(error: Exception, module_name: str, base: Path | None) -> str:
    root = module_name.partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or error.name != root:
        return str(error) if isinstance(error, (ImportError, SyntaxError)) else f"{module_name} raises {type(error).__name__}: {error}"
    beside = [] if base is None else [each for each in (base / f"{root}.py", base / root) if each.exists()]
    if beside:
        return (
            f"{beside[0].name} lies beside the pipeline file, where Python does not look; set PYTHONPATH to that directory, or install it"
        )
    return f"there is no module {root!r}; install its package where this runs, or set PYTHONPATH to the directory that has it"
