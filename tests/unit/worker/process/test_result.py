import json
import os

import pytest

from stream.clock import SystemClock
from stream.worker.process.result import ResultListener, write_result


@pytest.fixture
def result():
    return ResultListener("flights", SystemClock()).result(0, "")


def test_a_file_is_replaced_and_a_link_to_it_still_works(tmp_path, result):
    (tmp_path / "there.json").write_text("old")
    (tmp_path / "link.json").symlink_to("there.json")
    write_result(tmp_path / "link.json", result)
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "there.json").read_text())["application"] == "flights"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_pipe_stays_a_pipe(tmp_path, result):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_result(pipe, result)
        assert json.loads(os.read(reader, 65536))["application"] == "flights"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_if_no_file_can_be_put_beside_it_the_file_itself_is_written(tmp_path, result):
    (tmp_path / ".termination-log.part").mkdir()
    write_result(tmp_path / "termination-log", result)
    assert json.loads((tmp_path / "termination-log").read_text())["exit_code"] == 0
