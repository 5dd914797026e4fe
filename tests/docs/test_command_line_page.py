"""docs/command-line.md: its commands, and completion by a real bash."""

import os
import pty
import re
import subprocess
import sys

import pytest

from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "command-line.md").read_text()
INSTALL, WRITE = re.findall(r"^```sh\n(.*?)\n^```", PAGE, re.DOTALL | re.MULTILINE)
COMMAND = f"""#!{sys.executable}
import sys
from stream.cli.process import command
sys.argv[0] = "stream"
command()
"""


@pytest.fixture
def home(tmp_path):
    """A home directory with the command on its path, and a pipeline file in it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "stream").write_text(COMMAND)
    (tmp_path / "bin" / "stream").chmod(0o755)
    (tmp_path / "pipeline.yaml").write_text("")
    return tmp_path


def environment(home, **more):
    return {"HOME": str(home), "PATH": f"{home / 'bin'}:/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TERM": "dumb", **more}


def output_of_bash(home, *lines):
    r"""What an interactive bash prints for ``lines``. A line may hold ``\t``; ``\001`` goes back to its beginning."""
    leader, follower = pty.openpty()
    shell = ["bash", "--noprofile", "--norc", "-i"]
    variables = environment(home, PS1="$ ", HISTFILE="")
    with subprocess.Popen(shell, cwd=home, env=variables, stdin=follower, stdout=subprocess.PIPE, stderr=follower) as process:
        os.close(follower)
        os.write(leader, "".join(f"{line}\n" for line in (*lines, "exit")).encode())
        printed, _ = process.communicate(timeout=120)
    os.close(leader)
    return printed.decode().splitlines()


@pytest.mark.parametrize(
    ("begun", "whole"),
    [
        ("stream expl\t", "stream explain"),
        ("stream audit ver\t", "stream audit verify"),
        ("stream run pipeline.yaml --metrics-p\t", "stream run pipeline.yaml --metrics-port"),
        ("stream run pipeline.yaml --log-level war\t", "stream run pipeline.yaml --log-level warning"),
        ("stream iam pipeline.yaml --role redshift\t", "stream iam pipeline.yaml --role redshift-copy"),
        ("stream init --template dms-to-r\t", "stream init --template dms-to-redshift"),
        ("stream run pipe\t", "stream run pipeline.yaml"),
    ],
)
def test_bash_completes_verbs_options_values_and_files(home, begun, whole):
    subprocess.run(["bash", "-c", WRITE], cwd=home, env=environment(home), check=True, timeout=120)
    assert whole in [line.rstrip() for line in output_of_bash(home, "source stream-completion.bash", f"{begun}\001echo ")]


def test_the_install_command_sets_up_the_calling_shell(home):
    # Two commands, or bash would replace itself by the first, and there would be no shell to find.
    subprocess.run(["bash", "-c", f"{INSTALL}; true"], cwd=home, env=environment(home), check=True, timeout=120, capture_output=True)
    assert (home / ".bashrc").read_text().strip() == f"source '{home}/.bash_completions/stream.sh'"
    assert "stream doctor" in [line.rstrip() for line in output_of_bash(home, "source ~/.bashrc", "stream doc\t\001echo ")]


@pytest.mark.parametrize(
    ("shell", "words", "says"),
    [
        ("zsh", "stream expl", '"explain":"Show what a pipeline will do'),
        ("zsh", "stream run pipeline.yaml --log-level e", '"error"'),
        ("zsh", "stream run pipe", "_files"),
        ("fish", "stream expl", "explain\tShow what a pipeline will do"),
        ("fish", "stream run pipeline.yaml --log-level e", "error"),
    ],
)
def test_zsh_and_fish_get_the_right_completions(home, shell, words, says):
    asked = {"_STREAM_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run(["stream"], cwd=home, env=environment(home, **asked), check=True, timeout=120, capture_output=True, text=True)
    assert says in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_completion_script(home, shell):
    done = subprocess.run(
        ["bash", "-c", f"{WRITE.replace('source_bash', f'source_{shell}')}; cat stream-completion.bash"],
        cwd=home,
        env=environment(home),
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert f"complete_{shell}" in done.stdout
