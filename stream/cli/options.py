"""Arguments and options that several verbs share. Nothing is imported here that takes time."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stream.metrics.logs import Level


class Least(StrEnum):
    """The lowest level of events that are logged, as named on the command line."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def level(self) -> Level:
        """The level of that name."""
        from stream.metrics.logs import Level

        return Level[self.name]


File = Annotated[Path, typer.Argument(help="Pipeline file.", exists=True, dir_okay=False, readable=True, show_default=False)]
Stream = Annotated[str | None, typer.Option("--stream", help="Only this stream, if the pipeline reads several.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

Drain = Annotated[float, typer.Option(help="Seconds allowed after SIGTERM to seal the units in progress.", min=0.0)]
Threads = Annotated[int | None, typer.Option(help="Threads for decoding, transforming and encoding.", min=1, show_default="one per core")]
ResultFile = Annotated[
    Path | None, typer.Option("--result", help="Write a JSON summary of the run to this file; - is standard output.", dir_okay=False)
]
LogLevel = Annotated[
    Least,
    typer.Option(
        "--log-level", envvar="STREAM_LOG_LEVEL", case_sensitive=False, help="Lowest level of events to log; debug logs every step."
    ),
]

Sample = Annotated[
    Path | None,
    typer.Option(
        "--sample",
        help="File of records: one per line (.ndjson, .jsonl, .json, .csv, .txt, .log), or Parquet, such as a file of dead letters. "
        "Any other file is one record.",
        exists=True,
    ),
]
Generate = Annotated[
    int | None, typer.Option("--generate", metavar="SEED", help="Generate records from the schema with this random seed.", min=0)
]
Reveal = Annotated[bool, typer.Option("--reveal", help="Show the values of sensitive columns, and the original bytes, too.")]
Since = Annotated[str | None, typer.Option("--since", help="Use records that arrived in the live stream within this time, such as 5m.")]
ArrivedSince = Annotated[str | None, typer.Option("--since", help="Only records that arrived within this time, such as 15m.")]
ArrivedFrom = Annotated[str | None, typer.Option("--from", help="Only records that arrived then or later, such as 2026-01-01T00:00Z.")]
ArrivedTo = Annotated[str | None, typer.Option("--to", help="Only records that arrived before then.")]
