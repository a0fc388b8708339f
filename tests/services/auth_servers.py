"""stac-auth-proxy in front of a STAC API, as production has it: everybody reads, who has `stac:write` for this API writes.

In: the API's URL. Out: two servers on loopback, ended with their context.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pgstac_servers as servers

NAME = "stac-auth-proxy-1.3.1"
SCOPE = "stac:write"
PRIVATE = {
    "^/collections$": ["POST"], "^/collections/([^/]+)$": ["PUT", "PATCH", "DELETE"], "^/collections/([^/]+)/items$": ["POST"],
    "^/collections/([^/]+)/items/([^/]+)$": ["PUT", "PATCH", "DELETE"], "^/collections/([^/]+)/bulk_items$": ["POST"],
}  # fmt: skip


@dataclass(frozen=True)
class Guarded:
    """A STAC API that wants tokens for writing, and who gives them."""

    url: str
    issuer: str

    @property
    def token_url(self) -> str:
        return f"{self.issuer}/token"


@contextmanager
def guarded(upstream: str) -> Iterator[Guarded]:
    """Runs an issuer and the proxy in front of an API.

    Raises:
        MissingServiceError: the proxy cannot be installed.
    """
    python = servers.environment(NAME)
    place = Guarded(f"http://127.0.0.1:{servers.free_port()}", f"http://127.0.0.1:{servers.free_port()}")
    settings = {
        "UPSTREAM_URL": upstream, "OIDC_DISCOVERY_URL": f"{place.issuer}/.well-known/openid-configuration",
        "DEFAULT_PUBLIC": "true", "ALLOWED_JWT_AUDIENCES": "stac-api", "ENABLE_COMPRESSION": "false",
        "PRIVATE_ENDPOINTS": json.dumps({path: [[method, SCOPE] for method in methods] for path, methods in PRIVATE.items()}),
    }  # fmt: skip
    issuer = [str(python), str(Path(__file__).with_name("issuer.py")), place.issuer.rpartition(":")[2]]
    proxy = [
        str(python),
        "-m",
        "uvicorn",
        "--factory",
        "stac_auth_proxy:create_app",
        "--host",
        "127.0.0.1",
        "--log-level",
        "warning",
    ]
    with _running(issuer, f"{place.issuer}/jwks", {}), _running(
        [*proxy, "--port", place.url.rpartition(":")[2]], f"{place.url}/healthz", settings
    ):  # fmt: skip
        yield place


@contextmanager
def _running(command: list[str], url: str, settings: dict[str, str]) -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        environ = {k: v for k, v in servers.os.environ.items() if k.upper() not in servers.PROXIES} | settings
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT)
        try:
            servers.await_answer(url, process, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
