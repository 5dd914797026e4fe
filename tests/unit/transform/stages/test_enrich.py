from __future__ import annotations

import pytest
from pydantic import ValidationError

from stream.transform.stage import Resources
from stream.transform.stages.enrich import Enrich
from tests.frames import AIRLINES, apply, rows


def enrich(**options):
    return Enrich.model_validate({"table": "t.parquet", "on": "carrier", "take": {"airline": "name"}, **options})


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("10m", 600), ("1h", 3600), ("2d", 172_800)])
def test_how_long_a_version_is_good_for(text, seconds):
    assert enrich(refresh=text).refresh_seconds() == seconds


def test_a_database_is_asked_by_its_query():
    stage = enrich(table="sqlite:fleet.db", query="SELECT carrier, name FROM airlines")
    assert stage.table_urls() == ("sqlite:fleet.db#SELECT carrier, name FROM airlines",)
    resources = Resources(tables={stage.url: AIRLINES})
    given = rows({"carrier": ["UA", "ZZ"]})
    assert apply(stage, given, resources)[0] == [
        {"carrier": "UA", "airline": "United Air Lines Inc."},
        {"carrier": "ZZ", "airline": None},
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"refresh": "10"}, "no duration"),
        ({"refresh": "0s"}, "no duration"),
        ({"table": "sqlite:fleet.db"}, "needs a `query`"),
        ({"query": "SELECT 1"}, "a file takes none"),
    ],
)
def test_options_that_make_no_sense(options, says):
    with pytest.raises(ValidationError, match=says):
        enrich(**options)
