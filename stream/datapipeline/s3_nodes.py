"""Translates data nodes in S3: the input of an activity to a source, its output to a sink."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final

from stream.datapipeline.draft import OBJECTS, Draft, Refused, s3_text, schema_of
from stream.datapipeline.evaluated_text import ParameterValue, RunTime, Text, unit_of
from stream.datapipeline.formats import COPY_DEFAULT, CSV, NO_QUOTE, Column, ReadFormat, columns_of, copy_options, with_named_groups
from stream.datapipeline.object_types import OBJECT_TYPES
from stream.datapipeline.resolve import ResolvedObject, Slot
from stream.datapipeline.separated_values import line_end, separator, sink_options

KEY_TIMES: Final = ("%Y", "%m", "%d", "%H", "%M")
"""The directives that `source.s3.time` can read in a key."""

_PARTITIONS: Final = {
    "YEAR": "%Y", "MONTH": "%Y-%m", "DAY": "%Y-%m-%d", "HOUR": "%Y-%m-%d-%H", "MINUTE": "%Y-%m-%d-%H-%M", "SECOND": "%Y-%m-%d-%H-%M",
}  # fmt: skip

_LINES: Final = CSV.option("delimiter", "\x01").option("quote", NO_QUOTE)
"""Reads whole lines: as separated values whose separator no text contains."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a pipeline writes to a node: the `format` of its sink, and the columns."""

    format: str
    columns: tuple[Column, ...]


def read_from(draft: Draft, node: ResolvedObject, copy: list[str] | None, made: Written | None) -> ReadFormat:
    """Make ``node`` the source of the draft. Returns how it is read.

    ``copy``: the options of COPY, if COPY reads the node. ``made``: what another pipeline writes there.

    Raises:
        Refused: ``node`` cannot be a source.
    """
    if node.type != "S3DataNode":
        raise Refused(_other_source(node))
    if made is not None and made.format == "parquet":
        draft.not_needed(node.slot("dataFormat"), "the pipeline that writes these objects writes Parquet, so this one reads Parquet")
        reading = ReadFormat("parquet", "json", made.columns)
    else:
        reading = _reading(draft, node, copy)
        reading = replace(reading, columns=reading.columns or (made.columns if made is not None else ()))
    place = _place(draft, node)
    packed = draft.fixed_text(node, "compression").lower() or reading.compression
    if node.has("compression"):
        draft.taken_over(node.slot("compression"), "source.s3.compression")
    if packed not in {"", "none", "gzip", "bz2", "zstd"}:
        msg = (
            f"`compression` of `{node.id}` is {packed!r}; allowed: gzip, bz2, zstd, none. Compress the objects with one of these, and "
            "import again"
        )
        raise Refused(msg)
    s3: dict[str, Any] = {"url": place.pop("url"), "format": reading.format, **place}
    if packed and reading.format != "parquet":
        s3["compression"] = packed
    draft.source = {"s3": s3, "decode": reading.decode}
    return reading


def _other_source(node: ResolvedObject) -> str:
    if node.type == "RedshiftDataNode":
        return (
            f"it reads a Redshift table, `{node.id}`, which stream does not: unload the table to S3 with `RedshiftToS3Operator` in Airflow"
        )
    kind = OBJECT_TYPES.get(node.type)
    advice = next((each.text for name, each in kind.fields.items() if name in {"tableName", "table"}), "") if kind is not None else ""
    return f"it reads `{node.id}`, a {node.type}: {advice or 'stream can only read from S3'}"


def _place(draft: Draft, node: ResolvedObject) -> dict[str, Any]:
    """`url`, `time` and `manifest` of the source."""
    manifest = s3_text(draft, node, "manifestFilePath")
    path = s3_text(draft, node, "filePath")
    folder = s3_text(draft, node, "directoryPath")
    if manifest is not None:
        return _listed(draft, node, manifest, folder)
    slot = node.slot("filePath" if path is not None else "directoryPath")
    text = path if path is not None else folder
    if text is None:
        msg = f"`{node.id}` has neither filePath nor directoryPath; add one of them, and import again"
        raise Refused(msg)
    if text.has_run_time:
        return _timed(draft, text, slot)
    if path is None:
        draft.taken_over(slot, "source.s3.url")
        return {"url": _folder_url(text, draft)}
    before, name = text.folder()
    key = name.plain
    if not key:
        draft.taken_over(slot, "source.s3.url")
        return {"url": _folder_url(before, draft)}
    draft.taken_over(slot, "source.s3.url")
    draft.files[OBJECTS] = f"{key}\n"
    draft.values.setdefault("pipeline", {})["files"] = {OBJECTS: f"{key}\n"}
    draft.to_do(
        slot,
        "stream reads an object once, and a shard halts if one of its objects is overwritten: give each delivery its own key, and then "
        f"remove `source.s3.manifest` and {OBJECTS}, which name this one object",
    )
    return {"url": _folder_url(before, draft), "manifest": f"file:./{OBJECTS}"}


