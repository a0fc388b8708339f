# The poller: stac-watch without the geospatial stack. Nothing in it changes while it runs; what changes goes to /var/lib/stac-watch,
# which is a volume in a cluster, and /tmp.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
ARG UV_VERSION=0.13.9
# A virtual environment for uv itself: pip refuses to install into a distribution's own Python, and the official image has no uv.
RUN python3 -m venv /opt/uv && /opt/uv/bin/python -m pip install --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}"
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/stac-watch
WORKDIR /build
# demo adds 7 MB, since numpy comes with shapely anyway, and lets the image serve the demo's catalogue.
ARG EXTRAS="--extra postgresql --extra render --extra demo"
# The dependencies first, from the lock alone: this layer stays while only the sources change.
COPY pyproject.toml uv.lock ./
COPY runner/pyproject.toml runner/
RUN /opt/uv/bin/uv sync --locked --no-dev --package stac-watch ${EXTRAS} --no-install-workspace
COPY README.md LICENSE ./
COPY src src
RUN /opt/uv/bin/uv sync --locked --no-dev --package stac-watch ${EXTRAS} --no-editable

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="stac-watch" \
      org.opencontainers.image.description="Watches a STAC API and emits one CloudEvent per new product" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN mkdir -p /var/lib/stac-watch && chown 10001:10001 /var/lib/stac-watch
ENV PATH=/opt/stac-watch/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
COPY --from=build /opt/stac-watch /opt/stac-watch
USER 10001:10001
WORKDIR /var/lib/stac-watch
ENTRYPOINT ["stac-watch"]
