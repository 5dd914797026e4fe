"""Mutated records through every decoder: nothing crashes, every record ends once, each as if it were alone.

``STREAM_FUZZ_EXAMPLES`` asks for more of them than a test run has time for.
"""

import gzip
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.transform.decoders import DECODERS
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources
from tests.contract.test_decoder import example
from tests.frames import batch, ticks

EXAMPLES = int(os.environ.get("STREAM_FUZZ_EXAMPLES", "25"))

cuts = st.tuples(st.integers(0, 400), st.integers(0, 6), st.binary(max_size=4))
mutations = st.lists(cuts, max_size=3)


def mutated(record, changes):
    for at, gone, added in changes:
        start = at % (len(record) + 1)
        record = record[:start] + added + record[start + gone :]
    return record


def fates(got):
    kept = {}
    for row in got.frame.drop("_sequence", "_arrival", "partition_key", strict=False).to_dicts():
        kept.setdefault(row.pop("_row"), []).append(str(row))
    ended = {row["_row"]: str(row["reason"]) for row in got.settled.to_dicts()}
    assert not set(kept) & set(ended)
    return kept | ended


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=EXAMPLES, deadline=None, print_blob=True)
@given(changes=st.lists(mutations, min_size=1, max_size=5))
def test_a_mutated_record_ends_once_and_the_same_way_as_alone(name, packed, changes):
    config, schema, records = example(DECODERS[name])
    if packed:
        config = DECODERS[name].model_validate({**config.model_dump(mode="json", by_alias=True), "compression": "gzip"})
        records = [gzip.compress(record, mtime=0) for record in records]
    chain = compile_chain(config, schema, [], Resources(), ticks())
    given_records = [mutated(records[at % len(records)], change) for at, change in enumerate(changes)]
    whole = batch(given_records)
    together = fates(chain.run(whole, "s"))
    assert sorted(together) == list(range(len(given_records)))
    for row in range(len(given_records)):
        alone = fates(chain.run(type(whole)(whole.frame[row : row + 1], 0), "s"))
        assert alone[0] == together[row], given_records[row]