def _folder_url(text: Text, draft: Draft) -> str:
    return text.with_final_slash().render(draft.run_times)


def _listed(draft: Draft, node: ResolvedObject, manifest: Text, folder: Text | None) -> dict[str, Any]:
    slot = node.slot("manifestFilePath")
    draft.taken_over(slot, "source.s3.manifest")
    if folder is not None and not folder.has_run_time:
        draft.taken_over(node.slot("directoryPath"), "source.s3.url")
        return {"url": _folder_url(folder, draft), "manifest": manifest.render(draft.run_times)}
    before, _ = manifest.split() if manifest.has_run_time else manifest.folder()
    draft.to_do(
        slot,
        "every object that the manifest lists must be under `source.s3.url`, which is set to the manifest's own folder: correct it if "
        "necessary",
    )
    return {"url": _folder_url(before, draft), "manifest": manifest.render(draft.run_times)}


def _timed(draft: Draft, text: Text, slot: Slot) -> dict[str, Any]:
    before, rest = text.split()
    if not before.pieces or before.plain.removeprefix("s3://").strip("/") == "":
        msg = (
            f"`{slot.field}` of `{slot.owner}` has a time in the name of its bucket, but a pipeline reads one bucket: make an activity "
            "for each bucket, and import again"
        )
        raise Refused(msg)
    draft.taken_over(slot, "source.s3.url")
    pattern = key_time(rest)
    place: dict[str, Any] = {"url": _folder_url(before, draft)}
    if pattern:
        place["time"] = pattern
        draft.taken_over(slot, "source.s3.time")
        draft.input_time = (next(each.moment for each in rest.pieces if isinstance(each, RunTime)), pattern)
    draft.not_needed(
        slot,
        f"a run reads every object under `{before.plain}` that has not been read yet; `stream backfill --from --to` "
        "reads those of a time range" + ("" if pattern else ", by the time when they were last modified"),
    )
    names = _names_in(rest)
    if names:
        draft.suspended = True
        draft.to_do(
            slot,
            f"a run would also read objects under `{before.plain}` without `{names}` in their keys: before the first run, give the "
            f"objects with `{names}` a prefix of their own, or list them in `source.s3.manifest`",
        )
    return place


_NO_NAME: Final = re.compile(r"[\W_T]*(?:[A-Za-z_]+=)?|\.[A-Za-z0-9.]+")
"""Text around the times in a path that does not distinguish objects: punctuation, names of partitions, suffixes."""


def _names_in(rest: Text) -> str:
    """The first name in the rest of a path that other objects in the folder may not have; empty if there is none."""
    fixed = (each.value if isinstance(each, ParameterValue) else each for each in rest.pieces if not isinstance(each, RunTime))
    times = (part for each in rest.pieces if isinstance(each, RunTime) for part in re.split(r"%-?[A-Za-z]", each.pattern))
    return next((each.strip("/") for each in (*fixed, *times) if not _NO_NAME.fullmatch(each)), "")


def key_time(rest: Text) -> str:
    """The pattern of `source.s3.time` for the rest of a path; empty if such a key contains no time that can be read."""
    written = "".join(each.pattern if isinstance(each, RunTime) else str(each).replace("%", "%%") for each in rest.pieces if each)
    pattern = re.split(r"%(?![YmdHM%])|%%", written)[0]
    for mark in KEY_TIMES:  # a pattern may have each directive once: cut it off before a second one
        first = pattern.find(mark)
        second = pattern.find(mark, first + 1) if first >= 0 else -1
        pattern = pattern[:second] if second >= 0 else pattern
    last = max((pattern.rfind(mark) + 2 for mark in KEY_TIMES if mark in pattern), default=0)
    return pattern[:last] if "%Y" in pattern[:last] and "${" not in pattern[:last] else ""


