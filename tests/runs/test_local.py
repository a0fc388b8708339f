"""The local engine with a real process: a script of a few lines that does what its event's `groups` say."""

import contextlib
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from waiting import until

from stac_watch.model.errors import Temporary
from stac_watch.model.event import OPTIONS, build_event, next_attempt, parse_event, run_name
from stac_watch.runs.engine import Answer, Phase
from stac_watch.runs.local import EVENT, LOCK, LOG, PID, LocalEngine, arguments, is_alive
from stac_watch.runs.processes import signal_group
from stac_watch.runs.workflow import PARAMETERS

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path

options = {k: v for k, _, v in (a.removeprefix("--").partition("=") for a in sys.argv[1:] if "=" in a)}
options |= {a.removeprefix("--"): b for a, b in zip(sys.argv[1:], sys.argv[2:]) if "=" not in a}
place = Path(sys.argv[0]).parent
with (place / "starts").open("a") as starts:
    starts.write(f"{options['run']} {os.getpid()}\\n")

def end(code):
    outcome = {"code": code, "key": options["key"], "reason": f"code {code}"}
    outcome |= {"argv": sys.argv[1:], "environ": dict(os.environ)}
    partial = Path(options["outcome"] + ".partial")
    partial.write_text(json.dumps(outcome))
    partial.replace(options["outcome"])
    sys.exit(code)

def terminated(*_):
    end(143)

signal.signal(signal.SIGTERM, terminated)
print("hello from the runner", flush=True)
if options["groups"].startswith("exit"):
    end(int(options["groups"].split()[1]))
if options["groups"] == "silent":
    sys.exit(0)
Path(options["status"]).write_text(json.dumps({"stage": "convert", "done": 3, "total": 7}))
deadline = time.monotonic() + 60
while time.monotonic() < deadline and not (place / "release").exists():
    time.sleep(0.01)
