"""A PostgreSQL of our own in a temporary directory, with a Unix socket, run by an unprivileged user."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60", "timezone=UTC")


def binaries() -> Path:
    """Where initdb and postgres are; Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    initdb = found[-1] if found else shutil.which("initdb")
    if initdb is None:
        raise RuntimeError("there is no PostgreSQL here; `make redshift` installs it")
    return Path(initdb).resolve().parent


@contextmanager
def postgres(port: int | None = None) -> Iterator[str]:
    """The socket directory of a running server with the superuser ``double`` and the database ``dev``.

    With ``port`` it listens on loopback too, and asks for a password there.
    """
    as_user = {"user": pwd.getpwnam("postgres").pw_uid, "group": pwd.getpwnam("postgres").pw_gid} if os.geteuid() == 0 else {}
    tools = binaries()
    with tempfile.TemporaryDirectory(prefix="redshift-double-") as folder:
        root = Path(folder)
        if as_user:
            os.chown(root, as_user["user"], as_user["group"])
        data, log = root / "data", root / "log"
        initdb = [str(tools / "initdb"), "-D", str(data), "-U", "double", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=root, **as_user)
        listen = (f"listen_addresses={'127.0.0.1' if port else ''}", *([f"port={port}"] if port else []))
        if port:
            (data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        options = " ".join(f"-c {setting}" for setting in (*SETTINGS, *listen, f"unix_socket_directories={root}"))
        control = [str(tools / "pg_ctl"), "-D", str(data), "-w", "-t", "120"]
        subprocess.run([*control, "-l", str(log), "-o", options, "start"], check=True, capture_output=True, cwd=root, **as_user)
        try:
            subprocess.run(
                [str(tools / "createdb"), "-h", str(root), "-p", str(port or 5432), "-U", "double", "dev"],
                check=True,
                capture_output=True,
                cwd=root,
            )
            yield str(root)
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, cwd=root, **as_user)
