"""Our signatures are botocore's."""

from datetime import UTC, datetime

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials

from stream.aws.session import Credentials
from stream.aws.signing import Signer


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    "url",
    [
        "https://dynamodb.eu-west-1.amazonaws.com/",
        "http://127.0.0.1:4566/",
        "https://vpce-1.example:443/",
        "http://[::1]:4566/",
        "http://gateway:4566/aws/dynamodb/",
    ],
)
@pytest.mark.parametrize("token", [None, "a/session+token=="])
def test_a_call_is_signed_as_by_botocore(url, token, version):
    body, target = b'{"TableName":"t"}', "DynamoDB_20120810.GetItem"
    request = AWSRequest("POST", url, {"Content-Type": f"application/x-amz-json-{version}", "X-Amz-Target": target}, body)
    SigV4Auth(BotocoreCredentials("AKID", "secret", token), "dynamodb", "eu-west-1").add_auth(request)
    theirs = {name.lower(): value for name, value in request.headers.items()}
    now = datetime.strptime(theirs["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    signer = Signer("dynamodb", "eu-west-1", url, version)
    for _ in range(2):
        ours = signer.headers(Credentials("AKID", "secret", token), target, body, now)
        assert ours.pop("host")
        assert ours == {name: value for name, value in theirs.items() if name in ours}
        assert "authorization" in ours


def test_changed_keys_change_the_signature():
    signer, now = Signer("dynamodb", "eu-west-1", "https://d.example/"), datetime(2026, 1, 1, tzinfo=UTC)
    first, second = (signer.headers(Credentials("A", secret, None), "t", b"", now)["authorization"] for secret in ("one", "two"))
    assert first != second
