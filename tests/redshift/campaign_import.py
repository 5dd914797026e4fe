# ruff: noqa: S608 - the names of tables are our own
"""A RedshiftCopyActivity of AWS Data Pipeline, imported: of each key the last row counts, as before."""

import json
from decimal import Decimal

from typer.testing import CliRunner

from stream.cli.main import app
from tests.redshift.conftest import KEYS


def definition(world):
    """Deliveries with pipes, merged by a key that the table calls by another name."""
    columns = "order_id integer NOT NULL, state varchar(10), amount numeric(8,2)"
    statement = f"CREATE TABLE IF NOT EXISTS {world.table} ({columns})"
    references = {"primaryKeys": "order_id", "database": {"ref": "Base"}}
    objects = [
        {
            "id": "Load",
            "type": "RedshiftCopyActivity",
            "input": {"ref": "Files"},
            "output": {"ref": "Table"},
            "insertMode": "OVERWRITE_EXISTING",
            "transformSql": "SELECT id AS order_id, UPPER(state) AS state, amount FROM staging WHERE id > 0",
        },
        {"id": "Files", "type": "S3DataNode", "directoryPath": f"s3://{world.bucket}/in/", "dataFormat": {"ref": "Pipes"}},
        {"id": "Pipes", "type": "Custom", "columnSeparator": "|", "column": ["id INT", "state STRING", "amount DECIMAL(8,2)"]},
        {"id": "Table", "type": "RedshiftDataNode", "tableName": world.table, "createTableSql": statement, **references},
        {"id": "Base", "type": "RedshiftDatabase", "clusterId": "main", "databaseName": "dev", "username": "loader", "*password": "canary"},
    ]
    return json.dumps({"objects": objects})


def test_for_each_key_the_row_of_the_last_delivery_counts(world, s3, tmp_path):
    (tmp_path / "old.json").write_text(definition(world))
    environment = {**KEYS, **world.environment(), "AWS_ENDPOINT_URL_S3": s3.meta.endpoint_url}

    def run(*words):
        return CliRunner().invoke(app, words, env=environment)

    made = run("import", str(tmp_path / "old.json"))
    assert made.exit_code == 1, made.output
    folder = tmp_path / "old" / "load"
    world.query((folder / "create-table.sql").read_text())
    file = folder / "pipeline.yaml"
    file.write_text(file.read_text() + "metrics: {port: 0}\n")
    for number, text in enumerate(("1|late|\n1|open|1.50\n2|open|\n-3|open|9\n", "2|paid|2.25\n4||4\n")):
        s3.put_object(Bucket=world.bucket, Key=f"in/{number}.txt", Body=text.encode())
        done = run("run", str(file), "--once")
        assert done.exit_code == 0, done.output
    world.query((folder / "view.sql").read_text())
    assert world.query(f'SELECT COUNT(*) FROM "{world.table}"') == [(5,)]
    last = [(1, "OPEN", Decimal("1.50")), (2, "PAID", Decimal("2.25")), (4, "", Decimal("4.00"))]
    assert last_rows(world) == last
    world.query(f'UPDATE "{world.table}" SET _arrival = (SELECT MIN(_arrival) FROM "{world.table}")')  # as if written in one second
    assert last_rows(world) == last


def last_rows(world):
    rows = world.query(f'SELECT order_id, state, amount FROM "{world.table}_last" ORDER BY order_id')
    return [tuple(row) for row in rows]
