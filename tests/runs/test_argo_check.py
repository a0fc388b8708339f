"""What `check` says about a cluster."""

from datetime import UTC, datetime

import pytest
import yaml
from fakes.eventsource import TOKEN
from fakes.kubernetes import write_kubeconfig

from stac_watch.cli.main import main
from stac_watch.demo.catalog import COLLECTION, Server, Store, create_app, make_collection


@pytest.fixture
def api(api):
    api.refused = {("watch", "workflows")}
    return api


@pytest.fixture
def catalog():
    """One that answers: one that is down is asked again for five seconds."""
    with Store() as store, Server(create_app(store, now=lambda: datetime.now(UTC))) as server:
        store.put_collection(make_collection())
        yield server.url


def test_check_says_one_line_each_for_webhook_permissions_and_room(api, webhook, catalog, tmp_path, capsys):
    config = tmp_path / "stac-watch.yaml"
    config.write_text(yaml.safe_dump({
        "ledger": f"sqlite:///{tmp_path}/ledger.db", "engine": {"kind": "argo", "webhook": webhook},
        "sources": [{"name": "s2", "api": catalog, "collection": COLLECTION}],
    }))  # fmt: skip
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", api.url)
    code = main(["check", "-c", str(config)], {"KUBECONFIG": str(kubeconfig), "STAC_WATCH__ENGINE__TOKEN": TOKEN})
    said = capsys.readouterr()
    assert code == 77, said.out + said.err
    assert f"ok    webhook: {webhook} answers, and takes the token\n" in said.out
    assert "FAIL  permissions: this account may not watch workflows in namespace 'geozarr'\n      → the poller's Role" in said.out
    assert "ok    engine argo: room for 20 runs\n" in said.out