end(0)
"""


class Bench:
    """A folder, the script and the engines on it."""

    def __init__(self, place: Path, make) -> None:
        self.place, self.make, self.folder = place, make, place / "runs"
        (place / "runner.py").write_text(SCRIPT)
        self.engines: list[LocalEngine] = []

    def engine(self, *, command=None, room=2, environ=None, **limits) -> LocalEngine:
        command = command or [sys.executable, str(self.place / "runner.py")]
        environ = environ or {"MARK": "x"}
        self.engines.append(LocalEngine(self.folder, command=command, max_in_flight=room, environ=environ, **limits))
        return self.engines[-1]

    def event(self, groups="wait", item_id="item-a", attempt=1, **over) -> bytes:
        return build_event(self.make.conversion(groups=groups, item_id=item_id, **over), attempt)

    def look(self, engine, event):
        """The run of exactly this event, or None."""
        data = parse_event(event)["data"]
        return next((r for r in engine.runs([data["key"]]) if r.attempt == data["attempt"]), None)

    def ended(self, engine, event):
        def over():
            run = self.look(engine, event)
            return run if run is not None and run.phase in (Phase.SUCCEEDED, Phase.FAILED) else None

        return until(over, 20)

    def started(self) -> list[tuple[str, int]]:
        """(run, process id) of every process that ever started."""
        path = self.place / "starts"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(line.split()[0], int(line.split()[1])) for line in lines]

    def working(self, engine, event):
        return until(lambda: (r := self.look(engine, event)) and r.progress is not None and r, 20)

    def release(self) -> None:
        (self.place / "release").touch()


@pytest.fixture
def bench(tmp_path, make):
    bench = Bench(tmp_path, make)
    yield bench
    bench.release()
    for engine in bench.engines:
        engine.close(stop_runs=True)
    for _, pid in bench.started():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_an_event_becomes_one_process_in_a_folder_of_its_own_that_ends_with_an_outcome(bench):
    engine, event = bench.engine(), bench.event("exit 0")
    assert engine.submit(event).answer is Answer.ACCEPTED
    run = bench.ended(engine, event)
    assert (run.phase, run.name, run.attempt) == (Phase.SUCCEEDED, run_name(bench.make.conversion(item_id="item-a"), 1), 1)
    assert run.outcome.code == 0
    assert run.started <= run.ended
    folder = bench.folder / run.name
    assert (folder / EVENT).read_bytes() == event
    assert (folder / LOG).read_text() == "hello from the runner\n"
    assert [name for name, _ in bench.started()] == [run.name]


def test_the_process_gets_the_event_s_words_and_nothing_of_our_environment(bench):
    engine, event = bench.engine(environ={"ONLY": "this"}), bench.event("exit 0")
    engine.submit(event)
    outcome = bench.ended(engine, event).outcome
    assert outcome.others["argv"][: len(arguments(parse_event(event)["data"]))] == arguments(parse_event(event)["data"])
    assert set(outcome.others["environ"]) - {"LC_CTYPE"} == {"ONLY"}  # LC_CTYPE: set by CPython itself, PEP 538


@pytest.mark.parametrize("nasty", ["; touch PWNED", "$(touch PWNED)", "`id`", "a b\nc", "--work=/", "'\""])
def test_a_value_is_one_argument_whatever_it_holds(bench, nasty):
    engine, event = bench.engine(), bench.event("exit 0", output_zarr=nasty, options={"package": nasty})
    engine.submit(event)
    argv = bench.ended(engine, event).outcome.others["argv"]
    assert f"--output-zarr={nasty}" in argv
    assert f"--package={nasty}" in argv
    assert not list(bench.place.rglob("PWNED"))


@pytest.mark.parametrize("code", [65, 66, 70, 73, 75])
def test_a_run_that_failed_says_why_in_its_own_words(bench, code):
    engine, event = bench.engine(), bench.event(f"exit {code}")
    engine.submit(event)
    run = bench.ended(engine, event)
    assert (run.phase, run.outcome.code, run.outcome.reason) == (Phase.FAILED, code, f"code {code}")


def test_the_same_event_again_starts_no_second_process(bench):
    engine, event = bench.engine(), bench.event()
    for _ in range(3):
        assert engine.submit(event).answer is Answer.ACCEPTED
    bench.working(engine, event)
    assert engine.submit(event).answer is Answer.ACCEPTED
    bench.release()
    assert bench.ended(engine, event).phase is Phase.SUCCEEDED
    assert engine.submit(event).answer is Answer.ACCEPTED  # after its end
    assert bench.ended(engine, event).phase is Phase.SUCCEEDED
    assert len(bench.started()) == 1


def test_a_run_shows_where_it_stands(bench):
    engine, event = bench.engine(), bench.event()
    engine.submit(event)
    run = bench.working(engine, event)
    assert (run.phase, run.stage, run.progress, run.outcome, run.ended) == (Phase.RUNNING, "convert", (3, 7), None, None)


def test_a_process_that_was_killed_failed_with_137(bench):
    engine, event = bench.engine(), bench.event()
    engine.submit(event)
    bench.working(engine, event)
    os.kill(bench.started()[0][1], signal.SIGKILL)
    run = bench.ended(engine, event)
    assert (run.phase, run.outcome.code) == (Phase.FAILED, 137)
    assert LOG in run.outcome.hint
    assert engine.headroom() == 2


def test_a_process_that_ends_without_an_outcome_is_no_success(bench):
    engine, event = bench.engine(), bench.event("silent")
    engine.submit(event)
    run = bench.ended(engine, event)
    assert (run.phase, run.outcome.code) == (Phase.FAILED, 137)


def test_an_outcome_that_cannot_be_read_is_none(bench):
    engine, event = bench.engine(), bench.event("exit 0")
    engine.submit(event)
    run = bench.ended(engine, event)
    (bench.folder / run.name / "outcome.json").write_text('{"code": 0')
    assert bench.look(engine, event).outcome.code == 137


def test_room_is_what_the_living_leave(bench):
    engine = bench.engine(room=3)
    first, second = bench.event(item_id="item-a"), bench.event(item_id="item-b")
    assert engine.headroom() == 3
    for event in (first, second):
        engine.submit(event)
    assert engine.headroom() == 1
    assert bench.engine(room=1).headroom() == 0  # of another watcher with less room on the same folder
    bench.release()
    for event in (first, second):
        bench.ended(engine, event)
    assert engine.headroom() == 3


def test_another_engine_on_the_same_folder_sees_what_runs_and_does_not_start_it_again(bench):
    engine, event = bench.engine(), bench.event()
    engine.submit(event)
    bench.working(engine, event)
    engine.close(stop_runs=False)  # the watcher ends; its run does not
    again = bench.engine()
    assert bench.look(again, event).phase is Phase.RUNNING
    assert again.headroom() == 1
    assert again.submit(event).answer is Answer.ACCEPTED
    bench.release()
    assert bench.ended(again, event).phase is Phase.SUCCEEDED
    assert len(bench.started()) == 1


@pytest.mark.parametrize("left", [[], [LOCK], [LOCK, EVENT], [LOCK, EVENT, LOG]])
def test_a_run_whose_start_was_cut_off_is_started_by_the_same_event(bench, left):
    engine, event = bench.engine(), bench.event("exit 0")
    folder = bench.folder / parse_event(event)["data"]["run"]
    folder.mkdir(parents=True)
    for name in left:
        (folder / name).write_bytes(event if name == EVENT else b"")
    seen = bench.look(engine, event)
    assert seen is None if EVENT not in left else seen.outcome.code == 137
    assert engine.submit(event).answer is Answer.ACCEPTED
    assert bench.ended(engine, event).phase is Phase.SUCCEEDED
    assert len(bench.started()) == 1


def test_a_folder_that_somebody_else_holds_before_there_is_an_event_is_no_run_yet(bench):
    engine, event = bench.engine(), bench.event("exit 0")
    folder = bench.folder / parse_event(event)["data"]["run"]
    folder.mkdir(parents=True)
    with (folder / LOCK).open("w") as lock:  # another process looks at it, or is just about to start it
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert engine.submit(event).answer is Answer.UNKNOWN
    assert engine.submit(event).answer is Answer.ACCEPTED
    assert bench.ended(engine, event).phase is Phase.SUCCEEDED


def test_runs_are_found_by_key_every_attempt_and_no_other(bench):
    engine = bench.engine(room=9)
    event, other = bench.event("exit 75"), bench.event("exit 0", item_id="item-b")
    second, _ = next_attempt(event, 2, reason="retry")
    for each in (event, second, other):
        engine.submit(each)
        bench.ended(engine, each)
    key = parse_event(event)["data"]["key"]
    assert [(r.key, r.attempt) for r in engine.runs([key])] == [(key, 1), (key, 2)]
    assert engine.runs([]) == []
    assert engine.runs(["0" * 20]) == []
    assert engine.runs([key[:16] + "zzzz"]) == []  # the folder's name holds sixteen of twenty characters


def test_what_else_lies_in_the_folder_is_left_alone(bench):
    engine, event = bench.engine(), bench.event("exit 0")
    key = parse_event(event)["data"]["key"]
    for name in ("gz-x", "gz-", "other", f"gz-a-{key[:16]}-1", f"gz-b-{key[:16]}-1", f"gz-c-{key[:16]}-1"):
        (bench.folder / name).mkdir(parents=True)
    (bench.folder / f"gz-a-{key[:16]}-1" / EVENT).write_text("{")  # a disk that was full, a power cut
    (bench.folder / f"gz-b-{key[:16]}-1" / EVENT).write_text("{}")
    (bench.folder / "gz-file").write_text("")
    assert engine.runs([key]) == []
    assert engine.headroom() == 2
    engine.submit(event)
    assert bench.ended(engine, event).phase is Phase.SUCCEEDED


def test_closing_ends_the_runs_in_order(bench):
    engine, events = bench.engine(), [bench.event(item_id="item-a"), bench.event(item_id="item-b")]
    for event in events:
        engine.submit(event)
        bench.working(engine, event)
    engine.close(stop_runs=True)
    for event in events:
        run = bench.look(bench.engine(), event)
        assert (run.phase, run.outcome.code) == (Phase.FAILED, 143)
    assert bench.engine().headroom() == 2


def test_closing_also_ends_the_runs_that_an_earlier_watcher_started(bench):
    engine, event = bench.engine(), bench.event()
    engine.submit(event)
    bench.working(engine, event)
    bench.engine().close(stop_runs=True)
    assert bench.ended(engine, event).outcome.code == 143


def test_closing_touches_no_process_that_got_an_ended_run_s_number(bench):
    engine, event = bench.engine(), bench.event("exit 0")
    engine.submit(event)
    run = bench.ended(engine, event)
    (bench.folder / run.name / PID).write_text(str(os.getpid()))
    engine.close(stop_runs=True)  # this process would be gone


def test_closing_signals_no_stranger_while_others_look(bench):
    """The number is somebody else's by now, and a second program asks for the room again and again: nothing of it lives."""
    engine, event = bench.engine(), bench.event("exit 0")
    engine.submit(event)
    run = bench.ended(engine, event)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as stranger:
        (bench.folder / run.name / PID).write_text(str(stranger.pid))
        with (bench.folder / run.name / LOCK).open() as looked:
            fcntl.flock(looked, fcntl.LOCK_SH)  # as `is_alive` does
            engine.close(stop_runs=True)
        with (bench.folder / run.name / LOCK).open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)  # a run of that folder lives: not the process that has the number
            assert not signal_group(stranger.pid, bench.folder / run.name / LOCK, signal.SIGTERM)
        assert stranger.poll() is None
        stranger.kill()


