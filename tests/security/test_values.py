"""A value of a stranger is one argument of one program: no shell reads it, no template code, no option parser, no path."""

import json
import re
import threading
from pathlib import Path

import pytest
import yaml
from fakes.installation import files_of
from geozarr_runner.cli import main as runner
from geozarr_runner.source.store import Patience, open_source

from stac_watch.cluster.manifests.facts import settings_of
from stac_watch.config.load import load
from stac_watch.discover.items import read_item
from stac_watch.model.errors import IdentityError, InputError
from stac_watch.model.event import Conversion, build_event, parse_event
from stac_watch.model.item import Item, Unreadable
from stac_watch.runs.local import arguments

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "deploy" / "base" / "stac-watch.yaml"
SHELLS = re.compile(r"(^|/)(sh|bash|dash|ash|zsh|busybox|env|eval|xargs)$")
EVIL_IDS = [
    "$(id)", "`id`", "a;rm -rf /", "a|b", "a&b", "a b", "a\nb", "a\x00b", "{{workflow.name}}", "{{=sprig.env('HOME')}}", "${HOME}",
    "$(HOME)", "../../etc/passwd", "a/b", "..", "-rf", "--overwrite=true", "'''", '"', "<script>alert(1)</script>", "é", "a" * 129,
    "a" * 1_000_000, "",
]  # fmt: skip
EVIL_HREFS = [
    "file:///etc/passwd", "/etc/passwd", "../../x.zarr", "http://169.254.169.254/latest/meta-data/x.zarr", "http://[fe80::1]/x.zarr",
    "http://evil.example/x.zarr", "https://data.example@evil.example/x.zarr", "https://user:secret@data.example/x.zarr",
    "https://data.example.evil.example/x.zarr", "https://data.example\\@evil.example/x.zarr", "gopher://data.example/x.zarr",
    "https://data.example/{{workflow.name}}.zarr", "https://data.example/$(id).zarr", "https://data.example/`id`.zarr",
    "https://data.example/a b.zarr", "https://data.example/\nx.zarr", "https://data.example/\x00.zarr", "s3://other-bucket/x.zarr",
    "https://data.example/" + "a" * 1_000_000 + ".zarr", "http://[::1/x.zarr", "javascript:alert(1)", "simplecache::file:///etc/passwd",
]  # fmt: skip


def document(item_id="S2A_X", href="https://data.example/x.zarr"):
    return {
        "id": item_id, "collection": "c", "properties": {"datetime": "2025-10-08T10:00:41Z", "updated": "2025-10-08T12:00:00Z"},
        "assets": {"product": {"href": href, "type": "application/vnd+zarr"}},
    }  # fmt: skip


def seen(document):
    return read_item(document, collection="c", api="https://stac.example", on="content", allowed_hosts=("data.example",))


def event_of(**over):
    moment = seen(document()).datetime
    given = {
        "catalog": "https://stac.example", "collection": "c", "item_id": "S2A_X", "revision": "0" * 16, "recipe": "r",
        "kind": "create", "reason": "new", "lane": "live", "time": moment, "datetime": moment, "item_href": "https://stac.example/i",
        "product_href": "https://data.example/x.zarr", "output_zarr": "s3://out/x.zarr",
    }  # fmt: skip
    return build_event(Conversion(**{**given, **over}), 1)


def test_the_good_neighbours_of_all_these_are_taken():
    assert isinstance(seen(document()), Item)
    assert parse_event(event_of())["data"]["item_id"] == "S2A_X"


@pytest.mark.parametrize("value", EVIL_IDS, ids=lambda v: ascii(v[:30]))
def test_an_evil_id_is_refused_by_poller_event_and_runner(value, tmp_path, capsys):
    found = seen(document(item_id=value))
    assert isinstance(found, Unreadable)
    assert found.why
    assert len(found.item_id) <= 200, "what is kept and shown of it is short"
    with pytest.raises(IdentityError):
        event_of(item_id=value)
    forged = json.loads(event_of())
    forged["data"]["item_id"] = value
    with pytest.raises(InputError):
        parse_event(json.dumps(forged).encode())
    if value and "\x00" not in value:  # neither reaches a process as an argument
        code = runner(["preflight", "--stac-url=https://data.example/x.zarr", f"--item-id={value}", f"--outcome={tmp_path / 'o'}"])
        assert code == 65
        assert len(capsys.readouterr().err) < 1000


