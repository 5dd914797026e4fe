"""The kernel opens envelopes and lines as the Python path does: rows, their order, and the reasons of rejects."""

import json
import random
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stream import native
from stream.transform.decoders import DECODERS, envelope, json_lines
from stream.transform.decoders.cloudwatch_logs import CloudwatchLogs
from stream.transform.decoders.dms import Dms
from stream.transform.decoders.dynamodb_stream import DynamodbStream
from stream.transform.decoders.json_lines import JsonLines
from stream.transform.stage import Applied
from stream.transform.types import RecordSchema, parse_schema
from tests.frames import raw_frame
from tests.fuzz.corpus import CORPUS, TOKENS
from tests.kernel import compared, no_kernel
from tests.unit.transform.decoders import test_dynamodb_stream as dynamodb

SCHEMA = parse_schema({"a": "int64", "s": "string?", "t": "timestamp?", "j": "json?", "o": "object{x: int64?}?"})


def both(name: str, records: list[bytes], schema: RecordSchema | None = SCHEMA, **options: Any) -> tuple[Applied, Applied]:
    config = DECODERS[name].model_validate(options)
    with no_kernel():
        ordinary = config.bind(schema)
    return config.bind(schema)(raw_frame(records)), ordinary(raw_frame(records))


def assert_same(quick: Applied, sure: Applied) -> None:
    ends = []
    for each in (quick, sure):
        rejects = pl.DataFrame(schema={"_row": pl.UInt32(), "reason": pl.String()}) if each.rejects is None else each.rejects
        # Rows of a record that is rejected are the engine's to take away, and which of them were read does not matter.
        ends.append((each.frame.filter(~pl.col("_row").is_in(rejects["_row"].to_list())), rejects))
    assert_frame_equal(ends[0][0], ends[1][0])
    assert_frame_equal(ends[0][1], ends[1][1])


def spliced(document: Any, rng: random.Random) -> Any:
    """``document`` with one value, name or member of it changed."""
    if isinstance(document, dict) and document and rng.random() < 0.85:
        name = rng.choice(list(document))
        if rng.random() < 0.8:
            return {**document, name: spliced(document[name], rng)}
        rest = {each: value for each, value in document.items() if each != name}
        return rest if rng.random() < 0.5 else {**rest, rng.choice(["S", "N", "L", "x", "ÿ", "a\u0000"]): document[name]}
    if isinstance(document, list) and document and rng.random() < 0.8:
        at = rng.randrange(len(document))
        return [*document[:at], spliced(document[at], rng), *document[at + 1 :]]
    return rng.choice(VALUES)


VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    1.5,
    1357020000000,
    253402300799999,
    253402300800000,
    -62135596800000,
    9223372036854775807,
    "",
    "0",
    "1e5",
    "01",
    "-0",
    "1.",
    "12345678901234567890.25",
    "x" * 13,
    '\u00e4\n"\\/\x01\x7f\u2028😀' * 5,
    "{}",
    '{"a": 5}',
    "a,b",
    {},
    [],
    [None],
    {"S": "x"},
    {"N": "7"},
    {"N": 7},
    {"BOOL": True},
    {"BOOL": "true"},
    {"NULL": 1e300},
    {"NULL": True},
    {"M": {"k": {"S": "v"}, "l": {"L": []}}},
    {"L": [{"S": "x"}]},
    {"SS": ["p", "q"]},
    {"NS": ["1", "x"]},
    {"BS": []},
    {"M": {}},
    {"M": []},
    {"S": "a", "N": "1"},
    {"": 1},
    "INSERT",
    "MICROSECOND",
    "HOUR",
    "DATA_MESSAGE",
    "CONTROL_MESSAGE",
    "data",
    "control",
    "2013-01-01",
    "2013-01-01T05:00:00z",
    "2013-01-01T05:00:00.1234567Z",
    "2013-01-01T05",
    "2013-01-01 05:00:00+23:59",
    "0001-01-01T00:00:00+01:00",
]
DOCUMENTS: dict[str, list[Any]] = {
    "dms": [
        {
            "data": {"a": 1, "s": "x", "j": [1, {"k": "\u00e4"}]},
            "metadata": {
                "timestamp": "2013-01-01T06:00:00.000001Z",
                "record-type": "data",
                "operation": "insert",
                "schema-name": "shop",
                "table-name": "t",
                "transaction-id": 7,
                "commit-timestamp": "2013-01-01T05:00:00+01:00",
            },
        },
        {"metadata": {"record-type": "control", "operation": "create-table"}},
        *(
            {
                "data": {"a": 2, "s": "y", "t": "2013-01-01"},
                "before-image": before,
                "metadata": {"record-type": "data", "operation": "update", "schema-name": "shop", "table-name": "t"},
            }
            for before in ({"a": 1}, {"a": 2, "s": "x"}, {}, None)
        ),
    ],
    "dynamodb_stream": [
        dynamodb.change("MODIFY", {"a": {"N": "1"}}, {"a": {"N": "1"}, "s": {"S": "\u00e4"}, "o": {"M": {"x": {"N": "2"}}}}),
        dynamodb.change(
            new={"a": {"N": "1"}, "s": {"S": "x\u00e4\n"}, "o": {"M": {"x": {"N": "2"}}}, "j": {"L": [{"NULL": True}, {"SS": ["q"]}]}}
        ),
        dynamodb.change("REMOVE", None, {"a": {"N": "5"}}, Keys={"a": {"N": "5"}}),
        dynamodb.change(new={}, Keys={"a": {"N": "6"}}, ApproximateCreationDateTimePrecision="MICROSECOND"),
    ],
    "cloudwatch_logs": [
        {
            "messageType": "DATA_MESSAGE",
            "owner": "1",
            "logGroup": "g",
            "logStream": "s",
            "subscriptionFilters": ["f"],
            "logEvents": [
                {"id": str(at), "timestamp": 1357020000000 + at, "message": json.dumps({"a": at, "s": "ä" * 9})} for at in range(3)
            ],
        },
        {
            "messageType": "CONTROL_MESSAGE",
            "owner": "1",
            "logGroup": "",
            "logStream": "",
            "logEvents": [{"id": "", "timestamp": 1, "message": "x"}],
        },
        {"messageType": "DATA_MESSAGE", "owner": "1", "logGroup": "g", "logStream": "s", "logEvents": []},
    ],
    "json_lines": [{"a": 1, "s": "x", "t": "2013-01-01", "j": [1], "o": {"x": 1}}, {"a": 2}],
}


def written(name: str, rng: random.Random) -> bytes:
    """A good record, or one changed in one to three places."""

    def one() -> str:
        document = rng.choice(DOCUMENTS[name])
        for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
            document = spliced(document, rng)
        text = json.dumps(document, ensure_ascii=rng.random() < 0.5, separators=rng.choice([(",", ":"), (", ", ": ")]))
        return text.replace(", ", rng.choice(["\n", "\t", "\r", " , "]), 1) if rng.random() < 0.05 else text

    text = one()
    if name == "json_lines":
        text = rng.choice(["\n", "\n", "\r\n", "\n \t\n"]).join(one() for _ in range(rng.randrange(4))) + rng.choice(["", "\n", "\r", " "])
    record = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.6:
        return record
    at, token = rng.randrange(len(record) + 1), rng.choice(TOKENS)
    return record[:at] + token + record[at + rng.choice((0, 0, 1, len(token))) :]


@pytest.mark.compares_kernel
@pytest.mark.parametrize("name", DOCUMENTS)
@compared(150)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 12), plain=st.booleans(), unknown=st.sampled_from(["ignore", "reject", "capture"]))
def test_rows_and_reasons_are_the_same_with_and_without_the_kernel(name: str, seed: int, count: int, plain: bool, unknown: str) -> None:
    rng = random.Random(seed)
    options: dict[str, Any] = {"unknown": unknown}
    if name == "cloudwatch_logs":
        options["compression"] = "none"
    elif name == "dms":
        options["table"] = rng.choice([None, "shop.t", "None.t"])
        options |= rng.choice([{}, {"before_image": "before-image"}, {"before_image": "before-image", "keys": ["a", "s"]}])
    elif name == "dynamodb_stream":
        options["image"] = rng.choice(["new", "old", "both"])

    assert_same(*both(name, [written(name, rng) for _ in range(count)], SCHEMA if plain or name == "json_lines" else None, **options))


@pytest.mark.compares_kernel
@pytest.mark.parametrize("name", DOCUMENTS)
@compared(40)
@given(st.data())
def test_mutated_records_of_the_corpus_are_read_the_same(name: str, data: st.DataObject) -> None:
    options, schema, good = CORPUS[name]
    records = []
    for record in data.draw(st.lists(st.sampled_from(good), max_size=5)):
        at, token = data.draw(st.integers(0, len(record))), data.draw(st.sampled_from([b"", b"", *TOKENS]))
        records.append(record[:at] + token + record[at:])

    assert_same(*both(name, records, schema, **options))


def refused(*_: object) -> Any:
    raise AssertionError


