"""What was there in the end: all that the checkers read besides the history.

``kept.jsonl`` lies beside ``history.jsonl``, one JSON object a line. ``what`` says what it is:

============= ======================================================================================
``account``   ``account``, ``balance``: a customer's account, and what was on it before the run
``own``       ``request_id``: of a posting that the harness itself caused before the run
``line``      ``line``, ``commit``, ``debit``, ``credit``, ``amount``, ``request_id``: a posting of
              the journal, as the statements of all accounts showed it after the run
``statement`` ``account``, ``lines``: the numbers of the lines on its statement, as it showed them
``message``   ``id``, ``text``: in the order in which all messages were read after the run
``consumed``  ``id``, ``by``: of a message, and the messages service that consumed it
============= ======================================================================================

A run's verdict is made of these two files, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from rmi_torture.checkers import Line


class _Account(msgspec.Struct, tag_field="what", tag="account"):
    account: int
    balance: int


class _Own(msgspec.Struct, tag_field="what", tag="own"):
    request_id: str


class _Line(msgspec.Struct, tag_field="what", tag="line"):
    line: int
    commit: int
    debit: int
    credit: int
    amount: int
    request_id: str


class _Statement(msgspec.Struct, tag_field="what", tag="statement"):
    account: int
    lines: list[int]


class _Message(msgspec.Struct, tag_field="what", tag="message"):
    id: str
    text: str


class _Consumed(msgspec.Struct, tag_field="what", tag="consumed"):
    id: str
    by: str


_Row = _Account | _Own | _Line | _Statement | _Message | _Consumed
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Row).decode


@dataclass
class Kept:
    """See the module.

    Attributes:
        initial: customer's account to its balance before the run.
        own: request ids of the harness' own postings.
        lines: of the journal, each once.
        statements: account to the numbers of the lines on its statement, as it showed them.
        messages: (id, text) of all messages, in the order in which they were read.
        consumed: messages service to the ids it consumed.
    """

    initial: dict[int, int] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)
    lines: set[Line] = field(default_factory=set)
    messages: list[tuple[str, str]] = field(default_factory=list)
    consumed: dict[str, list[str]] = field(default_factory=dict)
    statements: dict[int, list[int]] = field(default_factory=dict)

    def _rows(self) -> Iterator[_Row]:
        for account, balance in self.initial.items():
            yield _Account(account, balance)
        for request_id in sorted(self.own):
            yield _Own(request_id)
        for line in sorted(self.lines):
            yield _Line(*line)
        for account, numbers in self.statements.items():
            yield _Statement(account, numbers)
        for id_, text in self.messages:
            yield _Message(id_, text)
        for by, ids in self.consumed.items():
            for id_ in ids:
                yield _Consumed(id_, by)

    def _take(self, row: _Row) -> None:
        match row:
            case _Line():
                self.lines.add(Line(*msgspec.structs.astuple(row)))
            case _Statement():
                self.statements[row.account] = row.lines
            case _Message():
                self.messages.append((row.id, row.text))
            case _Consumed():
                self.consumed.setdefault(row.by, []).append(row.id)
            case _Account():
                self.initial[row.account] = row.balance
            case _Own():
                self.own.add(row.request_id)


def write_kept(kept: Kept, path: Path) -> None:
    """Write *kept* to a file."""
    with path.open("wb") as file:
        for row in kept._rows():
            file.write(_encode(row) + b"\n")


def read_kept(path: Path) -> Kept:
    """Read what :func:`write_kept` wrote.

    Raises:
        ValueError: a line is not one of those above; it says which one.
    """
    kept = Kept()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                kept._take(_decode(line))
            except msgspec.DecodeError as error:
                raise ValueError(f"{path.name}, line {number}: not known ({error})") from error
    return kept
