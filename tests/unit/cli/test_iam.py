from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from tests.unit.pipeline.definitions import EXAMPLES

FLIGHTS = str(EXAMPLES / "flights" / "pipeline.yaml")
HERE = ("--account", "111122223333", "--region", "eu-west-1")


def run(*arguments):
    return CliRunner().invoke(app, ["iam", FLIGHTS, *arguments], env={"MASK_KEY": None})


def test_every_role_is_shown_with_its_policy_and_trust():
    result = run(*HERE, "--namespace", "data", "--service-account", "flights")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert list(document) == [
        "bootstrap",
        "worker",
        "backfill",
        "reader",
        "analyst",
        "function",
        "transform",
        "firehose",
        "operator",
        "compactor",
    ]
    assert document["worker"]["policy"]["Statement"][0]["Resource"] == ["arn:aws:kinesis:eu-west-1:111122223333:stream/flights"]
    assert "pods.eks.amazonaws.com" in json.dumps(document["worker"]["trust"])


def test_a_single_role_is_printed_as_aws_accepts_it():
    assert json.loads(run(*HERE, "--role", "worker").stdout).keys() == {"Version", "Statement"}
    made = run(*HERE, "--role", "worker", "--trust", "--oidc-issuer", "https://oidc.eks.eu-west-1.amazonaws.com/id/A", "--audience", "own")
    (statement,) = json.loads(made.stdout)["Statement"]
    assert statement["Condition"]["StringEquals"]["oidc.eks.eu-west-1.amazonaws.com/id/A:aud"] == "own"


def test_the_key_of_the_pipeline_is_allowed_beside_others(tmp_path):
    mine, other = (f"arn:aws:kms:eu-west-1:111122223333:key/{number}" for number in (1, 2))
    file = tmp_path / "pipeline.yaml"
    file.write_text(Path(FLIGHTS).read_text() + f"encryption: {{kms_key: '{mine}'}}\n")
    for more, keys in (((), [mine]), (("--kms-key", other), [mine, other]), (("--kms-key", mine), [mine])):
        done = CliRunner().invoke(app, ["iam", str(file), *HERE, "--role", "worker", *more], env={"MASK_KEY": None})
        (statement,) = [each for each in json.loads(done.stdout)["Statement"] if each["Sid"] == "Keys"]
        assert statement["Resource"] == keys


def test_an_equal_live_policy_has_no_difference(tmp_path):
    live = tmp_path / "live.json"
    live.write_text(run(*HERE, "--role", "worker").stdout)
    result = run(*HERE, "--diff", str(live))
    assert (result.exit_code, result.stdout) == (0, "worker: the live policy allows exactly what is needed\n")


def test_a_different_live_policy_is_compared_grant_by_grant(tmp_path):
    document = json.loads(run(*HERE, "--role", "worker").stdout)
    document["Statement"][0] |= {"Action": ["kinesis:*"], "Resource": "*"}
    document["Statement"][1]["Action"].remove("s3:DeleteObject")
    live = tmp_path / "live.json"
    live.write_text(json.dumps(document))
    result = run(*HERE, "--diff", str(live))
    assert result.exit_code == 1
    assert sorted(result.stdout.splitlines()) == [
        "+ kinesis:* on *",
        "- s3:DeleteObject on arn:aws:s3:::lake/_stream/flights/*",
        "- s3:DeleteObject on arn:aws:s3:::lake/flights/*",
    ]
    assert "2 missing (-), 1 too much (+)" in result.stderr


def test_a_region_that_does_not_exist_is_noted():
    misspelt = run("--account", "111122223333", "--region", "eu-wst-1", "--role", "worker")
    assert misspelt.exit_code == 0
    assert "AWS had no region 'eu-wst-1' when this version was made; did you mean `eu-west-1`?" in misspelt.stderr
    assert "region" not in run(*HERE, "--role", "worker").stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--account", "12", "--region", "eu-west-1"), "12 digits"),
        ((*HERE, "--role", "redshift-copy"), "this pipeline does not need the role redshift-copy"),
        ((*HERE, "--oidc-issuer", "x"), "is not an https URL"),
        ((*HERE, "--diff", "no-such-file"), "cannot be read as JSON"),
    ],
)
def test_invalid_options_are_refused(arguments, says):
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_the_owner_of_a_shared_stream_is_told_what_to_allow(tmp_path):
    shared = "arn:aws:kinesis:eu-west-1:444455556666:stream/flights"
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        f"application: a\nsource: {{kinesis: {{stream: '{shared}'}}, schema: {{n: int64}}}}\n"
        "sinks: [s3: {url: s3://lake/a/}]\nstate: s3://lake/_stream/\n"
    )
    done = CliRunner().invoke(app, ["iam", str(file), *HERE, "--resource-policy"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)[shared]["Statement"][0]["Resource"] == shared
    refused = run(*HERE, "--resource-policy")
    assert refused.exit_code == 2
    assert "reads no stream of an account other than 111122223333" in refused.stderr
