"""One Workflow without a poller: created once a name, or a sentence about why not. The verb is tests/journeys/test_submit.py's."""

import pytest

from stac_watch.cluster.submit import create
from stac_watch.model.errors import InputError, Refused, Temporary


def test_create(cluster, api):
    workflow = {"metadata": {"generateName": "gz-"}, "spec": {}}
    assert create(cluster, workflow) == ("gz-00001", True)
    named = {"metadata": {"name": "mine"}, "spec": {}}
    assert [create(cluster, named), create(cluster, named)] == [("mine", True), ("mine", False)]
    assert set(api.workflows) == {"gz-00001", "mine"}


@pytest.mark.parametrize(("status", "error"), [(422, InputError), (403, Refused), (404, Refused), (500, Temporary)])
def test_create_is_refused(cluster, api, status, error):
    api.refuse_all(status)
    with pytest.raises(error, match=r"as the test wants it|no Workflows"):
        create(cluster, {"metadata": {"name": "mine"}, "spec": {}})
