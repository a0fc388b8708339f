"""What a stranger's product may not do: name any codec, grow without end in memory or on disk, or put its text on a terminal."""

from __future__ import annotations

import bz2
import errno
import gzip
import itertools
import json
import os
import threading
import zlib
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler

import loopback
import numcodecs
import numpy as np
import pytest
from geozarr_runner.cli import main
from geozarr_runner.source import codecs, preflight
from geozarr_runner.source.faults import classify, retry_after, signature_ended
from geozarr_runner.source.metadata import parse, strict
from geozarr_runner.source.product import ZarrArray
from geozarr_runner.source.store import Patience, open_source
from shelf import Shelf, served

from stac_watch.model.documents import document
from stac_watch.model.errors import CannotWrite, InputError, StacWatchError, Temporary, printable, write_failure
from stac_watch.model.patience import Backoff

SOON = Patience(attempts=1, pauses=Backoff(timedelta(0), timedelta(0)), timeout=2)
PIXELS = np.arange(400, dtype="<u2").reshape(20, 20)
CODECS = {
    "none": (None, PIXELS.tobytes()),
    **{
        name: (numcodecs.get_codec({"id": name}).get_config(), bytes(numcodecs.get_codec({"id": name}).encode(PIXELS)))
        for name in ("blosc", "zlib", "gzip", "zstd", "lz4", "bz2")
    },
    "two-members": ({"id": "gzip", "level": 1}, gzip.compress(PIXELS[:10].tobytes()) + gzip.compress(PIXELS[10:].tobytes())),
}
BOMBS = {
    "zlib": zlib.compress(bytes(50_000_000)), "gzip": gzip.compress(bytes(50_000_000)), "bz2": bz2.compress(bytes(50_000_000)),
    **{name: bytes(numcodecs.get_codec({"id": name}).encode(np.zeros(50_000_000, "u1"))) for name in ("zstd", "lz4", "blosc")},
}  # fmt: skip


