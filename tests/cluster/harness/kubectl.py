"""Asks and tells a cluster, by the kubectl that was built or, for a cluster that exists, the one on PATH.

It answers with text or parsed JSON, or raises `HarnessError`, and never speaks to another cluster than the one it was made for.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from harness.commands import HarnessError, attempt, capture, stream
from harness.daemons import wait_until
from harness.places import HARNESS


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster."""

    binary: Path
    kubeconfig: Path

    def __call__(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """Runs one command; returns its output."""
        return capture([self.binary, *arguments], stdin=stdin, env=self._env)

    def answers(self, *arguments: str) -> bool:
        """Whether a command succeeds."""
        return attempt([self.binary, *arguments], env=self._env).returncode == 0

    def says(self, *arguments: str) -> str:
        """What a command prints, also when it fails: for logs of what may not run yet."""
        return attempt([self.binary, *arguments], env=self._env).stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get … -o json`."""
        return dict(json.loads(self("get", *arguments, "-o", "json")))

    def is_ready(self) -> bool:
        """Whether the API server serves."""
        return self.answers("get", "--raw", "/readyz", "--request-timeout=5s")

    def apply(self, text: str, *options: str) -> None:
        """Server-side apply; idempotent."""
        self("apply", "--server-side", "--force-conflicts", *options, "-f", "-", stdin=text)

    def apply_addon(self, name: str, values: Mapping[str, str]) -> None:
        """Applies addons/NAME.yaml with ${…} filled in."""
        self.apply(Template((HARNESS / "addons" / f"{name}.yaml").read_text()).substitute(values))

    def namespace(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """Makes a namespace, or sets its labels."""
        self.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}}))

    def roll_out(self, namespace: str, *deployments: str, log: Path, on_line: Callable[[str], None], seconds: int = 180) -> None:
        """Waits until Deployments are available; a failure shows their pods and events."""
        for name in deployments:
            try:
                argv: list[str | Path] = [
                    self.binary,
                    "-n",
                    namespace,
                    "rollout",
                    "status",
                    f"deploy/{name}",
                    f"--timeout={seconds}s",
                ]
                stream(argv, log=log, on_line=on_line, env=self._env)
            except Exception:
                with log.open("a") as file:
                    for what in (["describe", "pods"], ["get", "pods,events", "--sort-by=.metadata.creationTimestamp"]):
                        file.write(attempt([self.binary, "-n", namespace, *what], env=self._env).stdout)
                raise

    @contextmanager
    def forward(self, namespace: str, target: str, port: int) -> Iterator[int]:
        """Forwards a free loopback port, which it yields, to a Service or pod."""
        argv = [str(self.binary), "-n", namespace, "port-forward", target, f":{port}", "--address=127.0.0.1"]
        env = {**os.environ, **self._env}
        with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            first = process.stdout.readline()  # "Forwarding from 127.0.0.1:40123 -> 12000", once it listens
            try:
                if "127.0.0.1:" not in first:
                    raise HarnessError(f"No way to {target} of {namespace}: {first}{process.stdout.readline()}")
                yield int(first.split("127.0.0.1:")[1].split()[0])
            finally:
                process.terminate()

    def wait_for(self, seconds: float, otherwise: str, *arguments: str) -> None:
        """Polls until a command succeeds."""
        wait_until(lambda: self.answers(*arguments), seconds, otherwise)

    @property
    def _env(self) -> dict[str, str]:
        return {"KUBECONFIG": str(self.kubeconfig), "NO_PROXY": "*", "no_proxy": "*"}
