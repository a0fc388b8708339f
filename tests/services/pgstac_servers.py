"""Real STAC APIs for tests and benchmarks: stac-fastapi on two generations of pgstac, on a PostgreSQL with PostGIS.

In: a running `Postgres`. Out: servers on loopback with free ports, stopped when their context is left, their databases dropped.
Never: installs into the clone (the servers' own environments are cached under the user's cache folder).

Needs Debian's `postgresql-15-postgis-3`; installs it when root.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from postgres import Postgres

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stac-watch" / "services"
PACKAGE = "postgresql-15-postgis-3"
CONTROL = Path("/usr/share/postgresql/15/extension/postgis.control")
GENERATIONS = {"0.9.11": "stac_fastapi.pgstac.app:app", "0.10.0": "stac_fastapi.pgstac.app:create_app"}
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY")  # tests/conftest.py sets them, so that nothing leaves the machine; installing must
UPDATED = (
    "INSERT INTO queryables (name, definition, property_wrapper, property_index_type)"
    """ VALUES ('updated', '{"type": "string", "format": "date-time"}', 'to_tstz', 'BTREE')"""
)


class MissingServiceError(Exception):
    """A program that the servers need is not here, and cannot be had."""


@dataclass(frozen=True)
class Api:
    """A running STAC API."""

    url: str
    generation: str
    database: str
    postgres: Postgres
    python: Path

    def declare_updated(self) -> None:
        """Declares `updated` as a queryable of type date-time, as a catalog's operator may: from text to time, with an index."""
        self._sql(UPDATED, "SELECT maintain_partitions()")

    def forget_updated(self) -> None:
        """Makes it text again."""
        self._sql("DELETE FROM queryables WHERE name = 'updated'", "SELECT maintain_partitions()")

    def _sql(self, *statements: str) -> None:
        for statement in statements:
            self.postgres.sql(f"SET search_path TO pgstac, public; {statement}", self.database)

    def load(self, ndjson: Path) -> None:
        """Loads items in bulk, past the API: what it would refuse or normalise stays as it is."""
        environ = _environ(self.postgres, self.database)
        _run([str(self.python.parent / "pypgstac"), "load", "items", str(ndjson), "--method", "insert_ignore"], env=environ)


def require_postgis() -> None:
    """Makes sure that PostgreSQL with PostGIS is installed.

    Raises:
        MissingServiceError: it is not, and cannot be.
    """
    if not CONTROL.exists() and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False}
        environ = {k: v for k, v in os.environ.items() if k.upper() not in PROXIES}
        install = ["apt-get", "install", "-y", "--no-install-recommends", PACKAGE]
        if subprocess.run(install, env=environ, **quiet).returncode:
            subprocess.run(["apt-get", "update"], env=environ, **quiet)
            subprocess.run(install, env=environ, **quiet)
    if not CONTROL.exists():
        raise MissingServiceError(f"PostgreSQL 15 with PostGIS is not installed: apt-get install {PACKAGE}")


@contextmanager
def stac_api(database: Postgres, generation: str, listen: str = "127.0.0.1") -> Iterator[Api]:
    """Runs stac-fastapi-pgstac of that generation on a fresh database; `listen` is another address where pods must reach it.

    Raises:
        MissingServiceError: it cannot be installed.
    """
    python = environment(f"pgstac-{generation}")
    name = f"stac_{generation.replace('.', '_')}_{free_port()}"
    database.sql(f"CREATE DATABASE {name}")
    environ = _environ(database, name)
    _run([str(python.parent / "pypgstac"), "migrate"], env=environ)
    port = free_port()
    app = GENERATIONS[generation]
    command = [str(python.parent / "uvicorn"), app, "--host", listen, "--port", str(port), "--log-level", "warning"]
    with tempfile.TemporaryFile() as log:
        factory = ["--factory"] if app.endswith("create_app") else []
        process = subprocess.Popen([*command, *factory], env=environ, stdout=log, stderr=subprocess.STDOUT)
        try:
            api = Api(f"http://127.0.0.1:{port}", generation, name, database, python)
            await_answer(f"{api.url}/_mgmt/ping", process, log)
            yield api
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            database.sql(f"DROP DATABASE {name} WITH (FORCE)")


def free_port() -> int:
    """Returns a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(name: str) -> Path:
    """Returns the Python of a server's own environment, made once from its pinned requirements."""
    wanted = (HERE / f"{name}.txt").read_text()
    place = CACHE / name
    python, stamp = place / "bin" / "python", place / "requirements.txt"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    tools = ROOT / ".tools"
    uv = str(tools / "bin" / "uv") if (tools / "bin" / "uv").exists() else shutil.which("uv")
    if uv is None:
        raise MissingServiceError("uv is not here: run `make install`")
    chosen = (tools / "python").read_text().strip() if (tools / "python").exists() else ""
    place.parent.mkdir(parents=True, exist_ok=True)
    environ = {k: v for k, v in os.environ.items() if k.upper() not in PROXIES}
    try:
        _run([uv, "venv", "--quiet", "--clear", *(["--python", chosen] if chosen else []), str(place)], env=environ)
        _run([uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(HERE / f"{name}.txt")], env=environ)
    except RuntimeError as error:
        raise MissingServiceError(f"{name} cannot be installed: {error}") from error
    stamp.write_text(wanted)
    return python


def _environ(database: Postgres, name: str) -> dict[str, str]:
    place = {"PGHOST": "127.0.0.1", "PGPORT": str(database.port), "PGUSER": "postgres", "PGPASSWORD": "none", "PGDATABASE": name}
    return os.environ | place | {"ENABLE_TRANSACTIONS_EXTENSIONS": "TRUE", "DB_MAX_CONN_SIZE": "10"}


def await_answer(url: str, process: subprocess.Popen[bytes], log: object) -> None:
    """Waits until a server answers.

    Raises:
        RuntimeError: it has ended, or does not for a minute; with its log.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.RequestException:
            pass
        if process.poll() is not None:
            break
        time.sleep(0.05)
    log.seek(0)  # type: ignore[attr-defined]
    raise RuntimeError(f"{url} did not start: {log.read().decode()[-2000:]}")  # type: ignore[attr-defined]


def _run(command: list[str], *, env: dict[str, str] | None = None) -> None:
    with tempfile.TemporaryFile() as said:
        code = subprocess.run(command, env=env, stdout=said, stderr=subprocess.STDOUT, cwd="/", check=False).returncode
        if code:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command[:6])} … exited with {code}: {said.read().decode()[-1500:]}")
