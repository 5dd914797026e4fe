"""The content of a partition key cannot move a terminal's cursor, and is not taken for markup."""

import pytest

from stream.cli.shards import printable


@pytest.mark.parametrize(
    ("key", "shown"),
    [("plain", "plain"), ("Zoë [bold]", "Zoë [bold]"), ("a\x1b[2Jb", "a\\x1b[2Jb"), ("a\nb", "a\\nb"), ("\u202eabc", "\\u202eabc")],
)
def test_a_key_is_shown_on_one_line_without_control_characters(key, shown):
    assert printable(key) == shown
