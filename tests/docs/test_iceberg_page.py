"""The example of docs/iceberg.md, run next to the page's file."""

import json
import re
import shlex
import subprocess
import sys

from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "iceberg.md").read_text()


def block(info):
    (found,) = re.findall(rf"^```{re.escape(info)}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return found


def run(folder, *command):
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def test_the_example_on_the_page_works_as_described(tmp_path):
    (tmp_path / "local.yaml").write_text(block("yaml pipeline\n# local.yaml"))
    (tmp_path / "in").mkdir()
    lines = [json.dumps({"id": number, "page": "home" if number % 3 else "cart"}) for number in range(30)]
    (tmp_path / "in" / "a.json").write_text("\n".join(lines))
    commands = block("sh iceberg").splitlines()
    said = [run(tmp_path, "-m", *shlex.split(line)) for line in commands]
    assert "loaded" in said[1]
    assert "All 30 records are accounted for, once." in said[2]
    assert run(tmp_path, "-c", block("python iceberg")) == "20\n"
