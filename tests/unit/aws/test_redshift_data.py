# ruff: noqa: S106 - an ARN is no password
"""Against a small server that answers as the API reference says."""

import asyncio
import json

import pytest
from aiohttp import web

from stream.aws.errors import AwsFatal, AwsRetryable
from stream.aws.redshift_data import ColumnInfo, Database, Statement, open_redshift_data
from stream.aws.session import AwsSession

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-central-1"}
SERVERLESS = Database("dev", workgroup="analytics")


def ask(monkeypatch, answers, calls, database=SERVERLESS):
    """What ``calls(client)`` gives, and the requests that were made; ``answers`` in their order, a status with a body each."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    seen, queue = [], list(answers)

    async def receive(request):
        seen.append((request.headers["X-Amz-Target"], json.loads(await request.read()), request.headers["Authorization"]))
        status, body = queue.pop(0)
        return web.json_response(body, status=status) if body is not None else web.Response(status=status, text="<html>")

    async def run():
        app = web.Application()
        app.router.add_post("/", receive)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            session = AwsSession(endpoints={"redshift-data": f"http://127.0.0.1:{runner.addresses[0][1]}"})
            async with open_redshift_data(session, database) as client:
                return await calls(client)
        finally:
            await runner.cleanup()

    return asyncio.run(run()), seen


def test_a_batch_is_one_signed_transaction(monkeypatch):
    answer, seen = ask(monkeypatch, [(200, {"Id": "abc"})], lambda client: client.batch_execute(["SELECT 1", "SELECT 2"], "token"))
    ((target, body, signature),) = seen
    assert (answer, target) == ("abc", "RedshiftData.BatchExecuteStatement")
    assert body == {
        "Database": "dev",
        "WorkgroupName": "analytics",
        "Sqls": ["SELECT 1", "SELECT 2"],
        "ClientToken": "token",
        "ExecutionMode": "TRANSACTION",
    }
    assert "/eu-central-1/redshift-data/aws4_request" in signature


def test_values_are_sent_beside_the_statement(monkeypatch):
    sql, values = "SELECT 1 WHERE 'x' = :a", {"a": "it's; --"}
    _, seen = ask(monkeypatch, [(200, {"Id": "abc"})], lambda client: client.execute(sql, "token", values))
    assert seen[0][1]["Sql"] == sql
    assert seen[0][1]["Parameters"] == [{"name": "a", "value": "it's; --"}]


@pytest.mark.parametrize(
    ("database", "fields"),
    [
        (Database("dev", cluster="main", db_user="me"), {"Database": "dev", "ClusterIdentifier": "main", "DbUser": "me"}),
        (Database("dev", cluster="main", secret_arn="arn:x"), {"Database": "dev", "ClusterIdentifier": "main", "SecretArn": "arn:x"}),
    ],
)
def test_each_kind_of_database_is_addressed_by_its_own_fields(monkeypatch, database, fields):
    _, seen = ask(monkeypatch, [(200, {"Id": "abc"})], lambda client: client.execute("SELECT 1", "token"), database)
    assert seen[0][1] == {**fields, "Sql": "SELECT 1", "ClientToken": "token"}


def test_the_statement_that_failed_is_named(monkeypatch):
    subs = [{"Id": "a:1", "Status": "FINISHED"}, {"Id": "a:2", "Status": "FAILED", "Error": "no", "RedshiftQueryId": 77}]
    body = {"Id": "a", "Status": "FAILED", "Error": "Query #2 failed", "SubStatements": subs}
    found, seen = ask(monkeypatch, [(200, body)], lambda client: client.describe("a", 5))
    assert found == Statement("a", "FAILED", "no", 1, 77)
    assert seen[0][1] == {"Id": "a", "WaitTimeSeconds": 5}


def test_a_result_is_read_to_its_end(monkeypatch):
    columns = [
        {"name": "shard", "typeName": "varchar", "length": 128},
        {"name": "n", "typeName": "numeric", "length": 0, "precision": 20, "scale": 3},
    ]
    pages = [
        (200, {"Records": [[{"stringValue": "a"}, {"longValue": 1}]], "ColumnMetadata": columns, "NextToken": "more"}),
        (200, {"Records": [[{"isNull": True}, {"booleanValue": False}]], "ColumnMetadata": columns}),
    ]
    found, seen = ask(monkeypatch, pages, lambda client: client.result("a"))
    assert found.rows == (("a", 1), (None, False))
    assert found.columns == (ColumnInfo("shard", "varchar", 128), ColumnInfo("n", "numeric", 20, 3))
    assert seen[1][1] == {"Id": "a", "NextToken": "more"}


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, {"__type": "ActiveStatementsExceededException", "message": "200"}, AwsRetryable, "ActiveStatementsExceeded"),
        (400, {"__type": "x#BatchExecuteStatementException", "Message": "resuming"}, AwsRetryable, "resuming"),
        (500, {"__type": "InternalServerException"}, AwsRetryable, "InternalServer"),
        (400, {"__type": "ValidationException", "message": "Sqls"}, AwsFatal, "ValidationException: Sqls"),
        (
            400,
            {"__type": "ValidationException", "message": "Redshift endpoint doesn't exist in this region."},
            AwsFatal,
            "paused.*resume it",
        ),
        (400, {"__type": "ValidationException", "message": "Cluster is in paused state"}, AwsFatal, "Remedy: see whether the cluster is"),
        (400, {"__type": "ResourceNotFoundException", "message": "no workgroup"}, AwsFatal, "check the name"),
        (400, {"__type": "AccessDeniedException", "message": "no"}, AwsFatal, "allow redshift-data:ExecuteStatement on dev of workgroup"),
        (503, None, AwsRetryable, "<html>"),
        (200, {"Nonsense": 1}, AwsRetryable, "not as documented"),
    ],
)
def test_refusals_are_classified_by_what_must_happen(monkeypatch, status, body, kind, words):
    with pytest.raises(kind, match=words):
        ask(monkeypatch, [(status, body)], lambda client: client.execute("SELECT 1", "token"))


def test_a_statement_that_the_service_has_forgotten_has_an_unknown_outcome(monkeypatch):
    """A process that was frozen for a day asks for it, and then the ledger says whether the load was done."""
    gone = (400, {"__type": "ResourceNotFoundException", "message": "Query does not exist."})
    for calls in (lambda client: client.describe("a"), lambda client: client.result("a")):
        with pytest.raises(AwsRetryable, match=r"Query does not exist\. The service forgets"):
            ask(monkeypatch, [gone], calls)


def test_a_call_without_an_answer_has_an_unknown_outcome(monkeypatch):
    async def calls(client):
        client._url = "http://127.0.0.1:9/"
        await client.execute("SELECT 1", "token")

    with pytest.raises(AwsRetryable, match="no answer"):
        ask(monkeypatch, [], calls)
