"""The loggers' lines: the seed's format, one line per message, a copy that waits for nobody."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rmi_msg.ids import message_id
from rmi_msg.lines import _SHOWN, _SHOWN_MAX, LineLog, message_line, message_lines
from rmi_runtime import errors


def test_the_line_is_the_seeds() -> None:
    line = message_line("msg1", message_id("msg1"))
    assert line == "msg = msg1 UUID = 487e0156-a04c-5aeb-b42c-52c752bc2dd7"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_is_one_printable_line_that_can_be_read_back(text: str) -> None:
    line = message_line(text, "7")
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    shown = line.removeprefix("msg = ").removesuffix(" UUID = 7")
    escaped = "".join(c if c.isascii() else c.encode("unicode_escape").decode() for c in shown)
    assert escaped.encode("ascii").decode("unicode_escape") == text


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)))
@example(["plain", "two\nlines"])
@example(["plain", "back\\slash"])
def test_the_lines_of_a_batch_are_those_of_its_messages(texts: list[str]) -> None:
    messages = [(str(number), text) for number, text in enumerate(texts)]
    assert message_lines(messages) == [message_line(text, id) for id, text in messages]


def test_a_text_cannot_fake_a_second_message_or_command_the_terminal() -> None:
    assert message_line("a\nmsg = b", "1") == "msg = a\\nmsg = b UUID = 1"
    assert "\x1b" not in message_line("\x1b[2J", "1")


@pytest.mark.parametrize("char", ["\0", "\x7f", "\\", "\x85", "\u2028", "\U000f0000"])
def test_no_character_of_a_long_text_costs_a_call(char: str) -> None:
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        shown = message_line(char * 1000, "1"), message_line("é" + char * 1000, "2")
    finally:
        sys.setprofile(None)
    assert calls < 100
    assert all(line.isprintable() for line in shown)


def test_of_all_characters_only_some_are_remembered() -> None:
    codes = [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]
    assert message_line("".join(map(chr, codes)), "1").isprintable()
    assert len(_SHOWN) <= _SHOWN_MAX


def test_lines_go_to_the_file_and_to_the_copy(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with LineLog(tmp_path / "log" / "x.log", writer) as log:
        log.write(["one", "é"])
        log.write([])
        log.write(["three"])
    os.close(writer)
    assert (tmp_path / "log" / "x.log").read_text() == "one\né\nthree\n"
    with os.fdopen(reader) as copy:
        assert copy.read() == "one\né\nthree\n"


def test_lines_are_appended_to_an_old_file_whose_torn_end_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("whole\nto")
    with LineLog(path) as log:
        log.write(["new"])
    assert path.read_text() == "whole\nnew\n"


def test_a_reader_who_does_not_read_stops_nobody(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    lines = [f"{n:099d}" for n in range(10_000)]  # a megabyte: more than any pipe holds
    with LineLog(tmp_path / "x.log", writer) as log:
        log.write(lines)
    os.close(writer)
    assert (tmp_path / "x.log").read_text().splitlines() == lines
    with os.fdopen(reader) as copy:
        shown = copy.read().splitlines()
    assert 0 < len(shown) < len(lines)
    assert shown == lines[: len(shown)]
    assert log.echo_dropped == len(lines) - len(shown)


def test_a_long_line_is_cut_in_the_copy_only(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with LineLog(tmp_path / "x.log", writer) as log:
        log.write(["é" * 5000, "short"])
    os.close(writer)
    assert (tmp_path / "x.log").read_text().splitlines() == ["é" * 5000, "short"]
    with os.fdopen(reader) as copy:
        long, short = copy.read().splitlines()
    assert long == "é" * 2046 + "…"
    assert short == "short"


def test_a_closed_copy_is_no_error(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with LineLog(tmp_path / "x.log", writer) as log:
        log.write(["one"])
    os.close(writer)
    assert (tmp_path / "x.log").read_text() == "one\n"
    assert log.echo_dropped == 1


def test_one_file_has_one_writer(tmp_path: Path) -> None:
    with LineLog(tmp_path / "x.log"), pytest.raises(errors.Conflict):
        LineLog(tmp_path / "x.log").__enter__()
