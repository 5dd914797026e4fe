"""The chart's dashboard and rules as files: `make docs` writes them, a test compares them."""

import json
from collections.abc import Iterator

import yaml

from deploy.eks.monitoring.alerts import rules
from deploy.eks.monitoring.panels import dashboard

CHART = "deploy/eks/chart"


def files() -> Iterator[tuple[str, str]]:
    """Path and content of each."""
    yield f"{CHART}/dashboards/stream.json", json.dumps(dashboard(), indent=2) + "\n"
    yield (
        f"{CHART}/rules/stream.yaml",
        "# Made by `make docs` from deploy/eks/monitoring/alerts.py.\n" + yaml.safe_dump(rules(), sort_keys=False, width=150),
    )
