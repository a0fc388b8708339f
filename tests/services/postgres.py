"""A PostgreSQL server for tests: Debian's programs, a temporary folder, a free port on loopback, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOTS = (Path("/usr/lib/postgresql"), Path("/usr/local/lib/postgresql"))
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60", "jit=off")  # nothing to lose here


def programs(version: str = "15") -> Path | None:
    """Returns the folder of initdb and postgres, or None when they are not installed."""
    for root in ROOTS:
        if (root / version / "bin" / "initdb").exists():
            return root / version / "bin"
    return None


# ends the server (SIGQUIT: at once) when our end of its stdin closes, however we end; a killed test run leaves nothing behind
GUARD = 'folder=$1; shift; "$@" </dev/null & read -r _; kill -QUIT $! && wait $!; rm -rf "$folder"/*'


class Postgres:
    """A running server. As root it runs as the user `postgres`, because PostgreSQL refuses to be root.

    `clients` are networks beside loopback that may come in, as the pods of a cluster on this machine.
    """

    def __init__(self, settings: Sequence[str] = FAST, *, clients: Sequence[str] = ()) -> None:
        found = programs()
        assert found is not None, "PostgreSQL 15 is not installed: apt-get install postgresql-15"
        self._bin = found
        self._user = "postgres" if os.getuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="stac-watch-postgres-"))
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        data = self._folder / "data"
        self._run("initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        with (data / "pg_hba.conf").open("a") as rules:
            rules.writelines(f"host all all {network} trust\n" for network in clients)
        listen = "listen_addresses=*" if clients else "listen_addresses=127.0.0.1"
        options = [f"-c{setting}" for setting in (*settings, listen, f"unix_socket_directories={self._folder}")]
        with (self._folder / "log").open("wb") as log:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "guard", self._folder, self._bin / "postgres", "-D", data, "-p", str(self.port), *options],
                stdin=subprocess.PIPE, stdout=log, stderr=log, user=self._user, cwd="/",
            )  # fmt: skip
        self._await()

    def url(self, database: str = "postgres", *, schema: str | None = None) -> str:
        """Returns a SQLAlchemy URL."""
        path = f"?options=-csearch_path%3D{schema}" if schema else ""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}{path}"

    def sql(self, statement: str, database: str = "postgres") -> None:
        """Runs one statement."""
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database)
        self._run("psql", *where, "-q", "-v", "ON_ERROR_STOP=1", "-c", statement)

    def close(self) -> None:
        """Stops the server at once and removes its folder."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        try:
            self._guard.wait(20)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _await(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self._guard.poll() is not None:
                break
            ready = subprocess.run([self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False)
            if ready.returncode == 0:
                return
            time.sleep(0.05)
        log = (self._folder / "log").read_text()
        self.close()
        raise AssertionError(f"PostgreSQL did not start: {log[-2000:]}")

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments], user=self._user, cwd=self._folder, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{program}: {done.stderr}"
