"""Nodes in S3: the source of a pipeline, or its sink."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final

from stream.datapipeline.draft import OBJECTS, Draft, Refused, s3_text, schema_of
from stream.datapipeline.formats import CSV, NO_TEXT, PIPES, Column, Reading, columns_of, copy_options, with_names
from stream.datapipeline.kinds import KINDS
from stream.datapipeline.resolve import Slot, Thing
from stream.datapipeline.texts import Given, Text, Time, unit_of

KEY_TIMES: Final = ("%Y", "%m", "%d", "%H", "%M")
"""What `source.s3.time` can read in a key."""

_PARTITIONS: Final = {
    "YEAR": "%Y", "MONTH": "%Y-%m", "DAY": "%Y-%m-%d", "HOUR": "%Y-%m-%d-%H", "MINUTE": "%Y-%m-%d-%H-%M", "SECOND": "%Y-%m-%d-%H-%M",
}  # fmt: skip

_LINES: Final = CSV.option("delimiter", "\x01").option("quote", NO_TEXT)
"""Whole lines: values with separators that no text has."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a pipeline writes to a place: `format` of its sink, and the columns."""

    format: str
    columns: tuple[Column, ...]


def read_from(draft: Draft, node: Thing, copy: list[str] | None, made: Written | None) -> Reading:
    """Make ``node`` the draft's source, and say how it is read.

    ``copy``: the options of COPY, where that reads the node. ``made``: what another pipeline writes there.

    Raises:
        Refused: it cannot be a source.
    """
    if node.type != "S3DataNode":
        raise Refused(_other_source(node))
    if made is not None and made.format == "parquet":
        draft.unneeded(node.slot("dataFormat"), "the pipeline that writes this place writes Parquet, which is read here")
        reading = Reading("parquet", "json", made.columns)
    else:
        reading = _reading(draft, node, copy)
        reading = replace(reading, columns=reading.columns or (made.columns if made is not None else ()))
    place = _place(draft, node)
    packed = draft.plain(node, "compression").lower() or reading.compression
    if node.has("compression"):
        draft.taken(node.slot("compression"), "source.s3.compression")
    if packed not in {"", "none", "gzip", "bz2", "zstd"}:
        msg = f"`compression` of `{node.id}` is {packed!r}; gzip, bz2 and zstd can be read: pack the objects so, and import again"
        raise Refused(msg)
    s3: dict[str, Any] = {"url": place.pop("url"), "format": reading.format, **place}
    if packed and reading.format != "parquet":
        s3["compression"] = packed
    draft.source = {"s3": s3, "decode": reading.decode}
    return reading


def _other_source(node: Thing) -> str:
    if node.type == "RedshiftDataNode":
        return f"it reads the table of `{node.id}`: UNLOAD it to S3, by `RedshiftToS3Operator` of Airflow"
    kind = KINDS.get(node.type)
    advice = next((each.text for name, each in kind.fields.items() if name in {"tableName", "table"}), "") if kind is not None else ""
    return f"it reads `{node.id}`, a {node.type}: {advice or 'only S3 can be read'}"


def _place(draft: Draft, node: Thing) -> dict[str, Any]:
    """`url`, `time` and `manifest` of the source."""
    manifest = s3_text(draft, node, "manifestFilePath")
    path = s3_text(draft, node, "filePath")
    folder = s3_text(draft, node, "directoryPath")
    if manifest is not None:
        return _listed(draft, node, manifest, folder)
    slot = node.slot("filePath" if path is not None else "directoryPath")
    text = path if path is not None else folder
    if text is None:
        msg = f"`{node.id}` has neither filePath nor directoryPath; write one, and import again"
        raise Refused(msg)
    if text.timed:
        return _timed(draft, text, slot)
    if path is None:
        draft.taken(slot, "source.s3.url")
        return {"url": _ended(text, draft)}
    before, name = text.folder()
    key = name.plain
    if not key:
        draft.taken(slot, "source.s3.url")
        return {"url": _ended(before, draft)}
    draft.taken(slot, "source.s3.url")
    draft.files[OBJECTS] = f"{key}\n"
    draft.values.setdefault("pipeline", {})["files"] = {OBJECTS: f"{key}\n"}
    draft.open(
        slot,
        f"an object is read once, and one that is written again halts its shard: give each delivery a key of its own, and remove "
        f"`source.s3.manifest` and {OBJECTS}, which name the one object",
    )
    return {"url": _ended(before, draft), "manifest": f"file:./{OBJECTS}"}


def _ended(text: Text, draft: Draft) -> str:
    return text.with_final_slash().render(draft.needs)


