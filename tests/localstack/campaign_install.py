"""Every command of docs/install.md, unchanged and in order, with LocalStack in place of AWS."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from tests.forked import ROOT
from tests.localstack.running import aws_command

PATIENCE = 420
"""Seconds for the whole section; the alert waits for a minute by itself, and CloudFormation's waiter for half a minute."""


def page() -> str:
    return (ROOT / "docs" / "install.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```sh {kind}\n(.*?)^```$", page(), re.DOTALL | re.MULTILINE)


def test_every_line_of_the_page_works_and_the_alert_fires(url: str, tmp_path: Path) -> None:
    for port in (9464, 9090):
        with socket.socket() as one:
            assert one.connect_ex(("127.0.0.1", port)) != 0, f"something else listens on {port}, which the page uses"
    for name in ("deploy", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "bin").mkdir()
    python, command = aws_command()
    for name, target in (("aws", [python, command]), ("stream", [sys.executable, "-m", "stream"])):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec {" ".join(target)} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    (place,) = blocks("localstack")
    assert "http://127.0.0.1:4566 " in place
    steps = blocks("walk")
    assert [len(steps), len(re.findall(r"^\*\*\d\. ", page(), re.MULTILINE))] == [8, 8]
    # Each step says that it has come to its end; a command that fails ends everything, and whatever it left running.
    reported = "".join(f"{step}printf '\\nstep {number} is done\\n'\n" for number, step in enumerate(steps, 1))
    begin = "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\nexec 9> trace\nBASH_XTRACEFD=9\nset -x\n"
    (tmp_path / "walk.sh").write_text(f"{begin}{place.replace('http://127.0.0.1:4566', url)}{reported}")
    here = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "STREAM", "STATE", "LAKE"))}
    here |= {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "AWS_EC2_METADATA_DISABLED": "true"}
    with (tmp_path / "said").open("wb") as said:
        walk = subprocess.run(["bash", "walk.sh"], cwd=tmp_path, env=here, stdout=said, stderr=said, timeout=PATIENCE, check=False)
    shown = (tmp_path / "said").read_text()
    log = (tmp_path / "worker.log").read_text() if (tmp_path / "worker.log").exists() else ""
    assert walk.returncode == 0, f"{shown}\n{log}\n{(tmp_path / 'trace').read_text()}"
    assert re.findall(r"^step (\d) is done$", shown, re.MULTILINE) == list("12345678")
    # The alert was seen in the answer of Prometheus, and the worker that had a halted shard said so by its exit code.
    assert '"alertname":"StreamShardHalted"' in shown
    assert "exit code 1" in shown
    assert re.search(r"\b1,?500\b", shown.partition("step 6 is done")[2]), shown
    heard = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [each["event"] for each in heard if each["level"] == "error"] == ["shard_halted", "worker_failed"]
