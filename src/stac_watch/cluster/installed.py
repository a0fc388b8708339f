"""How files or a cluster differ from what the values render to. Nothing is changed by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import unified_diff
from pathlib import Path
from typing import Any

import yaml

from stac_watch.cluster.manifests.render import HEADER
from stac_watch.runs.kubernetes_api import Document

PLURALS = {"EventBus": "eventbus", "NetworkPolicy": "networkpolicies", "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
           "Ingress": "ingresses", "CiliumNetworkPolicy": "ciliumnetworkpolicies"}  # fmt: skip
"""What is called otherwise than its kind in small letters and an `s`."""
CONFIGURATION = "stac-watch/configuration"
"""Annotation of the poller's pod: a digest, which Helm takes of another form; what it is a digest of is compared itself."""
OF_THE_CLUSTER = ("Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def stale(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Returns rendered files of a folder that are rendered no more; whoever wrote the others keeps them."""
    there = [path for path in (*folder.glob("*.yaml"), *folder.glob("argo/*.yaml")) if str(path.relative_to(folder)) not in files]
    return sorted(path for path in there if path.read_text(encoding="utf-8", errors="replace").startswith(HEADER))


def in_files(folder: Path, files: Mapping[str, str]) -> Iterator[str]:
    """Yields the lines of the difference between a folder and what would be written there."""
    for name, text in files.items():
        path = folder / name
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        yield from unified_diff(before.splitlines(), text.splitlines(), f"{path}", f"{path} (rendered)", lineterm="")
    for path in stale(folder, files):
        yield f"only in {path}: rendered no more"


def in_cluster(get: Callable[[str], Document | None], files: Mapping[str, str]) -> Iterator[str]:
    """Yields a line for each key that the cluster has otherwise; what the cluster added by itself is no difference.

    Raises:
        StacWatchError: the cluster does not answer, or does not let us look.
    """
    for name, text in files.items():
        if "/" in name or name.startswith("kustomiz"):
            continue
        for wanted in yaml.safe_load_all(text):
            found = get(address(wanted))
            title = f"{wanted['kind']} {wanted['metadata']['name']}"
            if found is None:
                yield f"{title}: is not there"
                continue
            for path in differing({key: value for key, value in wanted.items() if key != "apiVersion"}, found):
                yield f"{title}: differs at {path}"


def address(document: Mapping[str, Any]) -> str:
    """Returns an object's path at the Kubernetes API."""
    version, kind, metadata = document["apiVersion"], document["kind"], document["metadata"]
    plural = PLURALS.get(kind, f"{kind.lower()}s").replace("policys", "policies")
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    within = "" if kind in OF_THE_CLUSTER else f"/namespaces/{metadata['namespace']}"
    return f"{root}{within}/{plural}/{metadata['name']}"


def differing(wanted: Any, found: Any, path: str = "") -> Iterator[str]:  # noqa: ANN401  # parts of documents
    """Yields the paths at which something that is wanted is otherwise; keys that only the cluster has are its defaults."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            if key == CONFIGURATION:
                continue
            if key in found:
                yield from differing(value, found[key], f"{path}.{key}" if path else str(key))
            elif value not in (None, {}, []):
                yield f"{path}.{key}"
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (one, other) in enumerate(zip(wanted, found, strict=True)):
            label = one.get("name", index) if isinstance(one, dict) else index
            yield from differing(one, other, f"{path}[{label}]")
    elif wanted != found and str(wanted) != str(found) and not _says_the_same(wanted, found):
        yield path


def _says_the_same(wanted: Any, found: Any) -> bool:  # noqa: ANN401  # parts of documents
    """Tells whether two texts are the same YAML: Helm writes what is in a ConfigMap or a patch in another form than we do."""
    if not (isinstance(wanted, str) and isinstance(found, str) and "\n" in wanted):
        return False
    try:
        document = yaml.safe_load(wanted)
        return isinstance(document, dict) and bool(document == yaml.safe_load(found))
    except yaml.YAMLError:
        return False
