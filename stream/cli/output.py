"""Standard output of commands: JSON documents, and the console for tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console

PIPED_WIDTH: Final = 240
"""Width without a terminal: wide enough that a record's id stays on one line, so that `grep` finds it."""


def table_console() -> Console:
    """Standard output, for tables."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def as_json(document: Any) -> str:
    """``document`` as indented JSON with a final newline; floats that JSON cannot express become the texts NaN, Infinity, -Infinity."""
    return json.dumps(_finite(document), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, (list, tuple)) else value
