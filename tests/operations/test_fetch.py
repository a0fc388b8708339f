"""Fetching a run's files: whole, resumed, refused, interrupted; and the pod that reads the volume, which never stays."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import threading

import pytest
from fakes.kubernetes import CORE
from fakes.workflows import LABELS, ROOT, template
from geozarr_runner.publish import checksums
from geozarr_runner.publish.package import pack
from waiting import until

from stac_watch.cluster.fetch import fetch, on_volume
from stac_watch.cluster.volume import LIFE, helper
from stac_watch.model.checksums import digest_of
from stac_watch.model.errors import CannotWrite, InputError, Temporary
from stac_watch.model.outcome import Outcome

RUN = "gz-32tqm-20250831103701-0123456789-1"
SIZE = 3_000_000


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def package(api):
    """A run that went well, with its volume: package, report, Dask's report, the marker in its output."""
    content = random.Random(1).randbytes(SIZE)
    files = {
        "o.zarr.tar": content, "o.zarr.report.html": b"<h1>report</h1>", "o.zarr.report.json": b"{}", "dask.html": b"<h1>dask</h1>",
    }  # fmt: skip
    for name, data in files.items():
        (api.volume / name).write_bytes(data)
    outcome = {
        "code": 0, "reason": "done", "output_zarr": "/data/o.zarr", "item_id": "i",
        "package": {"href": "/data/o.zarr.tar", "bytes": SIZE, "sha256": digest(content)},
        "files": {"report": "/data/o.zarr.report.html", "report_json": "/data/o.zarr.report.json"},
    }  # fmt: skip
    (api.volume / "o.zarr").mkdir()
    (api.volume / "o.zarr" / "stac-watch.json").write_text(json.dumps(outcome))
    (api.volume / ".geozarr-runner").mkdir()
    (api.volume / ".geozarr-runner" / "stac-watch.json").write_text("{}")  # of an unfinished one: not to be found
    workflow = api.run(RUN, outcome=outcome, dask_perf_html="/data/dask.html")
    api.claim(RUN, workflow)
    return files


def names(number=[0]):  # noqa: B006  # counts
    number[0] += 1
    return f"fetch-{number[0]}"


def get(cluster, tmp_path, told, run="@latest"):
    return fetch(cluster, run, tmp_path / "runs", pod=lambda _: names(), watching=told.watching)


def sends(api):
    """Offset and bytes of each transfer of the package."""
    return [(int(argv[1]), count) for argv, count in api.sent if argv[0].endswith(".tar") and argv[1].isdigit()]


def test_everything_that_a_run_left_arrives_as_it_is(api, cluster, package, tmp_path, told):
    got = get(cluster, tmp_path, told)
    folder = tmp_path / "runs" / RUN
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "outcome.json"} == package
    assert json.loads((folder / "outcome.json").read_text())["reason"] == "done"
    assert {f.kind: f.sha256 for f in got} == {
        kind: digest(package[name])
        for kind, name in {
            "package": "o.zarr.tar", "report": "o.zarr.report.html", "report_json": "o.zarr.report.json",
            "dask_report": "dask.html",
        }.items()
    }  # fmt: skip
    assert told.bytes == sum(len(data) for data in package.values())
    assert ("o.zarr.tar", SIZE) in told.begun
    assert api.names("pods") == []


def test_what_is_here_is_not_fetched_again_unless_it_is_damaged(api, cluster, package, tmp_path, told):
    get(cluster, tmp_path, told)
    assert [f.fetched for f in get(cluster, tmp_path, told)] == [0, 0, 0, 0]
    assert len(sends(api)) == 1
    path = tmp_path / "runs" / RUN / "o.zarr.tar"
    path.write_bytes(b"\0" * SIZE)
    get(cluster, tmp_path, told)
    assert path.read_bytes() == package["o.zarr.tar"]