def _array(compressor, filters=(), dtype="<u2") -> ZarrArray:
    return ZarrArray("quality/mask/r10m/b02", (20, 20), (20, 20), dtype, 0, compressor, ".", {}, tuple(filters))


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_on_the_list_is_measured_and_decoded(tmp_path, name):
    compressor, data = CODECS[name]
    array = _array(compressor)
    (tmp_path / "0.0").write_bytes(data)
    assert codecs.measures(array, tmp_path / "0.0")
    assert np.array_equal(codecs.decode(array, data), PIXELS)
    assert len(data) <= codecs.encoded_limit(array)
    (tmp_path / "0.0").write_bytes(data[: len(data) // 2])
    assert not (name not in ("zstd", "lz4") and codecs.measures(array, tmp_path / "0.0")), (
        "half of it is not it; these two say their length first, and fail when they are decoded"
    )
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        codecs.decode(array, data[: len(data) // 2])


@pytest.mark.parametrize("name", BOMBS)
def test_a_chunk_that_decodes_to_more_than_its_array_says_is_never_decoded(tmp_path, name):
    array = _array({"id": name})
    (tmp_path / "0.0").write_bytes(BOMBS[name])
    assert not codecs.measures(array, tmp_path / "0.0")
    with pytest.raises(ValueError, match="does not decode to 800 bytes"):
        codecs.decode(array, BOMBS[name])


def test_a_zstd_frame_that_does_not_say_its_length_is_decoded_into_a_buffer_of_the_right_one(tmp_path):
    """The frame is made by hand: the header without a content size, and blocks that are not compressed (RFC 8878)."""

    def frame(content: bytes) -> bytes:
        return b"\x28\xb5\x2f\xfd\x00\x58" + ((len(content) << 3) | 1).to_bytes(3, "little") + content

    array = _array({"id": "zstd", "level": 1})
    for content, fits in ((PIXELS.tobytes(), True), (bytes(5000), False)):
        (tmp_path / "0.0").write_bytes(frame(content))
        assert codecs.measures(array, tmp_path / "0.0") is fits
    assert np.array_equal(codecs.decode(array, frame(PIXELS.tobytes())), PIXELS)


def test_filters_change_the_length_as_they_say(tmp_path):
    given = [{"id": "delta", "dtype": "<u2", "astype": "<i4"}, {"id": "shuffle", "elementsize": 4}]
    data = PIXELS
    for one in given:
        data = numcodecs.get_codec(dict(one)).encode(data)
    array = _array({"id": "zlib", "level": 1}, given)
    (tmp_path / "0.0").write_bytes(zlib.compress(bytes(data)))
    assert codecs.measures(array, tmp_path / "0.0")
    assert np.array_equal(codecs.decode(array, (tmp_path / "0.0").read_bytes()), PIXELS)


@pytest.mark.parametrize(
    "change",
    [
        {"compressor": {"id": "pickle", "protocol": 5}}, {"compressor": {"id": "lzma"}}, {"compressor": "blosc"},
        {"compressor": {"id": ["blosc"]}}, {"filters": [{"id": "json2"}]}, {"filters": {"id": "delta"}},
        {"filters": [{"id": "delta"}]}, {"filters": [{"id": "categorize", "labels": [], "dtype": "O"}]},
        {"fill_value": -1}, {"fill_value": 65536}, {"fill_value": 0.5}, {"fill_value": "NaN"}, {"fill_value": [0]},
        {"dtype": "|O"}, {"dtype": [["a", "<u2"]]}, {"dtype": "<U0"}, {"order": "K"}, {"shape": [1e400, 1]}, {"shape": [True, 1]},
        {"shape": [10**6, 10**6], "chunks": [10**6, 10**6]}, {"chunks": [65536, 65536], "shape": [65536, 65536]},
        {"shape": [-1, 5]}, {"zarr_format": 3},
    ],
    ids=str,
)  # fmt: skip
def test_an_array_that_nobody_should_read_is_refused_by_name_before_anything_is_read(product, change):
    documents = json.loads((product / ".zmetadata").read_text())["metadata"]
    key = "measurements/reflectance/r10m/b02/.zarray"
    documents[key] = documents[key] | change
    with pytest.raises(InputError) as said:
        parse(documents, "here")
    assert len(said.value.message) < 1000


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"scale_factor": "0.0001"}, "scale_factor '0.0001', which is no number"),
        ({"add_offset": [1, 2]}, "add_offset"),
        ({"scale_factor": float("nan")}, "scale_factor"),
        ({"scale_factor": True}, "scale_factor"),
    ],
)
def test_a_scale_that_is_no_number_is_refused_with_array_and_attribute(product, attributes, words):
    documents = json.loads((product / ".zmetadata").read_text())["metadata"]
    documents["measurements/reflectance/r10m/b02/.zattrs"] |= attributes
    with pytest.raises(InputError, match="measurements/reflectance/r10m/b02") as said:
        parse(documents, "here")
    assert words in said.value.message


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"a":' * 150 + b"1" + b"}" * 150, b"\xff", b"{", b""])
def test_documents_that_cannot_be_walked_are_no_json(text):
    with pytest.raises(ValueError):  # noqa: PT011  # of whatever kind
        document(text)


def test_what_json_does_not_know_becomes_null():
    given = json.loads('{"a": [NaN, 1e999, {"b": -Infinity}], "c": 1.5, "d": "NaN", "e": true}')
    assert strict(given) == {"a": [None, None, {"b": None}], "c": 1.5, "d": "NaN", "e": True}
    json.dumps(strict(given), allow_nan=False)


# -- servers that never end ------------------------------------------------------------------------------------------------------


class _Endless(BaseHTTPRequestHandler):
    """Sends blocks until the client goes away."""

    def __init__(self, *args, sent, headers, blocks):
        self.sent, self.given, self.blocks = sent, headers, blocks
        super().__init__(*args)

    def do_GET(self):
        self.send_response(200)
        for name, value in {"Connection": "close", **self.given}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for block in self.blocks():
                self.wfile.write(block)
                self.sent.append(len(block))
        except OSError:
            self.close_connection = True

    def log_message(self, *_):
        pass


@contextmanager
def _endless(blocks, **headers):
    sent = []
    with loopback.serving(partial(_Endless, sent=sent, headers=headers, blocks=blocks)) as url:
        yield url, sent


