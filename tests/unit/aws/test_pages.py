"""The kernel and msgspec read the same answers, and give the same columns."""

import base64
import json
from itertools import pairwise

import msgspec
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stream import native
from stream.aws.pages import RECORD_SCHEMA, PageFacts, RawPage, parse_event, parse_get_records
from stream.source.aggregated import MAGIC
from tests.kernel import compared

blanks = st.sampled_from(["", "", "", " ", "\n", "\t", "\r\n "])
datas = st.one_of(
    st.binary(max_size=80).map(lambda data: json.dumps(base64.b64encode(data).decode())),
    st.sampled_from(
        ['""', '"Zg=="', '"Zh=="', '"Zg="', '"Zg"', '"Zm9v\\n"', '"Zm8\\u003d"', '"Z===" ', "null", "1", '"a-_b"', '"YQ==YQ=="']
    ),
    st.binary(min_size=200, max_size=300).map(lambda data: json.dumps(base64.b64encode(data).decode())),
)
keys = st.one_of(
    st.text(max_size=20).map(json.dumps),
    st.text(max_size=20).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(['"\\ud800"', "null", "nul", "nulls"]),
)
sequences = st.one_of(st.integers(0, 10**56).map(lambda number: f'"{number}"'), st.sampled_from(['"x"', "12", '""', "null"]))
arrivals = st.one_of(
    st.integers(0, 4 * 10**12).map(lambda ms: f"{ms // 1000}.{ms % 1000:03}"),
    st.integers(10**12, 4 * 10**12).map(lambda ms: f"{ms / 10**12:.12f}E9"),
    st.floats(0, 4e9).map(repr),
    st.sampled_from(["0", "1795000000", "-1.5", "1e400", "01", "1795000000.0005", "null", '"1"']),
)
kinds = {"SequenceNumber": sequences, "Data": datas, "PartitionKey": keys, "ApproximateArrivalTimestamp": arrivals,
         "EncryptionType": st.just('"KMS"'), "Other": st.sampled_from(['{"a":[1,"]}"]}', "[]", "nope"])}  # fmt: skip


@st.composite
def objects(draw: st.DrawFn, members: dict[str, st.SearchStrategy[str]], needed: tuple[str, ...] = ()) -> str:
    names = draw(st.permutations(sorted(members)))
    missing = draw(st.sets(st.sampled_from(sorted(members)), max_size=2)) if draw(st.integers(0, 9)) == 0 else {"Other", "EncryptionType"}
    chosen = [name for name in names if name in needed or name not in missing]
    if draw(st.integers(0, 19)) == 0:
        chosen.append(draw(st.sampled_from(chosen or ["Other"])))
    pairs = [f'{draw(blanks)}"{name}"{draw(blanks)}:{draw(blanks)}{draw(members[name])}{draw(blanks)}' for name in chosen]
    return "{" + ",".join(pairs) + "}"


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    records = ",".join(draw(st.lists(objects(kinds), max_size=5)))
    members = {
        "Records": st.just(f"[{draw(blanks)}{records}]"),
        "NextShardIterator": st.sampled_from(['"next"', '"a\\"b"', "null"]),
        "ContinuationSequenceNumber": st.just('"49"'),
        "MillisBehindLatest": st.sampled_from(["0", "60000", "null"]),
        "ChildShards": st.sampled_from(["[]", "null", '[{"ShardId":"shardId-000000000001","HashKeyRange":{"StartingHashKey":"0"}}]']),
    }
    text = draw(blanks) + draw(objects(members, ("Records",))) + draw(blanks)
    whole = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 4)):
        return whole
    at, byte = draw(st.integers(0, len(whole))), bytes([draw(st.integers(0, 255))])
    return draw(
        st.sampled_from([whole[:at] + byte + whole[at:], whole[:at] + whole[at + 1 :], whole[:at] + byte + whole[at + 1 :], whole[:at]])
    )


def read(body: bytes, *kernel: None) -> RawPage | str:
    try:
        return parse_get_records(body, *kernel)
    except msgspec.DecodeError:
        return "refused"


@pytest.mark.compares_kernel
@compared(1000)
@given(answers())
@example(b'{"Records":[]}')
@example(b'{"Records":[{"SequenceNumber":"1","ApproximateArrivalTimestamp":1.441215410867E9,"Data":"Zm9v","PartitionKey":"k"}]}')
@example(b'{"Records":[],"Records":[{"SequenceNumber":"1","ApproximateArrivalTimestamp":1,"Data":"","PartitionKey":""}]}')
@example(b'{"Records":[{"SequenceNumber":"1","ApproximateArrivalTimestamp":1,"Data":""},{"PartitionKey":null,"SequenceNumber":"2","Data":"",'
         b'"ApproximateArrivalTimestamp":1}]}')  # fmt: skip
@example(b'{"a":{"Records":[1]},"Records":[]}')
def test_both_readers_give_the_same_page_or_refuse_together(body: bytes) -> None:
    quick, sure = read(body), read(body, None)

    if isinstance(quick, str) or isinstance(sure, str):
        assert quick == sure
        return
    assert (quick.next_iterator, quick.behind_ms, quick.children) == (sure.next_iterator, sure.behind_ms, sure.children)
    assert_frame_equal(quick.frame, sure.frame)
    assert quick.frame.schema == RECORD_SCHEMA
    assert quick.facts is None or quick.facts == facts_by_python(sure.frame)


