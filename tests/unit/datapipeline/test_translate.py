"""Single decisions of the translation, each on the smallest definition that shows it."""

import json
import re
from copy import deepcopy
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from stream.cli.importing import _first_error
from stream.datapipeline.report import markdown
from stream.datapipeline.translate import import_definition
from stream.datapipeline.verdicts import Fate

COLUMNS = ["id INT", "name STRING"]
COPY = {
    "Copy": {"type": "CopyActivity", "input": {"ref": "In"}, "output": {"ref": "Out"}},
    "In": {"type": "S3DataNode", "directoryPath": "s3://shop-in/a/", "dataFormat": {"ref": "Form"}},
    "Form": {"type": "CSV", "column": COLUMNS},
    "Out": {"type": "S3DataNode", "directoryPath": "s3://shop-out/b/"},
}
LOAD = {
    "Load": {"type": "RedshiftCopyActivity", "input": {"ref": "In"}, "output": {"ref": "Table"}, "insertMode": "APPEND"},
    "In": COPY["In"],
    "Form": COPY["Form"],
    "Table": {"type": "RedshiftDataNode", "tableName": "t", "database": {"ref": "Base"}},
    "Base": {"type": "RedshiftDatabase", "clusterId": "Shop", "databaseName": "shop", "username": "u"},
}


def imported(base, changes=None, *, state="", **rest):
    """``base`` with fields set, or removed by None: ``{"In.compression": "GZIP"}``."""
    objects = deepcopy(base)
    for place, value in (changes or {}).items():
        name, _, field = place.partition(".")
        objects.setdefault(name, {})[field] = value
    listed = [{"id": name, **{key: each for key, each in fields.items() if each is not None}} for name, fields in objects.items()]
    return import_definition(json.dumps({"objects": listed, **rest}).encode(), "old.json", (), state, _first_error)


def pipeline(done, name="copy"):
    assert f"{name}/pipeline.yaml" in done.files, done.outcomes
    return yaml.safe_load(done.files[f"{name}/pipeline.yaml"])


def values(done, name="copy"):
    return yaml.safe_load(done.files[f"{name}/values.yaml"])


def fate(done, name, field):
    (row,) = [each for each in done.rows if (each.object, each.field) == (name, field)]
    return row.fate, row.text


def refusal(done):
    (outcome,) = done.outcomes
    assert not outcome.name
    assert not done.files
    return outcome.todo[0]


def test_a_minimal_copy_is_translated_completely():
    done = imported(COPY)
    assert pipeline(done)["source"] == {
        "s3": {"url": "s3://shop-in/a/", "format": "csv"},
        "decode": "csv",
        "schema": {"id": "int32?", "name": "string"},
    }
    assert pipeline(done)["state"] == "${STATE:-s3://shop-out/_stream/}"
    assert done.count(Fate.TO_DO) == 0
    assert values(done)["replicas"] == 0, "without a schedule, runs are started by hand"


