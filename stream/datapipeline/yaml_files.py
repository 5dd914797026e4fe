"""Writes pipeline files and values for the Helm chart, as YAML with comments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from stream.datapipeline.draft import Draft
from stream.datapipeline.evaluated_text import shown

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[ ./()=<>-][A-Za-z0-9_().]+)*\??")
_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_WIDTH: Final = 130


class _Dumper(yaml.SafeDumper):
    """Quotes every text that some YAML parser could take for another type."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    plain = _PLAIN.fullmatch(value) is not None and value.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')


_Dumper.add_representer(str, _text)
_Dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]


def _yaml(data: Mapping[str, Any]) -> str:
    text: str = yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, width=4096, allow_unicode=True, default_flow_style=False)
    return text


def _comment(text: str) -> str:
    """``text`` as lines of a comment."""
    lines, line = [], "#"
    for word in text.split():
        if len(line) + len(word) >= _WIDTH:
            lines.append(line)
            line = "#  "
        line += f" {word}"
    return "\n".join([*lines, line])


def pipeline_text(draft: Draft, definition: str, stages: list[Any]) -> str:
    """The pipeline file of ``draft``. Comments at the top say what is left to do."""
    head = [
        f"Written by `stream import` from the activity `{draft.activity.id}` of {definition}; report.md says what became of each field."
    ]
    head += [
        f"The environment variable {name} must be set for each run; in Airflow, to {template}."
        for name, template in shown(draft.run_times.times, draft.interval).items()
    ]
    if draft.todo:
        head += ["Before the first run:", *(f"- {each}" for each in draft.todo)]
    document: dict[str, Any] = {"application": draft.application, "source": draft.source}
    if stages:
        document["stages"] = stages
    document |= {"sinks": [draft.sink], "state": f"${{STATE:-{draft.state}}}"}
    if draft.notify:
        document["notify"] = {"sns": draft.notify}
    if draft.requires:
        document["requires"] = draft.requires
    return "\n".join(_comment(each) for each in head) + "\n" + _yaml(document)


def values_text(draft: Draft) -> str:
    """The values file of ``draft`` for the Helm chart."""
    what = "Values for the Helm chart in deploy/eks/chart, see docs/eks.md."
    head = [f"{what} Add `image`, and install the chart with --set-file pipeline.file=pipeline.yaml"]
    values = dict(draft.values)
    if draft.suspended or draft.run_times.times:
        head.append("`replicas: 0` suspends the schedule: start a run with `kubectl create job --from=cronjob/NAME`, or from Airflow.")
        values["replicas"] = 0
    return "\n".join(_comment(each) for each in head) + "\n" + _yaml(values)
