"""What a worker asks of AWS, in good and in bad days, is what `stream iam` allows: nothing more is needed, nothing is allowed in vain."""

from __future__ import annotations

import io

import polars as pl

from stream.pipeline.access import Account
from stream.pipeline.grants import allows
from stream.pipeline.lint import check
from stream.pipeline.roles import Role, accesses, policy
from tests.recording import ACCOUNT, REGION, recording

LOOKUP = '  - lookup: {{table: "s3://{bucket}/reference/kinds.parquet", on: kind, take: {{named: name}}, missing: "null"}}'
MASK = "  - mask: {columns: [note], method: keyed_hash, key: {env: MASK_KEY}}"


def test_the_actions_of_a_worker_are_those_of_its_policy(make_world):
    world = make_world(2, s3=True)
    table = io.BytesIO()
    pl.DataFrame({"kind": ["a", "b", "c"], "name": ["A", "B", "C"]}).write_parquet(table)
    world.s3.put_object(Bucket=world.bucket, Key="reference/kinds.parquet", Body=table.getvalue())
    path = world.pipeline(stages=f"{LOOKUP.format(bucket=world.bucket)}\n{MASK}")
    made = check(path, {"MASK_KEY": "any"})
    assert made.pipeline is not None, [finding.render() for finding in made.findings]
    with recording(world.environment["AWS_ENDPOINT_URL_S3"]) as (s3, objects), recording(world.url, world.stream) as (kinesis, records):
        world.environment = {**world.environment, "AWS_ENDPOINT_URL_S3": s3, "AWS_ENDPOINT_URL_KINESIS": kinesis}
        world.produce(300)
        # Dies with an intent; the next one cannot make the same bytes, replaces the files and takes back the ones that were announced.
        world.crash(path, "IntentCreated", MASK_KEY="before")
        world.split()
        world.produce(100)
        world.finish(path, MASK_KEY="after")
        seen = objects.seen | records.seen
    document = policy(accesses(made.pipeline, Role.WORKER, Account(ACCOUNT, REGION)))
    refused = sorted(each for each in seen if not allows(document, each.action, each.resource, each.prefix))
    assert refused == []
    allowed = {action for statement in document["Statement"] for action in statement["Action"]}
    assert {each.action for each in seen} == allowed
    for statement in document["Statement"]:
        for resource in statement["Resource"]:
            part = {"Statement": [{**statement, "Resource": [resource]}]}
            assert any(allows(part, each.action, each.resource, each.prefix) for each in seen), f"{resource} is allowed in vain"
