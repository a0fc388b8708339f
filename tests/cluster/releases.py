"""An installation by Helm, and the database of this machine that an installation keeps its ledger in."""

import json
from typing import Any

import yaml
from charts import CHART
from stack import Stack

GATEWAY, PODS = "10.244.0.1", "10.244.0.0/16"  # this machine, as pods see it: the bridge of the pod network; and the pods
OF_THE_ENGINE = ("kind", "webhook", "namespace")  # what the chart says by itself


class Release(Stack):
    """An installation by Helm, with about fifteen lines of values."""

    helm: Any
    images: str = ""  # another tag

    def charted(self) -> Any:
        """Writes the values; returns the file."""
        engine = {key: value for key, value in self.config["engine"].items() if key not in OF_THE_ENGINE}
        config = {key: value for key, value in self.config.items() if key in ("sources", "recipe", "register", "sinks")}
        values = {
            "eventBus": {"replicas": 1, "size": "1Gi"},
            "networkPolicy": {"ports": sorted(self.ports)},
            "runs": {"convert": {"requests": {"cpu": "250m", "memory": "512Mi"}}},
            **({"images": {part: {"tag": self.images} for part in ("runner", "poller")}} if self.images else {}),
            **self.values,
            "config": {**config, "engine": engine},
        }
        path = self.folder / "chart-values.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def apply(self) -> None:
        """Installs or upgrades."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "stac-watch.yaml").write_text(yaml.safe_dump(self.config))
        self.call("upgrade", "--install", "gz", CHART, "-f", self.charted())
        self._let_reach_the_api()

    def call(self, *arguments: object) -> str:
        """Helm in the namespace."""
        return str(self.helm(*arguments, "-n", self.namespace, KUBECONFIG=str(self.kubectl.kubeconfig)))

    def image(self) -> str:
        """The poller's."""
        deployment = self.kubectl.get("deployment", "stac-watch", "-n", self.namespace)
        return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def lead_to_the_database(stack: Stack, port: int) -> None:
    """Gives the namespace a Service that leads to a PostgreSQL on this machine, as a company's DNS has one, and the Secret."""
    ports = [{"name": "sql", "port": 5432, "targetPort": port}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ledger"}, "spec": {"ports": ports}}
    slices = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "ledger", "labels": {"kubernetes.io/service-name": "ledger"}},
        "ports": [{"name": "sql", "port": port}], "endpoints": [{"addresses": [GATEWAY]}],
    }  # fmt: skip
    stack.do("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [service, slices]}))
    stack.ports.add(port)  # NetworkPolicies see where a Service leads
    stack.put_secret("stac-watch-ledger", {"url": f"postgresql+psycopg://postgres@ledger.{stack.namespace}.svc/postgres"})