def test_a_definition_without_activities_gives_no_files():
    done = imported({"Form": COPY["Form"]})
    assert not done.files
    assert "has no activity" in markdown(done)
    assert fate(done, "Form", "column") == (Fate.NOT_NEEDED, "no pipeline that was written uses this object")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"In.dataFormat": None}, "has no dataFormat, so its objects were copied unchanged"),
        ({"Form.column": None}, "does not name the columns of `In`: list them under `column` of its dataFormat"),
        ({"In.directoryPath": None}, "`In` has neither filePath nor directoryPath"),
        ({"Out.directoryPath": None}, "`Out` has neither filePath nor directoryPath"),
        ({"In.directoryPath": "https://shop/a"}, "`directoryPath` of `In` names no S3 bucket"),
        ({"In.directoryPath": "s3://Shop_In/a"}, "names no S3 bucket"),
        ({"In.directoryPath": "s3://#{@scheduledStartTime}/a"}, "names no S3 bucket"),
        ({"In.directoryPath": "s3://shop#{format(@scheduledStartTime,'dd')}/a"}, "has a time in the name of its bucket"),
        ({"Out.directoryPath": "s3://shop#{format(@scheduledStartTime,'dd')}/a"}, "has a time in the name of its bucket"),
        ({"In.directoryPath": "s3://shop-in/#{@pipelineId}/"}, "refers to `@pipelineId`, which AWS Data Pipeline set at run time"),
        ({"In.compression": "lzo"}, "`compression` of `In` is 'lzo'"),
        ({"Form.type": "Custom", "Form.columnSeparator": "||"}, "allowed: one ASCII character"),
        ({"Form.type": "Custom", "Form.recordSeparator": ";"}, "allowed: \\n and \\r\\n"),
        ({"Form.column": ["_sequence INT"]}, "`stream check` finds an error in its pipeline file: "),
        ({"Form.column": ["id INT", "id STRING", "name STRING"]}, "`column` of `Form` names id twice"),
        ({"In.directoryPath": "s3://shop-in//a/"}, "it has the segment ''"),
        ({"Out.directoryPath": "s3://shop-out/b//c/"}, "it has the segment ''"),
        ({"In.dataFormat": {"ref": "Copy"}}, "the dataFormat of `In`, `Copy`, is CopyActivity, which stream does not read: use CSV"),
        ({"Copy.input": None}, "`Copy` has 0 objects as `input`"),
        ({"Copy.output": [{"ref": "Out"}, {"ref": "In"}]}, "`Copy` has 2 objects as `output`"),
        ({"Copy.output": {"ref": "Form"}}, "it writes to `Form`, a CSV"),
        ({"In.directoryPath": "s3://shop-out/"}, "its state must be kept outside of what it reads, s3://shop-out/"),
    ],
)
def test_an_untranslatable_activity_is_refused_with_a_reason(changes, why):
    done = imported(COPY, changes)
    assert why in refusal(done)
    reported, text = fate(done, "Copy", "id")
    assert (reported, text.startswith("no pipeline file: ")) == (Fate.TO_DO, True)


def test_the_state_is_placed_as_configured():
    done = imported(COPY, {"In.directoryPath": "s3://shop-out/"}, state="s3://shop-state/x/")
    assert pipeline(done)["state"] == "${STATE:-s3://shop-state/x/}"
    assert "would read what it writes" in fate(done, "Copy", "output")[1]
    assert pipeline(imported(COPY, {"Copy.pipelineLogUri": "s3://logs/", "In.directoryPath": "s3://shop-out/"}))["state"].endswith(
        "s3://logs/_stream/}"
    )


def test_a_single_object_is_listed_by_a_manifest():
    done = imported(COPY, {"In.directoryPath": None, "In.filePath": "s3://shop-in/a/x.csv"})
    assert pipeline(done)["source"]["s3"] == {"url": "s3://shop-in/a/", "format": "csv", "manifest": "file:./objects.txt"}
    assert done.files["copy/objects.txt"] == "x.csv\n"
    assert values(done)["pipeline"] == {"files": {"objects.txt": "x.csv\n"}}
    assert "a shard halts if one of its objects is overwritten" in fate(done, "In", "filePath")[1]


@pytest.mark.parametrize(
    ("path", "time"),
    [
        ("s3://shop-in/#{format(@scheduledStartTime,'YYYY')}/#{format(@scheduledStartTime,'MM/dd')}", "%Y/%m/%d"),
        ("s3://shop-in/x-#{@scheduledStartTime}.csv", "x-%Y-%m-%dT%H:%M"),
        ("s3://shop-in/#{format(@scheduledStartTime,'MM')}", None),
        ("s3://shop-in/#{format(@scheduledStartTime,'YYYY-M')}", "%Y"),
        ("s3://shop-in/#{format(@scheduledStartTime,'YYYY')}/#{format(@scheduledEndTime,'YYYY')}", "%Y"),
    ],
)
def test_times_in_keys_become_a_time_pattern(path, time):
    done = imported(COPY, {"In.directoryPath": path})
    assert pipeline(done)["source"]["s3"].get("time") == time
    assert pipeline(done)["source"]["s3"]["url"] == "s3://shop-in/"
    assert "requires" not in pipeline(done)


