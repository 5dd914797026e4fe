"""Translates the data formats CSV, TSV and Custom of outputs to options of a sink; what inputs share with them is here, too."""

from __future__ import annotations

from typing import Any, Final

from stream.datapipeline.draft import Draft, Refused
from stream.datapipeline.evaluated_text import Text
from stream.datapipeline.resolve import ResolvedObject

SEPARATORS: Final = {"CSV": ",", "TSV": "\t", "Custom": ","}
"""The default of `columnSeparator`, by data format."""


def sink_options(draft: Draft, node: ResolvedObject, form: ResolvedObject) -> dict[str, Any]:
    """The options of the sink that writes ``node`` in the format ``form``: the same separators, no header and no lineage columns.

    Raises:
        Refused: files cannot be written that way.
    """
    if form.type not in SEPARATORS:
        draft.to_do(
            node.slot("dataFormat"),
            "files are written as Parquet, or with `format: ndjson` or `csv` as text, not by a pattern: change the programs that read them",
        )
        return {"format": "parquet"}
    csv: dict[str, Any] = {"header": False}
    delimiter = "," if form.type == "CSV" else separator(draft, form, "sinks: s3.csv.delimiter")
    if delimiter != ",":
        csv["delimiter"] = delimiter
    escape = draft.fixed_text(form, "escapeChar")
    if escape:
        csv |= {"escape": _one_escape(form, escape, delimiter)} | ({} if form.type == "CSV" else {"quote": None})
        draft.taken_over(form.slot("escapeChar"), "sinks: s3.csv.escape")
    if line_end(form, draft.text(form, "recordSeparator")) == "\r\n":
        csv["line_end"] = "crlf"
    draft.taken_over(form.slot("recordSeparator"), "sinks: s3.csv.line_end")
    if len(draft.columns) == 1 and "quote" not in csv:
        csv["null"] = "\\N"
        draft.to_do(
            node.slot("dataFormat"), "null is written as \\N, since readers skip blank lines: change the programs that read the files"
        )
    else:
        draft.taken_over(node.slot("dataFormat"), "sinks: s3.csv")
    return {"format": "csv", "csv": csv, "lineage": False}


def separator(draft: Draft, form: ResolvedObject, key: str) -> str:
    """The character between two values, noted as taken over to ``key``.

    Raises:
        Refused: it is not one ASCII character.
    """
    text = draft.text(form, "columnSeparator")
    found = (text.plain if text is not None else SEPARATORS[form.type]).replace("\\t", "\t")
    if len(found) != 1 or not found.isascii() or found in '\r\n\0"':
        msg = (
            f"`columnSeparator` of `{form.id}` is {found!r}; allowed: one ASCII character, but no quote, line break or NUL. Change the "
            "files, and import again"
        )
        raise Refused(msg)
    draft.taken_over(form.slot("columnSeparator"), key)
    return found


def line_end(form: ResolvedObject, text: Text | None) -> str:
    """The characters between two lines, from the text of `recordSeparator`.

    Raises:
        Refused: they are not a line break.
    """
    end = text.plain.replace("\\n", "\n").replace("\\r", "\r") if text is not None else "\n"
    if end not in {"\n", "\r\n"}:
        msg = f"`recordSeparator` of `{form.id}` is {end!r}; allowed: \\n and \\r\\n. Change the files, and import again"
        raise Refused(msg)
    return end


def _one_escape(form: ResolvedObject, escape: str, delimiter: str) -> str:
    if len(escape) == 1 and escape.isascii() and escape not in {delimiter, '"'}:
        return escape
    msg = (
        f"`escapeChar` of `{form.id}` is {escape!r}; allowed: one ASCII character, but not the quote or the separator. Correct it, and "
        "import again"
    )
    raise Refused(msg)
