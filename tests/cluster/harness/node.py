"""The command lines and configuration files of every process of the cluster.

`Daemon`s come in the order in which they start. Everything that a component would write elsewhere by default is pointed below
<state> or <run>.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.credentials import SERVICE_IP
from harness.daemons import Daemon
from harness.places import NAME, Places

NODE = "node0"
BRIDGE = "swc0"
PODS = "10.244.0.0/16"
SERVICES = "10.96.0.0/16"
DNS_IP = "10.96.0.10"
PROVISIONER = "stac-watch.test/local"
PAUSE = "stac-watch.test/pause:1"


def etcd(places: Places, binary: Callable[[str], Path]) -> Daemon:
    """Without fsync: the data lives as long as the cluster, and a disk shared with other work would slow every request."""
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    argv: list[str | Path] = [
        binary("etcd"),
        "--data-dir",
        places.state / "etcd",
        "--unsafe-no-fsync",
        "--logger",
        "zap",
        "--log-level",
        "warn",
    ]
    return Daemon("etcd", [*argv, "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer])


def api_server(places: Places, binary: Callable[[str], Path], address: str) -> Daemon:
    """The API server; the kubelet client certificate is what makes `kubectl logs` and `exec` work."""
    pki = places.state / "pki"
    options: Mapping[str, Any] = {
        "etcd-servers": "http://127.0.0.1:2379",
        "secure-port": 6443,
        "advertise-address": address,
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "client-ca-file": pki / "ca.crt",
        "token-auth-file": pki / "tokens.csv",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "service-cluster-ip-range": SERVICES,
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": pki / "sa.pub",
        "service-account-signing-key-file": pki / "sa.key",
        "kubelet-preferred-address-types": "InternalIP",
        "kubelet-client-certificate": pki / "kubelet-client.crt",
        "kubelet-client-key": pki / "kubelet-client.key",
    }
    return Daemon("kube-apiserver", [binary("kube-apiserver"), *_flags(options)])


def controllers(places: Places, binary: Callable[[str], Path]) -> list[Daemon]:
    """Controller manager, scheduler and the storage provisioner."""
    pki, state = places.state / "pki", places.state
    manager: Mapping[str, Any] = {
        "kubeconfig": state / "controller-manager.conf",
        "authentication-kubeconfig": state / "controller-manager.conf",
        "authorization-kubeconfig": state / "controller-manager.conf",
        "service-account-private-key-file": pki / "sa.key",
        "root-ca-file": pki / "ca.crt",
        "use-service-account-credentials": "true",
        "leader-elect": "false",
    }
    conf = state / "scheduler.conf"
    scheduler: Mapping[str, Any] = {
        "kubeconfig": conf, "authentication-kubeconfig": conf, "authorization-kubeconfig": conf, "leader-elect": "false",
    }  # fmt: skip
    storage: Mapping[str, Any] = {"kubeconfig": state / "admin.conf", "name": PROVISIONER, "root": state / "volumes", "node": NODE}
    return [
        Daemon("kube-controller-manager", [binary("kube-controller-manager"), *_flags(manager)]),
        Daemon("kube-scheduler", [binary("kube-scheduler"), *_flags(scheduler)]),
        Daemon("provisioner", [binary("provisioner"), *_flags(storage)]),
    ]


def containerd(places: Places) -> Daemon:
    """Debian's containerd with a configuration of ours; writes the pod network's configuration as well."""
    network = places.state / "cni"
    network.mkdir(parents=True, exist_ok=True)
    (network / "10-stac-watch.conflist").write_text(json.dumps(_pod_network(places), indent=1))
    config = places.state / "containerd.toml"
    config.write_text(_containerd_toml(places, network))
    return Daemon("containerd", ["containerd", "--config", config])


def kubelet(places: Places, binary: Callable[[str], Path], address: str) -> Daemon:
    """The kubelet; pods live in a cgroup of ours, so that none is missed when everything has to end."""
    state = places.state
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(state / "pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{NAME}",
        "clusterDNS": [DNS_IP],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{socket(places)}",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,  # an image that is gone cannot be pulled again
        "makeIPTablesUtilChains": False,  # kube-proxy speaks nftables
        "maxPods": 250,
        "podLogsDir": str(state / "pods"),
        "resolvConf": "",  # no pod asks the machine's name servers
        "volumePluginDir": str(state / "volume-plugins"),
    }
    (state / "kubelet.yaml").write_text(json.dumps(config, indent=1))
    options = {"config": state / "kubelet.yaml", "kubeconfig": state / "node.conf", "hostname-override": NODE,
               "root-dir": state / "kubelet", "node-ip": address}  # fmt: skip
    return Daemon("kubelet", [binary("kubelet"), *_flags(options)])


def kube_proxy(places: Places, binary: Callable[[str], Path]) -> Daemon:
    """Services, in nftables mode."""
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(places.state / "proxy.conf")},
        "hostnameOverride": NODE,
        "clusterCIDR": PODS,
        "conntrack": {"maxPerCore": 0},
    }
    (places.state / "kube-proxy.yaml").write_text(json.dumps(config, indent=1))
    return Daemon("kube-proxy", [binary("kube-proxy"), "--config", places.state / "kube-proxy.yaml"])


def network_policies(places: Places, binary: Callable[[str], Path]) -> Daemon:
    """Enforces NetworkPolicies with iptables and ipset, between pods of the bridge and from pods to this machine."""
    options = {"kubeconfig": places.state / "admin.conf", "node": NODE, "services": SERVICES}
    return Daemon("network-policies", [binary("network-policies"), *_flags(options)])


def socket(places: Places) -> Path:
    """Where containerd listens."""
    return places.run / "containerd.sock"


def substitutions() -> dict[str, str]:
    """What addons/*.yaml are filled in with."""
    return {"dns_ip": DNS_IP, "service_ip": SERVICE_IP, "provisioner": PROVISIONER}


def _flags(options: Mapping[str, Any]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def _pod_network(places: Places) -> dict[str, Any]:
    """A bridge without masquerading: pods reach each other, services and this machine, and nothing beyond it."""
    ipam = {
        "type": "host-local",
        "dataDir": str(places.state / "addresses"),
        "ranges": [[{"subnet": PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": ipam}
    return {"cniVersion": "0.4.0", "name": NAME, "plugins": [bridge]}


def _containerd_toml(places: Places, network: Path) -> str:
    """restrict_oom_score_adj: without CAP_SYS_RESOURCE every sandbox dies with "can't get final child's PID from pipe: EOF"."""
    return f"""version = 2
root = "{places.state}/containerd"
state = "{places.run}/containerd"
[grpc]
  address = "{socket(places)}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{places.state}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{places.run}/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{network}"
"""
