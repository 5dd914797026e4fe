"""The templates, the pipeline and the query of docs/changes.md: a history gives the table as it is, whatever came late or twice."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import duckdb

from tests.docs.commands import block, carried_out, commands
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "changes.md").read_text()
COMMANDS = commands(PAGE, "sh changes")
PIPELINE = block(PAGE.partition("## What DMS sends")[2], "yaml pipeline")
LAST_STATE = block(PAGE, "sql changes")
START = datetime(2026, 1, 1, 6, tzinfo=UTC)


def test_the_cases_of_the_templates_on_the_page_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = [carried_out(line).stdout for line in COMMANDS]
    assert [text.splitlines()[-1].rpartition(",")[2] for text in said[3:]] == [" 0 failed"] * 3


def change(minute, operation, row, before=None):
    metadata = {"record-type": "data", "operation": operation, "schema-name": "public", "table-name": "orders"}
    image = {} if before is None else {"before-image": before}
    return {"data": row, **image, "metadata": {**metadata, "timestamp": (START + timedelta(minutes=minute)).isoformat()}}


def order(number, state=None, amount=None):
    return {"order_id": number, "state": state, "amount": amount}


def test_the_query_on_the_page_finds_the_last_state_in_the_history(tmp_path, monkeypatch):
    paid = change(2, "update", order(1, "paid", "9.50"), order(1, "new", "9.50"))
    changes = [
        change(0, "load", order(1, "new", "9.50")),
        paid,
        change(1, "update", order(1, "open", "9.50"), order(1, "new")),  # late: it was before `paid`
        paid,  # twice
        change(0, "insert", order(2, "new", "1.00")),
        change(5, "delete", {"order_id": 2}),
        change(4, "update", order(2, "late", "1.00"), {}),
        change(0, "insert", order(3, "new", "7.00")),
        change(6, "update", order(4, "moved", "7.00"), {"order_id": 3}),
    ]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text("\n".join(json.dumps(each) for each in changes))
    text = PIPELINE.replace("kinesis: {stream: orders-cdc, start: trim_horizon}", 's3: {url: "file:./in", name: orders}')
    text = text.replace("before_image: before-image", "before_image: before-image, keys: order_id").replace("s3://", "file:./")
    (tmp_path / "pipeline.yaml").write_text(f"{text}metrics: {{port: 0}}\n")
    monkeypatch.chdir(tmp_path)
    carried_out("stream run pipeline.yaml --once")

    with duckdb.connect() as lake:
        found = lake.execute(LAST_STATE).fetchall()
        old = lake.execute(
            "SELECT before.state, state_changed FROM read_parquet('lake/orders_history/**/*.parquet') WHERE state = 'paid'"
        ).fetchall()
    assert sorted(found) == [(1, "paid", Decimal("9.50")), (4, "moved", Decimal("7.00"))]
    assert old == [("new", True)] * 2
