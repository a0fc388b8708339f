"""The event that `doctor --send-test` sends: whatever happens on its way is said, nothing is left, and it is no item's."""

import json
import os
import sys
from datetime import UTC, datetime, timedelta

import pytest
from fakes.kubernetes import WORKFLOWS

from stac_watch.cluster import trial
from stac_watch.cluster.diagnosis import Verdict
from stac_watch.model.errors import IdentityError
from stac_watch.model.event import build_event, parse_event, run_name
from stac_watch.model.hosts import check_href
from stac_watch.runs.workflow import illegal_label

NOW = datetime(2026, 12, 1, 3, tzinfo=UTC)
STAC_WATCH = """#!{python}
import pathlib, sys
here = pathlib.Path(__file__).parent
(here / "sent").write_bytes(sys.stdin.buffer.read())
(here / "argv").write_text(" ".join(sys.argv[1:]))
print({says!r})
sys.exit({code})
"""


@pytest.fixture
def pod(api, tmp_path):
    """The poller's pod, in which `stac-watch` writes down what it is given, says something and ends with a code."""
    api.pod("stac-watch-0", labels={"app.kubernetes.io/name": "stac-watch", "app.kubernetes.io/component": "watcher"})

    def says(text, code=0):
        program = tmp_path / "bin" / "stac-watch"
        program.parent.mkdir(exist_ok=True)
        program.write_text(STAC_WATCH.format(python=sys.executable, says=text, code=code))
        program.chmod(0o755)
        api.environ = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
        return program.parent

    return says


@pytest.fixture
def sensor(api, pod):
    """Makes a Workflow of what was sent, on the second look; the clock stands at the first look, and goes on by the waits."""
    clock = [NOW]

    class Sensor:
        folder = pod("accepted")
        key = None  # another one than the event's
        works = True

        def now(self):
            return clock[0]

        def wait(self, seconds):
            clock[0] += timedelta(seconds=seconds)
            if self.works:
                data = json.loads((self.folder / "sent").read_bytes())["data"]
                api.put(data["run"], key=self.key or data["key"])
            return False

    return Sensor()


def sent(cluster, sensor):
    return trial.send(cluster, trial.conversion(NOW, "prod"), now=sensor.now, wait=sensor.wait)


def test_it_is_seen_as_a_workflow_and_removed(api, cluster, sensor):
    finding = sent(cluster, sensor)
    assert finding.verdict is Verdict.OK
    assert "after 0.5 s" in finding.found
    assert not api.workflows
    assert api.deleted == [f"/workflows/{run_name(trial.conversion(NOW, 'prod'), 1)}"]
    assert (sensor.folder / "argv").read_text() == "send - --config=/etc/stac-watch/stac-watch.yaml"


def test_it_is_an_event_that_becomes_no_items_run():
    asked = trial.conversion(NOW, "prod")
    data = parse_event(build_event(asked, 1))["data"]
    assert illegal_label(data) is None
    assert asked.key != trial.conversion(NOW + timedelta(microseconds=1)).key, "a second one is another run"
    for allowed in ((), ("objects.example",)):
        with pytest.raises(IdentityError, match="scheme"):  # 65, before anything is asked or written
            check_href(data["stac_url"], allowed)


def test_accepted_and_never_a_workflow_is_the_sensors(api, cluster, sensor):
    sensor.works = False
    finding = sent(cluster, sensor)
    assert finding.verdict is Verdict.FAIL
    assert finding.found == "was accepted, and is no Workflow after 60 s"
    assert "app.kubernetes.io/name=sensor" in finding.remedy
    assert api.asked[-1].path.startswith(WORKFLOWS)


def test_a_sensor_that_maps_otherwise_is_named(api, cluster, sensor):
    sensor.key = "0" * 20
    finding = sent(cluster, sensor)
    assert (finding.verdict, finding.remedy) == (Verdict.FAIL, "apply the Sensor of this release")
    assert not api.workflows


def test_what_the_poller_says_is_said(cluster, pod, sensor):
    pod("the EventSource refuses the token: HTTP 401", code=77)
    finding = sent(cluster, sensor)
    assert finding.verdict is Verdict.FAIL
    assert "the EventSource refuses the token" in finding.found
    assert finding.remedy


def test_without_a_poller_nothing_is_sent(api, cluster_verb):
    said = cluster_verb("doctor", "--send-test", "--json", code=1).out
    [finding] = [f for f in json.loads(said) if f["check"] == trial.CHECK]
    assert (finding["verdict"], finding["found"]) == ("FAIL", "no pod of the poller is ready to send one")
    assert not api.created