def test_a_broken_connection_is_continued_where_it_broke(api, cluster, package, tmp_path, told):
    api.cuts = [1_000_000, 0, 500_000]
    [got, *_] = get(cluster, tmp_path, told)
    assert got.path.read_bytes() == package["o.zarr.tar"]
    transfers = sends(api)
    assert len(transfers) == 4
    assert [offset for offset, _ in transfers] == [sum(count for _, count in transfers[:i]) for i in range(4)]
    assert sum(count for _, count in transfers) == SIZE  # no byte twice


def test_a_connection_that_breaks_for_good_leaves_what_came_and_the_next_call_goes_on(api, cluster, package, tmp_path, told):
    api.cuts = [1_000_000, *[0] * 6]
    with pytest.raises(Temporary):
        get(cluster, tmp_path, told)
    folder = tmp_path / "runs" / RUN
    [part] = folder.iterdir()
    assert part.name.endswith(".part")
    assert part.stat().st_size == sends(api)[0][1] > 0
    assert api.names("pods") == []
    [got, *_] = get(cluster, tmp_path, told)
    assert got.fetched == SIZE - sends(api)[0][1]
    assert got.path.read_bytes() == package["o.zarr.tar"]
    assert not list(folder.glob(".*"))


def test_what_another_file_left_is_not_continued(api, cluster, package, tmp_path, told):
    folder = tmp_path / "runs" / RUN
    folder.mkdir(parents=True)
    (folder / ".o.zarr.tar.0123456789ab.part").write_bytes(b"another")
    (folder / f".o.zarr.tar.{digest(package['o.zarr.tar'])[:12]}.part").write_bytes(b"\0" * (SIZE + 1))  # longer than the file
    [got, *_] = get(cluster, tmp_path, told)
    assert got.path.read_bytes() == package["o.zarr.tar"]
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:-1] + b"?", "another checksum"),
        (lambda data: data + b"?", "longer than its run says"),
        (lambda data: data[:-1], "ends after 2999999 of 3000000 bytes"),
    ],
    ids=["changed", "longer", "shorter"],
)
def test_a_file_that_is_not_what_the_run_says_never_gets_its_name(api, cluster, package, tmp_path, told, damage, says):
    (api.volume / "o.zarr.tar").write_bytes(damage(package["o.zarr.tar"]))
    with pytest.raises(InputError, match=says):
        get(cluster, tmp_path, told)
    assert not (tmp_path / "runs" / RUN / "o.zarr.tar").exists()
    assert api.names("pods") == []
    (api.volume / "o.zarr.tar").write_bytes(package["o.zarr.tar"])  # and what it left does not harm the next call
    [got, *_] = get(cluster, tmp_path, told)
    assert got.path.read_bytes() == package["o.zarr.tar"]


def test_an_output_outlives_its_workflow(api, cluster, package, tmp_path, told):
    del api.objects[f"{next(p for p in api.objects if p.endswith('workflows/' + RUN))}"]
    api.add("/apis/argoproj.io/v1alpha1/namespaces/geozarr/workflowtemplates", template())
    got = get(cluster, tmp_path, told, RUN)
    assert {f.kind for f in got} == {"package", "report", "report_json"}
    [pod] = [d for d in api.created if d["kind"] == "Pod"]
    assert pod["metadata"]["ownerReferences"][0]["kind"] == "PersistentVolumeClaim"
    with pytest.raises(InputError, match="no run in namespace") as error:
        get(cluster, tmp_path, told, "@latest")
    assert RUN in error.value.hint


def test_the_helper_pod_is_restricted_reads_only_and_ends_by_itself(api):
    claim, workflow = api.claim(RUN), api.run(RUN)
    spec = template()["spec"] | {"imagePullSecrets": [{"name": "pull"}], "tolerations": [{"key": "batch"}]}
    pod = helper("fetch-1", claim, workflow, spec)
    [container] = pod["spec"]["containers"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["activeDeadlineSeconds"] == LIFE
    assert pod["metadata"]["ownerReferences"] == [
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": RUN, "uid": workflow["metadata"]["uid"]}
    ]
    assert container["image"] == "geozarr-runner:0.1.0"
    assert container["volumeMounts"] == [{"name": "data", "mountPath": "/data", "readOnly": True}]
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": RUN, "readOnly": True}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
    }  # fmt: skip
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert pod["spec"]["tolerations"] == [{"key": "batch"}]
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] != LABELS["app.kubernetes.io/name"]  # `clean` tells them apart