def test_many_who_look_take_each_other_for_no_run(bench):
    engine, event = bench.engine(room=3), bench.event("exit 0")
    engine.submit(event)
    run = bench.ended(engine, event)
    with contextlib.ExitStack() as looking:
        for _ in range(5):
            fcntl.flock(looking.enter_context((bench.folder / run.name / LOCK).open()), fcntl.LOCK_SH)
        assert not is_alive(bench.folder / run.name)
        assert engine.headroom() == 3


def test_a_run_that_takes_too_long_is_ended_and_has_failed_for_now(bench):
    engine, event = bench.engine(), bench.event()
    engine.submit(event)
    bench.working(engine, event)
    strict = bench.engine(deadline=timedelta(0))  # of another watcher of the same folder
    run = bench.ended(strict, event)
    assert (run.phase, run.outcome.code) == (Phase.FAILED, 75)
    assert "longer than it may" in run.outcome.reason
    assert engine.headroom() == 2


def test_a_run_that_stands_still_is_killed_after_its_deadline(bench):
    engine, event = bench.engine(deadline=timedelta(seconds=-20)), bench.event()
    engine.submit(event)
    until(lambda: bench.started())
    os.kill(bench.started()[0][1], signal.SIGSTOP)  # it hears no SIGTERM
    assert bench.ended(engine, event).outcome.code == 75


