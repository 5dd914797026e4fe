from datetime import UTC, datetime

import polars as pl
import pytest
from pydantic import ValidationError

from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.stages.parse import Parse
from tests.frames import apply, rows


def parse(values, **config):
    return apply(Parse.model_validate({"column": "t", "keep": False, **config}), rows({"t": [*values, None]}, {"t": pl.String()}))


def test_named_groups_become_typed_columns():
    got, rejects = parse(["a=1 b=x", "a=2", "b=1", "a=300"], regex=r"^a=(?P<a>\d+)(?: b=(?<b>\w))?( ?)$", types={"a": "int8"})
    assert got == [{"a": 1, "b": "x"}, {"a": 2, "b": None}, {"a": None, "b": None}]
    assert rejects == {2: "parse_failed:t", 3: "wrong_type:a"}


def test_unreadable_text_can_become_null():
    got, rejects = parse(["1", "x", "999"], regex=r"^(?P<n>\d+)$", types={"n": "int8"}, on_error=None)
    assert [row["n"] for row in got] == [1, None, None, None]
    assert not rejects


def test_grok_reads_the_log_of_a_web_server():
    line = '192.0.2.9 - frank [10/Oct/2000:13:55:36 -0700] "GET /a.gif?q=1 HTTP/1.0" 200 2326 "http://example.com/" "Mozilla/4.08 [en]"'
    got, rejects = parse([line, "no log line"], grok="^%{COMBINEDLOG}$")
    assert rejects == {1: "parse_failed:t"}
    assert {name: value for name, value in got[0].items() if value is not None} == {
        "client": "192.0.2.9",
        "user": "frank",
        "time": "10/Oct/2000:13:55:36 -0700",
        "verb": "GET",
        "request": "/a.gif?q=1",
        "http_version": "1.0",
        "status": 200,
        "bytes": 2326,
        "referrer": "http://example.com/",
        "agent": "Mozilla/4.08 [en]",
    }


def test_grok_accepts_custom_patterns():
    got, _ = parse(["AB-12 rest"], grok="^%{TAG:tag} %{GREEDYDATA:rest}", patterns={"TAG": "[A-Z]+-%{INT}"})
    assert got[0] == {"tag": "AB-12", "rest": "rest"}


@pytest.mark.parametrize(
    ("formats", "zone", "good", "bad"),
    [
        ("%d/%b/%Y:%H:%M:%S %z", "UTC", "10/Oct/2000:13:55:36 -0700", ["10/Foo/2000:13:55:36 -0700", ""]),
        (["%Y", "%m/%d/%Y %I:%M:%S %p"], "America/Los_Angeles", "10/10/2000 01:55:36 PM", ["2000-10-10", "4/2/2000 02:30:00 AM"]),
        ("%d.%m.%Y %H:%M:%S", "Europe/Berlin", "10.10.2000 22:55:36", ["29.10.2000 02:30:00"]),
        ("%s", "UTC", "971211336", ["x"]),
        ("%s", "Europe/Berlin", "971211336", ["x"]),
        ("%+", "Europe/Berlin", "2000-10-10T13:55:36-07:00", ["2000-10-10T13:55:36"]),
        ("%F %T%.f", "UTC", "2000-10-10 20:55:36", ["2000-10-10 20:55"]),
    ],
)
def test_timestamps_are_read_in_given_formats_and_zones(formats, zone, good, bad):
    got, rejects = parse([good, *bad], timestamp=formats, timezone=zone)
    assert got[0] == {"t": datetime(2000, 10, 10, 20, 55, 36, tzinfo=UTC)}
    assert rejects == dict.fromkeys(range(1, len(bad) + 1), "parse_failed:t")


def test_a_two_digit_year_is_not_a_four_digit_year():
    texts = ["24-01-01", "999-01-01", "2024-01-01", "0001-01-01"]
    got, rejects = parse(texts, timestamp="%Y-%m-%d")
    assert [str(row["t"])[:4] for row in got] == ["2024", "0001", "None"]
    assert rejects == dict.fromkeys([0, 1], "parse_failed:t")
    got, rejects = parse(texts[:1], timestamp=["%Y-%m-%d", "%y-%m-%d"])
    assert [row["t"] and row["t"].year for row in got] == [2024, None]


def test_a_timestamp_replaces_its_text_or_goes_to_another_column():
    frame = rows({"t": ["2000"], "z": [1]})
    stage = {"column": "t", "timestamp": "%Y-%m-%d", "on_error": "null"}
    assert list(apply(Parse.model_validate(stage), frame)[0][0]) == ["t", "z"]
    assert list(apply(Parse.model_validate({**stage, "into": "at"}), frame)[0][0]) == ["t", "z", "at"]


