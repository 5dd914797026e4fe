"""Commands with what they print, as the pages show them: ``$ stream ...`` lines in a ``text transcript`` block are run to make the rest."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path
from typing import Final

from typer.testing import CliRunner

from stream.cli.main import app

BLOCK: Final = re.compile(r"(```text transcript\n)(.*?)(```)", re.DOTALL)
ENVIRONMENT: Final = {"MASK_KEY": "any key will do here", "STREAM": None, "LAKE": None, "STATE": None, "COLUMNS": "200"}
WIDTH: Final = 150
_SPEED: Final = re.compile(r"[\d,]+ records/s before, [\d,]+ after")


def transcript(shown: str, root: Path) -> str:
    """The block's commands, each with its output of now; what depends on the machine is left out, and long lines are cut."""
    lines = []
    for command in (line for line in shown.splitlines() if line.startswith("$ ")):
        words = shlex.split(command.removeprefix("$ "))
        if words[0] != "stream":
            msg = f"a transcript runs `stream` and nothing else: {command}"
            raise ValueError(msg)
        with contextlib.chdir(root):
            done = CliRunner().invoke(app, words[1:], env=ENVIRONMENT)
        printed = _SPEED.sub("... records/s before, ... after", done.output).rstrip("\n").splitlines()
        lines += [command, *(line if len(line) <= WIDTH else f"{line[: WIDTH - 3].rstrip()}..." for line in printed)]
    return "".join(f"{line}\n" for line in lines)
