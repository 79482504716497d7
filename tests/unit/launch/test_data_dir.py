"""The data directory: made private, held by one, and honest about why it cannot be."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rmi_launch.data_dir import (
    PATH_BYTES_MAX,
    DataDirInUse,
    DataDirUnusable,
    locked,
    prepare,
    read_running,
    remove_running,
    write_running,
)

SERVICE = {"name": "gateway", "address": "", "pid": None, "state": "dead", "restarts": 2}
RUNNING = {
    "pid": os.getpid(),
    "ns": ["127.0.0.1:1"],
    "http": "127.0.0.1:2",
    "tls": {},
    "services": [SERVICE],
}


def test_it_is_made_for_its_owner_only(tmp_path: Path) -> None:
    log_dir = prepare(tmp_path / "a" / "b")
    assert log_dir == tmp_path / "a" / "b" / "log"
    for directory in (log_dir, log_dir.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert prepare(tmp_path / "a" / "b") == log_dir


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "var").touch()
    for path in (tmp_path / "var", tmp_path / "var" / "below"):
        with pytest.raises(DataDirUnusable, match=f"{path} is a file, or below one.*--data-dir"):
            prepare(path)
    (tmp_path / "log").touch()
    with pytest.raises(DataDirUnusable, match=f"{tmp_path}/log is a file"):
        prepare(tmp_path)


@pytest.mark.parametrize("link", ["var", "var/log"])
def test_a_link_to_what_is_not_there_is_said_to_be_one(tmp_path: Path, link: str) -> None:
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "unmounted")
    with pytest.raises(DataDirUnusable, match=r"is a link to .*unmounted, which is not there"):
        prepare(tmp_path / "var")


def test_a_path_that_is_too_long_for_the_databases_is_refused(tmp_path: Path) -> None:
    right = tmp_path
    while (left := PATH_BYTES_MAX - len(str(right)) - 1) > 0:
        right /= "d" * (98 if left == 100 else min(left, 99))
    assert len(str(right)) == PATH_BYTES_MAX
    prepare(right)
    with contextlib.closing(sqlite3.connect(right / "nameserver.sqlite")) as database:
        database.execute("PRAGMA journal_mode=WAL")
    first, *rest = right.relative_to(tmp_path).parts
    (tmp_path / "s").symlink_to(tmp_path / first)
    for path in (right / "d", (tmp_path / "s").joinpath(*rest, "d")):
        with pytest.raises(DataDirUnusable, match=r"482 bytes.*--data-dir"):
            prepare(path)


def test_a_directory_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write anywhere, so the system's answer is replaced rather than the mode set.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataDirUnusable, match="no permission"):
        prepare(tmp_path)


def test_a_second_holder_is_refused_and_told_the_first(tmp_path: Path) -> None:
    with locked(tmp_path, 0.0):
        with pytest.raises(DataDirInUse) as caught, locked(tmp_path, 60.0):
            pass
        assert caught.value.fields == {"path": str(tmp_path), "pid": os.getpid()}
    with locked(tmp_path, 0.0):
        pass


@pytest.fixture
def ended_and_not_waited_for() -> Iterator[int]:
    """A process that has ended, and whose parent has not asked what became of it."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    yield process.pid
    process.wait()


def test_what_is_left_of_a_killed_system_is_waited_for_before_that_is_reaped(
    tmp_path: Path, ended_and_not_waited_for: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as services:
        services.enter_context(locked(tmp_path, 0.0))
        (tmp_path / "rmi.lock").write_text(str(ended_and_not_waited_for))
        monkeypatch.setattr(time, "sleep", lambda _: services.close())
        with locked(tmp_path, 60.0):
            assert (tmp_path / "rmi.lock").read_text() == str(os.getpid())


def test_services_that_outlive_a_killed_system_are_told_of_and_not_that_system(
    tmp_path: Path, ended_and_not_waited_for: int
) -> None:
    with locked(tmp_path, 0.0):
        (tmp_path / "rmi.lock").write_text(str(ended_and_not_waited_for))
        with (
            pytest.raises(DataDirInUse, match=r"services of an rmi up that has ended .* end them"),
            locked(tmp_path, 0.1),
        ):
            pass


def test_running_is_what_was_written_until_it_is_removed(tmp_path: Path) -> None:
    with locked(tmp_path, 0.0):
        assert read_running(tmp_path) is None
        write_running(tmp_path, RUNNING)
        assert read_running(tmp_path) == RUNNING
        remove_running(tmp_path)
        assert read_running(tmp_path) is None
        remove_running(tmp_path)


def test_what_a_killed_system_left_is_not_running(tmp_path: Path) -> None:
    with locked(tmp_path, 0.0):
        write_running(tmp_path, RUNNING)
    assert read_running(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", '"', "\0", "{}"),
        json.dumps(RUNNING | {"ns": 1}),
        json.dumps(RUNNING | {"services": [{"name": "gateway"}]}),
    ],
)
def test_what_cannot_be_read_is_not_running(tmp_path: Path, text: str) -> None:
    with locked(tmp_path, 0.0):
        (tmp_path / "running.json").write_text(text)
        assert read_running(tmp_path) is None


@pytest.mark.parametrize("text", ["", "9" * 20, "nobody"])
def test_a_lock_file_of_nobody_is_taken_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "rmi.lock").write_text(text)
    with locked(tmp_path, 0.0):
        assert (tmp_path / "rmi.lock").read_text() == str(os.getpid())


def test_a_directory_where_nothing_can_be_locked_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(DataDirUnusable, match=f"{tmp_path} .*No locks available"),
        locked(tmp_path, 1.0),
    ):
        pytest.fail("it was locked")
