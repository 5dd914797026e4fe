"""The doctor against local AWS: everything in order, and each thing that can be wrong."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from typer.testing import CliRunner

from stream.aws.session import AwsSession
from stream.cli.main import app
from stream.clock import SystemClock
from stream.local.aws import LocalClients
from stream.local.start import LocalAws
from stream.operations.doctor.diagnosis import Environment, Verdict, examine
from stream.pipeline.checks.lint import check
from tests.contract.peers import client

PIPELINE = """
application: flights
source:
  kinesis: {{stream: {stream}}}
  schema: {{carrier: string}}
stages:
  - mask: {{columns: carrier, method: keyed_hash, key: {{env: MASK_KEY}}}}
sinks:
  - s3: {{url: {lake}}}
state: {state}
memory: {{budget: 64MiB}}
{more}
"""
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
SUBJECT = "system:serviceaccount:data:flights"


@pytest.fixture(scope="module")
def aws():
    with LocalAws() as local, LocalClients(local.environment()) as clients:
        clients.create_bucket("lake")
        clients.create_stream("flights", 2)
        yield local.environment()


@pytest.fixture
def clean(monkeypatch, tmp_path):
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "STREAM_SERVICE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def pipeline(folder, stream="flights", lake="s3://lake/flights/", state="s3://lake/_stream/", more=""):
    path = folder / "pipeline.yaml"
    path.write_text(PIPELINE.format(stream=stream, lake=lake, state=state, more=more))
    return path


def run(path, env, *options):
    return CliRunner().invoke(app, ["doctor", str(path), *options], env={**env, "MASK_KEY": "hidden-value"})


def found(result):
    return {(each["check"], each["verdict"]): each for each in json.loads(result.stdout)["findings"]}


@pytest.mark.usefixtures("clean")
def test_a_sound_set_up_has_no_failed_check(aws, tmp_path):
    result = run(pipeline(tmp_path), aws, "--json")
    assert result.exit_code == 0, result.output
    findings = json.loads(result.stdout)["findings"]
    answer = {each["check"]: each["what"] for each in findings if each["verdict"] == "ok"}
    assert {"credentials", "identity", "clock", "stream", "place", "tables", "secret"} <= answer.keys()
    assert answer["stream"].startswith("flights: ACTIVE, 2 shards known, records stay 24 h")
    assert [each["what"] for each in findings if each["check"] == "place"] == [
        "s3://lake/_stream/flights/: can be listed, read and written",
        "s3://lake/flights/: can be listed, read and written",
    ]
    assert "s3:DeleteObject was not tried" in result.stdout
    assert "hidden-value" not in result.output


@pytest.mark.usefixtures("clean")
def test_of_a_stream_whose_records_the_service_distributes_it_is_said_what_that_means_for_aggregates(aws, tmp_path):
    with client(aws["AWS_ENDPOINT_URL_KINESIS"]) as kinesis:
        kinesis.create_stream(StreamName="spread", StreamModeDetails={"StreamMode": "ON_DEMAND"}, RecordDistributionStrategy="AUTO")
    finding = found(run(pipeline(tmp_path, stream="spread"), aws, "--json"))["stream", "ok"]
    assert "the service distributes its records (AUTO), so producers with the KPL must not aggregate" in finding["what"]


@pytest.mark.usefixtures("clean")
def test_without_a_region_the_remedy_is_to_set_one(aws, tmp_path):
    env = {**aws, "AWS_REGION": "", "AWS_DEFAULT_REGION": ""}
    findings = found(run(pipeline(tmp_path), env, "--json"))
    for name in ("identity", "stream", "place"):
        finding = findings[name, "failed"]
        assert "no AWS region is set: set AWS_REGION" in finding["what"]
        assert finding["remedy"] == "set or correct what this names; nothing was asked of AWS"


@pytest.mark.usefixtures("clean")
def test_a_lifecycle_rule_that_deletes_the_log_is_a_failure_and_one_for_files_a_note(aws, tmp_path):
    def rules(*prefixes):
        with closing(boto3.client("s3", endpoint_url=aws["AWS_ENDPOINT_URL_S3"], **KEYS)) as s3:
            made = [
                {"ID": f"r{n}", "Status": "Enabled", "Filter": {"Prefix": each}, "Expiration": {"Days": 9}}
                for n, each in enumerate(prefixes)
            ]
            if made:
                s3.put_bucket_lifecycle_configuration(Bucket="lake", LifecycleConfiguration={"Rules": made})
            else:
                s3.delete_bucket_lifecycle(Bucket="lake")
        result = run(pipeline(tmp_path), aws, "--json")
        return result.exit_code, [each for each in found(result).values() if each["check"] == "lifecycle"]

    code, (finding,) = rules("_stream/")
    assert (code, finding["verdict"]) == (1, "failed")
    assert finding["what"].startswith("rules of bucket lake: the rule 'r0' deletes objects after 9 days below _stream/flights/commits/, ")
    assert finding["remedy"].startswith("change the rule or its prefix")
    code, (finding,) = rules("flights/", "_stream/flights/ledger/")
    assert (code, finding["verdict"]) == (0, "note")
    code, (finding,) = rules("_stream/flights/ledger/")
    assert (code, finding["verdict"], finding["what"]) == (
        0,
        "ok",
        "rules of bucket lake: none of 1 deletes or archives what is needed",
    )
    assert rules()[1][0]["what"] == "rules of bucket lake: there are none"


@pytest.mark.usefixtures("clean")
def test_the_checks_leave_nothing_behind(aws, tmp_path):
    run(pipeline(tmp_path), aws)
    with LocalClients(aws) as clients:
        assert clients.keys("lake") == []


@pytest.mark.usefixtures("clean")
def test_the_last_line_is_a_verdict(aws, tmp_path):
    assert run(pipeline(tmp_path), aws).stdout.splitlines()[-1] == "a worker can start"


@pytest.mark.usefixtures("clean")
def test_permissions_are_not_the_remedy_for_what_is_missing_or_does_not_answer(aws, tmp_path):
    missing = found(run(pipeline(tmp_path, stream="gone"), aws, "--json"))["stream", "failed"]
    assert missing["remedy"] == "check the name, the region and the endpoint, or create it"
    away = run(pipeline(tmp_path), {**aws, "AWS_ENDPOINT_URL_KINESIS": "http://127.0.0.1:9"}, "--json")
    assert found(away)["stream", "failed"]["remedy"] == "check the endpoint, the network policy and DNS"
    nowhere = run(pipeline(tmp_path, lake="s3://no-such-bucket/x/"), aws, "--json")
    assert found(nowhere)["place", "failed"]["remedy"] == "create it, or correct the URL"


@pytest.mark.usefixtures("clean")
def test_authorities_that_cannot_be_used_are_one_finding_with_a_remedy_of_their_own(aws, tmp_path):
    (tmp_path / "bundle.pem").write_text("no certificate")
    result = run(pipeline(tmp_path), {**aws, "AWS_CA_BUNDLE": str(tmp_path / "bundle.pem")}, "--json")
    assert result.exit_code == 1
    failed = [each for each in json.loads(result.stdout)["findings"] if each["verdict"] == "failed"]
    assert [each["check"] for each in failed] == ["authorities"]
    assert "bundle.pem, which cannot be used" in failed[0]["what"]
    assert failed[0]["remedy"].startswith("mount the file, or correct its path")


@pytest.mark.parametrize(
    ("changes", "check_name", "says"),
    [
        ({"stream": "gone"}, "stream", "gone: kinesis:DescribeStreamSummary"),
        ({"lake": "s3://no-such-bucket/x/"}, "place", "no-such-bucket"),
        ({"more": "requires: ['s3://lake/_SUCCESS']"}, "required", "it does not exist"),
    ],
)
@pytest.mark.usefixtures("clean")
def test_a_missing_resource_is_named_and_the_other_checks_still_run(aws, tmp_path, changes, check_name, says):
    result = run(pipeline(tmp_path, **changes), aws, "--json")
    assert result.exit_code == 1
    findings = found(result)
    assert says in findings[check_name, "failed"]["what"]
    assert findings[check_name, "failed"]["remedy"]
    assert findings["secret", "ok"]
    assert sum(verdict == "failed" for _, verdict in findings) == 1


@pytest.mark.usefixtures("clean")
def test_a_missing_secret_is_named(aws, tmp_path):
    result = CliRunner().invoke(app, ["doctor", str(pipeline(tmp_path)), "--json"], env={**aws, "MASK_KEY": None})
    assert result.exit_code == 1
    assert "MASK_KEY" in found(result)["secret", "failed"]["what"]


@pytest.mark.usefixtures("clean")
def test_a_role_other_than_the_expected_one_is_named(aws, tmp_path):
    result = run(pipeline(tmp_path), aws, "--json", "--role", "arn:aws:iam::111122223333:role/flights-worker")
    assert result.exit_code == 1
    assert "not the role arn:aws:iam::111122223333:role/flights-worker" in found(result)["identity", "failed"]["what"]


@pytest.mark.usefixtures("clean")
def test_an_unreachable_collector_is_a_note_unless_checkpoints_wait_for_it(aws, tmp_path):
    for mode, verdict, code in (("ledger", "note", 0), ("strict", "failed", 1)):
        more = f"audit: {{otlp: {{endpoint: 'http://127.0.0.1:9', mode: {mode}}}}}"
        result = run(pipeline(tmp_path, more=more), aws, "--json")
        assert (result.exit_code, ("collector", verdict) in found(result)) == (code, True)


def examined(path, env, monkeypatch, **around):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    made = check(path, {}).pipeline
    return {(each.check, each.verdict): each for each in asyncio.run(examine(made, Environment(path.parent, env, **around)))}


@pytest.mark.parametrize(
    ("content", "verdict"),
    [("67108864", Verdict.FAILED), ("268435456", Verdict.OK), ("max", Verdict.NOTE), (str(2**63 - 4096), Verdict.NOTE)],
)
@pytest.mark.usefixtures("clean")
def test_the_memory_limit_is_compared_with_the_budget(tmp_path, monkeypatch, content, verdict):
    for name, text in (("proc/self/cgroup", "0::/"), ("sys/fs/cgroup/memory.max", content)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(f"{text}\n")
    path = pipeline(tmp_path, lake="file:lake", state="file:state")
    env = {"MASK_KEY": "x", "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    assert ("memory", verdict) in examined(path, env, monkeypatch, root=tmp_path, timeout=5)


class FastClock(SystemClock):
    def now(self):
        return super().now() + timedelta(seconds=400)


@pytest.mark.usefixtures("clean")
def test_a_skewed_clock_is_reported(aws, tmp_path, monkeypatch):
    findings = examined(pipeline(tmp_path), {**aws, "MASK_KEY": "x"}, monkeypatch, clock=FastClock())
    found = re.match(r"\+(\d+) s beside AWS", findings["clock", Verdict.FAILED].what)
    assert found is not None
    # The answer says whole seconds, and takes its time.
    assert 398 <= int(found[1]) < 700


# --- Pod Identity -----------------------------------------------------------------------------------------------------------------


def token(audience="pods.eks.amazonaws.com", lives=3600.0):
    body = {"aud": [audience], "sub": SUBJECT, "iss": "https://issuer", "exp": datetime.now(UTC).timestamp() + lives}  # noqa: TID251
    return "e30." + base64.urlsafe_b64encode(json.dumps(body).encode()).decode().rstrip("=") + ".c2ln"


@contextmanager
def agent(lives):
    """The Pod Identity agent: gives credentials that expire after ``lives`` seconds to callers with a token, and counts its answers."""
    answers = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answers.append(self.headers.get("Authorization"))
            ends = datetime.now(UTC) + timedelta(seconds=lives)  # noqa: TID251
            keys = {"AccessKeyId": f"ASIA{len(answers)}", "SecretAccessKey": "s", "Token": "t"}
            body = json.dumps({**keys, "AccountId": "123456789012", "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ")}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/credentials", answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def pod(aws, clean, tmp_path, monkeypatch):
    def enter(url, text):
        (tmp_path / "token").write_text(text)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name, raising=False)
        env = {name: value for name, value in aws.items() if "KEY" not in name}
        return {
            **env,
            "MASK_KEY": "x",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": url,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token"),
        }

    return enter


def test_a_sound_pod_identity_has_no_failed_check(pod, tmp_path, monkeypatch):
    with agent(lives=6 * 3600) as (url, answers):
        findings = examined(pipeline(tmp_path), pod(url, token()), monkeypatch, subject=SUBJECT)
    assert findings["token", Verdict.OK].what.startswith(f"for pods.eks.amazonaws.com, of {SUBJECT}, until ")
    assert findings["credentials", Verdict.OK].what.startswith("by container-role, valid until ")
    assert ("place", Verdict.OK) in findings
    assert answers[0].startswith("e30.")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"audience": "sts.amazonaws.com"}, "is for sts.amazonaws.com, not for pods.eks.amazonaws.com"),
        ({"lives": -60.0}, "expired at"),
    ],
)
def test_a_token_for_another_audience_or_an_expired_one_is_reported(pod, tmp_path, monkeypatch, given, says):
    with agent(lives=6 * 3600) as (url, _):
        findings = examined(pipeline(tmp_path), pod(url, token(**given)), monkeypatch)
    assert says in findings["token", Verdict.FAILED].what


def test_a_token_of_another_subject_or_an_unreadable_one_is_reported(pod, tmp_path, monkeypatch):
    with agent(lives=6 * 3600) as (url, _):
        env = pod(url, token())
        assert ("token", Verdict.FAILED) in examined(pipeline(tmp_path), env, monkeypatch, subject="system:serviceaccount:data:other")
        env["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = str(tmp_path / "none")
        findings = examined(pipeline(tmp_path), env, monkeypatch)
    assert "cannot be read" in findings["token", Verdict.FAILED].what
    assert ("credentials", Verdict.FAILED) in findings


def test_keys_in_the_environment_take_precedence_over_the_token(pod, tmp_path, monkeypatch):
    with agent(lives=6 * 3600) as (url, _):
        env = {**pod(url, token()), "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        findings = examined(pipeline(tmp_path), env, monkeypatch)
    assert "take precedence over the token" in findings["token", Verdict.FAILED].what


def test_for_an_unreachable_agent_the_remedy_is_the_network_policy(pod, tmp_path, monkeypatch):
    findings = examined(pipeline(tmp_path), pod("http://127.0.0.1:9/v1/credentials", token()), monkeypatch)
    assert "169.254.170.23" in findings["credentials", Verdict.FAILED].remedy
    assert ("identity", Verdict.OK) not in findings


def test_credentials_are_renewed_before_they_expire(pod, monkeypatch):
    """In the last fifteen minutes, in the background."""
    with agent(lives=5 * 60) as (url, answers):
        for name, value in pod(url, token()).items():
            monkeypatch.setenv(name, value)
        session = AwsSession()

        async def twice():
            first, life = await session.credentials(), await session.credential_life()
            return first, await session.credentials(), life

        first, second, life = asyncio.run(twice())
        assert first.access_key != second.access_key
        assert len(answers) >= 2
        assert life.method == "container-role"
        assert timedelta(minutes=4) < life.expires - SystemClock().now() < timedelta(minutes=6)