def test_a_product_cannot_have_more_memory_than_its_run(bench):
    greedy = bench.place / "greedy.py"
    limited = "resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY"  # its parent does that when it has started it
    greedy.write_text(f"import resource, sys, time\nwhile not {limited}:\n    time.sleep(0.01)\n"
                      f"try:\n    x = bytearray(3 << 30)\nexcept MemoryError:\n    sys.argv[0] = {str(bench.place)!r}"
                      f" + '/x'\n    exec(open({str(bench.place / 'runner.py')!r}).read())\n")  # fmt: skip
    engine, event = bench.engine(command=[sys.executable, str(greedy)], memory=1 << 30), bench.event("exit 75")
    engine.submit(event)
    assert bench.ended(engine, event).outcome.code == 75  # else it is killed, or ends with nothing


def test_without_descriptors_nothing_has_vanished(bench):
    engine, event = bench.engine(), bench.event()
    engine.submit(event)
    bench.working(engine, event)
    key = parse_event(event)["data"]["key"]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as opened:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
            with contextlib.suppress(OSError):
                while True:
                    opened.enter_context(open(os.devnull))  # noqa: PTH123
            for asked in (engine.headroom, lambda: engine.runs([key])):
                with pytest.raises(Temporary, match="Too many open files"):
                    asked()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert bench.look(engine, event).phase is Phase.RUNNING


