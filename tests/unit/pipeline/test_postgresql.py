import asyncio
import sys

import pytest

from stream.errors import DefinitionError, Retryable
from stream.pipeline.postgresql import explained, read_postgresql


def test_without_the_driver_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(DefinitionError, match=r"pip install 'kinesis-stream\[postgresql\]'"):
        asyncio.run(read_postgresql("postgresql://127.0.0.1/db#SELECT 1", None))


class Said(Exception):
    def __init__(self, sqlstate):
        super().__init__("words of the server")
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("state", "kind", "says"),
    [
        ("08006", Retryable, "was not ready"),
        ("53300", Retryable, "was not ready"),
        ("57P03", Retryable, "was not ready"),
        ("40001", Retryable, "was not ready"),
        ("57014", DefinitionError, "the query 'q' on the database p failed"),
        ("28P01", DefinitionError, "cannot be opened"),
        ("3D000", DefinitionError, "cannot be opened"),
        ("42703", DefinitionError, "the query 'q' on the database p failed"),
        (None, DefinitionError, "failed"),
    ],
)
def test_what_may_work_later_is_told_from_what_will_not(state, kind, says):
    """https://www.postgresql.org/docs/current/errcodes-appendix.html."""
    found = explained("p", "q", Said(state))
    assert type(found) is kind
    assert says in str(found)
    assert "words of the server" in str(found)