@pytest.mark.parametrize(
    ("field", "path", "name"),
    [
        ("filePath", "s3://shop-in/#{format(@scheduledStartTime,'YYYY-MM-dd')}/sales.csv", "sales.csv"),
        ("filePath", "s3://shop-in/sales-#{format(@scheduledStartTime,'YYYY-MM-dd')}.csv", "sales-"),
        ("directoryPath", "s3://shop-in/#{format(@scheduledStartTime,'YYYY')}/sales/#{format(@scheduledStartTime,'MM')}", "sales"),
        ("directoryPath", "s3://shop-in/#{format(@scheduledStartTime,'YYYY')}/#{myShop}/", "north"),
        ("filePath", "s3://shop-in/#{format(@scheduledStartTime,'YYYY/MM')}.csv.gz", ""),
        ("directoryPath", "s3://shop-in/a/year=#{format(@scheduledStartTime,'YYYY')}/month=#{format(@scheduledStartTime,'MM')}", ""),
        ("directoryPath", "s3://shop-in/#{@scheduledStartTime}/", ""),
    ],
)
def test_objects_distinguished_only_by_names_in_their_keys_suspend_the_schedule(field, path, name):
    plan = {"Copy.schedule": {"ref": "Plan"}, "Plan.type": "Schedule", "Plan.period": "1 day"}
    done = imported(COPY, {**plan, "In.directoryPath": None, f"In.{field}": path}, values={"myShop": "north"})
    reported, text = fate(done, "In", field)
    assert (reported is Fate.TO_DO, f"without `{name}` in their keys" in text) == (bool(name), bool(name))
    assert ("replicas" in values(done)) == bool(name)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("#{myPlace}", "s3://shop-in/y/"),
        ("#{myPlace}", "s3://shop-in/y"),
        ("#{myPlace}#{format(@scheduledStartTime,'YYYY')}", "s3://shop-in/y/"),
    ],
)
def test_a_parameter_that_ends_in_a_slash_gives_no_double_slash(path, place):
    ready = {"In.precondition": {"ref": "Ready"}, "Ready.type": "S3PrefixNotEmpty", "Ready.s3Prefix": "#{myPlace}"}
    done = imported(
        COPY,
        {"In.directoryPath": path, "Out.directoryPath": "#{myOther}", **ready},
        values={"myPlace": place, "myOther": "s3://shop-out/z/"},
    )
    url = "${myPlace:-s3://shop-in/y/}" if place.endswith("/") else "${myPlace:-s3://shop-in/y}/"
    assert (pipeline(done)["source"]["s3"]["url"], pipeline(done)["requires"]) == (url, [url])
    assert pipeline(done)["sinks"][0]["s3"]["url"] == "${myOther:-s3://shop-out/z/}"


@pytest.mark.parametrize(
    ("path", "url", "partition"),
    [
        ("s3://shop-out/b/#{format(@scheduledStartTime,'YYYY')}/x", "s3://shop-out/b/", {"year": "strftime(_arrival, '%Y')"}),
        ("s3://shop-out/b/#{format(@scheduledEndTime,'YYYYMMdd')}", "s3://shop-out/b/", {"day": "strftime(_arrival, '%Y-%m-%d')"}),
        ("s3://shop-out/#{@scheduledStartTime}", "s3://shop-out/old-copy/", {"second": "strftime(_arrival, '%Y-%m-%d-%H-%M')"}),
        ("s3://shop-out", "s3://shop-out/old-copy/", None),
    ],
)
def test_output_paths_become_a_url_and_partitions(path, url, partition):
    sink = pipeline(imported(COPY, {"Out.directoryPath": path}))["sinks"][0]["s3"]
    assert (sink["url"], sink.get("partition_by")) == (url, [partition] if partition else None)


@pytest.mark.parametrize(("place", "reported"), [("s3://shop-out/b/", True), ("s3://shop-out/b/c", True), ("s3://shop-out/bc", False)])
def test_two_activities_that_write_to_one_place_are_reported(place, reported):
    also = {"Other.type": "CopyActivity", "Other.input": {"ref": "In"}, "Other.output": {"ref": "Out2"}}
    done = imported(COPY, {**also, "Out2.type": "S3DataNode", "Out2.directoryPath": place})
    assert (fate(done, "Other", "output")[0] is Fate.TO_DO) == reported
    assert ("`Copy` writes below s3://shop-out/b/, too" in fate(done, "Other", "output")[1]) == reported


def test_an_output_file_becomes_a_folder():
    done = imported(COPY, {"Out.directoryPath": None, "Out.filePath": "s3://shop-out/b/all.csv"})
    assert pipeline(done)["sinks"][0]["s3"]["url"] == "s3://shop-out/b/all/"
    assert fate(done, "Out", "filePath")[0] is Fate.TO_DO