def test_a_helper_that_cannot_start_is_removed_and_its_reason_told(api, cluster, package, tmp_path, told):
    api.pod_waits = {"reason": "ImagePullBackOff", "message": "not found"}
    with pytest.raises(Temporary, match="ImagePullBackOff: not found"):
        get(cluster, tmp_path, told)
    assert api.names("pods") == []


@pytest.mark.parametrize(
    ("prepare", "error", "says"),
    [
        (lambda api: api.run("gz-z", phase="Running"), Temporary, "not over"),
        (lambda api: api.run("gz-z", phase="Failed", outcome={"code": 65, "reason": "no such group"}), InputError, "no such group"),
        (lambda api: api.run("gz-z", outcome={"code": 0, "output_zarr": "s3://b/o.zarr", "files": {"report": "s3://b/o.html"}}),
         InputError, "its output is s3://b/o.zarr"),
        (lambda api: api.run("gz-z", outcome={"code": 0, "output_zarr": "/data/o.zarr", "engine": "reference"}),
         InputError, "made no package of /data/o.zarr"),
        (lambda api: api.claim("gz-z", api.run("gz-z"), labels={"app": "other"}), InputError, "not one of stac-watch"),
        (lambda api: api.run("gz-z"), InputError, "has no volume"),
    ],
    ids=["running", "failed", "in S3", "no package", "claim of others", "no claim"],
)  # fmt: skip
def test_where_there_is_nothing_to_fetch_it_says_why_and_makes_no_pod(api, cluster, tmp_path, told, prepare, error, says):
    prepare(api)
    with pytest.raises(error, match=says):
        get(cluster, tmp_path, told, "gz-z")
    assert api.created == []


@pytest.mark.parametrize("name", ["../../etc", "a/b", "A", "", "-x", "x" * 70])
def test_what_is_no_name_goes_into_no_path(cluster, tmp_path, told, name):
    with pytest.raises(InputError, match="no run's name"):
        get(cluster, tmp_path, told, name)


@pytest.mark.parametrize("href", ["/etc/passwd", "/data/../etc/passwd", "/data//x", "s3://b/x.tar", "/database/x"])
def test_only_paths_on_the_volume_are_read(href):
    assert on_volume(Outcome(files={"report": href}), {}) == []


def test_two_files_of_one_name_are_not_written_over_each_other():
    with pytest.raises(InputError, match=r"two files of the run are called 'r\.html'"):
        on_volume(Outcome(files={"report": "/data/a/r.html"}), {"dask_perf_html": "/data/b/r.html"})
    with pytest.raises(InputError, match=r"outcome\.json"):
        on_volume(Outcome(files={"report": "/data/outcome.json"}), {})


def test_a_folder_that_cannot_be_made_is_said_before_a_pod_is(api, cluster, package, tmp_path, told):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(CannotWrite):
        get(cluster, tmp_path, told)
    assert api.created == []


