"""A power cut at every step of what happens to messages: stored, claimed, consumed, marked done.

The real SQLite store is opened on what each cut leaves (:mod:`rmi_torture.power`). Each batch that
had been acknowledged by then must be there, every other one whole or not at all; the same of what
was consumed; what was marked done must not be offered again, and everything else must be.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from rmi_runtime import Settings
from rmi_torture.checkers import Verdict
from rmi_torture.disks import Happening, RecordingDisk
from rmi_torture.planted.parts import part
from rmi_torture.power import Cut, cuts, lay_out, scratch
from rmi_torture.vfs import Vfs

SERVICES = ("msg.messages.1", "msg.messages.2")
LEASE_S = 60.0
CLAIM_MAX = 5
LOG_PAGES = 8
PAGE = 1000
KINDS = (
    *("unreadable", "lost", "half", "invented", "not consumed", "doubled"),
    *("delivered again", "never offered", "stopped"),
)


@dataclass
class Stage:
    """Something that was asked of the store.

    Attributes:
        ids: of the messages.
        begun_at: how many happenings there had been when it was asked; None: it was not.
        done_at: the same for the answer.
    """

    ids: Sequence[str] = ()
    begun_at: int | None = None
    done_at: int | None = None

    def done_by(self, step: int) -> bool:
        """Tell whether it was answered before a step."""
        return self.done_at is not None and self.done_at <= step

    def begun_by(self, step: int) -> bool:
        """Tell whether it was asked before a step."""
        return self.begun_at is not None and self.begun_at < step


@dataclass
class Recording:
    """What was done to a store, and what its disk saw of it.

    Attributes:
        disk: that remembers.
        puts: batches of new messages.
        adds: claims that were entered as consumed, with those of their ids that were not yet.
        marks: claims that were marked done.
    """

    disk: RecordingDisk = field(default_factory=RecordingDisk)
    puts: list[Stage] = field(default_factory=list)
    adds: list[Stage] = field(default_factory=list)
    marks: list[Stage] = field(default_factory=list)

    @property
    def now(self) -> int:
        """How many happenings there have been."""
        return len(self.disk.happenings)

    async def note(self, stages: list[Stage], ids: Sequence[str], work: Any) -> None:
        """Do *work*, and note when it was asked and answered."""
        stage = Stage(ids, self.now)
        stages.append(stage)
        await work
        stage.done_at = self.now


def text_of(id_: str) -> str:
    """Return the text of a message."""
    return f"text of {id_}"


def _open(directory: Path, log_pages: int = 0) -> Any:
    return part("rmi_msg.stores.sqlite:open_stores")(Settings(data_dir=directory), log_pages)


async def record(directory: Path, seed: int, groups: int = 12) -> Recording:
    """Run the real store on a disk that remembers.

    Args:
        directory: where its file goes.
        seed: of what is done.
        groups: rounds of posts and claims; the store is closed and opened again half-way.
    """
    recording = Recording()
    rng = Random(seed)  # noqa: S311 (repeatable on purpose)
    # It opens its file by its path alone: so every file is on this disk for a while.
    vfs = Vfs("rmi-recording-messages", recording.disk, default=True)
    try:
        for half in range(2):
            log_pages = LOG_PAGES * half  # a log that grows, then one that is long already
            async with _open(directory, log_pages) as stores:
                for group in range(groups // 2):
                    await _post(stores, recording, rng, f"{half}.{group}")
                    for _ in range(rng.randint(0, 2)):
                        await _consume(stores, recording, rng)
    finally:
        vfs.unregister()
    return recording


async def _post(stores: Any, recording: Recording, rng: Random, name: str) -> None:
    """Post a few batches at once; some have a message that was there before."""
    old = [id_ for put in recording.puts for id_ in put.ids]
    works = []
    for batch in range(rng.randint(1, 3)):
        new = [f"{name}.{batch}.{n}" for n in range(rng.randint(1, 4))]
        again = [rng.choice(old)] if old and rng.random() < 0.3 else []
        messages = [(id_, text_of(id_)) for id_ in [*again, *new]]
        work = stores.messages.put_many(messages, "msg.logger.1")
        works.append(recording.note(recording.puts, new, work))
    await asyncio.gather(*works)


async def _consume(stores: Any, recording: Recording, rng: Random) -> None:
    """Claim a few messages, and take them some of the way to their end."""
    claim = await stores.queue.claim(rng.choice(SERVICES), CLAIM_MAX, LEASE_S)
    if claim is None:
        return
    ids = [id_ for id_, _ in claim.messages]
    choice = rng.random()
    if choice < 0.1:
        await stores.queue.give_back(claim.by)
        return
    known = {id_ for add in recording.adds for id_ in add.ids}
    fresh = [id_ for id_ in ids if id_ not in known]
    await recording.note(recording.adds, fresh, stores.consumed.add(claim))
    if choice > 0.25:
        await recording.note(recording.marks, ids, stores.queue.done(claim))


async def check_message_power_cuts(seed: int = 1, groups: int = 12) -> Verdict:
    """Cut the power after every step, in every way, and look at what is left.

    Args:
        seed: of what is done, and of what the cuts leave.
        groups: rounds of posts and claims.

    Returns:
        A verdict; its errors are ``unreadable``, ``lost`` (acknowledged, and not there), ``half``
        (some of a batch or a claim is there), ``invented`` (nobody posted it), ``not consumed``
        (it was said to be), ``doubled`` (consumed twice), ``delivered again`` (marked done, and
        offered), ``never offered`` (not marked done, and not offered) and ``stopped`` (a new
        message does not come through).
    """
    verdict = Verdict("power cuts, messages").expect(*KINDS)
    with scratch("rmi-power-") as name:
        directory = Path(name)
        (directory / "store").mkdir()
        recording = await record(directory / "store", seed, groups)
        for cut in cuts(_own(recording.disk.happenings, directory), seed):
            await _look(directory / "left", cut, recording, verdict)
    return verdict


def _own(happenings: Sequence[Happening], directory: Path) -> list[Happening]:
    """Check that nobody else's file was on the disk: steps are counted by happenings.

    Raises:
        ValueError: there was one.
    """
    for happening in happenings:
        if not Path(happening.path).is_relative_to(directory):
            raise ValueError(f"{happening.path} was opened while the store was watched")
    return list(happenings)


async def _look(directory: Path, cut: Cut, recording: Recording, verdict: Verdict) -> None:
    """Open the store on what is left."""
    lay_out(directory, cut.files)
    verdict.checked += 1

    def blame(kind: str, what: object) -> None:
        verdict.blame(kind, f"{cut.where}: {what}")

    try:
        async with _open(directory) as stores:
            there = await _all_rows(stores.messages)
            consumed = Counter(row.id for row in await _all_rows(stores.consumed))
            _judge_messages({row.id: row.text for row in there}, cut.step, recording, blame)
            _judge_consumed(consumed, cut.step, recording, blame)
            for service in SERVICES:  # what they do when they start anew
                await stores.queue.give_back(service)
            offered = Counter([id_ async for id_ in _offered(stores)])
            _judge_offered(offered, [row.id for row in there], cut.step, recording, blame)
            await _go_on(stores, blame)
    except Exception as error:
        blame("unreadable", repr(error))


async def _all_rows(store: Any) -> list[Any]:
    rows: list[Any] = []
    after = None
    while True:
        page = await store.page(after, PAGE)
        rows += page.rows
        after = page.next
        if after is None:
            return rows


async def _offered(stores: Any) -> Any:
    while (claim := await stores.queue.claim("msg.messages.9", CLAIM_MAX, LEASE_S)) is not None:
        for id_, _ in claim.messages:
            yield id_


Blame = Callable[[str, object], None]


def _judge_messages(there: dict[str, str], step: int, recording: Recording, blame: Blame) -> None:
    left = set(there)
    for put in recording.puts:
        found = [there.get(id_) == text_of(id_) for id_ in put.ids]
        left.difference_update(put.ids)
        if put.done_by(step) and not all(found):
            blame("lost", f"of {put.ids}, which had been acknowledged, there is {found}")
        elif any(found) != all(found):
            blame("half", f"of {put.ids} there is {found}")
    if left:
        blame("invented", sorted(left))


def _judge_consumed(consumed: Counter[str], step: int, recording: Recording, blame: Blame) -> None:
    for id_ in _more_than_once(consumed):
        blame("doubled", id_)
    for add in recording.adds:
        found = [id_ in consumed for id_ in add.ids]
        if add.done_by(step) and not all(found):
            blame("not consumed", f"of {add.ids} there is {found}")
        elif any(found) != all(found):
            blame("half", f"of {add.ids} there is consumed {found}")


def _judge_offered(
    offered: Counter[str], there: Sequence[str], step: int, recording: Recording, blame: Blame
) -> None:
    for id_ in _more_than_once(offered):
        blame("delivered again", id_)
    over = {id_ for mark in recording.marks if mark.done_by(step) for id_ in mark.ids}
    perhaps = {id_ for mark in recording.marks if mark.begun_by(step) for id_ in mark.ids}
    for id_ in sorted(over & offered.keys()):
        blame("delivered again", f"{id_} had been marked done")
    for id_ in there:
        if id_ not in offered and id_ not in perhaps:
            blame("never offered", id_)


def _more_than_once(counted: Counter[str]) -> Iterator[str]:
    return (id_ for id_, count in counted.items() if count > 1)


async def _go_on(stores: Any, blame: Blame) -> None:
    """See that a new message comes through."""
    words = await stores.messages.put_many([("after", "after")], "msg.logger.1")
    claim = await stores.queue.claim(SERVICES[0], CLAIM_MAX, LEASE_S)
    if words != ["new"] or claim is None or [id_ for id_, _ in claim.messages] != ["after"]:
        blame("stopped", f"a new message was {words}, and claimed as {claim}")
        return
    if await stores.consumed.add(claim) != [True] or not await stores.queue.done(claim):
        blame("stopped", "a new message cannot be consumed")
