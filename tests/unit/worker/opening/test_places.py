import asyncio

import pytest

from stream.aws.session import AwsSession
from stream.errors import DefinitionError
from stream.worker.opening.places import former_place, is_there


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
def test_an_object_exists_or_not_whatever_is_beside_it(tmp_path, url, found):
    for name in ("in/a", "in/b", "in/b.txt", "in/deeper/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    assert asyncio.run(is_there(AwsSession(), url, tmp_path)) is found


def test_a_missing_directory_of_a_former_place_is_accepted(tmp_path):
    assert former_place(f"file:{tmp_path}/lake", AwsSession(), None).url == f"file:{tmp_path}/lake"


def test_a_former_place_whose_parent_was_moved_is_not_created_again(tmp_path):
    with pytest.raises(DefinitionError, match=f"no directory {tmp_path}/old here: it was moved, or is on another machine"):
        former_place(f"file:{tmp_path}/old/lake", AwsSession(), None)


def test_nothing_is_printed_for_a_console_sink_that_is_gone(capfd):
    asyncio.run(former_place("console:", AwsSession(), None).put("rows", b"{}\n"))
    assert capfd.readouterr().out == ""
