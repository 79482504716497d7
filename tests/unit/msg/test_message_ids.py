"""Ids of messages that several processes store into one file, and the format before."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from rmi_msg.stores import message_ids
from rmi_msg.stores import sqlite_tables as tables
from rmi_msg.stores.message_ids import MessageIds, id_hash
from rmi_msg.stores.opening import open_stores
from rmi_runtime import Settings

PASS_IDS = 40


class Process:
    """One of several processes that store messages."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA synchronous = OFF")
        self.restart()

    def restart(self) -> None:
        self.ids = MessageIds()

    def kept(self) -> int:
        return sum(map(len, self.ids._slices)) + len(self.ids._clashes)

    def put(self, pairs: list[tuple[str, str]], *, fails: bool = False) -> list[str]:
        self.connection.execute("BEGIN IMMEDIATE")
        words = tables.put_many(self.connection, self.ids, pairs, "msg.logger.1", 0)
        self.connection.execute("ROLLBACK" if fails else "COMMIT")
        return [*words]


@pytest.fixture
def processes(tmp_path: Path) -> list[Process]:
    found = [Process(tmp_path / "messages.sqlite") for _ in range(3)]
    found[0].connection.execute("BEGIN IMMEDIATE")
    tables.create(found[0].connection)
    found[0].connection.execute("COMMIT")
    return found


def crowded(id: str) -> int:
    """A hash that many ids share, at both ends of its range and in the middle."""
    return [-(2**63), -1, 0, 5, 2**63 - 1][int(id) % 5]


@pytest.mark.parametrize("hashed", [id_hash, crowded])
@pytest.mark.parametrize("seed", range(5))
def test_an_id_is_one_message_whichever_process_it_comes_to(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch, hashed: object, seed: int
) -> None:
    monkeypatch.setattr(message_ids, "PASS_IDS", PASS_IDS)
    monkeypatch.setattr(tables, "id_hash", hashed)
    rng = random.Random(seed)
    texts: dict[str, str] = {}
    for step in range(300):
        process = rng.choice(processes)
        if rng.random() < 0.05:
            process.restart()
        some = range(step * 3, step * 3 + rng.randint(1, 12))  # half of them again and again
        pairs = [(str(rng.choice([n, rng.randrange(n + 1)])), rng.choice("ab")) for n in some]
        fails = rng.random() < 0.2
        then = texts.copy()
        expected = []
        for id, text in pairs:
            known = then.setdefault(id, text) if id in then else None
            then.setdefault(id, text)
            expected.append("new" if known is None else "same" if known == text else "other")
        assert process.put(pairs, fails=fails) == expected
        if not fails:
            texts = then
    reader = processes[0].connection
    assert dict(reader.execute("SELECT id, text FROM messages")) == texts
    assert reader.execute("SELECT count(*) FROM messages").fetchone() == (len(texts),)
    (indexed,) = reader.execute("SELECT indexed FROM indexing").fetchone()
    assert indexed > len(texts) - 3 * PASS_IDS
    in_table = "SELECT count(*) FROM message_ids JOIN messages USING (seq, hash) WHERE seq <= ?"
    assert reader.execute(in_table, (indexed,)).fetchone() == (indexed,)


def test_memory_holds_the_latest_ids_only(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_ids, "PASS_IDS", PASS_IDS)
    for first in range(0, 2000, 5):
        process = processes[first % 3]
        process.put([(str(n), "text") for n in range(first, first + 5)])
        assert process.kept() < 3 * PASS_IDS
    assert all(process.kept() for process in processes)


async def test_a_file_of_the_first_format_is_brought_up_to_date(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "messages.sqlite") as connection:
        connection.executescript("""
            CREATE TABLE messages (
                seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL,
                received_at INTEGER NOT NULL, logger TEXT NOT NULL
            );
            CREATE TABLE consumed (
                seq INTEGER PRIMARY KEY,
                message INTEGER NOT NULL UNIQUE REFERENCES messages (seq),
                consumed_at INTEGER NOT NULL, consumer TEXT NOT NULL
            );
            CREATE TABLE queue (one INTEGER PRIMARY KEY CHECK (one = 1), head INTEGER NOT NULL);
            INSERT INTO queue VALUES (1, 1);
            INSERT INTO messages VALUES (1, 'a', 'first', 0, 'msg.logger.1');
            INSERT INTO messages VALUES (2, 'b', 'second', 0, 'msg.logger.1');
            INSERT INTO consumed VALUES (1, 1, 0, 'msg.messages.1');
            PRAGMA user_version = 1;
        """)
    connection.close()
    async with open_stores(Settings(data_dir=tmp_path)) as stores:
        again = [("b", "second"), ("a", "new"), ("c", "third")]
        assert await stores.messages.put_many(again, "msg.logger.2") == ["same", "other", "new"]
        rows = (await stores.messages.page(None, 10)).rows
        assert [(row.id, row.text) for row in rows] == [("a", "first"), *again[::2]]
        assert [row.id for row in (await stores.consumed.page(None, 10)).rows] == ["a"]
        claim = await stores.queue.claim("msg.messages.1", 10, 5.0)
        assert claim is not None
        assert [id for id, _ in claim.messages] == ["b", "c"]
