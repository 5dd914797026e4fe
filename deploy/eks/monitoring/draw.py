"""Draws the dashboard while a pipeline runs, as Grafana would lay it out: ``python -m deploy.eks.monitoring.draw PICTURE``."""

import json
import math
import re
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import matplotlib as mpl

from deploy.eks.monitoring.running import ROOT, demo

mpl.use("Agg")
from matplotlib import pyplot as plt

SECONDS = 100
UNITS = {"s": "s", "percentunit": "%", "rps": "records/s", "ops": "1/s", "Bps": "B/s", "bytes": "B", "none": ""}
FILLED = {"$namespace": ".*", "$stream": ".*", "$__rate_interval": "15s"}
WIDE, HIGH = 0.72, 0.34
"""Inches for one column and one line of Grafana's grid."""


def human(value, unit):
    if unit == "percentunit":
        return f"{value * 100:.2g} %"
    if unit == "s" and abs(value) >= 3600:
        return f"{value / 3600:.3g} h"
    for limit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{sign} {UNITS[unit]}".strip()
    return f"{value:.3g} {UNITS[unit]}".strip()


def legend(pattern, labels):
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), pattern).strip()


def filled(expr):
    for name, value in FILLED.items():
        expr = expr.replace(name, value)
    return expr


def draw_panel(axes, panel, prometheus):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    series = [
        (legend(target["legendFormat"], labels), [(at, value) for at, value in points if math.isfinite(value)])
        for target in panel["targets"]
        for labels, points in prometheus.over(filled(target["expr"]), SECONDS, 1)
    ]
    series = [(name, points) for name, points in series if points]
    axes.set_title(panel["title"], fontsize=8, loc="left", color="#ddd")
    axes.set_facecolor("#181b1f")
    for spine in axes.spines.values():
        spine.set_color("#333")
    if not series:
        axes.text(
            0.5,
            0.5,
            panel["fieldConfig"]["defaults"].get("noValue", "no data"),
            ha="center",
            va="center",
            color="#888",
            transform=axes.transAxes,
        )
    elif panel["type"] == "stat":
        text = "\n".join(human(points[-1][1], unit) for _, points in series[:2])
        axes.text(0.5, 0.45, text, ha="center", va="center", color="#73bf69", fontsize=15, transform=axes.transAxes)
    else:
        for name, points in series:
            axes.plot([datetime.fromtimestamp(at, UTC) for at, _ in points], [value for _, value in points], linewidth=1.1, label=name)
        highest = max(value for _, points in series for _, value in points) or 1
        # The names of the series stand above them; a line at 0 is not hidden by the axis.
        axes.set_ylim(-0.02 * highest, highest * (1.05 + 0.09 * math.ceil(len(series) / 2)))
        axes.yaxis.set_major_formatter(lambda value, _: human(value, unit))
        axes.xaxis.set_major_formatter(mpl.dates.DateFormatter("%H:%M:%S"))
        axes.tick_params(labelsize=6, colors="#aaa")
        axes.locator_params(axis="y", nbins=5)
        axes.grid(color="#2a2d31", linewidth=0.5)
        axes.legend(fontsize=6, loc="upper left", frameon=False, labelcolor="#ccc", ncols=2)
        return
    axes.set_xticks([])
    axes.set_yticks([])


def draw(prometheus, picture):
    shown = json.loads((ROOT / "deploy/eks/chart/dashboards/stream.json").read_text())["panels"]
    lines = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in shown)
    figure = plt.figure(figsize=(24 * WIDE, lines * HIGH), facecolor="#111217")
    for panel in shown:
        place = panel["gridPos"]
        left, bottom = place["x"] / 24, 1 - (place["y"] + place["h"]) / lines
        if panel["type"] == "row":
            figure.text(left + 0.005, bottom + 0.3 / lines, panel["title"], color="#fff", fontsize=11, weight="bold")
            continue
        box = (left + 0.048, bottom + 0.9 / lines, place["w"] / 24 - 0.058, (place["h"] - 1.8) / lines)
        draw_panel(figure.add_axes(box), panel, prometheus)
    figure.savefig(picture, dpi=70, facecolor=figure.get_facecolor())
    plt.close(figure)


def main():
    with tempfile.TemporaryDirectory() as folder, demo(Path(folder)) as prometheus:
        Event().wait(SECONDS + 20)
        draw(prometheus, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
