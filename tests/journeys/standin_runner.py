"""A runner that converts nothing: same arguments, same outcome, same marker rules as geozarr-runner, in 50 ms.

For journeys that start dozens of runs to prove the watcher. Each conversion that it really makes is one line in $CONVERSIONS, so
that a second one for the same key cannot hide. A product's metadata say how long it takes (`seconds`; `while` a file is there) and
how it ends (`exit`).
"""

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
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
        with urllib.request.urlopen(given["stac-url"] + "/.zmetadata", timeout=5) as answer:
            told = json.load(answer)
        time.sleep(told.get("seconds", 0))
        while "while" in told and Path(told["while"]).exists():
            time.sleep(0.02)
    except Ended:
        result |= {"code": 143, "reason": "ended by SIGTERM"}
    except urllib.error.HTTPError as error:
        result |= {"code": 66, "reason": f"HTTP {error.code} for {given['stac-url']}"}
    else:
        if marker.exists() and answered(json.loads(marker.read_text()), given):
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