def facts_by_python(frame: pl.DataFrame) -> PageFacts:
    """The content of a page, read record by record."""
    texts, payloads = frame["_sequence"].to_list(), frame["_data"].to_list()
    rising = len({len(text.encode()) for text in texts}) < 2 and all(one.encode() < two.encode() for one, two in pairwise(texts))
    traced = any(b'"traceparent"' in payload for payload in payloads)
    return PageFacts(rising, sum(payload.startswith(MAGIC) for payload in payloads), sum(map(len, payloads)), traced)


NUMBERS = ["1", "2", "10", "12", "12", *(str(4957 * 10**52 + more) for more in (0, 1, 2, 10**9))]
PAYLOADS = [b"", MAGIC[:3], MAGIC, MAGIC + b"and what belongs to it", b"plain", b"much longer than what lies in a view", b"\0" + MAGIC]


WITH_A_TRACE = st.tuples(
    st.integers(0, 400), st.integers(0, 400), st.sampled_from([b'"traceparent"', b'"tracepare"', b"traceparent", b""])
).map(lambda drawn: b"e" * drawn[0] + drawn[2] + b"p" * drawn[1])


@given(st.lists(st.tuples(st.sampled_from(NUMBERS), st.one_of(st.sampled_from(PAYLOADS), WITH_A_TRACE)), min_size=1, max_size=6))
@example([(number, b"plain") for number in NUMBERS[5:]])
def test_the_kernels_statistics_of_a_page_are_correct(records: list[tuple[str, bytes]]) -> None:
    entries = [
        {"SequenceNumber": number, "ApproximateArrivalTimestamp": 1.5, "Data": base64.b64encode(data).decode(), "PartitionKey": "k"}
        for number, data in records
    ]

    page = parse_get_records(json.dumps({"Records": entries}).encode())

    assert (page.facts is None) == (native.KERNEL is None)
    assert page.facts is None or page.facts == facts_by_python(page.frame)


@pytest.mark.parametrize("at", [0, 1, 16_370, 16_384, 16_390, 30_000, 1_048_500, 1_048_512, 2_999_987, None])
@pytest.mark.parametrize("size", [997, 3_000_000])
def test_a_trace_context_is_noticed_wherever_it_is(size: int, at: int | None) -> None:
    payloads = [bytearray(b"ep" * (size // 2)) for _ in range(3_000_000 // size)]
    if at is not None:
        payload = payloads[min(at // size, len(payloads) - 1)]
        begin = min(at % size, len(payload) - 13)
        payload[begin : begin + 13] = b'"traceparent"'
    entries = [
        {"SequenceNumber": "1", "ApproximateArrivalTimestamp": 1.5, "Data": base64.b64encode(data).decode(), "PartitionKey": "k"}
        for data in payloads
    ]

    facts = parse_get_records(json.dumps({"Records": entries}).encode()).facts

    assert facts is None or facts.traced == (at is not None)


def test_an_event_of_a_subscription_is_read_the_same_way() -> None:
    record = '{"SequenceNumber":"7","ApproximateArrivalTimestamp":1795000000.25,"Data":"Zm9v","PartitionKey":"k"}'
    body = f'{{"Records":[{record}],"ContinuationSequenceNumber":"8","MillisBehindLatest":5}}'.encode()

    quick, sure = parse_event(body), parse_event(body, None)

    assert (quick.next_iterator, quick.behind_ms, quick.frame["_data"].to_list()) == ("8", 5, [b"foo"])
    assert_frame_equal(quick.frame, sure.frame)


def test_a_record_of_ten_mebibytes_is_read_whole() -> None:
    data = bytes(range(256)) * 40_960
    record = {"SequenceNumber": "1", "ApproximateArrivalTimestamp": 1.5, "Data": base64.b64encode(data).decode(), "PartitionKey": "k"}

    page = parse_get_records(json.dumps({"Records": [record], "MillisBehindLatest": 0}).encode())

    assert page.frame["_data"].to_list() == [data]


def test_the_kernel_reads_the_number_format_of_the_service() -> None:
    record = (
        b'{"SequenceNumber":"7","ApproximateArrivalTimestamp":1.441215410867E9,"Data":"Zm9v","PartitionKey":"k","EncryptionType":"KMS"}'
    )
    body = b'{"MillisBehindLatest":5,"NextShardIterator":"n","Records":[' + b",".join([record] * 9) + b"]}"

    assert native.KERNEL is None or native.KERNEL.page(body)[2] == 9


def test_payload_buffers_have_one_size_except_the_last_and_larger_records() -> None:
    sizes = [1000] * 5000 + [3 * 2**20] + [1000] * 10
    datas = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    records = [
        {"SequenceNumber": "1", "ApproximateArrivalTimestamp": 1.5, "Data": base64.b64encode(data).decode(), "PartitionKey": "k"}
        for data in datas
    ]
    body = json.dumps({"Records": records}).encode()

    assert parse_get_records(body).frame["_data"].to_list() == datas
    if native.KERNEL is not None:
        pieces = [memoryview(piece).nbytes for piece in native.KERNEL.page(body)[-1]]
        assert len(pieces) == 7
        assert all(0.99 * 2**20 < piece <= 2**20 for piece in pieces[:4])
        assert 3 * 2**20 < pieces[5] < 3.1 * 2**20
        assert pieces[6] < 2**15
