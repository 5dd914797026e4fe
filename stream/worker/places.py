"""Where a pipeline's URLs lead on this machine."""

from __future__ import annotations

from pathlib import Path


def located(url: str, base: Path) -> str:
    """``url`` with a relative ``file:`` path made absolute, beginning at ``base``."""
    scheme, _, path = url.partition(":")
    if scheme != "file" or path.startswith("//"):
        return url
    return f"file:{(base / path).absolute()}"
