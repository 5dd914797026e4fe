"""Each pipeline of "What AWS delivers" in docs/objects.md reads a sample of such an object, as AWS's own documentation shows it."""

import gzip
import json
import re

import polars as pl
import pytest

from stream.cli.run import carry_out
from stream.pipeline.checks.lint import check_content
from stream.pipeline.findings import Severity
from stream.worker.assemble import WorkerOptions
from stream.worker.sources.reading import Reading
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "objects.md").read_text()
PIPELINES = dict(re.findall(r"^```yaml delivered (\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))

EVENT = {
    "eventVersion": "1.08",
    "userIdentity": {"type": "IAMUser", "userName": "Mary"},
    "eventTime": "2023-07-19T21:17:28Z",
    "eventSource": "ec2.amazonaws.com",
    "eventName": "StartInstances",
    "awsRegion": "us-east-1",
    "sourceIPAddress": "192.0.2.0",
    "requestParameters": {"instancesSet": {"items": [{"instanceId": "i-1"}]}},
    "eventID": "e755e09c",
}
ALB = (
    "http 2018-07-02T22:23:00.186641Z app/web/50dc6c495c0c9188 192.168.131.39:2817 10.0.0.1:80 0.000 0.001 0.000 200 200 34 366 "
    '"GET http://www.example.com:80/ HTTP/1.1" "curl/7.46.0" - - arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/w/1 '
    '"Root=1-58337262-36d228ad5d99923122bbe354" "-" "-" 0 2018-07-02T22:22:48.364000Z "forward" "-" "-" "10.0.0.1:80" "200" "-" "-"\n'
)
S3 = (
    "79a59df900b949e5 amzn-s3-demo-bucket1 [06/Feb/2019:00:00:38 +0000] 192.0.2.3 79a59df900b949e5 3E57427F3EXAMPLE REST.GET.VERSIONING - "
    '"GET /amzn-s3-demo-bucket1?versioning HTTP/1.1" 200 - 113 - 7 - "-" "S3Console/0.4" - s9lzHYrFp76ZVxRcpX9+5cjAnEH2= SigV4 '
    "ECDHE-RSA-AES128-GCM-SHA256 AuthHeader amzn-s3-demo-bucket1.s3.us-west-1.amazonaws.com TLSV1.2 - Yes\n"
)
CLOUDFRONT = (
    "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) cs(User-Agent)\n"
    '2019-12-04\t21:02:31\tLAX1\t392\t192.0.2.100\tGET\td111111abcdef8.cloudfront.net\t/index.html\t200\t-\tMozilla/5.0%20"x\n'
    '2019-12-04\t21:02:32\tLAX1\t0\t192.0.2.100\tGET\td111111abcdef8.cloudfront.net\t/"quoted\t000\t-\t-\n'
)
VPC = (
    "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status\n"
    "2 123456789010 eni-1235b8ca123456789 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK\n"
    "2 123456789010 eni-1235b8ca123456789 - - - - - - - 1431280876 1431280934 - NODATA\n"
)
SAMPLES = {
    "firehose": (
        gzip.compress(b'{"id":1,"kind":"a"}{"id":2,"kind":"}{"}'),
        [{"id": 1, "kind": "a"}, {"id": 2, "kind": "}{"}],
    ),
    "cloudtrail": (
        gzip.compress(json.dumps({"Records": [EVENT, {**EVENT, "eventID": "2", "errorCode": "AccessDenied"}]}).encode()),
        [{"eventID": "e755e09c", "errorCode": None, "eventName": "StartInstances"}, {"eventID": "2", "errorCode": "AccessDenied"}],
    ),
    "alb": (
        gzip.compress(ALB.encode() * 2),
        [{"client": "192.168.131.39:2817", "verb": "GET", "url": "http://www.example.com:80/", "user_agent": "curl/7.46.0"}] * 2,
    ),
    "s3": (S3.encode(), [{"key": None, "status": 200, "error_code": None, "bytes_sent": 113, "object_size": None}]),
    "cloudfront": (
        gzip.compress(CLOUDFRONT.encode()),
        [{"path": "/index.html", "status": 200, "bytes": 392}, {"path": '/"quoted', "status": 0, "bytes": 0}],
    ),
    "vpc": (
        gzip.compress(VPC.encode()),
        [{"dstport": 22, "action": "ACCEPT", "log_status": "OK"}, {"dstport": None, "action": None, "log_status": "NODATA"}],
    ),
}


def test_every_pipeline_has_a_sample():
    assert PIPELINES.keys() == SAMPLES.keys()


@pytest.mark.parametrize("name", SAMPLES)
def test_a_delivered_object_becomes_the_rows_it_stands_for(name, tmp_path):
    body, wanted = SAMPLES[name]
    source, lake = (re.search(rf"{key}: \"?(s3://[^\s,\"}}]+)", PIPELINES[name])[1] for key in (r"s3: \{url", r"sinks:\n  - s3: \{url"))
    text = PIPELINES[name].replace(source, "file:./in/").replace(lake, "file:./lake/").replace("s3://lake/_stream/", "file:./state/")
    result = check_content(text.encode(), "pipeline.yaml", tmp_path, {})
    assert [finding.render() for finding in result.findings if finding.severity is Severity.ERROR] == []
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / ("x.gz" if body.startswith(b"\x1f\x8b") else "x")).write_bytes(body)
    end = carry_out(result.pipeline, WorkerOptions(tmp_path, {}, 30.0, 2, (), reading=Reading(once=True)), tmp_path / "result.json")
    assert end.code == 0, end.error
    rows = pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in (tmp_path / "lake").rglob("*.parquet")]).sort("_sequence")
    assert rows.height == len(wanted)
    for row, expected in zip(rows.iter_rows(named=True), wanted, strict=True):
        assert {key: row[key] for key in expected} == expected
    if name == "s3":
        assert str(rows["time"][0]) == "2019-02-06 00:00:38+00:00"
