"""Expressions as the guide describes them, as far as they have a value before a run."""

import json

import pytest

from stream.datapipeline.definition import parse
from stream.datapipeline.evaluated_text import RunTimes, Text, Untranslatable, shown
from stream.datapipeline.expressions import Scope, evaluated, texts_of
from stream.datapipeline.object_types import OBJECT_TYPES
from stream.datapipeline.resolve import resolve
from stream.datapipeline.run_times import INTERVAL

TEXT = json.dumps(
    {
        "objects": [
            {
                "id": "it",
                "name": "It",
                "type": "S3DataNode",
                "myText": "left",
                "myList": ["one", "two"],
                "myLink": {"ref": "other"},
                "myTime": "#{@scheduledStartTime}",
                "myLoop": "#{myPool}",
                "myPool": "#{myLoop}",
                "*password": "hidden",
                "myDate": "2011-05-24T17:10:00",
                **{f"myGrowth{number}": f"#{{myGrowth{number + 1}}}#{{myGrowth{number + 1}}}" for number in range(30)},
                "myGrowth30": "x",
            },
            {"id": "other", "type": "CSV", "column": "a INT", "myWord": "right"},
        ],
        "values": {"myBucket": "lake", "mySeveral": ["x", "y"], "*myKey": "hidden", "myOdd": "a}b", "myNumber": 3},
    }
).encode()
DEFINITION = resolve(parse(TEXT, "d"), "d", OBJECT_TYPES)
IT = DEFINITION.objects["it"]


def text(expression, node=None):
    return evaluated(expression, Scope(DEFINITION, IT, node))


def value(expression):
    return text(f"#{{{expression}}}").plain


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("1 / 2", "0"),
        ("-7 / 2", "-3"),
        ("1.0 / 2", "0.5"),
        ("2 ^ 3", "8"),
        ("1 - 2 - 3", "-4"),
        ("'a' + 1 + 2", "a12"),
        ('"hel" + "lo"', "hello"),
        ("name", "It"),
        ("@id", "it"),
        ("parent.@id", "it"),
        ("parent.name", "It"),
        ("myText + '/'", "left/"),
        ("myLink.myWord", "right"),
        ("myLink", "other"),
        ("myBucket", "lake"),
        ("myNumber + 1", "31"),
        ("makeDate(2011, 5, 24)", "2011-05-24T00:00:00"),
        ("makeDateTime(2011,5,24,14,21)", "2011-05-24T14:21:00"),
        ("format(myDate, 'YYYY-MM-dd HH:mm:ss z')", "2011-05-24 17:10:00 UTC"),
        ("myDate.format('yy/M/d')", "11/5/24"),
        ("day(myDate)", "24"),
        ("dayOfYear(myDate)", "144"),
        ("hour(myDate) + 1", "18"),
        ("minute(myDate)", "10"),
        ("year(myDate)", "2011"),
        ("firstOfMonth(myDate)", "2011-05-01T17:10:00"),
        ("midnight(myDate)", "2011-05-24T00:00:00"),
        ("sunday(myDate)", "2011-05-22T17:10:00"),
        ("yesterday(myDate)", "2011-05-23T17:10:00"),
        ("minusMonths(myDate, 15)", "2010-02-24T17:10:00"),
        ("plusWeeks(myDate,1)", "2011-05-31T17:10:00"),
        ("plusMonths('2011-01-31T00:00:00', 1)", "2011-02-28T00:00:00"),
        ("minusYears(myDate, 1)", "2010-05-24T17:10:00"),
        ("plusPeriod(myDate, '2 days')", "2011-05-26T17:10:00"),
        ("format(myDate, \"'at' HH'h'\")", "at 17h"),
    ],
)
def test_known_expressions_are_evaluated(expression, result):
    assert value(expression) == result


@pytest.mark.parametrize(
    ("expression", "template"),
    [
        ("@scheduledStartTime", "{{ data_interval_start.strftime('%Y-%m-%dT%H:%M:%S') }}"),
        ("format(@scheduledEndTime, 'YYYY/MM/dd')", "{{ data_interval_end.strftime('%Y/%m/%d') }}"),
        ("format(minusDays(@scheduledStartTime, 1), 'YYYY')", "{{ data_interval_start.add(days=-1).strftime('%Y') }}"),
        (
            "format(plusYears(midnight(@scheduledStartTime), 2), 'YYYY')",
            "{{ data_interval_start.replace(hour=0, minute=0, second=0, microsecond=0).add(months=24).strftime('%Y') }}",
        ),
        (
            "format(sunday(@scheduledStartTime), 'dd')",
            "{{ data_interval_start.subtract(days=data_interval_start.isoweekday() % 7).strftime('%d') }}",
        ),
        ("format(myTime, 'HH')", "{{ data_interval_start.strftime('%H') }}"),
        ("@scheduledStartTime.format('HH')", "{{ data_interval_start.strftime('%H') }}"),
        ("hour(firstOfMonth(@scheduledStartTime))", "{{ data_interval_start.replace(day=1).strftime('%-H') }}"),
    ],
)
def test_a_time_of_the_run_becomes_an_environment_variable(expression, template):
    needs = RunTimes()
    found = text(f"s3://b/#{{{expression}}}.csv").render(needs)
    assert list(shown(needs.times, INTERVAL).values()) == [template]
    (name,) = needs.times
    assert found == f"s3://b/${{{name}}}.csv"


