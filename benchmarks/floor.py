"""What any converter has to do with the arrays of a product that it makes floats of: decode, look up, compress at zstd 3, write.

In: a product, a folder. Out: files. Never: pyramid, metadata, a check. It is what ratios are made of, so it stays as it is, also
where a better codec makes a whole conversion cheaper than it.
"""

from __future__ import annotations

import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

CHUNK = 1024  #: pixels of a chunk's edge


def floor(source: Path, output: Path) -> None:
    """Does it, by as many threads as there are CPUs."""
    import numcodecs
    import numpy as np
    from numcodecs import blosc

    blosc.use_threads = False
    documents = json.loads((source / ".zmetadata").read_text())["metadata"]
    arrays = {
        key.removesuffix("/.zarray"): d
        for key, d in documents.items()
        if key.endswith("/.zarray") and len(d["shape"]) == 2 and "quicklook" not in key and np.dtype(d["dtype"]).kind == "u"
    }

    def one(path: str, document: dict[str, Any]) -> None:
        codec, dtype = numcodecs.get_codec(document["compressor"]), np.dtype(document["dtype"])
        attributes = documents[f"{path}/.zattrs"]
        table = None
        if document["fill_value"] is not None:
            numbers = np.arange(np.iinfo(dtype).max + 1) * attributes.get("scale_factor", 1.0) + attributes.get("add_offset", 0.0)
            numbers[document["fill_value"]] = np.nan
            table = numbers.astype("f4")
        rows, columns = document["chunks"]
        (output / path).mkdir(parents=True)
        for i, j in itertools.product(*(range(-(-n // c)) for n, c in zip(document["shape"], document["chunks"], strict=True))):
            key = document.get("dimension_separator", ".").join((str(i), str(j)))
            whole = np.frombuffer(codec.decode((source / path / key).read_bytes()), dtype).reshape(rows, columns)
            for y, x in itertools.product(range(0, rows, CHUNK), range(0, columns, CHUNK)):
                block = whole[y : y + CHUNK, x : x + CHUNK]
                values = np.ascontiguousarray(block, "f4") if table is None else np.take(table, block, mode="wrap")
                (output / path / f"{i}.{j}.{y}.{x}").write_bytes(blosc.compress(values, b"zstd", 3, blosc.SHUFFLE, 0))

    largest = sorted(arrays.items(), key=lambda pair: -pair[1]["shape"][0])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for future in [pool.submit(one, path, document) for path, document in largest]:
            future.result()
