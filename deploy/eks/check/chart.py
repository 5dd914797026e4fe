"""Renders the chart as `helm template` would, and returns the objects."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import helm_python
import yaml

ROOT: Final = Path(__file__).parents[3]
CHART: Final = ROOT / "deploy/eks/chart"
LOCAL: Final = (ROOT / "examples/flights/pipeline.yaml").read_text()
NATIVE: Final = LOCAL.replace("application: flights\n", "application: flights\ncoordination: native\n")
FLEET: Final = {"pipeline": {"file": NATIVE}, "replicas": 3}
SCALED: Final = {"pipeline": {"file": NATIVE}, "autoscaling": {"enabled": True, "prometheus": "http://prometheus.monitoring:9090"}}
IRSA: Final = {"identity": {"kind": "irsa", "roleArn": "arn:aws:iam::111122223333:role/flights"}}
ALL: Final = SCALED | {
    "nameOverride": "kinesis",
    "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": ["registry"]},
    "drainSeconds": 90,
    "terminationGracePeriodSeconds": 120,
    "logLevel": "debug",
    "env": {"STATE": "s3://lake/_stream/", "A_NUMBER": "1"},
    "secretEnv": {"MASK_KEY": {"secret": "flights", "key": "mask"}},
    "envFrom": [{"secretRef": {"name": "more"}}],
    "collector": {"endpoint": "http://$(HOST_IP):4318"},
    "resources": {"requests": {"cpu": "1500m", "memory": "2Gi"}, "limits": {"cpu": 4, "memory": "2Gi"}},
    "serviceAccount": {"annotations": {"team": "data"}},
    "region": "eu-west-1",
    "preflight": {"enabled": True},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "rules": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboards": {"enabled": True, "annotations": {"folder": "stream"}},
    "networkPolicy": {"extraEgress": [{"ports": [{"protocol": "TCP", "port": 5439}]}], "httpsCidrs": ["10.0.0.0/8"]},
    "volumes": [{"name": "tables", "persistentVolumeClaim": {"claimName": "tables", "readOnly": True}}],
    "volumeMounts": [{"name": "tables", "mountPath": "/tables", "readOnly": True}],
    "podLabels": {"team": "data"},
    "podAnnotations": {"note": "true"},
    "nodeSelector": {"kubernetes.io/arch": "arm64"},
    "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
}
CLOCK: Final = {"schedule": {"cron": "30 2 * * 1-5", "timeZone": "Europe/Berlin", "attempts": 5, "deadlineSeconds": 3600}}
ALL_BY_CLOCK: Final = {key: value for key, value in ALL.items() if key not in {"autoscaling", "rules"}} | CLOCK
MATRIX: Final[dict[str, dict[str, Any]]] = {
    "least": {},
    "fleet": FLEET,
    "scaled": SCALED,
    "irsa": IRSA,
    "existing config map": {"pipeline": {"file": "", "existingConfigMap": "mine", "coordination": "native"}, "replicas": 2},
    "existing service account": {"serviceAccount": {"create": False, "name": "mine"}},
    "files beside": {"pipeline": {"files": {"carriers.csv": "carrier,name\nUA,United\n", "a.proto": 'syntax = "proto3";\n'}}},
    "nothing optional": {"disruptionBudget": {"enabled": False}, "networkPolicy": {"enabled": False}},
    "https collector": {"collector": {"endpoint": "https://collector.example.com/otlp"}},
    "standing still": {"replicas": 0},
    "everything": ALL,
    "by the clock": {"schedule": {"cron": "@hourly"}},
    "by the clock, suspended": CLOCK | {"replicas": 0},
    "by the clock, everything": ALL_BY_CLOCK,
}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid upon ``base``, map by map, as Helm does it."""
    made = copy.deepcopy(dict(base))
    for key, value in over.items():
        made[key] = merged(made[key], value) if isinstance(value, Mapping) and isinstance(made.get(key), Mapping) else value
    return made


def values(over: Mapping[str, Any]) -> dict[str, Any]:
    """The least that a release needs, and ``over``."""
    return merged({"image": {"repository": "registry.example.com/stream"}, "pipeline": {"file": LOCAL}}, over)


def text(over: Mapping[str, Any], chart: Path = CHART, name: str = "flights") -> str:
    """All manifests as one text.

    Raises:
        helm_python.HelmError: the values do not fit the schema, or a check of the chart refuses them.
    """
    with helm_python.Chart.load(str(chart)) as loaded:
        loaded.validate_schema(values(over))
        made = loaded.render(values(over), name=name, namespace="prod")
    return "\n---\n".join(made[path] for path in sorted(made) if path.endswith(".yaml") and made[path].strip())


def objects(over: Mapping[str, Any], chart: Path = CHART, name: str = "flights") -> list[dict[str, Any]]:
    """All objects."""
    return [each for each in yaml.safe_load_all(text(over, chart, name)) if each]


def one(kind: str, over: Mapping[str, Any], chart: Path = CHART) -> dict[str, Any]:
    """The only object of ``kind``."""
    (found,) = [each for each in objects(over, chart) if each["kind"] == kind]
    return found


def template(over: Mapping[str, Any]) -> dict[str, Any]:
    """What the only Deployment, or the only CronJob in its place, makes pods from."""
    (found,) = [each["spec"] for each in objects(over) if each["kind"] in {"Deployment", "CronJob"}]
    made: dict[str, Any] = found.get("jobTemplate", {}).get("spec", found)["template"]
    return made


def pod(over: Mapping[str, Any]) -> dict[str, Any]:
    """Its pod."""
    found: dict[str, Any] = template(over)["spec"]
    return found


def notes(over: Mapping[str, Any]) -> str:
    """What `helm install` tells at its end."""
    with helm_python.Chart.load(str(CHART)) as loaded:
        made = loaded.render(values(over), name="flights", namespace="prod")
    (told,) = [text for path, text in made.items() if path.endswith("NOTES.txt")]
    return str(told)


def worker(over: Mapping[str, Any]) -> dict[str, Any]:
    """The container that works."""
    (found,) = pod(over)["containers"]
    return dict(found)


def with_files(folder: Path) -> Path:
    """A copy of the chart with a file of rules and a dashboard that hold what a template would choke on."""
    chart = Path(shutil.copytree(CHART, folder / "stream"))
    (chart / "rules" / "sample.yaml").write_text(RULES)
    (chart / "dashboards" / "sample.json").write_text('{"title": "Sample {{shard}}", "uid": "sample", "panels": []}\n')
    return chart


RULES: Final = """
groups:
  - name: sample
    rules:
      - alert: ShardHalted
        expr: max by (stream, shard) (kst_shard_halted) > 0
        for: 1m
        labels: {severity: page}
        annotations: {summary: "{{ $labels.shard }} of {{ $labels.stream }} stands still"}
"""


def leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of everything in ``tree`` that is not a map."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)