def _opened(url, patience=SOON):
    return open_source(url, allowed_hosts=(), patience=patience, wait=threading.Event().wait)


def _bomb():
    machine = zlib.compressobj(9, zlib.DEFLATED, 31)
    while True:
        yield machine.compress(bytes(1 << 20)) + machine.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    ("blocks", "headers"), [(lambda: itertools.repeat(bytes(1 << 16)), {}), (_bomb, {"Content-Encoding": "gzip"})]
)
def test_a_document_or_object_without_end_is_ended(tmp_path, blocks, headers):
    with _endless(blocks, **headers) as (url, sent):
        with pytest.raises(InputError, match="has more than the 1000000 bytes"):
            _opened(f"{url}/x.zarr").read(".zmetadata", limit=1_000_000)
        with pytest.raises(InputError, match="has more than the 100000 bytes"):
            _opened(f"{url}/x.zarr").fetch("a/0.0", tmp_path / "0.0", limit=100_000)
        assert (tmp_path / "0.0").stat().st_size <= 100_000
    assert sum(sent) < 50_000_000


def test_a_length_that_is_announced_is_enough_to_say_no(tmp_path):
    with _endless(lambda: [b"x"], **{"Content-Length": "1200781250"}) as (url, _), pytest.raises(InputError, match="has more than"):
        _opened(f"{url}/x.zarr").fetch("a/0.0", tmp_path / "0.0", limit=100_000)


def test_an_object_that_drips_for_ever_is_given_up(tmp_path):
    """Each byte comes in time; all of them never do."""
    wait = threading.Event()

    def drip():
        while not wait.wait(0.05):
            yield b"x"

    with _endless(drip) as (url, _):
        with pytest.raises(Temporary, match="no answer while reading"):
            _opened(f"{url}/x.zarr", Patience(attempts=1, timeout=0.1)).fetch("a/0.0", tmp_path / "0.0", limit=10_000)
        wait.set()


def test_a_packed_store_is_known_by_its_first_bytes_and_never_read_whole(tmp_path):
    def packed():
        yield b"PK\x03\x04"
        yield from itertools.repeat(bytes(1 << 16), 4000)

    with _endless(packed) as (url, sent):
        for name in ("x.zarr.zip", "x"):
            with pytest.raises(InputError, match="in one zip file"):
                _plan(f"{url}/{name}")
    assert sum(sent) < 60_000_000
    with served(Shelf({"x.zarr": b"PK\x03\x04" + bytes(100)})) as shelf, pytest.raises(InputError, match="in one zip file"):
        _plan(f"{shelf.url}/x.zarr")
    product = {"href": "http://h.example/x.zarr.zip", "type": "application/vnd.zarr"}
    (tmp_path / "item.json").write_text(json.dumps({"type": "Feature", "id": "x", "assets": {"product": product}}))
    with pytest.raises(InputError, match="in one zip file"):
        _plan(str(tmp_path / "item.json"))


def _plan(url):
    return preflight.plan(url, "", allowed_hosts=(), patience=SOON, wait=threading.Event().wait)


# -- words ---------------------------------------------------------------------------------------------------------------------


def test_messages_are_bounded_and_cannot_move_a_cursor():
    error = StacWatchError("\x1b]0;evil\x07\x9b2J" + "a\nb\u202e\ud800" + "x" * 60_000_000, hint="one\ntwo\r\x1b[2J")
    assert len(error.message) <= 4096
    assert error.message.startswith("\\x1b]0;evil\\x07\\x9b2Ja\nb\\u202e\\ud800xxx")
    assert error.message.endswith("characters in all)")
    assert error.hint == "one\ntwo\\r\\x1b[2J"
    assert printable("Ünïcödé 東京") == "Ünïcödé 東京"
    assert str(error) == error.message


def test_an_item_with_a_million_assets_gives_a_short_reason(tmp_path, capsys):
    (tmp_path / "item.json").write_text(
        json.dumps({"type": "Feature", "id": "x", "assets": {f"\x1b[2J{n}": {} for n in range(100_000)}})
    )
    assert main(["preflight", f"--stac-url={tmp_path}/item.json", f"--outcome={tmp_path}/outcome.json"]) == 65
    assert (tmp_path / "outcome.json").stat().st_size < 10_000
    said = capsys.readouterr().err
    assert len(said) < 10_000
    assert "\x1b" not in said


