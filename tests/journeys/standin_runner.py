"""A runner that converts nothing: same arguments, same outcome, same marker rules as geozarr-runner, in 40 ms.

For journeys that start dozens of runs to prove the watcher. Each conversion that it really makes is one line in $CONVERSIONS, so
that a second one for the same key cannot hide. A product's metadata say how long it takes (`seconds`; `while` a file is there) and
how it ends (`exit`).
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path


class Ended(Exception):  # noqa: N818  # SIGTERM
    pass


def end(*_) -> None:
    raise Ended


def main() -> int:
    signal.signal(signal.SIGTERM, end)
    given = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[2:] if a.startswith("--") and "=" in a)
    places = dict(zip(sys.argv[2:], sys.argv[3:], strict=False))
    outcome, output = Path(places["--outcome"]), Path(given["output-zarr"])
    result = {"key": given["key"], "revision": given["revision"], "run": given["run"], "attempt": int(given["attempt"])}
    marker = output / "stac-watch.json"
    try:
        status, body = get(given["stac-url"] + "/.zmetadata")
        told = json.loads(body) if status == 200 else {}
        time.sleep(told.get("seconds", 0))
        while "while" in told and Path(told["while"]).exists():
            time.sleep(0.02)
    except Ended:
        result |= {"code": 143, "reason": "ended by SIGTERM"}
    else:
        if status != 200:
            result |= {"code": 66, "reason": f"HTTP {status} for {given['stac-url']}"}
        elif marker.exists() and answered(json.loads(marker.read_text()), given):
            result |= {"code": 0, "reason": "already done"}
        elif told.get("exit"):
            result |= {"code": told["exit"], "reason": f"no group /r10m in {given['stac-url']}"}
        else:
            result |= {"code": 0, "reason": "done"}
            output.mkdir(parents=True, exist_ok=True)
            with Path(os.environ["CONVERSIONS"]).open("a") as log:
                log.write(given["key"] + "\n")
            replace(marker, result)
    replace(outcome, result)
    return int(result["code"])


def get(url: str) -> tuple[int, bytes]:
    """Asks by hand: importing an HTTP client takes longer than all the rest of such a run."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    with socket.create_connection((name, int(port)), timeout=5) as there:
        there.sendall(f"GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: there.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def answered(marker: dict, given: dict) -> bool:
    if given.get("overwrite") == "true" and marker["run"] != given["run"] and marker["attempt"] <= int(given["attempt"]):
        return False
    return marker["key"] == given["key"]


def replace(path: Path, content: dict) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content))
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
