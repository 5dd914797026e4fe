"""What ``stream shards`` prints of a pipeline that reads objects."""

from __future__ import annotations

import sys
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from stream.audit.completeness import State
from stream.cli.output import as_json, table_console
from stream.cli.pipeline_work import EXIT_UNKNOWN
from stream.operations.shards.object_survey import ObjectRow, ObjectSurvey
from stream.operations.status.finding import clock, length

EXIT_ACT = 1


def say(application: str, found: ObjectSurvey, *, json: bool) -> int:
    """Print the survey, as a document or as text. Returns the exit code."""
    if json:
        sys.stdout.write(as_json(document(application, found)))
    else:
        show(application, found)
    return exit_code(found)


def exit_code(found: ObjectSurvey) -> int:
    """1 if a shard is late; otherwise 2 if nothing is known; otherwise 0."""
    if any("late" in row.marks for row in found.rows):
        return EXIT_ACT
    return EXIT_UNKNOWN if found.why else 0


def document(application: str, found: ObjectSurvey) -> dict[str, Any]:
    """The document that --json prints, as described in docs/shards.md: what only a stream has is null or empty."""
    return {
        "application": application,
        "window_seconds": None,
        "streams": [
            {
                "stream": found.stream,
                "asked_at": found.asked_at.isoformat(),
                "mode": "objects",
                "status": None,
                "retention_seconds": None,
                "registered_consumers": 0,
                "why": found.why,
                "shards": [_shard(row, found) for row in found.rows],
                "advice": [],
            }
        ],
    }


def _shard(row: ObjectRow, found: ObjectSurvey) -> dict[str, Any]:
    standing, oldest = row.standing, row.backlog.oldest
    return {
        "shard": row.name,
        "open": standing.state is not State.ENDED,
        "parents": [],
        "first_hash_key": None,
        "last_hash_key": None,
        "hash_key_share": None,
        "marks": list(row.marks),
        "rate": None,
        "rate_why": "",
        "state": "unsealed" if row.backlog.objects else "sealed",
        "sealed_position": str(standing.position),
        "sealed_to": None if standing.sealed_to is None else standing.sealed_to.isoformat(),
        "oldest_unsealed": None if oldest is None else oldest.isoformat(),
        "behind_seconds": _behind(row, found) or 0.0,
        "expires_at": None,
        "why": "",
        "owner": row.owner,
        "sealed_by": row.sealed_by or None,
        "keys": None,
        "objects": row.backlog.objects,
        "bytes": row.backlog.size,
    }


def _behind(row: ObjectRow, found: ObjectSurvey) -> float | None:
    return None if row.backlog.oldest is None else max(0.0, (found.asked_at - row.backlog.oldest).total_seconds())


def show(application: str, found: ObjectSurvey) -> None:
    """Print the survey as text."""
    names = ("shard", "note", "objects", "bytes", "not sealed for", "owner" if found.leased else "last sealed by")
    table = Table(
        *(Column(name, overflow="fold") for name in names),
        title=f"{application} on {found.stream}, {clock(found.asked_at)}",
        title_justify="left",
    )
    for row in found.rows:
        behind = _behind(row, found)
        table.add_row(
            row.name,
            Text(", ".join(row.marks), style="bold red" if "late" in row.marks else "yellow"),
            f"{row.backlog.objects:,}",
            f"{row.backlog.size:,}",
            "0s" if behind is None else length(behind),
            Text((row.owner if found.leased else row.sealed_by) or "-"),
        )
    console = table_console()
    console.print(table)
    if found.why:
        console.print(found.why, markup=False)
    console.print("These are claimed objects that are not sealed to their ends; `stream status` also counts those that nobody has claimed.")
