"""An S3 server on this machine: moto's, in a process of its own, as the tests have it; and what was asked of it.

In: nothing. Out: a URL, what its clients' environment has to hold, every request in order. Never: a real store's latency, or its
price; its processor seconds are not the client's.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

_REQUEST = re.compile(r"\b(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/")


class S3Server:
    """The server, while its block lasts; when it has ended, `requests` is whole."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []  # method, path with its query
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", "0"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # noqa: S603
        for line in self._process.stderr or ():
            if "Running on http" in line:
                url = line.rpartition("Running on ")[2].split()[0]
                self.environment = {
                    "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
                    "AWS_ENDPOINT_URL": url,
                }  # fmt: skip
                self._reader = threading.Thread(target=self._read, daemon=True)
                self._reader.start()
                return self
        raise SystemExit("moto's server does not start")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        for line in self._process.stderr or ():
            if (found := _REQUEST.search(line)) is not None:
                self.requests.append((found[1], found[2]))
