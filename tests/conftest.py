"""Fixtures for all tests."""

from __future__ import annotations

import pytest

from tests.support import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()