def test_output_columns_become_rename_and_cast():
    changes = {"Out.dataFormat": {"ref": "Other"}, "Other.type": "TSV", "Other.column": ["key BIGINT", "name STRING"]}
    assert pipeline(imported(COPY, changes))["stages"] == [{"rename": {"id": "key"}}, {"cast": {"key": "int64"}}]
    fewer = imported(COPY, {**changes, "Other.column": ["key BIGINT"]})
    assert "has 1 columns, but the source has 2" in fate(fewer, "Other", "column")[1]
    alone = imported(COPY, {**changes, "Form.column": None})
    assert pipeline(alone)["source"]["schema"] == {"key": "int64?", "name": "string"}


OUT = {"Out.dataFormat": {"ref": "Lines"}}


@pytest.mark.parametrize(
    ("form", "csv"),
    [
        ({"type": "CSV"}, {"header": False}),
        ({"type": "CSV", "escapeChar": "\\"}, {"header": False, "escape": "\\"}),
        ({"type": "TSV"}, {"header": False, "delimiter": "\t"}),
        ({"type": "TSV", "recordSeparator": "\\r\\n"}, {"header": False, "delimiter": "\t", "line_end": "crlf"}),
        ({"type": "Custom", "columnSeparator": ";", "recordSeparator": "\n"}, {"header": False, "delimiter": ";"}),
        (
            {"type": "Custom", "columnSeparator": "|", "escapeChar": "\\"},
            {"header": False, "delimiter": "|", "escape": "\\", "quote": None},
        ),
    ],
)
def test_separated_values_are_written_as_the_old_pipeline_wrote_them(form, csv):
    done = imported(COPY, {**OUT, **{f"Lines.{name}": value for name, value in form.items()}})
    (outcome,) = done.outcomes
    sink = pipeline(done)["sinks"][0]["s3"]
    assert (sink["format"], sink["csv"], sink["lineage"], sink["compression"]) == ("csv", csv, False, "none")
    assert not any("dataFormat" in each for each in outcome.todo)
    assert {fate(done, "Lines", name)[0] for name in form if name != "type"} <= {Fate.TAKEN_OVER}


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({"type": "Custom", "columnSeparator": "::"}, "allowed: one ASCII character, but no quote"),
        ({"type": "TSV", "recordSeparator": "|"}, "Change the files, and import again"),
        ({"type": "CSV", "escapeChar": '"'}, "but not the quote or the separator"),
    ],
)
def test_separated_values_that_cannot_be_written_so_are_refused(form, why):
    assert why in refusal(imported(COPY, {**OUT, **{f"Lines.{name}": value for name, value in form.items()}}))


def test_null_alone_in_a_line_gets_a_text():
    done = imported(COPY, {**OUT, "Lines.type": "CSV", "Form.column": ["name STRING"]})
    assert pipeline(done)["sinks"][0]["s3"]["csv"] == {"header": False, "null": "\\N"}
    assert fate(done, "Out", "dataFormat")[0] is Fate.TO_DO


def test_what_one_pipeline_writes_as_separated_values_the_next_one_reads_so():
    chain = {"Next.type": "CopyActivity", "Next.input": {"ref": "Out"}, "Next.output": {"ref": "Last"}, "Last.type": "S3DataNode"}
    done = imported(COPY, {**OUT, "Lines.type": "TSV", **chain, "Last.directoryPath": "s3://shop-out/last/"})
    first, then = pipeline(done)["sinks"][0]["s3"], pipeline(done, "next")["source"]
    assert first["csv"] == {"header": False, "delimiter": "\t"}
    assert (then["s3"]["format"], then["decode"]) == ("csv", {"csv": {"delimiter": "\t"}})
    assert list(then["schema"]) == ["id", "name"]