def _listed(draft: Draft, node: Thing, manifest: Text, folder: Text | None) -> dict[str, Any]:
    slot = node.slot("manifestFilePath")
    draft.taken(slot, "source.s3.manifest")
    if folder is not None and not folder.timed:
        draft.taken(node.slot("directoryPath"), "source.s3.url")
        return {"url": _ended(folder, draft), "manifest": manifest.render(draft.needs)}
    before, _ = manifest.split() if manifest.timed else manifest.folder()
    draft.open(slot, "what the manifest lists must lie under `source.s3.url`, which is the manifest's own folder; change it if it does not")
    return {"url": _ended(before, draft), "manifest": manifest.render(draft.needs)}


def _timed(draft: Draft, text: Text, slot: Slot) -> dict[str, Any]:
    before, rest = text.split()
    if not before.pieces or before.plain.removeprefix("s3://").strip("/") == "":
        msg = f"`{slot.field}` of `{slot.owner}` has a time in the name of its bucket; read each bucket by a pipeline of its own"
        raise Refused(msg)
    draft.taken(slot, "source.s3.url")
    pattern = key_time(rest)
    place: dict[str, Any] = {"url": _ended(before, draft)}
    if pattern:
        place["time"] = pattern
        draft.taken(slot, "source.s3.time")
    draft.unneeded(
        slot,
        f"a run takes every object under `{before.plain}` that none has read; `stream backfill --from --to` takes those of an interval"
        + ("" if pattern else ", by the time of their last change"),
    )
    names = _names_in(rest)
    if names:
        draft.held = True
        draft.open(
            slot,
            f"a run takes every object under `{before.plain}`, also those without `{names}` in their keys: give these objects a place of "
            "their own, or list them by `source.s3.manifest`, before the first run",
        )
    moment = next(each.moment for each in rest.pieces if isinstance(each, Time))
    if moment.steps or moment.base == "end":
        draft.unneeded(slot, "the time in the key itself decides about an interval, not one that is counted from the run's")
    return place


_NO_NAME: Final = re.compile(r"[\W_T]*(?:[A-Za-z_]+=)?|\.[A-Za-z0-9.]+")
"""What stands around times in a path and tells no objects apart: marks, names of partitions, suffixes."""


def _names_in(rest: Text) -> str:
    """The first name in the rest of a path by which its objects differ from others; empty if there is none."""
    fixed = (each.value if isinstance(each, Given) else each for each in rest.pieces if not isinstance(each, Time))
    times = (part for each in rest.pieces if isinstance(each, Time) for part in re.split(r"%-?[A-Za-z]", each.pattern))
    return next((each.strip("/") for each in (*fixed, *times) if not _NO_NAME.fullmatch(each)), "")


def key_time(rest: Text) -> str:
    """The pattern of `source.s3.time` for the rest of a path; empty if a key so made tells no time that it can read."""
    written = "".join(each.pattern if isinstance(each, Time) else str(each).replace("%", "%%") for each in rest.pieces if each)
    pattern = re.split(r"%(?![YmdHM%])|%%", written)[0]
    for mark in KEY_TIMES:  # each may stand there once: what follows a second one is left out
        first = pattern.find(mark)
        second = pattern.find(mark, first + 1) if first >= 0 else -1
        pattern = pattern[:second] if second >= 0 else pattern
    last = max((pattern.rfind(mark) + 2 for mark in KEY_TIMES if mark in pattern), default=0)
    return pattern[:last] if "%Y" in pattern[:last] and "${" not in pattern[:last] else ""


def _reading(draft: Draft, node: Thing, copy: list[str] | None) -> Reading:
    """How the objects of ``node`` are read, by its data format, or by the options of COPY where it has none."""
    form = draft.definition.one(node.slot("dataFormat"))
    if form is None:
        if copy is None:
            msg = (
                f"`{node.id}` has no dataFormat, so its bytes are copied: use S3 Replication or `aws s3 sync`; or name a format with its "
                "columns, and import again"
            )
            raise Refused(msg)
        return copy_options(copy, PIPES).reading
    draft.taken(node.slot("dataFormat"), "source.decode")
    columns = tuple(columns_of(draft.plains(form, "column")))
    twice = sorted({each.name for each in columns if sum(one.name == each.name for one in columns) > 1})
    if twice:
        msg = f"`column` of `{form.id}` names {', '.join(twice)} twice; give each column a name of its own, and import again"
        raise Refused(msg)
    if columns:
        draft.taken(form.slot("column"), "source.schema")
    odd = [each.name for each in columns if not each.known]
    if odd:
        draft.open(form.slot("column"), f"the type of {', '.join(odd)} is read as string; convert it in a `cast` stage")
    match form.type:
        case "CSV":
            reading = CSV
        case "TSV":
            reading = CSV.option("delimiter", _separator(draft, form, "\t", "source.decode.csv.delimiter"))
        case "Custom":
            reading = CSV.option("delimiter", _separator(draft, form, ",", "source.decode.csv.delimiter"))
        case "RegEx":
            return _lines(draft, form, columns)
        case _:
            known = KINDS.get(form.type)
            cure = known.becomes.removeprefix("to do: ") if known is not None and known.group == "data format" else "name a data format"
            msg = f"`{node.id}` has as dataFormat `{form.id}`, {form.type or 'an object without type'}: {cure}"
            raise Refused(msg)
    _ends(draft, form)
    return Reading("csv", reading.decode, columns)


