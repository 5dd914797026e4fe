import subprocess
import sys

import pytest

from stream.errors import Fatal
from stream.local.start import NEEDED, LocalAws


def test_a_missing_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "moto", None)
    with pytest.raises(Fatal, match=r"needs moto; install kinesis-stream\[local\]"), LocalAws():
        pass


def test_the_command_line_needs_none_of_the_packages_for_local_runs():
    hidden = "; ".join(f"sys.modules[{name!r}] = None" for name in NEEDED)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {hidden}; import stream.cli.main"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
