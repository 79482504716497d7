"""What processes print: bounded while they run, and its end is kept."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from rmi_launch import outputs
from rmi_launch.outputs import (
    OUTPUT_SIZE_BYTES_MAX,
    bound_output,
    keep_bounded,
    open_output,
    output_tail,
)
from tests.support import eventually

PRINTING = """
import sys
for line in sys.stdin:
    print(line * 1000, end="", flush=True)
    print("printed", file=sys.stderr, flush=True)
"""


def filled(log_dir: Path, size_bytes: int) -> bytes:
    """Fill ``a.out`` with numbered lines up to exactly *size_bytes*."""
    lines = b"".join(b"line %6d\n" % number for number in range(size_bytes // 12 + 1))
    (log_dir / "a.out").write_bytes(lines[-size_bytes:])
    return lines[-size_bytes:]


@pytest.mark.parametrize("more", [0, 1, 10 * OUTPUT_SIZE_BYTES_MAX])
def test_a_file_beyond_its_bound_is_emptied_and_its_end_is_kept_in_whole_lines(
    tmp_path: Path, more: int
) -> None:
    before = filled(tmp_path, OUTPUT_SIZE_BYTES_MAX + more)
    bound_output(tmp_path, "a")
    if not more:
        assert (tmp_path / "a.out").read_bytes() == before
        assert not (tmp_path / "a.out.1").exists()
        return
    assert (tmp_path / "a.out").read_bytes() == b""
    kept = (tmp_path / "a.out.1").read_bytes()
    assert OUTPUT_SIZE_BYTES_MAX - 12 <= len(kept) <= OUTPUT_SIZE_BYTES_MAX
    assert before.endswith(kept)
    assert kept.startswith(b"line ")


def test_a_line_longer_than_the_bound_keeps_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.out").write_bytes(b"x" * (OUTPUT_SIZE_BYTES_MAX + 5))
    bound_output(tmp_path, "a")
    assert (tmp_path / "a.out.1").read_bytes() == b"x" * OUTPUT_SIZE_BYTES_MAX


def test_nothing_is_done_to_an_output_that_is_not_there(tmp_path: Path) -> None:
    bound_output(tmp_path, "a")
    assert not list(tmp_path.iterdir())


def test_the_bound_holds_also_if_the_end_cannot_be_kept(tmp_path: Path) -> None:
    filled(tmp_path, 2 * OUTPUT_SIZE_BYTES_MAX)
    (tmp_path / "a.out.1").mkdir()
    bound_output(tmp_path, "a")
    assert (tmp_path / "a.out").stat().st_size == 0


def test_a_file_is_within_its_bound_when_it_is_opened_for_another_process(tmp_path: Path) -> None:
    filled(tmp_path, 2 * OUTPUT_SIZE_BYTES_MAX)
    with open_output(tmp_path, "a") as output:
        output.write(b"next\n")
    assert (tmp_path / "a.out").read_bytes() == b"next\n"
    assert output_tail(tmp_path, "a") == "next"


def test_a_small_output_is_gone_on_with(tmp_path: Path) -> None:
    for word in (b"one\n", b"two\n"):
        with open_output(tmp_path, "a") as output:
            output.write(word)
    assert (tmp_path / "a.out").read_bytes() == b"one\ntwo\n"


def test_the_tail_is_the_last_whole_lines(tmp_path: Path) -> None:
    assert output_tail(tmp_path, "a") == ""
    filled(tmp_path, 12 * 10_000)
    assert output_tail(tmp_path, "a", lines_max=2) == "line   9999\nline  10000"


async def test_a_process_that_goes_on_printing_is_kept_within_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "LOOK_S", 0.01)
    line = "a word of a process " * 20 + "\n"
    watching = asyncio.create_task(keep_bounded(tmp_path, ["absent", "a"]))
    with open_output(tmp_path, "a") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PRINTING],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.stdin
    assert process.stderr
    sizes_bytes = []
    for _ in range(12):
        process.stdin.write(line)
        process.stdin.flush()
        assert process.stderr.readline() == "printed\n"
        await eventually(lambda: (tmp_path / "a.out").stat().st_size <= OUTPUT_SIZE_BYTES_MAX)
        sizes_bytes.append((tmp_path / "a.out").stat().st_size)
    process.communicate()
    watching.cancel()
    # Every third round passes the bound, and the process never notices.
    assert sizes_bytes == [1000 * len(line), 2000 * len(line), 0] * 4
    assert set((tmp_path / "a.out.1").read_text().splitlines(keepends=True)) == {line}


async def test_outputs_that_cannot_be_bounded_are_said_once_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = 0

    def bound(log_dir: Path, name: str) -> None:
        nonlocal looks
        looks += 1
        if name == "bad":
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(outputs, "LOOK_S", 0.0)
    monkeypatch.setattr(outputs, "bound_output", bound)
    watching = asyncio.create_task(keep_bounded(tmp_path, ["bad", "good"]))
    await eventually(lambda: looks >= 6)
    watching.cancel()
    assert [record.args[0] for record in caplog.records if record.args] == ["bad"]  # type: ignore[index]


LOGGING = """
import logging
from rmi_launch.zygote import log_to_stderr
log_to_stderr("INFO")
log = logging.getLogger("rmi")
log.info("rejected: %s", "x\\n2030-01-01 00:00:00,000 ERROR rmi: forged\\x1b[2J\\u202e")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
"""


def test_what_a_stranger_sent_begins_no_line_and_commands_no_terminal() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOGGING], capture_output=True, check=True, timeout=30
    )
    first, second, *traceback = done.stderr.decode().splitlines()
    assert first.endswith(
        r" INFO rmi: rejected: x\n2030-01-01 00:00:00,000 ERROR rmi: forged\x1b[2J\u202e"
    )
    assert second.endswith(" ERROR rmi: failed")
    assert traceback[0].startswith("Traceback")
    assert "ZeroDivisionError" in traceback[-1]
