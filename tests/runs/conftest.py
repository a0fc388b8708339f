"""The Argo engine before a fake Kubernetes API and a fake EventSource."""

from datetime import timedelta
from functools import partial

import pytest
from fakes import eventsource
from fakes.eventsource import TOKEN, EventSource
from fakes.kubernetes import NAMESPACE, Api, client, serving
from pydantic import SecretStr

from stac_watch.runs.argo import ArgoEngine
from stac_watch.runs.kubernetes_api import Cluster


@pytest.fixture
def api():
    api = Api()
    with serving(api):
        yield api
    listed = [asked for asked in api.asked if asked.kind == "list"]
    assert all("PartialObjectMetadataList" in asked.accept for asked in listed), "full objects are never listed"


@pytest.fixture
def source(api):
    return EventSource(partial(eventsource.deliver, api))


@pytest.fixture
def webhook(source):
    with eventsource.serving(source) as url:
        yield url


@pytest.fixture
def argo(webhook, api, clock):
    made = []

    def engine(*, webhook=webhook, token=TOKEN, more=(), ca_file=None, max_in_flight=3, host=api.url):
        made.append(
            ArgoEngine(
                webhook, [SecretStr(t) for t in (token, *more) if t], ca_file=ca_file, cluster=Cluster(client(host), NAMESPACE),
                max_in_flight=max_in_flight, confirm_after=timedelta(minutes=15), now=clock,
            )
        )  # fmt: skip
        return made[-1]

    yield engine
    for each in made:
        each.close(stop_runs=False)


@pytest.fixture
def engine(argo):
    return argo()
