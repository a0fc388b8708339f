"""How numbers lie in an output: packed means, shards, and what verification sees of both."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import xarray as xr
import zarr
from geozarr_runner.convert import engine, stock
from geozarr_runner.convert.arithmetic import packed_mean
from geozarr_runner.publish import readers
from geozarr_runner.source.metadata import parse
from geozarr_runner.source.product import select
from geozarr_runner.verify import verify

from stac_watch.model.forms import Encoding, sharded

pytestmark = pytest.mark.long

BANDS = "measurements/reflectance"
ABSENT = 2**64 - 1


@pytest.mark.parametrize(("dtype", "missing"), [("u2", 0), ("u2", None), ("u2", 65535), ("u1", 7), ("i2", -5)])
@pytest.mark.parametrize("factor", [2, 3, 6])
def test_packed_means_are_the_nearest_number_and_never_nodata_by_chance(dtype, missing, factor):
    rng, kind = np.random.default_rng(3), np.iinfo(dtype)
    values = rng.integers(kind.min, kind.max, (61, 47), dtype, endpoint=True)
    values[:20, :20] = 0 if missing is None else missing
    values[20:40] = rng.integers((missing or 0) - min(2, (missing or 0) - kind.min), (missing or 0) + 1, (20, 47))
    h, w = (n // factor * factor for n in values.shape)
    blocks = values[:h, :w].astype("f8").reshape(h // factor, factor, w // factor, factor)
    valid = np.ones(blocks.shape, bool) if missing is None else blocks != missing
    number = valid.sum(axis=(1, 3))
    got = packed_mean(values, factor, missing)
    assert got.dtype == values.dtype
    np.testing.assert_array_equal(got == missing, (number == 0) if missing is not None else np.zeros(number.shape, bool))
    mean = np.where(valid, blocks, 0).sum(axis=(1, 3)) / np.maximum(number, 1)
    amid = missing is not None and kind.min < missing < kind.max
    assert np.abs(got.astype("f8") - mean)[number > 0].max() <= (1 if amid else 0.5)


@pytest.fixture(scope="module")
def shards(product, tmp_path_factory):
    """A sharded, packed output of the fast engine, what was taken down of it, and what was offered while it was made."""
    folder = tmp_path_factory.mktemp("shards") / "o"
    groups = f"{BANDS} conditions/mask/l2a_classification/r20m quality/mask/r20m"
    selection = select(parse(json.loads((product / ".zmetadata").read_text())["metadata"], "here"), groups)
    options = engine.Options(256, sharding=True, encoding=Encoding.PACKED, engine="fast")
    offered: dict[str, tuple[Path, int | None]] = {}

    def offer(name, *places, crc=None):
        offered[name] = next(place for place in places if place.exists()), crc

    return selection, folder, stock.convert(product, selection, folder, options, level="L2A", offer=offer), offered


def _judged(product, shards, folder):
    """Verifies as a full tile is verified: by a sample."""
    selection, _, done, _ = shards
    return verify.verify(
        product, selection, folder, level="L2A", workers=1, seed="s", everything=1, sampled=1, small=1, frames=done.frames
    )


def test_every_array_is_one_file_and_masks_are_bits(product, shards):
    _, folder, *_ = shards
    files = [p for p in folder.rglob("*") if "c" in p.relative_to(folder).parts]
    assert {p.name for p in files if p.is_file() and len(p.parts) > 2 and p.parent.parent.name == "c"} == {"0"}
    with xr.open_dataset(folder, engine="zarr", group="quality/mask/r20m") as found:
        [name, *_] = list(found.data_vars)
        assert found[name].dtype == np.uint8
        assert (found[name] & 4).shape == found[name].shape
    assert _judged(product, shards, folder).failed == ()
    group = zarr.open_group(str(folder), mode="r")
    sharded, packed = readers.notes({path: node for path, node in group.members(max_depth=None) if isinstance(node, zarr.Array)})
    assert ("GDAL before 3.13" in sharded, "scale_factor" in packed) == (True, True)


def test_each_shard_is_offered_when_it_is_whole_with_the_digests_of_what_was_encoded(shards):
    _, folder, done, offered = shards
    assert offered.keys() == done.frames.keys() == done.sums.keys()
    assert {place.parts[len(folder.parts) - 1] for place, _ in offered.values()} == {"o-chunks"}, "before the output is whole"
    for name, (_, crc) in offered.items():
        data = (folder / name).read_bytes()
        assert (google_crc32c.value(data), hashlib.sha256(data).hexdigest()) == (crc, done.sums[name])


def _cut(shard: bytes) -> bytes:
    return shard[:-10]


def _without_a_chunk(shard: bytes) -> bytes:
    """As a writer leaves it that lost one of its chunks: a right index that does not have it."""
    number = 9  # chunks: 756 pixels in chunks of 256
    index = bytearray(shard[-number * 16 - 4 : -4])
    index[16 * 4 : 16 * 5] = struct.pack("<2Q", ABSENT, ABSENT)
    return shard[: -number * 16 - 4] + bytes(index) + google_crc32c.value(bytes(index)).to_bytes(4, "little")


def _with_a_flipped_bit(shard: bytes) -> bytes:
    return shard[:5000] + bytes([shard[5000] ^ 1]) + shard[5001:]


def _of_zeros(shard: bytes) -> bytes:
    return bytes(len(shard))


@pytest.mark.parametrize("damage", [_cut, _without_a_chunk, _with_a_flipped_bit, _of_zeros])
def test_a_shard_that_is_not_as_it_was_written_is_seen(product, shards, tmp_path, damage):
    folder = Path(shutil.copytree(shards[1], tmp_path / "o"))
    shard = folder / BANDS / "r10m" / "b03" / "c" / "0" / "0"
    shard.write_bytes(damage(shard.read_bytes()))
    failed = {check.name for check in _judged(product, shards, folder).failed}
    if damage is _without_a_chunk:  # a file that ends with a right CRC of its end has the CRC that it had
        assert failed == {"nodata"}, "what a shard does not have is compared, whatever is sampled"
    else:
        assert "frames" in failed


@pytest.mark.parametrize(
    ("words", "failed"),
    [
        ({"scale_factor": 0.0002}, {"native values"}),
        ({"add_offset": 0.0}, {"native values"}),
        ({"_FillValue": 1}, {"nodata"}),
        ({"_FillValue": None}, {"nodata"}),
    ],
    ids=["scale", "offset", "other-nodata", "no-nodata"],
)
def test_right_numbers_with_wrong_words_are_seen(product, shards, tmp_path, words, failed):
    """Numbers are compared as they are stored where both sides read them alike: so what stands beside them counts."""
    folder = Path(shutil.copytree(shards[1], tmp_path / "o"))
    path = f"{BANDS}/r10m/b03"
    for holder in ("", BANDS, path):
        document = json.loads((folder / holder / "zarr.json").read_text())
        below = document.get("consolidated_metadata", {}).get("metadata", {})
        node = document if holder == path else below[path.removeprefix(f"{holder}/" if holder else "")]
        node["attributes"] = {k: v for k, v in (node["attributes"] | words).items() if v is not None}
        (folder / holder / "zarr.json").write_text(json.dumps(document))
    verdicts = {check.name: check.detail for check in _judged(product, shards, folder).failed}
    assert failed <= verdicts.keys() <= failed | {"native values", "injected bands"}
    assert any(path in detail for detail in verdicts.values())


def test_shards_lie_as_the_format_says(shards):
    """Chunks row by row, then where each begins, and the checksum of that."""
    shard = (shards[1] / BANDS / "r10m" / "b03" / "c" / "0" / "0").read_bytes()
    index = shard[-9 * 16 - 4 : -4]
    assert int.from_bytes(shard[-4:], "little") == google_crc32c.value(index)
    entries = [struct.unpack_from("<2Q", index, 16 * n) for n in range(9)]
    there = [entry for entry in entries if entry[0] != ABSENT]
    assert there[0][0] == 0
    assert [begin + size for begin, size in there] == [*(begin for begin, _ in there[1:]), len(shard) - len(index) - 4]
    array = zarr.open_array(str(shards[1] / BANDS / "r10m" / "b03"), mode="r")
    assert (array.shards, array.chunks, array.dtype) == ((768, 768), (256, 256), np.uint16)
    blosc = array.metadata.to_dict()["codecs"][0]["configuration"]["codecs"][1]["configuration"]
    assert (blosc["clevel"], blosc["blocksize"], blosc["typesize"]) == (1, 2**20, 2)


def test_auto_shards_what_goes_into_an_object_store():
    assert [sharded("auto", place) for place in ("s3://b/o.zarr", "gs://b/o.zarr", "/data/o.zarr", "var/o.zarr")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert [sharded(asked, "s3://b/o.zarr") for asked in (False, "false", True, "true")] == [False, False, True, True]


def test_an_item_says_how_packed_numbers_are_scaled(product, runner, tmp_path):
    output = tmp_path / "o.zarr"
    assert runner(product, output, groups=f"{BANDS}/r60m", encoding="packed", package="none").code == 0
    document = json.loads(output.with_name("o.zarr.item.json").read_text())
    said = [asset for asset in document["assets"].values() if "raster:scale" in asset]
    assert said, "bands are packed"
    for asset in said:
        assert (asset["data_type"], asset["nodata"], asset["raster:scale"], asset["raster:offset"]) == ("uint16", 0, 0.0001, -0.1)


@pytest.mark.parametrize("encoding", Encoding)
def test_every_encoding_has_the_same_native_values(product, tmp_path, encoding):
    selection = select(parse(json.loads((product / ".zmetadata").read_text())["metadata"], "here"), f"{BANDS}/r60m")
    options = engine.Options(100, encoding=encoding, engine="fast")
    stock.convert(product, selection, tmp_path / "o", options, level="L2A")
    with (
        xr.open_dataset(product, engine="zarr", group=f"{BANDS}/r60m") as want,
        xr.open_dataset(tmp_path / "o", engine="zarr", group=f"{BANDS}/r60m") as got,
    ):
        for name in want.data_vars:
            np.testing.assert_array_equal(got[name].values.astype("f4"), want[name].values.astype("f4"))
