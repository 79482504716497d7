"""What clients of the messages asked for and were told, and whether that is what happened."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

Told = Literal["new", "same", "kept", "other", "full", "refused", "maybe"]
"""What came of a post: a logger's word; ``kept``: new or the same; ``refused``: certainly nothing
was done; ``maybe``: nobody knows."""

Row = dict[str, str]


class Stored(NamedTuple):
    """What is on disk in the end."""

    messages: list[tuple[str, str]]
    consumed: list[tuple[str, str]]
    claims: int

    @classmethod
    def read(cls, path: Path) -> Stored:
        """Read the messages file."""
        with sqlite3.connect(path) as connection:
            found = cls(
                connection.execute("SELECT id, text FROM messages ORDER BY seq").fetchall(),
                connection.execute(
                    "SELECT id, consumer FROM consumed JOIN messages ON messages.seq = message"
                    " ORDER BY consumed.seq"
                ).fetchall(),
                connection.execute("SELECT count(*) FROM claims").fetchone()[0],
            )
        connection.close()
        return found


class Record:
    """What was asked, and what was answered.

    Attributes:
        kept: the messages that were acknowledged, by id, in the order of the answers.
    """

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self._told: defaultdict[tuple[str, str], Counter[Told]] = defaultdict(Counter)
        self._unnamed: dict[str, Told] = {}  # by text, of which each was posted once

    def note(self, id: str, text: str, told: Told) -> None:
        """Take note of what a post with an id came to."""
        self._told[id, text][told] += 1
        if told in ("new", "same", "kept"):
            assert self.kept.setdefault(id, text) == text, f"{id} is acknowledged with two texts"

    def note_unnamed(self, text: str, id: str | None, told: Told) -> None:
        """Take note of what a post came to whose id was made on the way."""
        assert text not in self._unnamed
        self._unnamed[text] = told
        if id is not None:
            self.note(id, text, told)

    def judge(self, stored: Stored) -> None:
        """Compare what was told with what is stored."""
        texts = dict(stored.messages)
        assert len(texts) == len(stored.messages), "two messages have one id"
        lost = {id: text for id, text in self.kept.items() if texts.get(id) != text}
        assert not lost, f"acknowledged, but not stored so: {lost}"
        for (id, text), told in self._told.items():
            assert told["new"] <= 1, f"{id} was new twice"
            if told["other"]:
                assert texts.get(id) not in (None, text), f"{id} has no other text than {text}"
        self._judge_refusals(stored)
        consumed = Counter(id for id, _ in stored.consumed)
        assert consumed == Counter(texts.keys()), "each is consumed once"
        assert not stored.claims, "claims are left over"

    def _judge_refusals(self, stored: Stored) -> None:
        """See that nothing is stored but by a post that was acknowledged, or may have been done."""
        for id, text in stored.messages:
            told = set(self._told.get((id, text), ())) or {self._unnamed.get(text)}
            assert told & {"new", "kept", "maybe"}, f"{id} {text} is stored, but {told}"
        times = Counter(text for _, text in stored.messages)
        twice = [text for text in self._unnamed if times[text] > 1]
        assert not twice, f"posted once, stored twice: {twice}"

    def kinds(self) -> set[Told]:
        """Return what was told at least once."""
        told = set(self._unnamed.values())
        return told.union(*self._told.values())


class Reader:
    """Reads on and on, and remembers what it has seen, in order.

    Attributes:
        seen: the rows of all pages, in order.
    """

    def __init__(self) -> None:
        self.seen: list[Row] = []
        self.after: str | None = None
        self._at = 0  # rows before the place *after*

    def take(self, page: dict[str, Any], promised: Sequence[str] = ()) -> None:
        """Compare a page with those before it.

        Args:
            page: the page that follows *after*.
            promised: ids that were acknowledged before it was asked for.
        """
        rows: list[Row] = page["messages"]
        again = self.seen[self._at : self._at + len(rows)]
        assert rows[: len(again)] == again, "what was read has changed"
        self.seen += rows[len(again) :]
        if page["next"] is None:
            missed = set(promised) - {row["id"] for row in self.seen}
            assert not missed, f"acknowledged before, but not on the pages: {missed}"
        else:
            assert rows
            self.after = page["next"]
            self._at += len(rows)

    def begin_anew(self) -> None:
        """Read from the beginning again."""
        self.after, self._at = None, 0

    def judge(self, order: Sequence[str]) -> None:
        """See that what was read is the beginning of what there is in the end."""
        ids = [row["id"] for row in self.seen]
        assert ids == list(order[: len(ids)]), "pages skipped, or the order has changed"
