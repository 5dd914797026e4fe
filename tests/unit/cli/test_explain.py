from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from tests.unit.pipeline.definitions import EXAMPLES

FLIGHTS = str(EXAMPLES / "flights" / "pipeline.yaml")
RATE = ("--records-per-second", "1000", "--record-bytes", "300", "--shards", "4")


def run(*arguments, **env):
    return CliRunner().invoke(app, ["explain", *arguments], env={"MASK_KEY": None, **env})


def test_plan_permissions_and_cost_are_shown():
    result = run(FLIGHTS, *RATE)
    assert result.exit_code == 0, result.stderr
    assert "+ airline string" in result.stdout
    assert "kinesis:GetRecords" in result.stdout
    assert "ended by age: 15,000 records" in result.stdout
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) > 200, "lines are not wrapped where nobody reads a terminal"


def test_json_has_plan_permissions_and_cost():
    result = run(FLIGHTS, *RATE, "--json", "--account", "111122223333", "--region", "eu-west-1")
    document = json.loads(result.stdout)
    assert [stop["name"] for stop in document["plan"]["stops"]][:3] == ["decode", "1:filter", "2:derive"]
    assert document["access"][0]["resources"] == ["arn:aws:kinesis:eu-west-1:111122223333:stream/flights"]
    assert document["estimate"]["cuts"]["trigger"] == "age"
    assert document["estimate"]["dollars"] > 0


@pytest.mark.parametrize(
    ("kind", "budget", "memory"),
    [
        ("json", "256MiB", "give its container 1,024 MiB, at least 512 MiB (memory.budget is 256 MiB)"),
        ("json", "64MiB", "give its container 256 MiB, at least 256 MiB (memory.budget is 64 MiB)"),
        ("parquet", "256MiB", "give its container 1,536 MiB, at least 1,024 MiB; 512 MiB of it are for the processes that read Parquet"),
    ],
)
def test_the_memory_of_a_container_is_shown(tmp_path, kind, budget, memory):
    file = tmp_path / "p.yaml"
    file.write_text(
        f"application: a\nsource:\n  s3: {{url: s3://archive/in/, format: {kind}}}\n  schema: {{n: int64}}\n"
        f"sinks:\n  - s3: {{url: s3://lake/a/}}\nstate: s3://lake/_stream/\nmemory: {{budget: {budget}}}\nflush: {{bytes: 16MiB}}\n"
    )
    assert memory in run(str(file)).stdout
    counted = json.loads(run(str(file), "--json").stdout)["memory"]
    assert counted["advised"] == max(256 * 2**20, 4 * counted["budget"]) + counted["readers"]


def test_without_a_rate_there_is_no_cost():
    assert json.loads(run(FLIGHTS, "--json").stdout)["estimate"] is None
    assert "dollars" not in run(FLIGHTS).stdout


def test_a_secret_is_never_shown():
    result = run(FLIGHTS, MASK_KEY="hidden-value")
    assert result.exit_code == 0
    assert "hidden-value" not in result.stdout + result.stderr
    assert "env:MASK_KEY" in result.stdout


def test_prices_can_be_replaced(tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("s3_put_per_1000: 0\ns3_gb_month: 0\n")
    assert json.loads(run(FLIGHTS, *RATE, "--json", "--prices", str(prices)).stdout)["estimate"]["dollars"] == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [("s3_put: 1", "no price 's3_put'"), ("[1]", "contains no prices"), ("{", "cannot be read"), (None, "cannot be read")],
)
def test_invalid_prices_are_refused(tmp_path, content, says):
    prices = tmp_path / "prices.yaml"
    if content is not None:
        prices.write_text(content)
    result = run(FLIGHTS, *RATE, "--prices", str(prices))
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_an_invalid_pipeline_shows_its_findings(tmp_path):
    (tmp_path / "p.yaml").write_text("application: x\n")
    result = run(str(tmp_path / "p.yaml"))
    assert result.exit_code == 2
    assert "p.yaml:1:1 missing_key" in result.stderr


def test_an_invalid_rate_is_refused():
    result = run(FLIGHTS, "--records-per-second", "0")
    assert result.exit_code == 2
    assert "larger than 0" in result.stderr
