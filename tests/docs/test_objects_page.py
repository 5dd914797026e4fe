"""What docs/objects.md sets up works: a bucket that notifies a queue by the page's documents, as `stream doctor` sees it."""

import json
import re

import boto3
import pytest

from stream.local.moto import moto
from tests import forked
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "objects.md").read_text()
(_, PIPELINE, *_), POLICY, NOTIFICATIONS = (
    re.findall(r"^```yaml pipeline\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE),
    *(re.search(rf"^```json {name}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[1] for name in ("queue policy", "bucket notifications")),
)
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:landing"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "eu-central-1", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(scope="module")
def aws():
    with moto() as process:
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-central-1"}
        clients = [boto3.client(service, endpoint_url=process.url, **keys) for service in ("s3", "sqs")]
        here = {"LocationConstraint": "eu-central-1"}
        for bucket in ("landing", "lake"):
            clients[0].create_bucket(Bucket=bucket, CreateBucketConfiguration=here)
        yield process.url, *clients
        for each in clients:
            each.close()


def doctor(folder, url):
    (folder / "pipeline.yaml").write_text(PIPELINE)
    done = forked.run("doctor", "pipeline.yaml", "--json", cwd=folder, env={**KEYS, "AWS_ENDPOINT_URL": url})
    return done.returncode, [finding["what"] for finding in json.loads(done.stdout)["findings"] if finding["check"] == "queue"]


def said(findings, begins):
    """What is said of the one thing that begins so."""
    (one,) = [finding for finding in findings if finding.startswith(begins)]
    return one


def test_what_the_page_sets_up_is_what_doctor_wants(aws, tmp_path):
    url, s3, sqs = aws
    code, found = doctor(tmp_path, url)
    assert code == 1
    assert "QueueDoesNotExist" in said(found, QUEUE)

    address = sqs.create_queue(QueueName="landing", Attributes={"Policy": POLICY})["QueueUrl"]
    code, found = doctor(tmp_path, url)
    assert code == 1
    assert "does not tell the queue landing" in said(found, "notifications of s3://landing/orders/")
    assert "no redrive policy" in said(found, QUEUE)
    assert {said(found, f"sqs:{name} ")[-7:] for name in ("ReceiveMessage", "DeleteMessage")} == {"allowed"}

    spare = sqs.create_queue(QueueName="landing-dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=spare, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 5})
    sqs.set_queue_attributes(QueueUrl=address, Attributes={"RedrivePolicy": redrive})
    s3.put_bucket_notification_configuration(Bucket="landing", NotificationConfiguration=json.loads(NOTIFICATIONS))
    code, found = doctor(tmp_path, url)
    assert code == 0, found
    assert "the bucket sends to the queue" in said(found, "notifications of s3://landing/orders/")
    assert "hidden for 120 s at most" in said(found, QUEUE)
    # Looking took nothing out of it: the test event that S3 sent is there.
    body = sqs.receive_message(QueueUrl=address)["Messages"][0]["Body"]
    assert json.loads(body)["Event"] == "s3:TestEvent"

    sqs.set_queue_attributes(
        QueueUrl=address, Attributes={"RedrivePolicy": redrive.replace(": 5", ": 1"), "MessageRetentionPeriod": "3600"}
    )
    code, found = doctor(tmp_path, url)
    assert code == 0
    assert "after 1 receives" in said(found, QUEUE)
    assert "a day or longer" in said(found, QUEUE)
    assert "not tried" in said(found, f"sqs:ReceiveMessage on {QUEUE}")
