"""A run's log: the steps one after the other, while they run and after, each line once."""

import pytest

from stac_watch.cluster.logs import LONGEST, logs
from stac_watch.model.errors import InputError

RUN = "gz-a"
ARGO_SAYS = 'time=2026-11-24T20:41:29.402Z level=INFO msg="waiting for signals" argo=true signalPath=/var/run/argo/ctr/main/signal'


@pytest.fixture
def step(api):
    """Puts a step's pod there, and what it wrote."""

    def put(name, text, phase="Succeeded", **more):
        pod = f"{RUN}-{name}"
        node = {"workflows.argoproj.io/node-name": f"{RUN}.{name}"}
        api.pod(pod, labels={"workflows.argoproj.io/workflow": RUN}, annotations=node, phase=phase, **more)
        api.logs[pod] = text
        return pod

    return put


def read(cluster, *, follow=False, wait=lambda _: False):
    return [(line.step, line.text) for line in logs(cluster, RUN, follow=follow, wait=wait)]


def test_each_step_in_the_order_in_which_it_was_made_without_what_argo_says(api, cluster, step):
    api.run(RUN)
    step("preflight(0)", f"{ARGO_SAYS}\nfound\n")
    step("convert(0)", "first try\n")
    step("convert(1)", "second attempt\nwithout an end")
    api.pod("other", labels={"workflows.argoproj.io/workflow": "gz-b"})
    api.logs["other"] = "not ours\n"
    assert read(cluster) == [
        ("preflight", "found"), ("convert", "first try"), ("convert(1)", "second attempt"), ("convert(1)", "without an end"),
    ]  # fmt: skip


def test_what_a_product_wrote_does_not_act_on_the_terminal_that_shows_a_log(api, cluster, step):
    api.run(RUN)
    step("convert(0)", "band \x1b[2J\x1b]0;all is well\x07 of \u202eit\n" + "x" * 100_000 + "\n")
    step("convert(1)", "", "Pending", state={"waiting": {"reason": "ErrImagePull", "message": "no \x1b[2J image"}})
    evil, long, waits = (text for _, text in read(cluster))
    assert evil == "band \\x1b[2J\\x1b]0;all is well\\x07 of \\u202eit"
    assert len(long) <= LONGEST
    assert waits == "ErrImagePull: no \\x1b[2J image"


def test_followed_it_waits_for_the_next_step_and_says_why_one_does_not_start(api, cluster, step):
    workflow = api.run(RUN, phase="Running")
    step("preflight(0)", "found\n")
    story = iter(["pull", "pull", "start", "end"])

    def wait(_seconds):
        now = next(story)
        if now == "pull":
            step("convert(0)", "", "Pending", state={"waiting": {"reason": "ErrImagePull", "message": "no such image"}})
        elif now == "start":
            step("convert(0)", "converted\n")
        else:
            workflow["status"]["phase"] = "Succeeded"
            workflow["metadata"]["labels"]["workflows.argoproj.io/completed"] = "true"
        return False

    assert read(cluster, follow=True, wait=wait) == [
        ("preflight", "found"), ("convert", "ErrImagePull: no such image"), ("convert", "converted"),
    ]  # fmt: skip


def test_the_last_step_is_shown_although_the_run_was_over_before_it_was_seen(api, cluster, step):
    api.run(RUN)
    step("convert(0)", "converted\n")
    assert read(cluster, follow=True, wait=lambda _: pytest.fail("it is over")) == [("convert", "converted")]


def test_pods_that_are_gone_have_no_log(api, cluster):
    api.run(RUN)
    assert read(cluster) == []
    with pytest.raises(InputError, match="there is no run gz-b"):
        list(logs(cluster, "gz-b", follow=False, wait=lambda _: False))


def test_a_run_of_somebody_else_is_not_shown(api, cluster):
    api.run(RUN)["metadata"]["labels"] = {}
    with pytest.raises(InputError, match="not one of stac-watch"):
        read(cluster)
