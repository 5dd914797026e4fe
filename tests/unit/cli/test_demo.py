"""How ``stream demo`` ends when interrupted; `make demo` shows that it works."""

import asyncio

import pytest
from typer.testing import CliRunner

from stream.cli.demo import _until_stopped as until_stopped
from stream.cli.main import app


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--endpoint", "nonsense"], 2, "'nonsense' is not a URL"),
        (["--endpoint", "http://127.0.0.1:9"], 1, "error: Could not connect to the endpoint URL"),
        (["--output", "file/below"], 1, "file/below/logs: Not a directory; choose another directory with --output"),
        (["--output", "mine"], 1, "mine exists and was not made by the demo"),
    ],
)
def test_a_demo_that_cannot_start_says_why(tmp_path, monkeypatch, options, code, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    done = CliRunner().invoke(app, ["demo", "--rows", "1000", *options], env={"COLUMNS": "200"})
    assert done.exit_code == code
    assert says in done.output


def test_a_cancelled_demo_waits_for_the_thread_that_puts_records():
    put, ended = [], []

    def put_for_ever(first, heard):
        try:
            while True:
                put.append(first)
                heard(len(put))
        finally:
            ended.append(True)

    async def run():
        loop, begun = asyncio.get_running_loop(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            putting = group.create_task(until_stopped(put_for_ever, "record", lambda _: loop.call_soon_threadsafe(begun.set)))
            await begun.wait()
            assert ended == []
            putting.cancel()
        assert putting.cancelled()
        assert ended == [True]

    asyncio.run(run())
    assert set(put) == {"record"}


def test_the_result_or_error_of_the_thread_is_passed_on():
    def fails(_heard):
        msg = "no Kinesis"
        raise OSError(msg)

    assert asyncio.run(until_stopped(lambda heard: heard(3) or "put", lambda _: None)) == "put"
    with pytest.raises(OSError, match="no Kinesis"):
        asyncio.run(until_stopped(fails, lambda _: None))
