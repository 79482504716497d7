"""Histories: what was asked, what came of it, and when; one JSON object a line.

The format is open, so that other checkers can read it. Each line is an *event*:

=========== ===================================================================================
``index``   place in the history, from 0
``time_ns`` monotonic clock of the machine that ran the workload
``process`` who: a number for a client (it has one operation open at a time), or ``"nemesis"``
``type``    ``invoke``, then one of ``ok`` (it happened), ``fail`` (it certainly did not),
            ``info`` (nobody knows); a nemesis writes ``info`` only
``f``       what: ``transfer``, ``balance``, ``post``, ``kill``, …
``value``   the arguments (invoke), or the arguments and results (the others)
``error``   only after fail and info: ``{"code", "message", "fields"}``
``way``     only with invoke, and only where there are several: ``HTTP``, ``Pyro``, …
=========== ===================================================================================

An invocation without an end, because the run was over, counts as ``info``. The words are those of
Jepsen's histories (https://github.com/jepsen-io/jepsen), as is their meaning.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

INVOKE, OK, FAIL, INFO = "invoke", "ok", "fail", "info"
NEMESIS = "nemesis"

Outcome = Literal["ok", "fail", "info"]
Value = Mapping[str, Any]

OPEN_NS = 2**63 - 1
"""The end of an operation that has none."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a history; see the module."""

    index: int
    time_ns: int
    process: int | str
    type: str
    f: str
    value: Value
    error: Value | None = None
    way: str = ""

    def as_json(self) -> bytes:
        """Return the line, without its end."""
        data: dict[str, Any] = {
            "index": self.index,
            "time_ns": self.time_ns,
            "process": self.process,
            "type": self.type,
            "f": self.f,
            "value": self.value,
        }
        if self.error is not None:
            data["error"] = self.error
        if self.way:
            data["way"] = self.way
        return _encode(data)


_decode = msgspec.json.Decoder(Event).decode


@dataclass(slots=True)
class Operation:
    """An invocation and its end.

    Attributes:
        index: place of the invocation in the history.
        process: which client.
        f: what was asked.
        asked: the arguments.
        began_ns: when it was invoked.
        ended_ns: when it ended; later than everything if it never did.
        outcome: ``ok``, ``fail`` or ``info``.
        got: the results, if it was ok.
        error: the error, if it was not.
        way: which way it was asked, if there are several.
    """

    index: int
    process: int | str
    f: str
    asked: Value
    began_ns: int
    ended_ns: int = OPEN_NS
    outcome: Outcome = "info"
    got: Value = field(default_factory=dict)
    error: Value = field(default_factory=dict)
    way: str = ""

    @property
    def code(self) -> str:
        """The code of its error, or nothing."""
        return str(self.error.get("code", ""))


class Recorder:
    """Writes a history while it happens.

    Args:
        file: where the lines go; None keeps the events in memory.
        clock_ns: monotonic time in nanoseconds.

    Attributes:
        events: all so far, if there is no file.
        count: how many there are.
        ends: how many there are by (type, f): what a summary on the way needs.
    """

    def __init__(
        self, file: BinaryIO | None = None, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.events: list[Event] = []
        self.count = 0
        self.ends: Counter[tuple[str, str]] = Counter()
        self._file = file
        self._clock_ns = clock_ns

    def acknowledged(self) -> int:
        """Return how many operations have ended well so far."""
        return sum(count for (kind, _), count in self.ends.items() if kind == OK)

    def invoke(self, process: int | str, f: str, value: Value, way: str = "") -> None:
        """Note that *process* asks for *f*, and which way."""
        self._add(process, INVOKE, f, value, None, way)

    def ok(self, process: int | str, f: str, value: Value) -> None:
        """Note that it happened, and what it gave."""
        self._add(process, OK, f, value, None)

    def fail(self, process: int | str, f: str, value: Value, error: Value) -> None:
        """Note that it certainly did not happen."""
        self._add(process, FAIL, f, value, error)

    def info(self, process: int | str, f: str, value: Value, error: Value | None = None) -> None:
        """Note that nobody knows whether it happened; or what a nemesis did."""
        self._add(process, INFO, f, value, error)

    def _add(
        self,
        process: int | str,
        kind: str,
        f: str,
        value: Value,
        error: Value | None,
        way: str = "",
    ) -> None:
        event = Event(self.count, self._clock_ns(), process, kind, f, value, error, way)
        self.count += 1
        self.ends[kind, f] += 1
        if self._file is None:
            self.events.append(event)
        else:
            self._file.write(event.as_json() + b"\n")


def read_history(path: Path) -> Iterator[Event]:
    """Yield the events of a file.

    Raises:
        ValueError: a line is not an event; it says which one.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path.name}, line {number}: not an event ({error})") from error


def operations(events: Iterable[Event]) -> list[Operation]:
    """Pair invocations with their ends; what the nemesis did is left out.

    Returns:
        The operations, in order of their invocations.

    Raises:
        ValueError: a process ends what it has not begun, or begins a second thing.
    """
    found: list[Operation] = []
    open_: dict[int | str, Operation] = {}
    for event in events:
        if event.process == NEMESIS:
            continue
        if event.type == INVOKE:
            if event.process in open_:
                raise ValueError(f"event {event.index}: process {event.process} is busy already")
            begun = Operation(
                event.index, event.process, event.f, event.value, event.time_ns, way=event.way
            )
            open_[event.process] = begun
            found.append(begun)
            continue
        ended = open_.pop(event.process, None)
        if ended is None or ended.f != event.f:
            raise ValueError(f"event {event.index}: process {event.process} ends nothing it began")
        ended.ended_ns = event.time_ns
        ended.outcome = event.type  # type: ignore[assignment]
        ended.got = event.value if event.type == OK else {}
        ended.error = event.error or {}
    return found
