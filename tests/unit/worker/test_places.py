import asyncio

import pytest

from stream.aws.session import AwsSession
from stream.worker.places import is_there


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("file:in/b", True),
        ("file:in/b.txt", True),
        ("file:in/a", True),
        ("file:in/c", False),
        ("file:in/b.tx", False),
        ("file:in/", True),
        ("file:in/deeper/d", True),
        ("file:in/deep", False),
        ("file:empty/", False),
    ],
)
def test_an_object_is_there_or_not_whatever_lies_beside_it(tmp_path, url, found):
    for name in ("in/a", "in/b", "in/b.txt", "in/deeper/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    assert asyncio.run(is_there(AwsSession(), url, tmp_path)) is found
