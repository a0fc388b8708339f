"""Certificates, tokens and kubeconfigs of one cluster.

They lie below <state>/pki and in <state>/*.conf, readable by root only. None outlives `down`: each cluster makes its own.
"""

import base64
import json
import secrets
from collections.abc import Mapping
from pathlib import Path

from harness.commands import capture
from harness.places import Places

SERVICE_IP = "10.96.0.1"  #: the API server's address inside the cluster
PEOPLE: Mapping[str, tuple[str, str]] = {
    "admin": ("admin", "system:masters"),
    "node": ("system:node:node0", "system:nodes"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
}  #: kubeconfig -> user and groups


def make(places: Places, address: str) -> None:
    """Writes everything anew."""
    pki = places.state / "pki"
    pki.mkdir(parents=True, exist_ok=True)
    pki.chmod(0o700)
    capture(["openssl", "genrsa", "-out", pki / "sa.key", "2048"])
    capture(["openssl", "rsa", "-in", pki / "sa.key", "-pubout", "-out", pki / "sa.pub"])
    authority: list[str | Path] = [
        "-keyout",
        pki / "ca.key",
        "-out",
        pki / "ca.crt",
        "-subj",
        "/CN=stac-watch-cluster",
        "-days",
        "365",
    ]
    capture(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *authority])
    hosts = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"]
    names = [f"DNS:{h}" for h in hosts] + [f"IP:{ip}" for ip in ("127.0.0.1", SERVICE_IP, address)]
    _certificate(pki, "apiserver", "/CN=kube-apiserver", "subjectAltName=" + ",".join(names))
    _certificate(pki, "kubelet-client", "/O=system:masters/CN=apiserver-kubelet-client", "extendedKeyUsage=clientAuth")
    tokens = []
    for name, (user, groups) in PEOPLE.items():
        token = secrets.token_hex(16)
        tokens.append(f'{token},{user},{name},"{groups}"\n')
        _private(places.state / f"{name}.conf", kubeconfig(token, (pki / "ca.crt").read_bytes()))
    _private(pki / "tokens.csv", "".join(tokens))


def kubeconfig(token: str, authority: bytes, server: str = "https://127.0.0.1:6443") -> str:
    """A kubeconfig that stands alone: nothing in it points to another file."""
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(authority).decode()}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "stac-watch", "cluster": cluster}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": "stac-watch", "context": {"cluster": "stac-watch", "user": "user"}}],
            "current-context": "stac-watch",
        },
        indent=1,
    )


def _certificate(pki: Path, name: str, subject: str, extensions: str) -> None:
    key, request = pki / f"{name}.key", pki / f"{name}.csr"
    capture(["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", subject])
    (pki / f"{name}.ext").write_text(extensions + "\n")
    signed: list[str | Path] = [
        "-CA",
        pki / "ca.crt",
        "-CAkey",
        pki / "ca.key",
        "-CAcreateserial",
        "-days",
        "365",
        "-extfile",
        pki / f"{name}.ext",
    ]
    capture(["openssl", "x509", "-req", "-in", request, *signed, "-out", pki / f"{name}.crt"])


def _private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
