"""Docker, podman and a registry as people have them, started for a test and gone afterwards.

The machine's own daemon, its store and its firewall's policy are left alone: dockerd would set FORWARD to DROP, and pods of a
cluster beside it would be cut off.
"""

import json
import os
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.daemons import wait_until

DEBIAN = ("docker.io", "podman", "docker-registry", "iptables", "iproute2")
BRIDGE, ADDRESS, NETWORK = "swd0", "172.31.250.1/24", "172.31.250.0/24"


@contextmanager
def docker(folder: Path) -> Iterator[Mapping[str, str]]:
    """A daemon with a store and a bridge of its own; yields what `docker` needs in its environment."""
    masquerade = ["POSTROUTING", "-s", NETWORK, "!", "-o", BRIDGE, "-j", "MASQUERADE"]
    subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)  # of a test that was killed
    for argv in (["ip", "link", "add", BRIDGE, "type", "bridge"], ["ip", "addr", "add", ADDRESS, "dev", BRIDGE],
                 ["ip", "link", "set", BRIDGE, "up"], ["iptables", "-t", "nat", "-A", *masquerade]):  # fmt: skip
        subprocess.run(argv, check=True, capture_output=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    host = f"unix://{folder / 'docker.sock'}"
    argv = ["dockerd", f"--host={host}", f"--data-root={folder / 'data'}", f"--exec-root={folder / 'exec'}",
            f"--pidfile={folder / 'pid'}", f"--bridge={BRIDGE}", "--iptables=false", "--ip6tables=false"]  # fmt: skip
    config = folder / "client"
    config.mkdir()
    (config / "config.json").write_text("{}")  # nobody's credentials
    env = {"DOCKER_HOST": host, "DOCKER_CONFIG": str(config)}
    try:
        with _running(argv, folder / "dockerd.log", lambda: _answers(["docker", "info"], env)):
            yield env
    finally:
        subprocess.run(["iptables", "-t", "nat", "-D", *masquerade], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """A registry on loopback, which docker and podman speak plain HTTP to; yields host and port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    settings = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(folder / "images")}}, "http": {"addr": address}}
    (folder / "registry.yaml").write_text(json.dumps(settings))

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://{address}/v2/", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    with _running(["docker-registry", "serve", str(folder / "registry.yaml")], folder / "registry.log", answers):
        yield address


def _answers(argv: list[str], env: Mapping[str, str]) -> bool:
    return subprocess.run(argv, env={**os.environ, **env}, check=False, capture_output=True).returncode == 0


@contextmanager
def _running(argv: list[str], log: Path, ready: Callable[[], bool]) -> Iterator[None]:
    with log.open("w") as said, subprocess.Popen(argv, stdout=said, stderr=subprocess.STDOUT) as process:
        try:
            wait_until(ready, 60, f"{argv[0]} does not answer", log=log, alive=lambda: process.poll() is None)
            yield
        finally:
            process.terminate()
            process.wait(60)
