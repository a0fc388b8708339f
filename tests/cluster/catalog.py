"""The catalog that the tests' pod serves: the demo's STAC API and its products, and a door for the test beside them.

The poller and the runs ask it, and under `/control` the test does, through a port-forward. It does nothing to its clients that no
real catalog would do; what the test wants of it is named in the request.
"""

import json
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stac_watch.demo.catalog import COLLECTION, FaultControl, Store, create_app, make_collection, make_item
from stac_watch.demo.product import write_product

PLACE = Path("/tmp/catalog")  # the pod's own emptyDir


def now() -> datetime:
    return datetime.now(UTC)


class Control:
    """What the test asks for."""

    def __init__(self, store: Store, faults: FaultControl, url: str) -> None:
        self._store, self._faults, self._url = store, faults, url

    async def publish(self, request: Request) -> Response:
        """{item_id, size, revision, product: bool, broken: bool, visible_in: s, over: {…}}: product, then item; answers it."""
        wish = await request.json()
        item_id, folder = wish["item_id"], f"v{wish.get('revision', 1)}"
        if wish.get("product", True):
            self._write(folder, item_id, wish)
        item = make_item(
            item_id,
            catalog_url=self._url,
            product_href=f"{self._url}/products/{folder}/{item_id}.zarr",
            updated=now(),
            datetime=datetime.strptime(item_id.split("_")[2], "%Y%m%dT%H%M%S").replace(tzinfo=UTC),
        )
        seconds = wish.get("visible_in")
        self._store.put(item | wish.get("over", {}), visible=now() + timedelta(seconds=seconds) if seconds else None)
        return JSONResponse(item)

    async def product(self, request: Request) -> Response:
        """{item_id, size}: the product of an item that is published already."""
        wish = await request.json()
        self._write("v1", wish["item_id"], wish)
        return JSONResponse({})

    async def item(self, request: Request) -> Response:
        """Any document, as it is."""
        self._store.put(await request.json())
        return JSONResponse({})

    async def faults(self, request: Request) -> Response:
        """Sets the switches that are named."""
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in (await request.json()).items()}
        self._faults.set(**given)
        return JSONResponse({"delivered": len(self._faults.delivered)})

    def _write(self, folder: str, item_id: str, wish: dict) -> None:
        place = PLACE / "products" / folder
        shutil.rmtree(place / f"{item_id}.zarr", ignore_errors=True)
        path = write_product(place, item_id, size=wish.get("size", 144), seed=wish.get("revision", 1))
        if wish.get("broken"):  # every chunk of one band is something else than what its metadata says
            for chunk in path.glob("measurements/reflectance/r10m/b02/[0-9]*"):
                chunk.write_bytes(b"no Blosc frame")


def main(url: str, port: int) -> None:
    (PLACE / "products").mkdir(parents=True, exist_ok=True)
    store, faults = Store(PLACE / "catalog.db"), FaultControl()
    store.put_collection(make_collection(COLLECTION))
    app = create_app(store, products=PLACE / "products", faults=faults, now=now)
    control = Control(store, faults, url)
    for name in ("publish", "product", "item", "faults"):
        app.router.routes.insert(0, Route(f"/control/{name}", getattr(control, name), methods=["POST"]))
    print(json.dumps({"serving": url}), flush=True)
    uvicorn.run(app, host="0.0.0.0", port=port, log_level="warning", date_header=False)  # a pod's only address


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
