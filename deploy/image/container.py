"""A container of the image as a strict pod would run it: runc, read-only root, no capabilities, no new privileges, the image's own user."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

USER: Final = 10001
PIPELINE: Final = "/etc/stream"
"""Where the folder of pipeline files is mounted, read-only."""


def say(text: str) -> None:
    sys.stdout.write(f"image-check: {text}\n")
    sys.stdout.flush()


def insist(holds: object, what: str, found: str = "") -> None:
    """Say that ``what`` holds, or end the process and show what was found instead."""
    if not holds:
        sys.exit(f"image-check: does not hold: {what}" + (f"; found:\n{found}" if found else ""))
    say(f"ok: {what}")


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


class Storage:
    """Images in buildah's storage under ``work``, as ``build.sh`` leaves them."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self._buildah = ["buildah", "--root", str(work / "storage"), "--runroot", str(work / "run")]

    def __call__(self, *words: str) -> str:
        """What buildah prints.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        return subprocess.run([*self._buildah, *words], check=True, capture_output=True, text=True).stdout.strip()

    def config(self, image: str) -> dict[str, Any]:
        """The part of the image's configuration that says how to run it."""
        found: dict[str, Any] = json.loads(self("inspect", "--type", "image", image))["OCIv1"]["config"]
        return found

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """The image's root file system, while the context is open."""
        container = self("from", image)
        try:
            yield Path(self("mount", container))
        finally:
            self("rm", container)


@contextmanager
def container(
    name: str, root: Path, image: Mapping[str, Any], words: Sequence[str], env: Mapping[str, str], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the image's entry point with ``words`` behind it; killed at the end if it still runs.

    Of the host it has the network, and ``folder`` as ``PIPELINE``. What it prints goes to ``<name>.log`` beside ``folder``. Signals reach
    it by ``signal_to``.
    """
    bundle = folder.parent / f"bundle-{name}"
    bundle.mkdir()
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    spec = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps(_strict(spec, root, image, words, env, folder)))
    command = ["runc", "run", "--bundle", str(bundle), _id(name)]
    with (folder.parent / f"{name}.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                signal_to(name, signal.SIGKILL)
                process.wait(60)


def signal_to(name: str, number: signal.Signals) -> None:
    """Send a signal to process 1 of the container."""
    subprocess.run(["runc", "kill", _id(name), str(int(number))], check=True)


def _id(name: str) -> str:
    """Containers of several checks on one machine do not meet."""
    return f"stream-{os.getpid()}-{name}"


def _strict(
    spec: dict[str, Any], root: Path, image: Mapping[str, Any], words: Sequence[str], env: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    uid, _, gid = image["User"].partition(":")
    process, linux = spec["process"], spec["linux"]
    spec["root"] = {"path": str(root), "readonly": True}
    process |= {
        "terminal": False,
        "args": [*image["Entrypoint"], *words],
        "user": {"uid": int(uid), "gid": int(gid)},
        "cwd": image.get("WorkingDir", "/"),
        "noNewPrivileges": True,
        "env": [*image.get("Env", []), *(f"{key}={value}" for key, value in env.items())],
        "capabilities": {kind: [] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")},
    }
    process.pop("rlimits", None)
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] not in {"network", "cgroup"}]
    for key in ("resources", "cgroupsPath"):
        linux.pop(key, None)
    spec["mounts"] = [each for each in spec["mounts"] if "cgroup" not in each["destination"]]
    spec["mounts"] += [
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "size=64m"]},
        {"destination": PIPELINE, "type": "bind", "source": str(folder), "options": ["bind", "ro"]},
    ]
    return spec
