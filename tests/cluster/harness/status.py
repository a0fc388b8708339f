"""Shows what runs of the cluster.

Where nothing is up it raises `HarnessError`, so that a script can ask.
"""

from rich.console import Console
from rich.table import Table

from harness import cluster, daemons, layers
from harness.commands import HarnessError
from harness.places import Places, Recipe


def show(places: Places, recipe: Recipe, console: Console) -> None:
    """Prints processes, Deployments and images."""
    if not places.state.exists():
        raise HarnessError("The cluster is down.", hint="Try: make cluster-up")
    console.print(f"KUBECONFIG={places.state / 'admin.conf'}\nlogs: {places.logs}/PROCESS.log", highlight=False, soft_wrap=True)
    table = Table("process", "state", box=None)
    running = {name: daemons.is_running(places, name) for name in daemons.names(places)}
    for name, runs in running.items():
        table.add_row(name, "[green]runs[/green]" if runs else "[red]ended[/red]")
    console.print(table)
    ask = cluster.kubectl(places, recipe)
    if not ask.is_ready():
        raise HarnessError(
            "The API server does not answer.",
            log=places.logs / "kube-apiserver.log",
            hint="Try: make cluster-up, which replaces a broken cluster",
        )
    pods = Table("namespace", "Deployment", "ready", "image", box=None)
    for item in ask.get("deployments", "-A")["items"]:
        ready, wanted = item.get("status", {}).get("readyReplicas", 0), item["spec"].get("replicas", 1)
        image = item["spec"]["template"]["spec"]["containers"][0]["image"]
        pods.add_row(item["metadata"]["namespace"], item["metadata"]["name"], f"{ready}/{wanted}", image)
    console.print(pods)
    console.print("images: " + ", ".join(layers.names(places)), highlight=False)
    if not all(running.values()):
        raise HarnessError(f"Ended: {', '.join(name for name, runs in running.items() if not runs)}.", hint="Try: make cluster-up")