def test_urls_are_split_into_parts():
    urls = ["HTTPS://me:pw@Example.com:8443/a/b?q=1#top", "/only/path?x", "http://[2001:db8::1]/", "http://h:70000/", "http://h/a b", ""]
    got, rejects = parse(urls, url=True, into="u_")
    assert got[0] == {
        "u_scheme": "https",
        "u_user": "me:pw",
        "u_host": "example.com",
        "u_port": 8443,
        "u_path": "/a/b",
        "u_query": "q=1",
        "u_fragment": "top",
    }
    assert (got[1]["u_host"], got[1]["u_path"], got[1]["u_query"]) == (None, "/only/path", "x")
    assert got[2]["u_host"] == "[2001:db8::1]"
    assert rejects == {3: "parse_failed:t", 4: "parse_failed:t"}
    assert list(parse([], url=["path", "host"])[0][0]) == ["t_path", "t_host"]


@pytest.mark.parametrize(
    ("agent", "browser", "version", "system", "device"),
    [
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/120.0.0.0 Safari/537.36",
            "Chrome",
            120,
            "Windows",
            "desktop",
        ),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/120.0 Safari/537.36 Edg/119.0", "Edge", 119, "Windows", "desktop"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Version/17.0 Mobile/1 Safari/604.1", "Safari", 17, "iOS", "phone"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:121.0) Gecko/20100101 Firefox/121.0", "Firefox", 121, "Linux", "desktop"),
        ("Mozilla/5.0 (Linux; Android 13; SM-X700) Chrome/119.0 Safari/537.36", "Chrome", 119, "Android", "tablet"),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "bot", 2, None, "bot"),
        ("curl/8.4.0", "curl", 8, None, None),
        ("", None, None, None, None),
    ],
)
def test_user_agents_are_split_into_parts(agent, browser, version, system, device):
    got, rejects = parse([agent], user_agent=True)
    assert got[0] == {"t_browser": browser, "t_version": version, "t_os": system, "t_device": device}
    assert not rejects


def test_ip_addresses_are_classified():
    given = ["8.8.8.8", "10.1.2.3", "2606:4700::1111", "fe80::1", "::1", "::ffff:1.2.3.4", "8.8.8.8", "1.2.3", "fe80::1%eth0", "01.2.3.4"]
    got, rejects = parse(given, ip=True)
    assert [tuple(row.values()) for row in got] == [
        (4, "global", "8.8.8.0/24"),
        (4, "private", "10.1.2.0/24"),
        (6, "global", "2606:4700::/48"),
        (6, "link_local", "fe80::/48"),
        (6, "loopback", "::/48"),
        (6, "reserved", "::/48"),
        (4, "global", "8.8.8.0/24"),
        (None, None, None),
    ]
    assert rejects == dict.fromkeys((7, 8, 9), "parse_failed:t")


@pytest.mark.parametrize(
    ("config", "path", "says"),
    [
        ({"column": "x", "ip": True}, ("column",), "no column 'x'"),
        ({"column": "n", "ip": True}, ("column",), "only text"),
        ({"regex": "("}, ("regex",), "unclosed group"),
        ({"regex": "x"}, ("regex",), "no named group"),
        ({"regex": "(?P<n>x)"}, ("column",), "already exists"),
        ({"regex": "(?P<_row>x)"}, ("column",), "belongs to the service"),
        ({"regex": "(?P<a>x)", "types": {"b": "int64"}}, ("types", "b"), "no group 'b'"),
        ({"regex": "(?P<a>x)", "types": {"a": "json"}}, ("types", "a"), "cannot be read as json"),
        ({"regex": "(?P<a>x)", "types": {"a": "itn64"}}, ("types", "a"), "unknown type"),
        ({"grok": "%{WROD:a}"}, ("grok",), "no pattern 'WROD'"),
        ({"grok": "%{WORD:a b}"}, ("grok",), "is not a reference"),
        ({"grok": "%{A:a}", "patterns": {"A": "%{B}", "B": "%{A}"}}, ("grok",), "refers to itself"),
        ({"timestamp": "%Y-%m-%d %H:%M", "timezone": "Mars/Olympus"}, ("timezone",), "cannot be read"),
        ({"timestamp": ["%F", "%F %T %Z"]}, ("timestamp", 1), "skips the name of a zone"),
        ({"timestamp": "%Y-%m-%d %H:%M:%S.%f"}, ("timestamp", 0), "%f reads nanoseconds"),
        ({"timestamp": "%H:%M"}, ("timestamp", 0), "not even '16:05'"),
        ({"timestamp": "%m/%d"}, ("timestamp", 0), "not even '02/03'"),
        ({"url": True, "into": ""}, (), ""),
    ],
)
def test_options_that_do_not_fit_the_columns_are_refused_with_their_position(config, path, says):
    schema = rows({"t": ["x"], "n": [1]}).schema
    if not path:
        with pytest.raises(ValidationError):
            Parse.model_validate({"column": "t", **config})
        return
    with pytest.raises(SchemaMismatch, match=says) as caught:
        Parse.model_validate({"column": "t", **config}).output(schema, Resources())
    assert caught.value.path == path


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"ip": True, "url": True},
        {"ip": True, "types": {"a": "int64"}},
        {"regex": "(?P<a>x)", "into": "b"},
        {"url": ["hots"]},
        {"url": []},
        {"regex": "(?P<a>x)", "timezone": "Europe/Berlin"},
    ],
)
def test_contradictory_methods_are_refused(config):
    with pytest.raises(ValidationError):
        Parse.model_validate({"column": "t", **config})
