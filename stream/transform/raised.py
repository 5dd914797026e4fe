"""Says what a step raised, for people: its type, its own words, and where in the user's code that was."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Final

import polars as pl

from stream.dry_run import polars_message

_OURS: Final = (f"{Path(__file__).parents[1]}/", f"{Path(pl.__file__).parent}/")
"""Directories whose code is not the user's: that of this package, and that of Polars."""


def what_was_raised(error: BaseException) -> str:
    """Such as ``KeyError: 'dep_delay' (delays.py:12 in score)``. It may quote values of the row."""
    kind, said = type(error).__name__, polars_message(error)
    text = kind if said in {kind, ""} else f"{kind}: {said}"
    theirs = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith((*_OURS, "<"))]
    return f"{text} ({Path(theirs[-1].filename).name}:{theirs[-1].lineno} in {theirs[-1].name})" if theirs else text
