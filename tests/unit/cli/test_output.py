import json
import math

from rich.table import Table

from stream.cli.output import as_json, table_console


def test_every_document_is_strict_json():
    document = {"a": [math.nan, (math.inf, -math.inf)], "b": {"c": 1.5, "d": 10**30, "e": None, "f": "é"}}

    def refuse(name):
        raise AssertionError(name)

    read = json.loads(as_json(document), parse_constant=refuse)
    assert read == {"a": ["NaN", ["Infinity", "-Infinity"]], "b": {"c": 1.5, "d": 10**30, "e": None, "f": "é"}}


def test_in_a_pipe_names_are_not_wrapped(capsys):
    table = Table("owner", "shard", "position")
    table.add_row("flights-7c9d5b6f4-x2x9z/1-1795664587", "shardId-000000000000", "9" * 56)
    table_console().print(table)
    assert f"shardId-000000000000 │ {'9' * 56} │" in capsys.readouterr().out
