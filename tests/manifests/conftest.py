"""What the manifest tests share: the rendered files, the objects in them, one real event, the schemas where they are at hand."""

import functools
import gzip
import json
from datetime import UTC, datetime

import jsonschema
import pytest
import yaml
from fakes.installation import CONFIG, PRODUCTION, ROOT, told

from stac_watch.cluster.manifests.render import examples, parts
from stac_watch.model.event import Conversion, build_event

SCHEMAS = ROOT.parent / "shared" / "data" / "argo"


@pytest.fixture(scope="session")
def settings():
    return told(CONFIG)


@pytest.fixture(scope="session")
def production():
    return told(PRODUCTION, **yaml.safe_load((PRODUCTION.parent / "values.yaml").read_text()))


@pytest.fixture(scope="session")
def rendered(settings):
    """The folders for Argo's users, the controller's settings and the monitoring, as they are committed."""
    return examples(settings)


@pytest.fixture(scope="session")
def objects(settings, production, rendered):
    """Every Kubernetes object by (kind, name): an installation with the defaults, and what production has beside it."""
    found = {}
    for installation in (production, settings):
        for documents in parts(installation).values():
            found |= {(document["kind"], document["metadata"]["name"]): document for document in documents}
    for path, text in rendered.items():
        if path.endswith(".yaml") and "kustomiz" not in path:
            found |= {(document["kind"], document["metadata"]["name"]): document for document in yaml.safe_load_all(text)}
    return found


@pytest.fixture(scope="session")
def conversion():
    return Conversion(
        catalog="https://stac.example", collection="sentinel-2-l2a", revision="3f1c", recipe="r", kind="create", reason="new",
        item_id="S2A_MSIL2A_20250831T103701_N0511_R008_T32TQM_20250831T140000", lane="backfill",
        time=datetime(2025, 8, 31, 15, tzinfo=UTC), datetime=datetime(2025, 8, 31, 10, 37, 1, tzinfo=UTC),
        item_href="https://stac.example/collections/sentinel-2-l2a/items/S2A", product_href="https://objects.example/S2A.zarr",
        output_zarr="s3://bucket/S2A.zarr", groups="/measurements/reflectance/r10m", bbox=(10.0, 44.0, 11.0, 45.0),
        options={
            "spatial_chunk": "512", "sharding": "true", "package": "none", "overwrite": "true", "allow_empty": "true",
            "dask_perf_html": "/data/dask.html",
            "native": "convert", "encoding": "decoded",
        },
        source_name="s2-l2a", fence="2026-03-01T12:00:00.000000Z", installation="prod",
        allowed_hosts="objects.eodc.eu", form="geozarr-v3",
    )  # fmt: skip


@pytest.fixture(scope="session")
def event(conversion):
    return build_event(conversion, 3)


@pytest.fixture(scope="session")
def crd():
    """Validates as one of Argo's CRDs does: what the API server checks, and unknown fields refused, not dropped.

    The schemas are megabytes: they are read once, and not themselves judged by a schema each time.
    """

    @functools.cache
    def validator(plural):
        path = SCHEMAS / f"argo-workflows-v4.0.5.crd.{plural}.yaml.gz"
        if not path.exists():
            pytest.skip(f"the CRD of {plural} is not at hand ({SCHEMAS.name} beside the clone); a real API server checks it, too")
        document = yaml.load(gzip.decompress(path.read_bytes()), Loader=yaml.CSafeLoader)  # the C twin of SafeLoader
        [version] = document["spec"]["versions"]
        root = strict(version["schema"]["openAPIV3Schema"])
        root["properties"]["metadata"] = {"type": "object"}
        return jsonschema.Draft202012Validator(root)

    return lambda document, plural: validator(plural).validate(document)


@pytest.fixture(scope="session")
def events_crd():
    """Validates as a kind of Argo Events, whose own CRDs check nothing."""
    path = SCHEMAS / "argo-events-v1.9.11.schema.json.gz"
    if not path.exists():
        pytest.skip("the schema of Argo Events is not at hand; its CRDs check nothing, so nothing else does")
    document = json.loads(gzip.decompress(path.read_bytes()))
    document["$schema"] = "http://json-schema.org/draft-07/schema#"  # it names none in particular
    for name, definition in document["definitions"].items():
        if "properties" in definition:
            definition["additionalProperties"] = False
        # int-or-string is published as string
        if name.endswith((".IntOrString", ".Int64OrString")):
            definition["type"] = ["integer", "string"]
    webhook = document["definitions"]["io.argoproj.events.v1alpha1.WebhookEventSource"]
    webhook["required"] = [field for field in webhook.get("required", []) if field != "url"]  # said to be required, and is not

    def validate(given, kind):
        reference = {"oneOf": [{"$ref": f"#/definitions/io.argoproj.events.v1alpha1.{kind}"}]}
        jsonschema.Draft7Validator({**document, **reference}).validate(given)

    return validate


def strict(node):
    """Turns a structural schema into JSON Schema: int-or-string, and no unknown fields."""
    if isinstance(node, list):
        return [strict(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {key: strict(value) for key, value in node.items() if not key.startswith("x-")}
    if isinstance(made.get("properties"), dict) and "additionalProperties" not in made and node.get("type") == "object":
        made["additionalProperties"] = bool(node.get("x-kubernetes-preserve-unknown-fields"))
    return made
