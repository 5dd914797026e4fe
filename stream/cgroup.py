"""The memory limit that the kernel holds this process to: that of its container, or of the service manager's control group."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_UNLIMITED: Final = 2**60
"""Bytes from which a number stands for no limit: control groups of version 1 report nearly 2**63."""

_ROOT: Final = Path("/")


def memory_limit(root: Path = _ROOT) -> int | None:
    """Bytes of the tightest memory limit that applies to this process; None if there is none, or none is visible.

    ``root`` has ``proc`` and ``sys`` in it.
    """
    found = [size for group in _memory_groups(root) for size in _sizes(group) if size < _UNLIMITED]
    return min(found, default=None)


def memory_kills(root: Path = _ROOT) -> int:
    """How many processes beside this one the kernel has killed because the limit was reached, so far; 0 if that is not known."""
    for group in _memory_groups(root):
        for name in ("memory.events", "memory.oom_control"):
            for line in _text(group / name).splitlines():
                match line.split():
                    case ["oom_kill", number] if number.isdecimal():
                        return int(number)
                    case _:
                        pass
    return 0


def _memory_groups(root: Path) -> Iterator[Path]:
    """Folders of the control groups that this process is in, the innermost first. Those outside the container cannot be seen."""
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        match line.split(":", 2):
            case ["0", "", path]:
                places = [mount, mount / "unified"]
            case [_, controllers, path] if "memory" in controllers.split(","):
                places = [mount / "memory"]
            case _:
                continue
        inside = PurePosixPath(path.lstrip("/"))
        for place in places:
            yield from (place / each for each in (inside, *inside.parents))


def _sizes(group: Path) -> Iterator[int]:
    for name in ("memory.max", "memory.limit_in_bytes"):
        text = _text(group / name).strip()
        if text.isdecimal():
            yield int(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