class _Headers(Exception):  # noqa: N818  # as aiohttp's errors carry them
    def __init__(self, **headers):
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7), (" 7 ", 7), ("²", None), ("٣", None), ("-1", None), ("1.5", None), ("", None), ("soon", None), ("9" * 5000, None),
        ("999999999", 86400), ("Mon, 01 Jan 2024 00:01:00 GMT", 60), ("Mon, 01 Jan 2024 00:00:00 GMT", 0),
        ("Sun, 31 Dec 2023 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400), ("Mon, 99 Jan 2024 00:00:00 GMT", None),
    ],
)  # fmt: skip
def test_a_pause_of_any_form_is_a_pause_or_none(value, seconds):
    found = retry_after(_Headers(Retry_After=value, Date="Mon, 01 Jan 2024 00:00:00 GMT"))
    assert (found and found.total_seconds()) == seconds or (seconds == 0 and found == timedelta(0))
    retry_after(_Headers(Retry_After=value))


@pytest.mark.parametrize(
    ("query", "ended"),
    [
        ("sv=2024&se=2023-12-31T00%3A00%3A00Z&sig=x", "2023-12-31T00:00:00Z"),
        ("se=2024-12-31T00%3A00%3A00Z&sig=x", ""),
        ("X-Amz-Date=20231231T000000Z&X-Amz-Expires=3600&X-Amz-Signature=x", "2023-12-31T01:00:00Z"),
        ("X-Goog-Date=20231231T000000Z&X-Goog-Expires=3600", "2023-12-31T01:00:00Z"),
        ("Expires=1703980800&Signature=x", "2023-12-31T00:00:00Z"),
        ("X-Amz-Date=nonsense&X-Amz-Expires=²", ""),
        ("X-Amz-Date=99991231T235959Z&X-Amz-Expires=9999999", ""),
        ("f=json", ""),
    ],
)
def test_a_signature_has_ended_by_the_clock_of_who_refused_it(query, ended):
    assert signature_ended(query, _Headers(Date="Mon, 01 Jan 2024 00:00:00 GMT")) == ended


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 302 Found\r\nLocation: /x.zarr/.zmetadata\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["no-http", "chunk", "lengths", "redirects"],
)
def test_an_answer_that_cannot_be_read_says_nothing_of_the_product(answer):
    """What a proxy writes that is ending; taken for a 400 of the store it would end the item for good."""

    class Garbled(BaseHTTPRequestHandler):
        def do_GET(self):
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with loopback.serving(Garbled) as url, pytest.raises(Temporary):
        open_source(f"{url}/x.zarr", allowed_hosts=(), patience=SOON, wait=lambda _: False).read(".zmetadata")


def test_a_machine_that_is_short_of_files_is_temporary_and_a_full_disk_is_not(tmp_path):
    assert isinstance(write_failure(OSError(errno.EMFILE, "Too many open files"), tmp_path), Temporary)
    assert isinstance(write_failure(OSError(errno.ENOSPC, "No space left on device"), tmp_path), CannotWrite)
    assert isinstance(classify(OSError(errno.EMFILE, "Too many open files"), "x", tmp_path), Temporary)
    assert isinstance(classify(OSError(errno.ENOSPC, "No space left on device"), "x", tmp_path), CannotWrite)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://", "names no host"), ("https:///collections", "names no host"), ("/x" + "a" * 5_000, "is no path"),
        ("FIFO", "is neither a folder nor a file"),
    ],
)  # fmt: skip
def test_what_can_be_no_source_is_bad_input_at_once(runner, tmp_path, url, words):
    os.mkfifo(tmp_path / "fifo")
    ended = runner(str(tmp_path / "fifo") if url == "FIFO" else url, tmp_path / "o.zarr", command="preflight")
    assert ended.code == 65, ended.said
    assert words in ended.said
    assert len(ended.said) < 1000
