"""What a release is: a tag that is the project's version, signed images with bills of materials and provenance, the chart.

Signatures are cosign's, without keys: the workflow's own identity (OIDC) is what is signed with. A digest is signed, never a tag.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from commands import KitError, capture, need, run

COSIGN = "Install it: https://docs.sigstore.dev/cosign/system_config/installation/"
HELM = "Install it: https://helm.sh/docs/intro/install/"
BUILD_TYPE = "https://actions.github.io/buildtypes/workflow/v1"


def check(version: str, tag: str) -> None:
    """Tells whether a tag is that of the version.

    Raises:
        KitError: it is another one.
    """
    if tag != f"v{version}":
        raise KitError(f"The tag is {tag or '(empty)'}, and the project's version is {version}.", hint=f"git tag v{version}")


def sign(name: str, sbom: Path, environ: Mapping[str, str]) -> None:
    """Signs an image that is in its registry, and attests what is in it and where it was built.

    Raises:
        KitError: docker or cosign is missing, or the image is not there.
    """
    need("cosign", COSIGN)
    digest = capture(["docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", name]).strip()
    subject = f"{name.rpartition(':')[0]}@{digest}"
    run(["cosign", "sign", "--yes", subject])
    if sbom.exists():
        run(["cosign", "attest", "--yes", "--type", "cyclonedx", "--predicate", sbom, subject])
    with tempfile.TemporaryDirectory() as folder:
        predicate = Path(folder) / "provenance.json"
        predicate.write_text(json.dumps(provenance(environ)))
        run(["cosign", "attest", "--yes", "--type", "slsaprovenance1", "--predicate", predicate, subject])


def provenance(environ: Mapping[str, str]) -> dict[str, object]:
    """Where a workflow of GitHub built something, as SLSA's provenance v1 says it."""
    server, repository = environ.get("GITHUB_SERVER_URL", ""), environ.get("GITHUB_REPOSITORY", "")
    source = f"{server}/{repository}"
    workflow = environ.get("GITHUB_WORKFLOW_REF", "")
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"workflow": {"ref": environ.get("GITHUB_REF", ""), "repository": source, "path": workflow}},
            "resolvedDependencies": [
                {"uri": f"git+{source}@{environ.get('GITHUB_REF', '')}", "digest": {"gitCommit": environ.get("GITHUB_SHA", "")}}
            ],
        },
        "runDetails": {
            "builder": {"id": f"{server}/{workflow}"},
            "metadata": {"invocationId": f"{source}/actions/runs/{environ.get('GITHUB_RUN_ID', '')}"},
        },
    }


def push_chart(root: Path, version: str, place: str) -> None:
    """Packages the chart and sends it to an OCI registry, signed.

    Raises:
        KitError: helm or cosign is missing, or the registry does not take it.
    """
    if not place.startswith("oci://"):
        raise KitError(f"CHARTS={place} is no OCI registry.", hint="make push-chart CHARTS=oci://ghcr.io/you/charts")
    need("helm", HELM)
    need("cosign", COSIGN)
    made = root / "build" / "chart"
    made.mkdir(parents=True, exist_ok=True)
    run(["helm", "package", root / "deploy" / "chart", "--destination", made])
    said = capture(["helm", "push", made / f"stac-watch-{version}.tgz", place])
    digest = next((line.split()[-1] for line in said.splitlines() if line.startswith("Digest:")), "")
    if not digest:
        raise KitError(f"helm push did not say the chart's digest: {said.strip()}", hint="helm 3.8 or later says it.")
    run(["cosign", "sign", "--yes", f"{place.removeprefix('oci://')}/stac-watch@{digest}"])
