"""The transcripts of docs/shards.md, made again on a stream in the emulator, whose clock stands still."""

import json
import re
from datetime import timedelta

from stream.source.keys import hash_key
from tests.clocks import StandingClock
from tests.docs.commands import blocks, carried_out, emulated, fields
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "shards.md").read_text()
BLOCKS = blocks(PAGE, "text shards")
PIPELINE = """
application: clicks
source:
  kinesis: {stream: clicks}
  schema: {page: string}
sinks: [s3: {url: "file:lake"}]
state: file:state
metrics: {port: 0}
"""


def of_shard(number):
    """Partition keys of one of four shards."""
    return [key for key in (f"visitor-{n}" for n in range(20_000)) if hash_key(key) * 4 >> 128 == number]


def put(client, clock, keys):
    """Each of ``keys`` once, spread over ten seconds."""
    for second in range(10):
        now = keys[second::10]
        for at in range(0, len(now), 500):
            records = [{"Data": b'{"page": "/"}', "PartitionKey": key} for key in now[at : at + 500]]
            assert client.put_records(StreamName="clicks", Records=records)["FailedRecordCount"] == 0
        clock.moment += timedelta(seconds=1)


def printed(folder, commands):
    """What each of the page's commands prints, and the document of the first."""
    clock = StandingClock()
    with emulated(folder, PIPELINE, "clicks", 4, clock) as client:
        many, one, few, fewer = (of_shard(number) for number in range(4))
        often = [key for at, key in enumerate(many[:100]) for _ in range(600 // (at + 1))]
        rows = [*often, *many, *many[: 3500 - len(often)], *one[:500], *[one[0]] * 8500, *few[:600], *fewer[:300]]
        put(client, clock, sorted(rows, key=lambda key: hash_key(f"{key} shuffled")))
        carried_out("stream run pipeline.yaml --once")
        first = shown(carried_out(commands[0], code=1).output)
        document = json.loads(carried_out(f"{commands[0]} --json", code=1).output)
        clock.moment += timedelta(seconds=1)
        for key in few[:2]:
            client.put_record(StreamName="clicks", Data=b'{"page": "/"}', PartitionKey=key)
        clock.moment += timedelta(minutes=20)
        second = shown(carried_out(commands[1], code=1).output)
    return [first, second], document


def shown(text):
    """``text`` with a worker of one name for all, so that the last column of the table has one width."""
    return "".join(f"{narrowed(line).rstrip()}\n" for line in text.rstrip("\n").splitlines())


LAST_CELL = re.compile(r"(?P<rest>(?:[┏┡└│┃┳╇┴][^┏┡└│┃┳╇┴]*){7,10}[┳╇┴│┃])(?P<cell>[^┓┩┘│┃]*)(?P<edge>[┓┩┘│┃])")
"""A line of the table of shards, which has eleven columns, some of which may be left out."""


def narrowed(line):
    found = LAST_CELL.fullmatch(line)
    if found is None:
        return line
    cell = found["cell"]
    text = cell[0] * 16 if set(cell) <= {"━", "─"} else f" {'pod-a/1' if '/' in cell else cell.strip():<14} "
    return found["rest"] + text + found["edge"]


def test_the_commands_print_what_the_page_shows(tmp_path):
    commands = [re.search(r"^\$ (stream .*)$", block, re.MULTILINE)[1] for block in BLOCKS]
    texts, document = printed(tmp_path, commands)
    assert [f"$ {command}\n{text}" for command, text in zip(commands, texts, strict=True)] == BLOCKS
    found = document["streams"][0]
    places = [
        document,
        found,
        found["shards"][0],
        found["shards"][0]["rate"],
        found["shards"][0]["keys"],
        found["shards"][0]["keys"]["top"][0],
    ]
    places.append(found["advice"][0])
    assert [set(each) - fields(PAGE) - {"streams"} for each in places] == [set()] * len(places)
