from __future__ import annotations

import pytest
from pydantic import ValidationError

from stream.transform.stage import Resources
from stream.transform.stages.enrich import Enrich, Warehouse, warehouse
from tests.frames import AIRLINES, apply, rows


def enrich(**options):
    return Enrich.model_validate({"table": "t.parquet", "on": "carrier", "take": {"airline": "name"}, **options})


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("10m", 600), ("1h", 3600), ("2d", 172_800)])
def test_the_refresh_interval_is_read(text, seconds):
    assert enrich(refresh=text).refresh_seconds() == seconds


def test_a_database_table_is_named_by_its_query():
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
        ({"refresh": "10"}, "not a duration"),
        ({"refresh": "0s"}, "not a duration"),
        ({"table": "sqlite:fleet.db"}, "needs a `query`"),
        ({"query": "SELECT 1"}, "a file has none"),
        ({"table": "postgresql://h/db"}, "needs a `query`"),
        ({"table": "postgresql://u:p@h/db", "query": "SELECT 1"}, "a pipeline file never contains a password"),
        ({"table": "postgresql://h/db?password=p", "query": "SELECT 1"}, "a pipeline file never contains a password"),
        ({"table": "postgresql://h", "query": "SELECT 1"}, "is not the URL of a PostgreSQL database"),
        ({"table": "postgresql:h/db", "query": "SELECT 1"}, "is not the URL of a PostgreSQL database"),
        ({"table": "postgresql://h:no/db", "query": "SELECT 1"}, "is not the URL of a PostgreSQL database"),
        ({"table": "postgresql://h/db", "query": "SELECT 1", "login": "me:secret"}, "given by reference"),
        ({"table": "redshift:main/dev", "query": "SELECT 1"}, "redshift:workgroup/NAME/DATABASE"),
        ({"table": "redshift:workgroup/main/dev?db_user=x", "query": "SELECT 1"}, "does not name a Redshift database"),
        ({"table": "redshift:cluster/main/dev", "query": "SELECT 1", "login": "env:X"}, "`login` is for PostgreSQL"),
        ({"table": "sqlite:x.db", "query": "SELECT 1", "login": "env:X"}, "`login` is for PostgreSQL"),
    ],
)
def test_contradictory_options_are_refused(options, says):
    with pytest.raises(ValidationError, match=says):
        enrich(**options)


def test_a_redshift_url_names_the_warehouse_and_the_user():
    assert warehouse("redshift:workgroup/main/dev#SELECT 1") == Warehouse("dev", workgroup="main")
    assert warehouse("redshift:cluster/c-1/dev?db_user=loader") == Warehouse("dev", cluster="c-1", db_user="loader")


def test_the_login_is_a_secret_of_the_one_table_that_needs_it():
    stage = enrich(table="postgresql://h/db", query="SELECT 1", login={"env": "LOGIN"})
    assert stage.secret_names() == ("env:LOGIN",)
    assert stage.table_logins() == {"postgresql://h/db#SELECT 1": "env:LOGIN"}
    assert enrich().secret_names() == ()
    assert enrich().table_logins() == {}
