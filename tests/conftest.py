"""Fixtures for all tests."""

from __future__ import annotations

import gc
import signal

import pytest

from tests.support import Clock


def pytest_configure() -> None:
    """Be as in a terminal: a run under ``nohup`` would hand the ignored signal on to services."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Spare the garbage collector what stays anyway: all modules, and thousands of tests.

    Otherwise every full collection, of which some tests ask for many, goes through all of it.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def clock() -> Clock:
    return Clock()
