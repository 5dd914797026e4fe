"""The chart of a benchmark: one bar per contestant and shape, with the spread of its runs."""

from __future__ import annotations

from statistics import median
from typing import Any, Final

WIDTH: Final = 860
LEFT: Final = 170
BAR: Final = 18
GAP: Final = 8
HEAD: Final = 34
OURS: Final = "#1f6feb"
THEIRS: Final = "#9aa4b0"


def bars(tables: dict[str, Any]) -> str:
    """An SVG image; a bar is the median in MB of payload per CPU second, the thin line the range from minimum to maximum."""
    most = max(max(row["mb_per_cpu_second"]) for table in tables.values() for row in table["contestants"].values())
    scale, top, parts = (WIDTH - LEFT - 120) / most, 10, []
    for shape, table in tables.items():
        mean = table["payload_bytes"] / table["records"]
        parts.append(f'<text x="8" y="{top + 18}" font-weight="bold">{shape}, {mean:.0f} bytes: MB of payload per CPU second</text>')
        top += HEAD
        for name, row in table["contestants"].items():
            parts += _bar(name, row, top, scale)
            top += BAR + GAP
    style = 'font-family="sans-serif" font-size="13"'
    canvas = f'<rect width="{WIDTH}" height="{top + 10}" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top + 10}" {style}>{canvas}{"".join(parts)}</svg>\n'


def _bar(name: str, row: dict[str, Any], top: int, scale: float) -> list[str]:
    runs, middle = row["mb_per_cpu_second"], top + BAR // 2
    end, least, most = (LEFT + value * scale for value in (median(runs), min(runs), max(runs)))
    colour = OURS if name.startswith("stream") else THEIRS
    return [
        f'<text x="{LEFT - 8}" y="{top + 14}" text-anchor="end">{name}</text>',
        f'<rect x="{LEFT}" y="{top}" width="{end - LEFT:.1f}" height="{BAR}" fill="{colour}"/>',
        f'<path d="M{least:.1f} {middle}H{most:.1f}M{least:.1f} {middle - 4}v8M{most:.1f} {middle - 4}v8" stroke="black"/>',
        f'<text x="{max(end, most) + 8:.1f}" y="{top + 14}">{median(runs):.1f} ({row["ratio"]:.1f}x)</text>',
    ]
