import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.audit.set_hash import SetHash

WORD = 2**64
RECORD = st.tuples(st.integers(0, 10**56), st.integers(0, 2**32 - 1))
REAL = st.tuples(st.integers(0, 10**20).map(lambda n: 49590338271490256608559692538361571095921575989136588898 + n), st.integers(0, 3))


def fold(records, mix, offset):
    """The definition, one record and one number at a time."""
    total = 0
    for sequence, sub in records:
        limbs = []
        rest = sequence
        while rest:
            rest, limb = divmod(rest, 10**18)
            limbs.append(limb)
        h = 0
        for limb in reversed(limbs):
            h = mix(h ^ limb)
        total += mix(h ^ ((sub + offset) % WORD))
    return total


def splitmix(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % WORD
    return x ^ (x >> 31)


def murmur(x):
    x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCD % WORD
    x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53 % WORD
    return x ^ (x >> 33)


def reference(records):
    return (fold(records, splitmix, 0x9E3779B97F4A7C15) * WORD + fold(records, murmur, 0xD1B54A32D192ED03)) % 2**128


def of(records):
    sequences = pl.Series([str(sequence) for sequence, _ in records], dtype=pl.String)
    return SetHash.of(sequences, pl.Series([sub for _, sub in records], dtype=pl.UInt32))


@given(st.lists(RECORD | REAL, max_size=30))
@settings(max_examples=200, deadline=None)
def test_the_hash_equals_the_written_definition(records):
    assert of(records).value == reference(records)


def test_the_definition_has_not_changed():
    """Stored segments contain these numbers: a change of the definition needs a new ledger version."""
    assert of([(1, 0)]).hex == reference_hex([(1, 0)]) == "07776f161bd8ea27aa1ec71ce1412c66"


def reference_hex(records):
    return f"{reference(records):032x}"


@given(st.lists(REAL, max_size=20), st.lists(REAL, max_size=20))
@settings(max_examples=50, deadline=None)
def test_hashes_of_parts_can_be_added_and_subtracted(one, other):
    assert of(one) + of(other) == of(one + other)
    assert of(one + other) - of(other) == of(one)


@given(st.lists(REAL, min_size=2, max_size=20).flatmap(lambda records: st.tuples(st.just(records), st.permutations(records))))
@settings(max_examples=50, deadline=None)
def test_order_does_not_matter(pair):
    records, shuffled = pair
    assert of(records) == of(shuffled)


@given(st.lists(REAL, min_size=1, max_size=20, unique=True), st.data())
@settings(max_examples=100, deadline=None)
def test_a_changed_lost_or_duplicated_record_changes_the_hash(records, data):
    at = data.draw(st.integers(0, len(records) - 1))
    sequence, sub = records[at]
    whole = of(records)
    for changed in ([(sequence + 1, sub)], [(sequence, sub + 1)], [], [records[at]] * 2):
        assert of(records[:at] + changed + records[at + 1 :]) != whole


def test_only_the_empty_set_hashes_to_zero():
    assert SetHash.of(pl.Series([], dtype=pl.String), pl.Series([], dtype=pl.UInt32)) == SetHash()
    assert of([(0, 0)]) != SetHash()


def test_leading_zeros_and_other_records_do_not_change_a_records_share():
    padded = SetHash.of(pl.Series(["007", "123456789012345678901"]), pl.Series([0, 0], dtype=pl.UInt32))
    assert padded == of([(7, 0)]) + of([(123456789012345678901, 0)])


def test_a_hash_reads_back_from_hex():
    value = of([(5, 1)])
    assert SetHash.parse(value.hex) == value
    with pytest.raises(ValueError, match="32 hex digits"):
        SetHash.parse("12")


@pytest.mark.parametrize("sequences", [["12", "1x"], ["", "a"], ["12", None], ["-5", "12"], ["1_0", "1_0"], ["", ""]])
def test_an_invalid_sequence_number_is_refused(sequences):
    with pytest.raises(ValueError, match="sequence number"):
        SetHash.of(pl.Series(sequences, dtype=pl.String), pl.Series([0, 0], dtype=pl.UInt32))
