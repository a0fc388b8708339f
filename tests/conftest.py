"""What all tests share: nothing leaves the machine, not even from processes that a test starts."""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Sends every other process's HTTP to a closed port; in this process pytest-socket refuses non-loopback connections."""
    os.environ |= {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,localhost,::1"}
    os.environ |= {name.lower(): os.environ[name] for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")}