def _separator(draft: Draft, form: Thing, default: str, key: str) -> str:
    text = draft.text(form, "columnSeparator")
    found = (text.plain if text is not None else default).replace("\\t", "\t")
    if len(found) != 1 or not found.isascii() or found in '\r\n\0"':
        msg = (
            f"`columnSeparator` of `{form.id}` is {found!r}; one ASCII character can separate values: write the files so, and import again"
        )
        raise Refused(msg)
    draft.taken(form.slot("columnSeparator"), key)
    return found


def _ends(draft: Draft, form: Thing) -> None:
    """Separators of lines, and escapes."""
    _line_end(form, draft.text(form, "recordSeparator"))
    draft.unneeded(form.slot("recordSeparator"), "lines end in \\n or \\r\\n")
    draft.held = draft.held or form.has("escapeChar")
    draft.open(form.slot("escapeChar"), "values are quoted, and quotes doubled, as in RFC 4180; there is no escape: write the files so")


def _line_end(form: Thing, text: Text | None) -> str:
    end = text.plain.replace("\\n", "\n").replace("\\r", "\r") if text is not None else "\n"
    if end not in {"\n", "\r\n"}:
        msg = f"`recordSeparator` of `{form.id}` is {end!r}; lines end in \\n or \\r\\n: write the files so, and import again"
        raise Refused(msg)
    return end


def _lines(draft: Draft, form: Thing, columns: tuple[Column, ...]) -> Reading:
    expression, output = draft.text(form, "inputRegEx"), draft.plain(form, "outputFormat")
    named = with_names(expression.plain, output, columns) if expression is not None else None
    if named is None:
        msg = (
            f"the groups of `inputRegEx` of `{form.id}` cannot be named: each column needs a group and a name of letters, digits and _; "
            "correct them, and import again"
        )
        raise Refused(msg)
    draft.taken(form.slot("inputRegEx"), "stages: parse.regex")
    draft.taken(form.slot("outputFormat"), "stages: parse.regex")
    draft.unneeded(form.slot("outputFormat"), "its order names the groups")
    return replace(_LINES, columns=columns, line=named)


def write_to(draft: Draft, node: Thing) -> None:
    """Make ``node`` the draft's sink, in the format that its dataFormat names, otherwise in Parquet.

    Raises:
        Refused: it cannot be a sink.
    """
    path, folder = s3_text(draft, node, "filePath"), s3_text(draft, node, "directoryPath")
    slot = node.slot("filePath" if path is not None else "directoryPath")
    text = path if path is not None else folder
    if text is None:
        msg = f"`{node.id}` has neither filePath nor directoryPath; write one, and import again"
        raise Refused(msg)
    options: dict[str, Any] = {"url": _written(draft, text, slot, single=path is not None)}
    form = draft.definition.one(node.slot("dataFormat"))
    options |= {"format": "parquet"} if form is None else _written_as(draft, node, form)
    times = [each for each in text.pieces if isinstance(each, Time)]
    if times:
        unit = min((unit_of(each.pattern) for each in times), key=list(reversed(_PARTITIONS)).index)
        options["partition_by"] = [{unit.lower(): f"strftime(_arrival, '{_PARTITIONS[unit]}')"}]
        draft.taken(slot, "sinks: s3.partition_by")
        draft.open(
            slot,
            f"folders are called `{unit.lower()}=...`, after the last change of the object that a row came from (`_arrival`), not the "
            "run's time: tell the readers",
        )
    packed = draft.plain_or_noted(node, "compression").lower() or ("none" if options["format"] == "csv" else "")
    if packed in {"gzip", "none"}:
        options["compression"] = packed
        draft.taken(node.slot("compression"), "sinks: s3.compression")
    elif packed:
        used = "zstd" if options["format"] == "parquet" else "gzip"
        draft.open(node.slot("compression"), f"the files are written with {used}; see `sinks: s3.compression` for others")
    draft.sink = {"s3": options}


