"""The Docker composition, as far as it can be checked without Docker: mounts exist, and nothing outside can reach it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[3] / "deploy" / "local"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "docker-compose.yml").read_text())["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_only_this_machine_can_reach_the_services(name: str) -> None:
    assert SERVICES[name]["ports"]
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in SERVICES[name]["ports"])


@pytest.mark.parametrize("name", SERVICES)
def test_everything_that_is_mounted_or_built_exists(name: str) -> None:
    service = SERVICES[name]
    mounted = [volume.split(":")[0] for volume in service.get("volumes", ()) if volume.startswith(".")]
    assert all((FOLDER / place).exists() for place in mounted)
    if (build := service.get("build")) is not None:
        root = FOLDER / build["context"]
        admitted = [line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")]
        copied = re.findall(r"^COPY (\S+)", build["dockerfile_inline"], re.MULTILINE)
        assert copied
        assert all((root / each).exists() for each in copied)
        assert all(any(Path(each).match(pattern) for pattern in admitted) for each in copied)
    else:
        assert re.search(r":\d+\.\d+\.\d+@sha256:[0-9a-f]{64}$", service["image"]), (
            "what is not named by its digest is another image tomorrow"
        )


def test_services_wait_for_healthy_dependencies() -> None:
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert SERVICES[other]["healthcheck"]["test"]


def test_the_collector_receives_on_its_published_port() -> None:
    config = yaml.safe_load((FOLDER / "collector.yml").read_text())
    port = SERVICES["collector"]["ports"][0].rpartition(":")[2]
    assert config["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(f":{port}")
    for pipeline in config["service"]["pipelines"].values():
        assert set(pipeline["receivers"]) <= set(config["receivers"])
        assert set(pipeline["exporters"]) <= set(config["exporters"])
