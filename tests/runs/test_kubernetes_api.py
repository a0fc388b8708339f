"""How the Kubernetes client finds its credentials, whom it trusts, and what it takes for an answer."""

import ssl

import pytest
import yaml
from fakes.kubernetes import NAMESPACE, WORKFLOWS, client

from stac_watch.model.errors import ConfigError, Temporary
from stac_watch.runs.kubernetes_api import Cluster, connect


def test_credentials_come_from_a_kubeconfig(tmp_path):
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump({
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://k.example:6443"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }))  # fmt: skip
    api = connect({}, str(path))
    assert api.configuration.host == "https://k.example:6443"
    tls = api.rest_client.pool_manager.connection_pool_kw["ssl_context"]
    assert tls.verify_mode is ssl.CERT_REQUIRED
    assert tls.check_hostname
    assert not tls.verify_flags & ssl.VERIFY_X509_STRICT  # the CAs of many clusters would not pass; kubectl takes them
    api.close()


def test_no_credentials_at_all(tmp_path):
    with pytest.raises(ConfigError, match=r"no credentials") as error:
        connect({}, str(tmp_path / "none"))
    assert "KUBECONFIG" in error.value.hint


def test_a_list_that_expired_between_two_pages_is_not_taken_for_the_whole(api):
    api.answers["GET"] = (410, "the provided continue parameter is too old")
    cluster = Cluster(client(api.url), NAMESPACE)
    with pytest.raises(Temporary, match="too old"):
        cluster.items(WORKFLOWS)
    cluster.close()