@pytest.mark.parametrize(
    ("mode", "keys", "view"),
    [
        ("APPEND", None, ""),
        ("APPEND", "ID", ""),
        ("TRUNCATE", "id", ""),
        (
            "OVERWRITE_EXISTING",
            "ID",
            'VIEW s.t_last AS.*PARTITION BY "id" ORDER BY _arrival DESC NULLS LAST, _shard DESC, LENGTH.*, _sequence DESC',
        ),
        ("overwrite_existing", ["id", "name"], 'PARTITION BY "id", "name" ORDER BY'),
        (
            "KEEP_EXISTING",
            "id,name",
            'VIEW s.t_first AS.*PARTITION BY "id", "name" ORDER BY _arrival NULLS FIRST, _shard, LENGTH.*, _sequence\\)',
        ),
    ],
)
def test_insert_modes_become_append_with_a_view(mode, keys, view):
    done = imported(LOAD, {"Load.insertMode": mode, "Table.primaryKeys": keys, "Table.schemaName": "s"})
    made = pipeline(done, "load")["sinks"][0]["redshift"]
    assert (made["mode"], made["table"]) == ("append", "s.t")
    assert (fate(done, "Load", "insertMode")[0] is Fate.TO_DO) is (mode != "APPEND")
    assert bool(done.files.get("load/view.sql")) is bool(view)
    assert re.search(view, done.files.get("load/view.sql", ""))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"Load.insertMode": "OVERWRITE_EXISTING"}, "merges rows by a key, but neither `primaryKeys` nor createTableSql"),
        ({"Load.insertMode": "MERGE"}, "`insertMode` of `Load` is 'MERGE'; allowed: APPEND"),
        ({"Load.insertMode": "KEEP_EXISTING", "Table.primaryKeys": "a b"}, "has a name that Redshift only takes in quotes"),
        ({"Form.column": None}, "give it a dataFormat with `column`, or give `Table` a createTableSql"),
        ({"Table.tableName": None}, "`Table` has no tableName"),
        ({"Table.database": None}, "`Table` has no a database of the type RedshiftDatabase"),
        ({"Base.clusterId": None}, "`Base` names no cluster"),
        ({"Base.databaseName": None}, "`Base` has no databaseName"),
        ({"Base.clusterId": "a b"}, "`stream check` finds an error in its pipeline file: "),
    ],
)
def test_tables_that_cannot_be_loaded_are_refused(changes, why):
    assert why in refusal(imported(LOAD, changes))


@pytest.mark.parametrize(
    ("changes", "stages", "key"),
    [
        ({}, [{"rename": {"id": "Order_ID"}}], "order_id"),
        ({"Table.primaryKeys": "state"}, [{"rename": {"id": "Order_ID"}}], "state"),
        (
            {"Load.transformSql": "SELECT id AS Order_ID, state FROM staging"},
            [{"sql": {"query": "SELECT _row, id AS Order_ID, state FROM batch AS staging"}}],
            "order_id",
        ),
    ],
)
def test_columns_and_keys_are_those_of_the_table(changes, stages, key):
    table = "create table t (Order_ID int, state varchar(9), primary key (order_id))"
    given = {"Form.column": ["id INT", "state STRING"], "Table.createTableSql": table, "Load.insertMode": "OVERWRITE_EXISTING"}
    done = imported(LOAD, given | changes)
    made = pipeline(done, "load")
    assert made["stages"] == stages
    assert made["sinks"][0]["redshift"]["types"] == {"state": "varchar(9)"}
    assert f'PARTITION BY "{key}"' in done.files["load/view.sql"]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ("CSV", "string"),
        ("CSV EMPTYASNULL", "string?"),
        ("DELIMITER ';'", "string"),
        ("NULL AS 'x'", "string?"),
        ("JSON 'auto'", "string?"),
    ],
)
def test_empty_text_stays_text_unless_the_definition_says_otherwise(options, kind):
    table = "create table t (id int, name varchar(9))"
    done = imported(LOAD, {"In.dataFormat": None, "Load.commandOptions": options, "Table.createTableSql": table})
    assert pipeline(done, "load")["source"]["schema"] == {"id": "int32?", "name": kind}


def test_the_cluster_and_its_user_are_taken_over():
    done = imported(LOAD, {"Table.schemaName": "s", "Load.commandOptions": "CREDENTIALS 'x=canary'", "Base.*password": "canary"})
    sink = pipeline(done, "load")["sinks"][0]["redshift"]
    assert {key: sink[key] for key in ("table", "cluster", "database", "db_user", "iam_role")} == {
        "table": "s.t",
        "cluster": "shop",
        "database": "shop",
        "db_user": "u",
        "iam_role": "${COPY_ROLE:-default}",
    }
    assert "`db_user` logs in with temporary credentials from IAM" in fate(done, "Base", "*password")[1]
    link = imported(
        LOAD,
        {
            "Base.clusterId": None,
            "Base.databaseName": None,
            "Base.connectionString": "jdbc:redshift://Shop.abc.eu-west-1.redshift.amazonaws.com:5439/dev?x=1",
        },
    )
    assert pipeline(link, "load")["sinks"][0]["redshift"]["database"] == "dev"


