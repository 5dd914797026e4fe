"""The example of docs/iceberg.md, run next to the page's file."""

import json
import re
import shlex
import subprocess
import sys

from tests import forked
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "iceberg.md").read_text()


def block(info):
    (found,) = re.findall(rf"^```{re.escape(info)}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return found


def test_the_example_on_the_page_works_as_described(tmp_path):
    (tmp_path / "local.yaml").write_text(block("yaml pipeline\n# local.yaml"))
    (tmp_path / "in").mkdir()
    lines = [json.dumps({"id": number, "page": "home" if number % 3 else "cart"}) for number in range(30)]
    (tmp_path / "in" / "a.json").write_text("\n".join(lines))
    commands = block("sh iceberg").splitlines()
    said = []
    for line in commands:
        name, *words = shlex.split(line)
        assert name == "stream"
        if words[0] == "run":
            words += ["--metrics-port", "0"]  # the usual one may be in use
        done = forked.run(*words, cwd=tmp_path, env={})
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        said.append(done.stdout)
    assert "loaded" in said[1]
    assert "All 30 records are accounted for, once." in said[2]
    done = subprocess.run([sys.executable, "-c", block("python iceberg")], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "20\n"