_SEPARATORS: Final = {"CSV": ",", "TSV": "\t", "Custom": ","}


def _written_as(draft: Draft, node: Thing, form: Thing) -> dict[str, Any]:
    """The options of the sink for a data format: separated values, with no header and no other columns, as the readers expect."""
    if form.type not in _SEPARATORS:
        draft.open(
            node.slot("dataFormat"), "Parquet is written (`format: ndjson` or `csv` for text), nothing by a pattern: change the readers"
        )
        return {"format": "parquet"}
    csv: dict[str, Any] = {"header": False}
    default = _SEPARATORS[form.type]
    delimiter = default if form.type == "CSV" else _separator(draft, form, default, "sinks: s3.csv.delimiter")
    if delimiter != ",":
        csv["delimiter"] = delimiter
    escape = draft.plain(form, "escapeChar")
    if escape:
        csv |= {"escape": _one_escape(form, escape, delimiter)} | ({} if form.type == "CSV" else {"quote": None})
        draft.taken(form.slot("escapeChar"), "sinks: s3.csv.escape")
    ends = draft.text(form, "recordSeparator")
    if _line_end(form, ends) == "\r\n":
        csv["line_end"] = "crlf"
    draft.taken(form.slot("recordSeparator"), "sinks: s3.csv.line_end")
    if len(draft.columns) == 1 and "quote" not in csv:
        csv["null"] = "\\N"
        draft.open(node.slot("dataFormat"), "null is written as \\N, since a blank line would be no row: tell the readers")
    else:
        draft.taken(node.slot("dataFormat"), "sinks: s3.csv")
    return {"format": "csv", "csv": csv, "lineage": False}


def _one_escape(form: Thing, escape: str, delimiter: str) -> str:
    if len(escape) == 1 and escape.isascii() and escape not in {delimiter, '"'}:
        return escape
    msg = (
        f"`escapeChar` of `{form.id}` is {escape!r}; one ASCII character that neither quotes nor separates can be an escape: "
        "correct it, and import again"
    )
    raise Refused(msg)


def _written(draft: Draft, text: Text, slot: Slot, *, single: bool) -> str:
    """The URL below which the sink writes its files."""
    draft.taken(slot, "sinks: s3.url")
    if text.timed:
        before, _ = text.split()
        if not before.pieces or before.plain.removeprefix("s3://").strip("/") == "":
            msg = f"`{slot.field}` of `{slot.owner}` has a time in the name of its bucket; write below one bucket, and import again"
            raise Refused(msg)
    else:
        before, name = text.folder() if single else (text, Text(()))
        stem = name.plain.partition(".")[0]
        if stem:
            draft.open(slot, f"files have names of their own below `{before.plain}{stem}/`: tell the readers")
            return _ended(before, draft) + f"{stem}/"
    url = _ended(before, draft)
    return f"{url}{draft.application}/" if re.fullmatch(r"s3://[^/]+/", url) else url


def shape(draft: Draft, reading: Reading) -> None:
    """Give the source its schema, or the stages that take lines apart."""
    columns = reading.columns
    draft.columns = columns
    if not reading.line:
        texts = [each.name for each in columns if each.type == "string"] if reading.format == "csv" and not reading.empty_is_null else []
        draft.source["schema"] = schema_of(columns, texts)  # empty text stays text in a `string` that may not be null
        return
    line = next(each for each in ("line", "whole_line", "line_as_it_is") if each not in {column.name for column in columns})
    draft.source["schema"] = {line: "string"}
    parse: dict[str, Any] = {"column": line, "regex": reading.line, "keep": False}
    types = {each.name: each.type for each in columns if each.type != "string"}
    if types:
        parse["types"] = types
    draft.stages = [{"parse": parse}, {"select": [each.name for each in columns]}]


def match_columns(draft: Draft, columns: tuple[Column, ...], slot: Slot, where: str) -> None:
    """Make stages that give the draft's columns, in their order, the names and types of ``columns``, those of the other side."""
    if len(columns) != len(draft.columns):
        draft.open(slot, f"{where} has {len(columns)} columns and the source {len(draft.columns)}; the source's are written: mend the list")
        return
    names = {have.name: want.name for have, want in zip(draft.columns, columns, strict=True) if have.name != want.name}
    types = {want.name: want.type for have, want in zip(draft.columns, columns, strict=True) if have.type != want.type}
    if names:
        draft.stages.append({"rename": names})
        draft.taken(slot, "stages: rename")
    if types:
        draft.stages.append({"cast": types})
        draft.taken(slot, "stages: cast")
    if not names and not types:
        draft.unneeded(slot, "the columns are those of the source")
    draft.columns = columns
