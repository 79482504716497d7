"""What is set for a system of one's own does not reach those that the tests start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
TESTS = "tests/unit/launch/test_cli.py"


def pytest_in(directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a few tests that read settings, below *directory* and with *variables* set."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return subprocess.run(
        [*command, "-c", str(ROOT / "setup.cfg"), str(ROOT / TESTS), "-k", "config"],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_variables_of_settings_are_not_for_the_tests(tmp_path: Path) -> None:
    ended = pytest_in(tmp_path, RMI_BUSINESS="7", RMI_NONSENSE="1", RMI_CONFIG="/nowhere.toml")
    assert ended.returncode == 0, ended.stdout


def test_a_settings_file_where_tests_are_started_is_named_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "rmi.toml").write_text("business = 7")
    ended = pytest_in(tmp_path)
    assert ended.returncode == 4
    assert "rmi.toml in the current directory; move it away" in ended.stderr
