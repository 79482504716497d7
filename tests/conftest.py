"""Fixtures for all tests."""

from __future__ import annotations

import gc
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from rmi_runtime.credentials.certificates import create_authority, create_certificate
from tests.support import Clock

# By default an example that takes 200 ms is a failure: on a busy machine any of them may.
settings.register_profile(
    "untimed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")


def pytest_configure() -> None:
    """Be as on a fresh machine: what is around a run would be handed on to services and clients."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a run under nohup ignores it
    for name in list(os.environ):
        ours = name.startswith("RMI_") and name != "RMI_REQUIRE_HAZELCAST"
        if ours or name.lower().endswith("_proxy"):
            del os.environ[name]
    if os.path.lexists("rmi.toml"):
        raise pytest.UsageError(
            "the systems that tests start would follow the settings file rmi.toml in the current "
            "directory; move it away while tests run"
        )


def pytest_collection_finish() -> None:
    """Spare the garbage collector what stays anyway: all modules, and thousands of tests.

    Otherwise every full collection, of which some tests ask for many, goes through all of it.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a CA and a certificate for ``localhost``, as ``rmi certs`` makes them."""
    directory = tmp_path_factory.mktemp("certs")
    create_authority(directory, datetime.now(UTC))
    create_certificate(directory, ["localhost"], datetime.now(UTC))
    return directory


@pytest.fixture
def clock() -> Clock:
    return Clock()