def test_parts_of_one_time_become_one_variable():
    needs = RunTimes()
    found = text("#{year(@scheduledStartTime)}/#{format(@scheduledStartTime, 'MM')}/50%/#{@scheduledEndTime}").render(needs)
    assert found == "${MONTH}/50%/${SECOND}"
    assert needs.times["MONTH"].pattern == "%Y/%m"


def test_two_times_have_two_variables():
    needs = RunTimes()
    text("#{format(@scheduledStartTime, 'HH')}-x-#{format(@scheduledEndTime, 'HH')}").render(needs)
    assert list(needs.times) == ["HOUR", "HOUR_2"]


def test_parameters_become_defaults_of_references():
    assert text("s3://#{myBucket}/${X}").render(RunTimes()) == "s3://${myBucket:-lake}/$${X}"
    assert text("#{myOdd}").render(RunTimes()) == "a}b"


def test_lists_are_expanded():
    slot = IT.slot("myList")
    assert [each.plain for each in texts_of(slot, Scope(DEFINITION, IT))] == ["one", "two"]
    whole = type(slot)("it", "column", ("#{mySeveral}", "z"))
    assert [each.plain for each in texts_of(whole, Scope(DEFINITION, IT))] == ["x", "y", "z"]


def test_an_action_refers_to_the_node_that_uses_it():
    other = DEFINITION.objects["other"]
    assert text("#{node.column}", other).plain == "a INT"
    with pytest.raises(Untranslatable, match="refers to the object that uses it"):
        text("#{node.column}")


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("@pipelineId", "AWS Data Pipeline set at run time"),
        ("@actualStartTime", "AWS Data Pipeline set at run time"),
        ("nothing", "`it` does not have"),
        ("myLoop", "refers to itself"),
        ("myGrowth0", "too many other fields"),
        ("1 / 0", "without a result"),
        ("9 ^ 9 ^ 9", "cannot be understood"),
        ("10 ^ 30", "without a result"),
        ("(0 - 8) ^ 0.5", "without a result"),
        ("'a' * 2", "not a number"),
        ("*password", "the secret `password`"),
        ("*myKey", "the secret `myKey`"),
        ("myKey", "the secret `myKey`"),
        ("makeDate(2011, 13, 1)", "does not exist"),
        ("plusYears(myDate, 9000)", "does not exist"),
        ("minusMinutes(myDate, 99999999)", "no counterpart"),
        ("inTimeZone(myDate, 'Asia/Tokyo')", "no counterpart"),
        ("format(myDate, 'SSS')", "no counterpart"),
        ("format('x', 'YYYY')", "a text that is not a date"),
        ("day('x')", "a text that is not a date"),
        ("plusPeriod(myDate, '1 moon')", "a text that is not a period"),
        ("1 +", "cannot be understood"),
        ("((1)", "cannot be understood"),
        ("'x", "without its closing }"),
        ("myText.x", "no fields"),
        ("'a' + mySeveral", "list inside a text"),
        ("(" * 300, "cannot be understood"),
        ("ä", "cannot be understood"),
        ("minute(@scheduledStartTime) / 2", "not a number"),
    ],
)
def test_an_expression_without_a_value_before_a_run_is_refused_with_a_reason(expression, why):
    with pytest.raises(Untranslatable) as found:
        value(expression)
    assert why in str(found.value)


def test_an_unclosed_expression_is_refused():
    with pytest.raises(Untranslatable, match="without its closing }"):
        text("s3://x/#{myText")
    assert text("#{'}'}").plain == "}"


def test_a_path_is_cut_at_its_last_slash():
    before, rest = text("s3://#{myBucket}/in/x-#{format(@scheduledStartTime, 'YYYY-MM-dd')}.csv").split()
    assert (before.plain, before.render(RunTimes())) == ("s3://lake/in/", "s3://${myBucket:-lake}/in/")
    assert rest.render(RunTimes()) == "x-${DAY}.csv"
    assert [each.plain for each in Text.of(["s3://a/b/c.csv"]).folder()] == ["s3://a/b/", "c.csv"]
    assert [each.plain for each in Text.of(["s3://a/b/"]).folder()] == ["s3://a/b/", ""]