@pytest.mark.parametrize(
    ("statement", "stage"),
    [
        ("SELECT * FROM staging", "SELECT * FROM batch AS staging"),
        ("select id, name from staging where id > 1;", "SELECT _row, id, name FROM batch AS staging where id > 1"),
        ("SELECT staging.id, UPPER(name) AS name FROM staging", "SELECT _row, staging.id, UPPER(name) AS name FROM batch AS staging"),
        ("SELECT id, unheard_of(name) AS name FROM staging", None),
        ("SELECT DISTINCT id FROM staging", None),
        ("SELECT count(*) AS id FROM staging", None),
        ("SELECT a.id FROM staging a JOIN other b ON a.id = b.id", None),
        ("DELETE FROM staging", None),
    ],
)
def test_a_simple_statement_over_staging_becomes_an_sql_stage(statement, stage):
    done = imported(LOAD, {"Load.transformSql": statement})
    assert pipeline(done, "load").get("stages") == ([{"sql": {"query": stage}}] if stage else None)
    assert fate(done, "Load", "transformSql")[0] is Fate.TO_DO


def test_an_untranslated_statement_suspends_the_schedule():
    plan = {"Load.schedule": {"ref": "Plan"}, "Plan.type": "Schedule", "Plan.period": "1 day"}
    assert "replicas" not in values(imported(LOAD, {**plan, "Load.transformSql": "SELECT * FROM staging"}), "load")
    assert values(imported(LOAD, {**plan, "Load.transformSql": "SELECT DISTINCT id FROM staging"}), "load")["replicas"] == 0


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        ({"Load.commandOptions": "DELIMITER ',' GZIP EMPTYASNULL MAXERROR 10"}, False),
        ({"Load.commandOptions": "DELIMITER ',' ESCAPE"}, True),
        ({"Load.commandOptions": "CSV IGNOREHEADER 1"}, True),
        ({"Load.commandOptions": "CSV IGNOREHEADER 2"}, True),
        ({"Load.commandOptions": "JSON 's3://shop-in/paths.json'"}, True),
        ({"Load.commandOptions": "TIMEFORMAT 'epochsecs'"}, True),
        ({"In.dataFormat": {"ref": "Form"}, "Form.escapeChar": "\\", "Load.commandOptions": "ESCAPE"}, True),
        ({"In.dataFormat": {"ref": "Form"}, "Load.commandOptions": "ESCAPE"}, False),
    ],
)
def test_files_that_would_be_read_differently_suspend_the_schedule(changes, held):
    plan = {"Load.schedule": {"ref": "Plan"}, "Plan.type": "Schedule", "Plan.period": "1 day"}
    columns = {"Table.createTableSql": "CREATE TABLE t (id int, name varchar(20))"}
    done = imported(LOAD, {**plan, **columns, "In.dataFormat": None, **changes})
    assert ("replicas" in values(done, "load")) == held


@pytest.mark.parametrize(
    ("condition", "on", "requires"),
    [
        ({"type": "S3KeyExists", "s3Key": "s3://shop-in/a/_SUCCESS"}, "In", ["s3://shop-in/a/_SUCCESS"]),
        ({"type": "S3KeyExists", "s3Key": "#{node.directoryPath}_SUCCESS"}, "In", ["s3://shop-in/a/_SUCCESS"]),
        ({"type": "S3KeyExists", "s3Key": "s3://x-y/#{format(@scheduledStartTime,'HH')}"}, "Copy", ["s3://x-y/${HOUR}"]),
        ({"type": "S3PrefixNotEmpty", "s3Prefix": "s3://shop-in/a"}, "In", ["s3://shop-in/a/"]),
        ({"type": "S3PrefixNotEmpty", "s3Prefix": "s3://shop-in/#{@scheduledStartTime}"}, "In", None),
        ({"type": "Exists"}, "In", ["s3://shop-in/a/"]),
        ({"type": "Exists"}, "Copy", None),
        ({"type": "S3KeyExists"}, "In", None),
        ({"type": "S3KeyExists", "s3Key": "x"}, "In", None),
        ({"type": "DynamoDBDataExists", "tableName": "t"}, "In", None),
        ({"type": "ShellCommandPrecondition", "command": "true"}, "In", None),
        ({"type": "CSV"}, "In", None),
    ],
)
def test_preconditions_become_required_objects(condition, on, requires):
    done = imported(COPY, {f"{on}.precondition": {"ref": "Ready"}, **{f"Ready.{key}": value for key, value in condition.items()}})
    assert pipeline(done).get("requires") == requires
    reported = fate(done, on, "precondition")[0]
    assert reported is (Fate.TAKEN_OVER if requires else Fate.NOT_NEEDED if condition["type"] == "S3PrefixNotEmpty" else Fate.TO_DO)


