# The poller: stac-watch without the geospatial stack. Nothing in it changes while it runs; what changes goes to /var/lib/stac-watch,
# which is a volume in a cluster, and /tmp. `make build-poller` builds it, and so does: docker build .
# The digest is that of a list for several architectures; `make build BASE_IMAGE=…` takes another one.
ARG BASE_IMAGE=docker.io/library/python:3.13-slim@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285

FROM ${BASE_IMAGE} AS build
ARG UV_VERSION=0.13.9
# A virtual environment for uv itself: pip refuses to install into a distribution's own Python, and the official image has no uv.
RUN python3 -m venv /opt/uv && /opt/uv/bin/python -m pip install --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}"
# Bytecode is compiled here, for the root file system is read-only. It is not compared with its source again at each import: the
# source cannot change any more.
ENV UV_COMPILE_BYTECODE=1 PYC_INVALIDATION_MODE=UNCHECKED_HASH UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /build
# demo adds 7 MB, since numpy comes with shapely anyway, and lets the image serve the demo's catalog.
ARG EXTRAS="--extra postgresql --extra s3 --extra demo"
# The dependencies first, from the lock alone: this layer stays while only the sources change.
COPY pyproject.toml uv.lock ./
COPY runner/pyproject.toml runner/
RUN UV_COMPILE_BYTECODE=0 UV_PROJECT_ENVIRONMENT=/opt/sbom /opt/uv/bin/uv sync --locked --only-group sbom \
 && UV_PROJECT_ENVIRONMENT=/opt/stac-watch /opt/uv/bin/uv sync --locked --no-dev --package stac-watch ${EXTRAS} --no-install-workspace
COPY README.md LICENSE ./
COPY src src
# What is installed is what the bill of materials says: it is read from the finished environment, not from the lock.
# uv would compile every file again, though one package was added.
RUN UV_COMPILE_BYTECODE=0 UV_PROJECT_ENVIRONMENT=/opt/stac-watch \
      /opt/uv/bin/uv sync --locked --no-dev --package stac-watch ${EXTRAS} --no-editable \
 && /opt/stac-watch/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/stac-watch/lib/python3*/site-packages/stac_watch \
 && /opt/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible --of JSON \
      -o /opt/stac-watch/sbom.cdx.json /opt/stac-watch/bin/python

FROM ${BASE_IMAGE}
# The base's installers have no use where nothing can be installed.
RUN find /usr -xdev -depth \( -name pip -o -name 'pip-*.dist-info' -o -name 'pip3*' -o -name ensurepip -o -name python-wheels \) \
      -exec rm -rf {} + \
 && mkdir -p /var/lib/stac-watch && chown 10001:10001 /var/lib/stac-watch
ENV PATH=/opt/stac-watch/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp
COPY --from=build /opt/stac-watch /opt/stac-watch
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="stac-watch" \
      org.opencontainers.image.description="Watches a STAC API and emits one CloudEvent per new product" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
USER 10001:10001
WORKDIR /var/lib/stac-watch
ENTRYPOINT ["stac-watch"]