@pytest.mark.parametrize("value", EVIL_HREFS, ids=lambda v: ascii(v[:40]))
def test_an_evil_href_is_refused_by_poller_and_runner(value):
    found = seen(document(href=value))
    assert isinstance(found, Unreadable)
    assert found.why
    assert len(found.why) < 500
    assert "secret" not in found.why
    with pytest.raises(InputError) as error:
        open_source(value, allowed_hosts=("data.example",), patience=Patience(), wait=threading.Event().wait)
    assert "secret" not in error.value.message


@pytest.mark.parametrize("field", ["run", "key", "item_id", "attempt"])
@pytest.mark.parametrize("value", ["../x", "{{workflow.name}}", "$(id)", "", None, 1e9, ["x"]])
def test_whoever_wrote_an_event_its_names_are_what_its_id_says(field, value):
    """`send FILE` and the local engine take events from people; a forged name would become a folder or a Workflow."""
    forged = json.loads(event_of())
    forged["data"][field] = value
    with pytest.raises(InputError):
        parse_event(json.dumps(forged).encode())


def test_an_event_that_is_too_large_is_refused_before_it_is_kept_and_before_it_is_sent():
    with pytest.raises(InputError, match="more than 16384"):
        event_of(groups="g " * 10_000)


def test_the_local_engine_gives_each_value_as_one_argument():
    evil = "--overwrite=true $(id); rm -rf /"
    data = parse_event(event_of(groups=evil, output_zarr=evil))["data"]
    argv = arguments(data)
    assert f"--groups={evil}" in argv
    assert all(re.match(r"--[a-z-]+=", argument) for argument in argv)


def rendered():
    return files_of(settings_of(load(CONFIG, {}), CONFIG.read_text()))


def walk(node, path=()):
    yield path, node
    if isinstance(node, dict):
        for key, value in node.items():
            yield from walk(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from walk(value, (*path, index))


def every_document():
    for path, text in rendered().items():
        if path.endswith(".yaml"):
            for found in yaml.safe_load_all(text):
                yield path, found
                for where, value in walk(found):  # YAML within YAML: patches of pods, manifests of resource steps
                    if where and where[-1] in ("podSpecPatch", "manifest") and isinstance(value, str):
                        yield f"{path} {where}", yaml.safe_load(value)


def test_there_is_no_shell_in_any_manifest():
    commands = 0
    lua = ("spec", "dependencies", 0, "filters", "script")  # the Sensor's filter: it reads an event, nothing is substituted in it
    for path, found in every_document():
        for where, value in walk(found):
            if where == lua:
                assert "{{" not in value
                continue
            assert not where or where[-1] not in ("script", "lifecycle", "postStart", "preStop", "exec"), (path, where)
            if where and where[-1] in ("command", "args"):
                assert isinstance(value, list), (path, where)
                assert not [word for word in value if SHELLS.search(word) or word == "-c"], (path, where)
                commands += where[-1] == "command"
    assert commands >= 4, "poller, preflight, convert, audit: what is looked for must be there"


def test_values_of_events_reach_containers_as_arguments_only():
    """Argo substitutes text: what is code in a script, a resource's manifest or a patch is data in an argument."""
    holes = 0
    for path, found in every_document():
        for where, value in walk(found):
            if not isinstance(value, str) or "workflow.parameters" not in value:
                continue
            place = [part for part in where if isinstance(part, str)]
            argument = place[-2:] == ["container", "args"] and re.fullmatch(r"--[a-z-]+=\{\{workflow\.parameters\.\w+\}\}", value)
            shown = "workflowMetadata" in place  # annotations, which nothing executes
            mutex = place[-2:] == ["mutexes", "name"]
            # an expression reads a parameter as a variable, and what Argo puts into `when` is its verdict
            term = r"workflow\.status == '\w+'|workflow\.parameters\.\w+ (contains|startsWith) '[a-z:/]+'"
            asked = rf"\{{\{{=(({term}|not|&&)[ ()]*)+\}}\}}"
            verdict = place[-1] == "when" and re.fullmatch(asked, value)
            assert argument or shown or mutex or verdict, (path, where, value)
            holes += bool(argument)
    assert holes > 20


def test_no_argument_asks_kubernetes_to_expand_a_variable():
    """Kubernetes replaces $(NAME) in arguments by the container's own environment; secrets are files for that reason."""
    for path, found in every_document():
        for where, value in walk(found):
            if where and where[-1] == "env" and path.startswith("workflows"):
                assert not [entry for entry in value if "valueFrom" in entry], (path, where)
            if isinstance(value, str) and len(where) > 1 and where[-2] in ("args", "command"):
                assert "$(" not in value