PLAN = {"Copy.schedule": {"ref": "Plan"}, "Plan.type": "Schedule", "Plan.period": "1 hours"}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, {"cron": "0 * * * *"}),
        ({"Plan.startDateTime": "2026-01-01T00:20:00", "Copy.scheduleType": "cron"}, {"cron": "20 * * * *"}),
        ({"Plan.startDateTime": "makeDateTime(2026,1,1,0,10)"}, {"cron": "10 * * * *"}),
        ({"Copy.maximumRetries": "0"}, {"cron": "0 * * * *", "attempts": 1}),
        ({"Copy.maximumRetries": "5000"}, {"cron": "0 * * * *", "attempts": 100}),
        ({"Copy.attemptTimeout": "20 minutes"}, {"cron": "0 * * * *", "deadlineSeconds": 3600}),
        ({"Copy.attemptTimeout": "1 hour", "Copy.maximumRetries": "1"}, {"cron": "0 * * * *", "attempts": 2, "deadlineSeconds": 7200}),
        (
            {"Copy.runsOn": {"ref": "M"}, "M.type": "Ec2Resource", "M.terminateAfter": "3 years"},
            {"cron": "0 * * * *", "deadlineSeconds": 604800},
        ),
        ({"Copy.scheduleType": "ondemand"}, {"cron": "0 0 1 1 *"}),
        ({"Plan.period": "soon"}, {"cron": "0 0 1 1 *"}),
    ],
)
def test_schedule_and_timeout_are_taken_over(changes, found):
    done = imported(COPY, {**PLAN, **changes})
    assert values(done)["schedule"] == {"timeZone": "Etc/UTC", **found}


def test_a_run_at_the_beginning_of_its_interval_reads_the_interval_that_begins():
    marker = {"Copy.precondition": {"ref": "R"}, "R.type": "S3KeyExists", "R.s3Key": "s3://x-y/#{format(@scheduledStartTime,'HH')}"}
    done = imported(COPY, {**PLAN, **marker, "Copy.scheduleType": "cron", "In.directoryPath": "s3://shop-in/#{@scheduledStartTime}"})
    (outcome,) = done.outcomes
    assert outcome.env == {"HOUR": "{{ data_interval_end.strftime('%H') }}"}
    begin = "data_interval_end.replace(second=0, microsecond=0)"
    assert outcome.window == (begin, f"{begin}.add(minutes=1)")
    assert f'"--from", "{{{{ {begin}.isoformat() }}}}"' in markdown(done)
    assert values(done)["replicas"] == 0


