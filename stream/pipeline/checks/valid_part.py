"""Finds the valid part of a pipeline file that has errors, so that columns can be checked in spite of them.

A wrong unit under `flush` has nothing to do with a column that a stage lacks, and a user who has made both mistakes wants to see both.
So wrong parts are removed, and required ones are replaced by stand-ins, about which nothing is reported.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from stream.pipeline.findings import Path
from stream.pipeline.model import Pipeline

_NEEDED: Mapping[str, Any] = {"application": "stand-in", "state": "file:stand-in/state", "sinks": []}


@dataclass(frozen=True, slots=True)
class ValidPart:
    """``stages``: how many of the file's stages, from the first on, ``pipeline`` has. ``sinks``: which of its sinks are the file's.

    ``whole``: whether these are all of the file's stages, so that the columns that reach its sinks are known. ``doubtful``: columns that
    the file has and ``pipeline`` has not, since their types are wrong.
    """

    pipeline: Pipeline
    stages: int
    whole: bool
    sinks: frozenset[int]
    doubtful: frozenset[str] = frozenset()


def valid_part(data: Any, wrong: Collection[Path]) -> ValidPart | None:
    """The pipeline without the values at ``wrong``; None if nothing can be said about its columns."""
    if not isinstance(data, Mapping) or any(_spoils_columns(path) for path in wrong):
        return None
    rest: dict[str, Any] = copy.deepcopy(dict(data))
    known = isinstance(rest.get("stages") or [], list)
    stages = (rest.get("stages") or []) if known else []
    good = min((path[1] for path in wrong if path[:1] == ("stages",) and len(path) > 1 and isinstance(path[1], int)), default=len(stages))
    given = len(rest["sinks"]) if isinstance(rest.get("sinks"), list) else 0
    bad = {path[1] for path in wrong if path[:1] == ("sinks",) and len(path) > 1 and isinstance(path[1], int)}
    for path in wrong:
        if path[:2] == ("source", "kinesis"):
            rest["source"]["kinesis"] = {"stream": "stand-in"}
        elif path[:2] == ("source", "schema"):
            rest["source"]["schema"].pop(path[2], None)
        elif path[:1] not in {("stages",), ("sinks",)} or len(path) == 1:
            rest.pop(str(path[0]), None)
    if rest.get("source", {}).get("schema") == {}:
        return None
    rest = {**_NEEDED, **rest}
    rest["stages"] = stages[:good]
    rest["sinks"] = [_stand_in(at) if at in bad else sink for at, sink in enumerate(rest["sinks"])] or [_stand_in(0)]
    try:
        doubtful = frozenset(str(path[2]) for path in wrong if path[:2] == ("source", "schema"))
        return ValidPart(Pipeline.model_validate(rest), good, known and good == len(stages), frozenset(range(given)) - bad, doubtful)
    except ValidationError:
        return None


def _spoils_columns(path: Path) -> bool:
    """Whether an error at ``path`` makes all columns unknown, or cannot be removed from the file."""
    of_one = path[1:2] == ("kinesis",) or (path[1:2] == ("schema",) and len(path) > 2)
    return not path or (path[0] == "source" and not of_one)


def _stand_in(at: int) -> dict[str, Any]:
    return {"files": {"url": f"file:stand-in/{at}", "name": f"stand-in-{at}"}}
