"""A part of a blosc frame is what the whole of it holds there; what is no such frame is left to zarr-python."""

from __future__ import annotations

import numcodecs
import numpy as np
import pytest
import zarr
from geozarr_runner.verify.parts import part
from geozarr_runner.verify.source import SourceReader


@pytest.mark.parametrize("cname", ["zstd", "lz4", "blosclz"])
@pytest.mark.parametrize("shuffle", [0, 1, 2])
def test_a_part_is_what_the_whole_holds_there(tmp_path, cname, shuffle):
    rng, file = np.random.default_rng(5), tmp_path / "0.0"
    for values in (rng.integers(0, 50, (317, 211), "u2"), rng.integers(0, 65536, (317, 211), "u2")):  # the second is stored
        raw = values.tobytes()
        for block in (0, 1000, 50_000):
            file.write_bytes(numcodecs.Blosc(cname, 3, shuffle, block).encode(values))
            for begin, end in ((0, len(raw)), (0, 1), (len(raw) - 1, len(raw)), (5000, 9000), (len(raw) - 7000, len(raw) - 100)):
                assert part(file, len(raw), begin, end) == raw[begin:end]


def test_what_is_no_such_frame_has_no_part(tmp_path):
    file, values = tmp_path / "0.0", np.arange(100_000, dtype="u2")
    whole = numcodecs.Blosc("zstd", 3, 1, 4096).encode(values)
    assert part(file, values.nbytes, 0, 10) is None, "it is not there"
    for content in (b"", whole[:10], whole[:-1], b"\x05" + whole[1:], whole[:16] + b"\xff" * 400 + whole[416:], values.tobytes()):
        file.write_bytes(content)
        assert part(file, values.nbytes, 0, 10) is None
    file.write_bytes(whole)
    assert part(file, values.nbytes + 2, 0, 10) is None, "it holds another number of bytes"
    assert part(file, values.nbytes, 0, 10) == values.tobytes()[:10]


@pytest.mark.parametrize(
    "form", [{}, {"order": "F"}, {"filters": [numcodecs.Delta("<u2")]}, {"compressors": numcodecs.Zlib()}, {"dtype": ">u2"}]
)
def test_rows_of_a_source_are_those_of_zarr_python_in_every_form(tmp_path, form):
    """In strips or whole, over the seams of chunks and beyond the last full one."""
    values = np.random.default_rng(2).integers(0, 4000, (700, 500), "u2")
    group = zarr.open_group(str(tmp_path), mode="w", zarr_format=2)
    settings = {
        "shape": values.shape,
        "chunks": (400, 300),
        "dtype": "<u2",
        "compressors": numcodecs.Blosc("zstd", 3, 2, 8192),
    } | form
    group.create_array("b02", **settings)[...] = values
    source = SourceReader(tmp_path).packed("b02")
    for block in (
        (slice(0, 100), slice(0, 100)),
        (slice(350, 450), slice(250, 350)),
        (slice(690, 700), slice(490, 500)),
        (slice(0, 700), slice(0, 9)),
    ):
        np.testing.assert_array_equal(source.packed(block), values[block])
        np.testing.assert_array_equal(source.packed(block, whole=True), values[block])