@pytest.mark.parametrize("junk", [b"", b"junk", b"{}", b"\xff"], ids=["empty", "text", "no event", "no text"])
def test_junk_is_refused_and_leaves_nothing(bench, junk):
    engine = bench.engine()
    receipt = engine.submit(junk)
    assert receipt.answer is Answer.REFUSED
    assert receipt.detail
    assert not bench.folder.exists()


@pytest.mark.parametrize("groups", ["wait", "exit 0"])
def test_a_name_that_a_run_of_another_conversion_has_is_said_and_not_taken_for_one_s_own(bench, groups):
    """A run's name holds 64 bits of its key: two that meet there must not wait for each other's run for ever."""
    engine, event, others = bench.engine(), bench.event(), json.loads(bench.event(groups))
    key = others["data"]["key"]
    others["data"]["key"] = key[:-1] + ("1" if key[-1] == "0" else "0")
    others["id"] = f"{others['data']['key']}-1"
    assert engine.submit(json.dumps(others).encode()).answer is Answer.ACCEPTED
    if groups != "wait":
        bench.ended(engine, json.dumps(others).encode())
    receipt = engine.submit(event)
    assert receipt.answer is Answer.REFUSED
    assert others["data"]["key"] in receipt.detail
    assert [run.key for run in engine.runs([key, others["data"]["key"]])] == [others["data"]["key"]]


def test_an_event_that_names_a_folder_elsewhere_is_refused(bench):
    engine, document = bench.engine(), json.loads(bench.event())
    document["data"]["run"] = "../elsewhere"
    assert engine.submit(json.dumps(document).encode()).answer is Answer.REFUSED
    assert not (bench.place / "elsewhere").exists()


def test_a_runner_that_is_not_there_gives_no_clear_answer_and_takes_no_room(bench):
    engine, event = bench.engine(command=[str(bench.place / "missing")]), bench.event()
    receipt = engine.submit(event)
    assert receipt.answer is Answer.UNKNOWN
    assert "missing" in receipt.detail
    assert engine.headroom() == 2
    assert engine.runs([parse_event(event)["data"]["key"]]) == []  # else it is a run that failed, and each post one attempt


def test_an_event_s_options_are_the_converter_s_and_no_others(make):
    """They were handed on whatever they were called: an edited event let its run ask hosts that nobody had allowed."""
    event = json.loads(build_event(make.conversion(options={"package": "none"}, installation="prod"), 1))
    plain = arguments(parse_event(json.dumps(event).encode())["data"])
    event["data"]["options"] |= {
        "allowed_hosts": "evil.example", "source_hosts": "evil.example", "installation": "other", "item-id": "x", "outcome": "/x",
        "": "",
    }  # fmt: skip
    assert arguments(parse_event(json.dumps(event).encode())["data"]) == plain
    assert "--package=none" in plain


def test_the_local_engine_and_the_sensor_pass_on_the_same_options():
    assert {f"options.{name}" for name in OPTIONS} == {p.data_key for p in PARAMETERS if p.data_key.startswith("options.")}


def test_arguments_are_the_runner_s_options(make):
    data = parse_event(
        build_event(
            make.conversion(
                groups="a b",
                fence="2026-03-01T12:00:00.000000Z",
                installation="prod",
                options={"spatial_chunk": "512"},
                allowed_hosts="a.example,10.0.0.0/8",
            ),
            3,
        )
    )["data"]
    assert arguments(data) == [
        f"--stac-url={make.href}", f"--output-zarr={data['output_zarr']}", "--groups=a b", f"--key={data['key']}",
        "--revision=rev-a", f"--item-id={make.item_id}", f"--run={data['run']}", "--attempt=3",
        "--fence=2026-03-01T12:00:00.000000Z", "--installation=prod",
        "--source-hosts=a.example,10.0.0.0/8", "--spatial-chunk=512",
        "--sharding=false", "--encoding=stock", "--native=mirror",  # of an event that is older than these options
    ]  # fmt: skip
