"""What `stream iam` prints, and the role of the template, judged by an evaluator of IAM that is not ours: everything needed is allowed,
and every other action of the services, and every other resource, is not."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from stream.pipeline.access.actions import Account, needed
from stream.pipeline.access.roles import Role, accesses, policy
from stream.pipeline.coordination import Coordination
from stream.pipeline.model import Pipeline

ROOT = Path(__file__).parents[3]
TEMPLATE = ROOT / "deploy" / "eks" / "cloudformation" / "stream.yaml"
INSTALLED = ROOT / ".make" / "iam"
HERE = Account("111122223333", "eu-west-1")
KEY = "arn:aws:kms:eu-west-1:111122223333:key/11111111-2222-3333-4444-555555555555"
MASK = {"mask": {"columns": ["carrier"], "method": "keyed_hash", "key": {"secrets_manager": "prod/mask#key"}}}
LOOKUP = {"lookup": {"table": "s3://reference/airlines.parquet", "on": "carrier", "take": ["name"]}}
TABLE = {
    "staging": "s3://lake/staging/",
    "table": "flights",
    "database": "dev",
    "cluster": "main",
    "db_user": "loader",
    "iam_role": "default",
}
PIPELINE = Pipeline.model_validate(
    {
        "application": "flights",
        "source": {"kinesis": {"streams": ["flights", "other"], "retrieval": "fan_out"}, "schema": {"carrier": "string"}},
        "stages": [LOOKUP, MASK],
        "sinks": [{"s3": {"url": "s3://lake/flights/"}}, {"redshift": TABLE}],
        "state": "s3://state/_stream/",
        "coordination": "native",
        "notify": {"sns": "arn:aws:sns:eu-west-1:111122223333:halted"},
        "requires": ["s3://lake/in/_SUCCESS"],
    }
)
"""Whatever a pipeline can use."""

UNDER_KCL = PIPELINE.model_copy(update={"coordination": Coordination.model_validate("kcl")})
UNDER_FIREHOSE = PIPELINE.model_copy(update={"sinks": PIPELINE.sinks[:1]})
EVERY = pytest.mark.parametrize("pipeline", [PIPELINE, UNDER_KCL], ids=["native", "kcl"])
_ROLES = (Role.WORKER, Role.BACKFILL, Role.BOOTSTRAP, Role.READER, Role.ANALYST, Role.FUNCTION, Role.OPERATOR, Role.COMPACTOR)
CASES = pytest.mark.parametrize(
    ("role", "pipeline"),
    [
        *(
            pytest.param(role, pipeline, id=f"{name}-{role}")
            for role in _ROLES
            for name, pipeline in (("native", PIPELINE), ("kcl", UNDER_KCL))
        ),
        *(pytest.param(role, UNDER_FIREHOSE, id=role.value) for role in (Role.TRANSFORM, Role.FIREHOSE)),
    ],
)

ANY = {"redshift-data:DescribeStatement", "redshift-data:GetStatementResult"}
"""Actions that IAM asks about without a resource."""
ELSEWHERE = {
    "kinesis": "arn:aws:kinesis:eu-west-1:111122223333:stream/private",
    "s3": "arn:aws:s3:::private/a",
    "secretsmanager": "arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/other-AbCdEf",
    "dynamodb": "arn:aws:dynamodb:eu-west-1:111122223333:table/private",
    "kms": "arn:aws:kms:eu-west-1:111122223333:key/99999999-2222-3333-4444-555555555555",
    "sns": "arn:aws:sns:eu-west-1:111122223333:private",
    "redshift-data": "arn:aws:redshift:eu-west-1:111122223333:cluster:private",
    "redshift": "arn:aws:redshift:eu-west-1:111122223333:dbuser:private/loader",
}
CONSUMERS = {"kinesis:DescribeStreamConsumer", "kinesis:SubscribeToShard"}


def elsewhere(action):
    """A resource of a kind that the action takes, which no policy should allow."""
    found = ELSEWHERE[action.partition(":")[0]]
    return f"{found}/consumer/flights:1" if action in CONSUMERS else found


def judge(document, requests, services=()):
    """One result for each of ``requests``, (action, resource, context); and all actions of ``services``."""
    asked = [{"action": action, "resource": resource, "account": HERE.number, "context": context} for action, resource, context in requests]
    text = json.dumps({"policy": document, "requests": asked, "services": list(services)})
    done = subprocess.run(["node", "iam.mjs"], cwd=INSTALLED, input=text, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert len(answer["results"]) == len(requests)
    return answer["results"], answer["actions"]


def concrete(pattern):
    """A resource that the pattern stands for."""
    some = "log-stream:1" if ":log-group:" in pattern else "1"
    return pattern if pattern == "*" else pattern.replace("?", "x").replace("*", some)


OF_THE_GROUP = {"logs:CreateLogStream"}
"""AWS wants the ARN of a log group in a policy to end in `:*`, which is none of the forms that the evaluator takes."""


def requests_of(needs):
    return [
        (action, concrete(resource), {"s3:prefix": concrete(each.prefixes[0])} if each.prefixes else {})
        for each in needs
        for action in each.actions
        for resource in each.resources
        if action not in OF_THE_GROUP
    ]


@CASES
def test_everything_that_is_needed_is_allowed(role, pipeline):
    needs = accesses(pipeline, role, HERE)
    asked = requests_of(needs)
    results, _ = judge(policy(needs, [KEY], HERE.region), asked)
    assert len(asked) >= 4
    assert [(request, result) for request, result in zip(asked, results, strict=True) if result != "Allowed"] == []


@CASES
def test_every_other_action_of_the_services_is_denied(role, pipeline):
    needs = accesses(pipeline, role, HERE)
    document = policy(needs, [KEY], HERE.region)
    _, actions = judge(document, [], ELSEWHERE)
    wanted = {action for each in needs for action in each.actions} | {"kms:Decrypt", "kms:GenerateDataKey"}
    others = [f"{service}:{name}" for service, names in actions.items() for name in names if f"{service}:{name}" not in wanted]
    assert len(others) > 300
    places = {each.service: concrete(each.resources[0]) for each in needs} | {"kms": KEY}
    asked = [(action, places[service], {}) for action in others if (service := action.partition(":")[0]) in places]
    results, _ = judge(document, asked)
    # An action that does not take this kind of resource is an error of the request, which is no permission either.
    assert [request for request, result in zip(asked, results, strict=True) if result == "Allowed"] == []
    assert results.count("ImplicitlyDenied") > 50


@EVERY
def test_what_is_allowed_is_allowed_there_only(pipeline):
    needs = needed(pipeline, HERE)
    actions = sorted({action for each in needs for action in each.actions} | {"kms:Decrypt", "kms:GenerateDataKey"})
    asked = [(action, elsewhere(action), {}) for action in actions if action != "s3:ListBucket" and action not in ANY]
    asked += [("s3:ListBucket", "arn:aws:s3:::private", {}), ("s3:ListBucket", "arn:aws:s3:::lake", {"s3:prefix": "private/"})]
    asked += [("s3:ListBucket", "arn:aws:s3:::lake", {}), ("s3:PutObject", "arn:aws:s3:::reference/airlines.parquet", {})]
    results, _ = judge(policy(needs, [KEY], HERE.region), asked)
    assert set(results) == {"ImplicitlyDenied"}, list(zip(asked, results, strict=True))


def test_each_table_of_the_kcl_is_used_in_its_own_way():
    needs = [each for each in needed(UNDER_KCL, HERE) if each.service == "dynamodb"]
    wanted = {(action, resource) for each in needs for action in each.actions for resource in each.resources}
    actions, tables = ({pair[place] for pair in wanted} for place in (0, 1))
    others = sorted((action, table, {}) for action in actions for table in tables if (action, table) not in wanted)
    assert len(tables) == 8
    results, _ = judge(policy(accesses(UNDER_KCL, Role.WORKER, HERE)), others)
    assert [request for request, result in zip(others, results, strict=True) if result == "Allowed"] == []


@pytest.mark.parametrize(
    ("via", "result"), [("s3.eu-west-1.amazonaws.com", "Allowed"), ("ec2.eu-west-1.amazonaws.com", "ImplicitlyDenied")]
)
def test_the_key_is_used_through_the_services_only(via, result):
    document = policy(needed(PIPELINE, HERE), [KEY], HERE.region)
    assert judge(document, [("kms:Decrypt", KEY, {"kms:ViaService": via})])[0] == [result]
    assert judge(document, [("kms:Decrypt", KEY, {})])[0] == ["ImplicitlyDenied"]


# --- the role of the template ---------------------------------------------------------------------------------------------------

VALUES = {
    "Application": "flights",
    "AWS::Region": HERE.region,
    "AWS::URLSuffix": "amazonaws.com",
    "Stream.Arn": "arn:aws:kinesis:eu-west-1:111122223333:stream/flights",
    "Leases.Arn": "arn:aws:dynamodb:eu-west-1:111122223333:table/flights",
    "Lake.Arn": "arn:aws:s3:::lake",
    "State.Arn": "arn:aws:s3:::state",
    "Notices": "arn:aws:sns:eu-west-1:111122223333:flights-notices",
    "Key.Arn": KEY,
}


class Loader(yaml.SafeLoader):
    """Puts what CloudFormation would put in place of its functions; with a consumer."""


def resolve(loader, tag, node):
    if tag in {"GetAtt", "Ref"}:
        return VALUES.get(loader.construct_scalar(node), tag)
    if tag == "Sub":
        text = loader.construct_scalar(node)
        for name, value in VALUES.items():
            text = text.replace(f"${{{name}}}", value)
        return text
    return None


Loader.add_multi_constructor("!", resolve)


def live():
    made = yaml.load(TEMPLATE.read_text(), Loader)["Resources"]["WorkerRole"]["Properties"]["Policies"][0]["PolicyDocument"]  # noqa: S506
    return {**made, "Statement": [each["Fn::If"][1] if "Fn::If" in each else each for each in made["Statement"]]}


CREATED = PIPELINE.model_copy(
    update={
        "source": PIPELINE.source.model_copy(
            update={"kinesis": PIPELINE.source.kinesis.model_copy(update={"stream": "flights", "streams": ()})}
        ),
        "stages": (),
        "sinks": PIPELINE.sinks[:1],
        "notify": PIPELINE.notify.model_copy(update={"sns": VALUES["Notices"]}),
        "state": "s3://state/",
    }
)


def test_the_role_of_the_template_is_enough_for_the_pipeline_that_it_is_made_for():
    # The table and the consumer are made by the template.
    made = {"dynamodb:CreateTable", "kinesis:RegisterStreamConsumer"}
    asked = [each for each in requests_of(needed(CREATED, HERE)) if each[0] not in made]
    results, _ = judge(live(), asked)
    assert [(request, result) for request, result in zip(asked, results, strict=True) if result != "Allowed"] == []


def test_the_role_of_the_template_allows_no_other_resource():
    actions = sorted({action for each in live()["Statement"] for action in each["Action"]} - {"s3:ListBucket"})
    asked = [(action, elsewhere(action), {}) for action in actions]
    asked += [("s3:ListBucket", "arn:aws:s3:::private", {}), ("s3:ListBucket", "arn:aws:s3:::state", {"s3:prefix": "other/"})]
    results, _ = judge(live(), asked)
    assert len(asked) > 10
    assert set(results) == {"ImplicitlyDenied"}, list(zip(asked, results, strict=True))
