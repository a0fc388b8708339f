#!/bin/sh
# Fills /opt/geozarr inside the image's build; `dependencies` first, then `packages`, so that the first layer outlives our sources.
#
# Without runner/image/converter: everything from our own uv.lock, checked by hash.
# With it (`make build REF=…` writes it there): the third-party packages as the converter's own lock has them at that ref, what the
# runner needs beyond those, and the converter from the same ref. Our pins of the converter's packages do not count then: that is
# what was asked for. Any other contradiction ends the build.
set -eu

uv=/opt/uv/bin/uv
converter=runner/image/converter
python=/opt/geozarr/bin/python
export UV_PROJECT_ENVIRONMENT=/opt/geozarr
# The runner takes stac-watch's model alone. What only the rest of it imports is a quarter of the image.
without=$(sed 's/^/--no-install-package /' runner/image/poller-only.txt | tr '\n' ' ')

# uv would compile all 8,000 files again, though two packages were added: 46 s for 2 s of work.
compile() {
    find /opt/geozarr/lib -maxdepth 3 -type d \( -name geozarr_runner -o -name stac_watch -o -name eopf_geozarr \) \
        -exec $python -m compileall -q --invalidation-mode unchecked-hash {} +
}

case "$1" in
dependencies)
    UV_COMPILE_BYTECODE=0 UV_PROJECT_ENVIRONMENT=/opt/sbom $uv sync --locked --only-group sbom
    if [ -d $converter ]; then
        $uv venv --no-project /opt/geozarr
        $uv pip install --python $python --no-deps --require-hashes -r $converter/locked.txt
        $uv pip install --python $python --no-deps --require-hashes -r $converter/added.txt
    else
        $uv sync --locked --no-dev --package geozarr-runner --no-install-workspace $without
    fi
    ;;
packages)
    export UV_COMPILE_BYTECODE=0
    if [ -d $converter ]; then
        $uv pip install --python $python --no-deps ./$converter/source . ./runner
        $uv pip check --python $python >/tmp/check 2>&1 || cat /tmp/check
        if grep '^The package' /tmp/check | grep -qv -e '^The package `geozarr-runner`' -e '^The package `stac-watch`'; then
            echo "install.sh: these packages cannot work together; the lock at this ref contradicts itself, or ours" >&2
            exit 1
        fi
    else
        $uv sync --locked --no-dev --package geozarr-runner --no-editable $without
    fi
    compile
    rm -f /opt/geozarr/bin/stac-watch   # would not start here
    # What is installed is what the bill of materials says: it is read from the finished environment, not from a lock.
    /opt/sbom/bin/cyclonedx-py environment --pyproject runner/pyproject.toml --mc-type application --output-reproducible --of JSON \
        -o /opt/geozarr/sbom.cdx.json $python
    # A library that this image lacks, or a converter that this runner cannot drive, is found here and not by a run.
    $python -c "from geozarr_runner.convert.stock import load, require_xarray; load(); require_xarray()"
    /opt/geozarr/bin/geozarr-runner --version
    ;;
*)
    echo "install.sh: dependencies or packages, not $1" >&2
    exit 64
    ;;
esac
