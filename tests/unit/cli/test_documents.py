import json
import math

from stream.cli.documents import as_json


def test_every_document_can_be_read_by_any_reader_of_json():
    document = {"a": [math.nan, (math.inf, -math.inf)], "b": {"c": 1.5, "d": 10**30, "e": None, "f": "é"}}

    def refuse(name):
        raise AssertionError(name)

    read = json.loads(as_json(document), parse_constant=refuse)
    assert read == {"a": ["NaN", ["Infinity", "-Infinity"]], "b": {"c": 1.5, "d": 10**30, "e": None, "f": "é"}}