@pytest.mark.parametrize("config", [Dms(), Dms(table="shop.t"), DynamodbStream(), CloudwatchLogs(compression="none"), JsonLines()])
def test_plain_records_are_read_by_the_kernel_alone(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if native.KERNEL is None:
        return
    records = [json.dumps(document).encode() for document in DOCUMENTS[config.name]] * 2
    monkeypatch.setattr(envelope.Envelope, "_opened", refused)
    monkeypatch.setattr(json_lines, "read_payloads", refused)

    got = config.bind(SCHEMA)(raw_frame(records))

    assert got.frame.height
    assert got.rejects is None


def test_escapes_at_every_position_and_texts_of_every_length_are_read() -> None:
    texts = ["x" * before + escape + "y" * after for escape in ('"', "\n\x01", "ä😀") for before in range(35) for after in (0, 7, 16, 32)]
    items = [dynamodb.change(new={"a": {"N": "1"}, "s": {"S": text}, text: {"NULL": True}, "j": {"L": [{"S": text}]}}) for text in texts]
    records = [json.dumps(item).encode() for item in items]

    quick, sure = both("dynamodb_stream", records)
    assert quick.frame["s"].to_list() == texts
    assert_same(quick, sure)
    assert_same(*both("dynamodb_stream", records, None))


@given(st.lists(st.sampled_from(["a", "b", "ab", "ba", "\\u0061", "", "x" * 20, "x" * 19 + "y", "\\n"]), max_size=9), st.booleans())
@example(["a", "\\u0061"], False)
@example([f"name{number}" for number in range(300)], False)
@example([f"name{number}" for number in range(300)] + ["name7"], True)
def test_repeated_names_are_left_to_the_python_reader(names: list[str], inside: bool) -> None:
    members = ",".join(f'"{name}":{{"N":"{at}"}}' for at, name in enumerate(names))
    image = '{"a":{"N":"5"},"m":{"M":{' + members + "}}}" if inside else "{" + members + "}"
    change = '"ApproximateCreationDateTime":1,"Keys":{"a":{"N":"5"}},"NewImage":' + image
    record = '{"eventName":"INSERT","tableName":"t","dynamodb":{' + change + "}}"

    assert_same(*both("dynamodb_stream", [record.encode()], None))


PLAIN = dynamodb.change(new={"a": {"N": "1"}})
STAMPED = {"record-type": "data", "operation": "insert", "timestamp": "2013-01-01T05:00:00z"}


@pytest.mark.parametrize(
    ("name", "document", "reason"),
    [
        ("dms", {"data": {"a": 1}, "metadata": STAMPED}, "bad_envelope"),
        ("dms", {"data": {"a": 1}, "metadata": {**STAMPED, "timestamp": "2013-01-01T05:00:00Z"}}, None),
        ("dms", {"data": {"a": 1}, "metadata": {**STAMPED, "timestamp": None}}, None),
        ("dms", {"data": [1], "metadata": {**STAMPED, "timestamp": None}}, "bad_envelope"),
        ("dynamodb_stream", {**PLAIN, "dynamodb": {**PLAIN["dynamodb"], "OldImage": {"a": 5}}}, "bad_envelope"),
        ("dynamodb_stream", {**PLAIN, "dynamodb": {**PLAIN["dynamodb"], "OldImage": {"a": {"Q": 5, "R": []}}}}, None),
        ("dynamodb_stream", {**PLAIN, "dynamodb": {**PLAIN["dynamodb"], "OldImage": None}}, None),
        ("dynamodb_stream", {**PLAIN, "eventID": None}, "bad_envelope"),
        ("dynamodb_stream", {**PLAIN, "dynamodb": {**PLAIN["dynamodb"], "ApproximateCreationDateTimePrecision": None}}, "bad_envelope"),
    ],
)
def test_records_the_kernel_accepts_are_accepted_by_the_python_reader(name: str, document: Any, reason: str | None) -> None:
    quick, sure = both(name, [json.dumps(document).encode()])

    assert_same(quick, sure)
    assert (sure.rejects["reason"].to_list() if sure.rejects is not None else []) == [reason] * (reason is not None)


@pytest.mark.parametrize("plan", [(5, b"", 1, False, 1, ()), (20, b"", 1, False, 1, ((5, b"", 1, False, 1, ()),))])
def test_a_plan_must_be_of_an_object_or_a_list_of_objects(plan: Any) -> None:
    if native.KERNEL is not None:
        with pytest.raises(ValueError, match="list of objects"):
            native.KERNEL.plan(plan)
