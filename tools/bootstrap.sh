#!/bin/sh
# Puts a working uv where `make` can call it: .tools/bin/uv. Needs nothing but a CPython >= 3.12, or a uv.
# Each candidate is run before it is believed: a pyenv shim is on PATH and executable, and still fails.
set -eu

UV_VERSION=0.13.9
root=$(cd "$(dirname "$0")/.." && pwd)
tools="$root/.tools"

works() { "$@" >/dev/null 2>&1; }

new_enough() { works "$1" -c 'import sys, venv, ensurepip; raise SystemExit(sys.version_info < (3, 12))'; }

find_python() {
    for candidate in "${PYTHON:-}" python3.13 python3.12 python3.14 python3 python \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python3 \
        /opt/python*/bin/python3 /usr/local/bin/python3; do
        [ -n "$candidate" ] || continue
        if new_enough "$candidate"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return 0
        fi
    done
    return 1
}

if [ -x "$tools/bin/uv" ] && works "$tools/bin/uv" --version; then exit 0; fi
mkdir -p "$tools/bin"

if python=$(find_python); then
    printf '%s\n' "$python" >"$tools/python"
elif works uv --version; then
    : >"$tools/python"   # uv brings a CPython of its own
else
    echo "bootstrap: neither a CPython >= 3.12 nor a working uv was found." >&2
    echo "  Install one of them (for example: apt-get install python3.12 python3.12-venv), or name it: make PYTHON=/path/to/python3.12" >&2
    exit 69
fi

if works uv --version && works uv lock --help; then
    ln -sf "$(command -v uv)" "$tools/bin/uv"
else
    "$python" -m venv "$tools/uv-venv"
    "$tools/uv-venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
    ln -sf "$tools/uv-venv/bin/uv" "$tools/bin/uv"
fi
"$tools/bin/uv" --version