def _reading(draft: Draft, node: ResolvedObject, copy: list[str] | None) -> ReadFormat:
    """How the objects of ``node`` are read, according to its data format or, without one, to the options of COPY."""
    form = draft.definition.one(node.slot("dataFormat"))
    if form is None:
        if copy is None:
            msg = (
                f"`{node.id}` has no dataFormat, so its objects were copied unchanged: use S3 Replication or `aws s3 sync` for that; or "
                "give it a dataFormat with columns, and import again"
            )
            raise Refused(msg)
        return copy_options(copy, COPY_DEFAULT).reading
    draft.taken_over(node.slot("dataFormat"), "source.decode")
    columns = tuple(columns_of(draft.fixed_texts(form, "column")))
    twice = sorted({each.name for each in columns if sum(one.name == each.name for one in columns) > 1})
    if twice:
        msg = f"`column` of `{form.id}` names {', '.join(twice)} twice; give each column its own name, and import again"
        raise Refused(msg)
    if columns:
        draft.taken_over(form.slot("column"), "source.schema")
    odd = [each.name for each in columns if not each.known]
    if odd:
        draft.to_do(
            form.slot("column"), f"the type of {', '.join(odd)} has no counterpart, so it is read as string: convert it with a `cast` stage"
        )
    match form.type:
        case "CSV":
            reading = CSV
        case "TSV":
            reading = CSV.option("delimiter", separator(draft, form, "source.decode.csv.delimiter"))
        case "Custom":
            reading = CSV.option("delimiter", separator(draft, form, "source.decode.csv.delimiter"))
        case "RegEx":
            return _lines(draft, form, columns)
        case _:
            known = OBJECT_TYPES.get(form.type)
            remedy = (
                known.becomes.removeprefix("to do: ")
                if known is not None and known.group == "data format"
                else "use CSV, TSV, Custom or RegEx"
            )
            msg = (
                f"the dataFormat of `{node.id}`, `{form.id}`, is {form.type or 'an object without a type'}, which stream does not read: "
                f"{remedy}"
            )
            raise Refused(msg)
    _ends(draft, form)
    return ReadFormat("csv", reading.decode, columns)


def _ends(draft: Draft, form: ResolvedObject) -> None:
    """Check the separator of lines, and the escape character."""
    line_end(form, draft.text(form, "recordSeparator"))
    draft.not_needed(form.slot("recordSeparator"), "lines may end with \\n or \\r\\n")
    draft.suspended = draft.suspended or form.has("escapeChar")
    draft.to_do(
        form.slot("escapeChar"),
        "stream reads values in quotes, with quotes doubled (RFC 4180), but knows no escape character: write the files that way",
    )


def _lines(draft: Draft, form: ResolvedObject, columns: tuple[Column, ...]) -> ReadFormat:
    expression, output = draft.text(form, "inputRegEx"), draft.fixed_text(form, "outputFormat")
    named = with_named_groups(expression.plain, output, columns) if expression is not None else None
    if named is None:
        msg = (
            f"the groups in `inputRegEx` of `{form.id}` cannot get the names of the columns: each column needs one group, and a name of "
            "letters, digits and _; correct them, and import again"
        )
        raise Refused(msg)
    draft.taken_over(form.slot("inputRegEx"), "stages: parse.regex")
    draft.taken_over(form.slot("outputFormat"), "stages: parse.regex")
    draft.not_needed(form.slot("outputFormat"), "it only says which group belongs to which column")
    return replace(_LINES, columns=columns, line=named)