def test_two_at_once_into_one_folder_do_not_mix(api, cluster, package, tmp_path, told):
    api.pace = threading.Event()
    first = threading.Thread(target=get, args=(cluster, tmp_path, told))
    first.start()
    try:
        until(lambda: list((tmp_path / "runs").glob("*/.*.part")), by=first)
        with pytest.raises(Temporary, match="another process is fetching"):
            get(cluster, tmp_path, told)
    finally:
        api.pace.set()
        first.join()
    assert (tmp_path / "runs" / RUN / "o.zarr.tar").read_bytes() == package["o.zarr.tar"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_interrupted_it_removes_its_pod_keeps_what_came_and_goes_on(api, environ, package, tmp_path, number, code):
    api.pace = threading.Event()
    argv = [
        sys.executable,
        "-c",
        "import sys; from stac_watch.cli.main import main; sys.exit(main())",
        "cluster",
        "fetch",
        RUN,
        f"--out={tmp_path}/runs",
    ]
    argv.append(f"--config={ROOT}/deploy/base/stac-watch.yaml")
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: sends(api) and sends(api)[0][1], by=process)
            assert len(api.names("pods")) == 1
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code, out + err
    assert api.names("pods") == []
    assert not (tmp_path / "runs" / RUN / "o.zarr.tar").exists()
    api.pace = None
    done = subprocess.run([*argv, "--json"], env=environ, capture_output=True, text=True, check=True, timeout=120)
    [first, *_] = json.loads(done.stdout)
    assert (tmp_path / "runs" / RUN / "o.zarr.tar").read_bytes() == package["o.zarr.tar"]
    assert sends(api)[-1] == (SIZE - first["fetched"], first["fetched"])
    assert api.names("pods") == []


def test_the_pods_path_is_the_one_that_is_deleted(api, cluster, package, tmp_path, told):
    get(cluster, tmp_path, told)
    [pod] = [d for d in api.created if d["kind"] == "Pod"]
    assert api.deleted == [f"/pods/{pod['metadata']['name']}"]
    assert f"{CORE}/persistentvolumeclaims/{RUN}" in api.objects


@pytest.fixture
def unpacked(api, tmp_path):
    """A run that made no archive of its output; the archive that it would have made."""
    store = api.volume / "o.zarr"
    for number in range(40):
        path = store / f"r10m/b{number:02}/c/0/0"
        path.parent.mkdir(parents=True)
        path.write_bytes(random.Random(number).randbytes(50_000 + number))
    (store / "empty").mkdir()
    outcome = {
        "code": 0, "reason": "done", "output_zarr": "/data/o.zarr", "item_id": "i", "engine": "fast",
        "digest": digest_of(checksums.read(store, {})),
    }  # fmt: skip
    (store / "stac-watch.json").write_text(json.dumps(outcome))
    api.claim(RUN, api.run(RUN, outcome=outcome))
    pack(store, tmp_path / "as-packed.tar", name="o.zarr", kind="tar")
    return (tmp_path / "as-packed.tar").read_bytes()


def test_what_was_not_packed_is_packed_on_its_way_killed_in_the_middle_and_continued(api, environ, unpacked, tmp_path):
    folder, size = tmp_path / "runs" / RUN, len(unpacked)
    main = "import sys; from stac_watch.cli.main import main; sys.exit(main())"
    argv = [sys.executable, "-c", main, "cluster", "fetch", RUN, f"--out={tmp_path}/runs"]
    argv.append(f"--config={ROOT}/deploy/base/stac-watch.yaml")
    before = set(api.volume.rglob("*"))
    api.pace = threading.Event()
    with subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(lambda: [p for p in folder.glob(".*.part") if p.stat().st_size], by=process)
        process.kill()
    api.pace.set()
    [part] = folder.iterdir()
    came = part.stat().st_size
    assert 0 < came < size
    done = subprocess.run([*argv, "--json"], env=environ, capture_output=True, text=True, check=True, timeout=120)
    [file] = json.loads(done.stdout)
    assert (file["kind"], file["bytes"], file["sha256"], file["fetched"]) == ("package", size, digest(unpacked), size - came)
    assert (folder / "o.zarr.tar").read_bytes() == unpacked
    assert {p.name for p in folder.iterdir()} == {"o.zarr.tar", "outcome.json"}
    assert set(api.volume.rglob("*")) == before, "nothing is written to the volume"


def test_an_output_that_is_not_what_its_run_wrote_is_not_packed(api, cluster, unpacked, tmp_path, told):
    (api.volume / "o.zarr/r10m/b07/c/0/0").write_bytes(b"damaged")
    with pytest.raises(InputError, match="not what its run has written"):
        get(cluster, tmp_path, told)
    assert not list((tmp_path / "runs").rglob("*.tar"))