class Moment(datetime):
    """As Airflow's templates have it."""

    def add(self, *, minutes=0, hours=0, days=0, months=0, years=0):
        month = self.month - 1 + months
        moved = self.replace(year=self.year + years + month // 12, month=month % 12 + 1)
        return moved + timedelta(minutes=minutes, hours=hours, days=days)


@pytest.mark.parametrize("kind", ["cron", "timeseries"])
@pytest.mark.parametrize("moment", ["@scheduledStartTime", "minusDays(@scheduledStartTime,1)", "@scheduledEndTime"])
@pytest.mark.parametrize("joda", ["YYYY-MM-dd", "YYYY/MM/dd/HH", "YYYY-MM", "YYYY-MM-dd-HH-mm"])
def test_a_task_reads_the_folder_that_the_expression_names_whatever_the_time_of_the_schedule(kind, moment, joda):
    folder = f"#{{format({moment},'{joda}')}}"
    marker = {"Copy.precondition": {"ref": "R"}, "R.type": "S3KeyExists", "R.s3Key": f"s3://x-y/{folder}/_SUCCESS"}
    done = imported(COPY, {**PLAN, **marker, "Copy.scheduleType": kind, "In.directoryPath": f"s3://shop-in/{folder}/"})
    (outcome,) = done.outcomes
    run = {"data_interval_start": Moment(2026, 1, 30, 2, 10, tzinfo=UTC), "data_interval_end": Moment(2026, 1, 31, 2, 10, tzinfo=UTC)}
    (template,) = outcome.env.values()
    pattern = yaml.safe_load(done.files["copy/pipeline.yaml"])["source"]["s3"]["time"]
    named = datetime.strptime(eval(template.strip("{} "), dict(run)), pattern).replace(tzinfo=UTC)  # noqa: S307 - as Airflow does
    begin, end = (eval(each, dict(run)) for each in outcome.window)  # noqa: S307 - as Airflow does
    assert begin == named < end
    assert (end - begin).days <= (31 if joda == "YYYY-MM" else 1)


def test_activities_that_wait_for_each_other_are_translated():
    done = imported(COPY, {"Back.type": "CopyActivity", "Back.input": {"ref": "Out"}, "Back.output": {"ref": "In"}})
    assert [each.name for each in done.outcomes] == ["copy", "back"]
    assert pipeline(done, "back")["source"]["s3"]["format"] == "parquet"
    assert {(each.first, each.then) for each in done.links} == {("Copy", "Back"), ("Back", "Copy")}


def test_pipeline_names_are_unique_and_valid_folder_names():
    twice = {"copy.type": "CopyActivity", "copy.input": {"ref": "In"}, "copy.output": {"ref": "Out"}}
    done = imported(COPY, twice)
    assert [each.name for each in done.outcomes if each.name] == ["copy", "copy-2"]
    only = imported({"../É": COPY["Copy"], **{key: COPY[key] for key in ("In", "Form", "Out")}})
    assert [each.name for each in only.outcomes] == ["activity"]


def test_definitions_from_one_template_have_separate_states():
    text = json.dumps({"objects": [{"id": key, **value} for key, value in COPY.items()]}).encode()
    north, south = (import_definition(text, name, (), "", _first_error) for name in ("pipes/North.json", "pipes/south.sales.json"))
    assert [pipeline(each)["application"] for each in (north, south)] == ["north-copy", "south-sales-copy"]
    assert [[*each.files] for each in (north, south)] == [["copy/pipeline.yaml", "copy/values.yaml"]] * 2


def test_parameters_stay_parameters():
    done = imported(COPY, {"In.directoryPath": "#{myPlace}/x"}, parameters=[{"id": "myPlace"}], values={"myPlace": "s3://shop-in/y"})
    assert pipeline(done)["source"]["s3"]["url"] == "${myPlace:-s3://shop-in/y}/x/"
    assert fate(done, "myPlace", "value")[0] is Fate.TAKEN_OVER


def test_a_secret_in_a_path_is_refused_and_never_shown():
    done = imported(COPY, {"In.directoryPath": "s3://shop-in/#{*myKey}"}, values={"*myKey": "canary"})
    assert "contains the secret `myKey`" in refusal(done)
    assert "canary" not in markdown(done)


@pytest.mark.parametrize("field", ["colour", "colum"])
def test_an_unknown_field_is_reported(field):
    reported, text = fate(imported(COPY, {f"Form.{field}": "x"}), "Form", field)
    assert (reported, text) == (Fate.TO_DO, "`CSV` has no such field: remove it, or correct its name and import again")


def test_a_parameter_used_only_by_an_untranslated_activity_is_not_needed():
    shell = {"Shell.type": "ShellCommandActivity", "Shell.command": "#{myWord} #{myPlace}"}
    done = imported(COPY, {**shell, "In.directoryPath": "#{myPlace}"}, values={"myWord": "x", "myPlace": "s3://shop-in/y"})
    assert fate(done, "myWord", "value") == (Fate.NOT_NEEDED, "nothing that was taken over refers to it")
    assert fate(done, "myPlace", "value")[0] is Fate.TAKEN_OVER