def write_to(draft: Draft, node: ResolvedObject) -> None:
    """Make ``node`` the sink of the draft, in the format that its dataFormat names, otherwise with Parquet files.

    Raises:
        Refused: ``node`` cannot be a sink.
    """
    path, folder = s3_text(draft, node, "filePath"), s3_text(draft, node, "directoryPath")
    slot = node.slot("filePath" if path is not None else "directoryPath")
    text = path if path is not None else folder
    if text is None:
        msg = f"`{node.id}` has neither filePath nor directoryPath; add one of them, and import again"
        raise Refused(msg)
    options: dict[str, Any] = {"url": _written(draft, text, slot, single=path is not None)}
    form = draft.definition.one(node.slot("dataFormat"))
    options |= {"format": "parquet"} if form is None else sink_options(draft, node, form)
    times = [each for each in text.pieces if isinstance(each, RunTime)]
    if times:
        unit = min((unit_of(each.pattern) for each in times), key=list(reversed(_PARTITIONS)).index)
        options["partition_by"] = [{unit.lower(): f"strftime(_arrival, '{_PARTITIONS[unit]}')"}]
        draft.taken_over(slot, "sinks: s3.partition_by")
        draft.to_do(
            slot,
            f"folders are named `{unit.lower()}=...` after the time when the object that a row came from was last modified (`_arrival`), "
            "not after the time of the run: change the programs that read them",
        )
    packed = draft.fixed_text_or_empty(node, "compression").lower() or ("none" if options["format"] == "csv" else "")
    if packed in {"gzip", "none"}:
        options["compression"] = packed
        draft.taken_over(node.slot("compression"), "sinks: s3.compression")
    elif packed:
        used = "zstd" if options["format"] == "parquet" else "gzip"
        draft.to_do(
            node.slot("compression"), f"files are compressed with {used}; docs/files.md says what else `sinks: s3.compression` can be"
        )
    draft.sink = {"s3": options}


def _written(draft: Draft, text: Text, slot: Slot, *, single: bool) -> str:
    """The URL of the folder in which the sink writes its files."""
    draft.taken_over(slot, "sinks: s3.url")
    if text.has_run_time:
        before, _ = text.split()
        if not before.pieces or before.plain.removeprefix("s3://").strip("/") == "":
            msg = (
                f"`{slot.field}` of `{slot.owner}` has a time in the name of its bucket, but a pipeline writes to one bucket: use one "
                "bucket, and import again"
            )
            raise Refused(msg)
    else:
        before, name = text.folder() if single else (text, Text(()))
        stem = name.plain.partition(".")[0]
        if stem:
            draft.to_do(
                slot,
                f"files are written below `{before.plain}{stem}/`, under names that stream chooses: change the programs that read them",
            )
            return _folder_url(before, draft) + f"{stem}/"
    url = _folder_url(before, draft)
    return f"{url}{draft.application}/" if re.fullmatch(r"s3://[^/]+/", url) else url


def add_schema(draft: Draft, reading: ReadFormat) -> None:
    """Add the source's schema, and for lines that a regular expression reads, the stages that do it."""
    columns = reading.columns
    draft.columns = columns
    if not reading.line:
        texts = [each.name for each in columns if each.type == "string"] if reading.format == "csv" and not reading.empty_is_null else []
        draft.source["schema"] = schema_of(columns, texts)  # in a column that may not be null, empty text stays text
        return
    line = next(each for each in ("line", "whole_line", "line_as_it_is") if each not in {column.name for column in columns})
    draft.source["schema"] = {line: "string"}
    parse: dict[str, Any] = {"column": line, "regex": reading.line, "keep": False}
    types = {each.name: each.type for each in columns if each.type != "string"}
    if types:
        parse["types"] = types
    draft.stages = [{"parse": parse}, {"select": [each.name for each in columns]}]


def match_columns(draft: Draft, columns: tuple[Column, ...], slot: Slot, where: str) -> None:
    """Add stages that give the columns of the draft the names and types of ``columns``, the other side's, matched by position."""
    if len(columns) != len(draft.columns):
        draft.to_do(
            slot,
            f"{where} has {len(columns)} columns, but the source has {len(draft.columns)}, and these are written: correct the shorter list",
        )
        return
    names = {have.name: want.name for have, want in zip(draft.columns, columns, strict=True) if have.name != want.name}
    types = {want.name: want.type for have, want in zip(draft.columns, columns, strict=True) if have.type != want.type}
    if names:
        draft.stages.append({"rename": names})
        draft.taken_over(slot, "stages: rename")
    if types:
        draft.stages.append({"cast": types})
        draft.taken_over(slot, "stages: cast")
    if not names and not types:
        draft.not_needed(slot, "the columns are the same as those of the source")
    draft.columns = columns
