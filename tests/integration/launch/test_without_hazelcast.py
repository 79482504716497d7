"""Commands where the Hazelcast client library, an extra, is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = "import sys; sys.modules['hazelcast'] = None; from rmi_launch.cli import main; main()"

FIRST_ON_THE_PATH = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from rmi_launch.cli import main; main()"
)


@pytest.mark.parametrize(
    "command",
    [
        ("map-stats", "--hazelcast-members", "127.0.0.1:5701"),
        ("map-stats", "--json", "--hazelcast-members", "127.0.0.1:5701"),
        ("hazelcast", "member", "--listen", "127.0.0.1:5701"),
        ("up", "--store", "hazelcast", "--ns", "127.0.0.1:0", "--http", "127.0.0.1:0"),
    ],
)
def test_what_is_missing_is_said_in_one_line_before_anything_starts(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT, *command, "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("rmi: Hazelcast needs its client library; install it with `pip ")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "hazelcast").exists()


def test_map_stats_without_a_member_needs_no_client_library(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT, "map-stats", "--json", "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 3
    assert "no Hazelcast member runs" in ended.stderr


def test_something_else_of_the_same_name_is_not_taken_for_the_client_library(
    tmp_path: Path,
) -> None:
    other = tmp_path / "lib" / "hazelcast"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    ended = subprocess.run(
        [
            *(sys.executable, "-c", FIRST_ON_THE_PATH, str(other.parent), "map-stats"),
            *("--hazelcast-members", "127.0.0.1:5701", "--data-dir", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("rmi: Hazelcast needs its client library ")
    assert f"({other} is something else)" in ended.stderr
    assert ended.stderr.count("\n") == 1
