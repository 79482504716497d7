"""Rounds that go on without what somebody holds for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

import pytest

from rmi_bank import held_up
from rmi_bank.errors import LockTimeout
from rmi_bank.held_up import LANES_MAX
from rmi_bank.locks import Key
from rmi_bank.operations import Deposit, Done, Outcome, Principal, Refused, Request, Transfer
from rmi_bank.rounds import RETURNS_MAX, Rounds
from rmi_runtime.errors import Draining, Interrupted, Unavailable
from tests.support import eventually, turns

PRINCIPAL = Principal(1, "teller")


def deposits(*accounts: int) -> list[Request]:
    return [(PRINCIPAL, Deposit(account, 1, f"r{account}")) for account in accounts]


class Bank:
    """Carries out rounds, unless they need what is held; a probe ends when that is let go."""

    def __init__(self) -> None:
        self.held: list[set[Key]] = []
        self.changed = asyncio.Condition()
        self.rounds: list[list[int]] = []
        self.probed: list[list[Key]] = []
        self.probe_error: Exception | None = None

    async def run(self, requests: list[Request], deadline_s: float) -> list[Outcome]:
        accounts = [operation.account for _, operation in requests]  # type: ignore[union-attr]
        for keys in self.held:
            if not keys.isdisjoint(accounts):
                raise LockTimeout("held", accounts=sorted(keys), request_ids=[])
        self.rounds.append(accounts)
        return [Done(account, 0) for account in accounts]

    async def probe(self, keys: list[Key], wait_s: float) -> None:
        self.probed.append(keys)
        if self.probe_error is not None:
            raise self.probe_error
        async with self.changed:
            await self.changed.wait_for(
                lambda: all(held.isdisjoint(keys) for held in self.held) or self.probe_error
            )
        if self.probe_error is not None:
            raise self.probe_error

    async def let_go(self, keys: set[Key]) -> None:
        self.held.remove(keys)
        async with self.changed:
            self.changed.notify_all()


Submit = Callable[..., "asyncio.Future[list[Outcome]]"]


@pytest.fixture
def bank() -> Bank:
    return Bank()


@pytest.fixture
def rounds(bank: Bank) -> Rounds:
    return Rounds(bank.run, round_max=100, queue_max=100, probe=bank.probe)


@pytest.fixture
def submit(rounds: Rounds) -> Submit:
    def submit(*accounts: int, **options: bool) -> asyncio.Future[list[Outcome]]:
        return rounds.submit(deposits(*accounts), time.monotonic() + 60, **options)

    return submit


async def test_what_needs_it_waits_and_the_others_of_its_round_go_on(
    bank: Bank, rounds: Rounds, submit: Submit
) -> None:
    bank.held.append({5, 6})
    waiting, other = submit(4, 5), submit(7)
    assert await other == [Done(7, 0)]
    later = submit(6), submit(8)
    assert await later[1] == [Done(8, 0)]
    assert bank.rounds == [[7], [8]]
    assert bank.probed == [[5, 6]], "all that the holder has is known from its first account on"
    await bank.let_go({5, 6})
    assert await waiting == [Done(4, 0), Done(5, 0)]
    assert await later[0] == [Done(6, 0)]
    assert rounds._count == 0
    assert not rounds._held_up


async def test_what_waited_keeps_its_order(bank: Bank, submit: Submit) -> None:
    bank.held.append({5})
    first = submit(5)
    await turns()
    rest = [submit(5, account) for account in (1, 2, 3)]
    await turns()
    await bank.let_go({5})
    await asyncio.gather(first, *rest)
    assert [account for one in bank.rounds for account in one] == [5, 5, 1, 5, 2, 5, 3]


async def test_a_loose_parcel_goes_on_without_what_is_held(
    bank: Bank, rounds: Rounds, submit: Submit
) -> None:
    bank.held.append({5, 6})
    for accounts in ((1, 5, 2, 6, 3), (5, 4), (6,)):
        outcomes = await submit(*accounts, loose=True)
        for account, outcome in zip(accounts, outcomes, strict=True):
            if account in (5, 6):
                assert isinstance(outcome, Refused)
                assert (outcome.code, outcome.definite) == ("lock_timeout", True)
                assert not outcome.fields, "what others hold is nobody's business"
            else:
                assert outcome == Done(account, 0)
    assert bank.rounds == [[1, 2, 3], [4]]
    assert rounds._count == 0
    await bank.let_go({5, 6})
    assert await submit(5, loose=True) == [Done(5, 0)]


async def test_a_transfer_waits_if_either_side_is_held(bank: Bank, rounds: Rounds) -> None:
    async def run(requests: list[Request], deadline_s: float) -> list[Outcome]:
        if bank.held:
            raise LockTimeout("held", accounts=[5])
        return [Done(0, 0) for _ in requests]

    rounds = Rounds(run, round_max=100, queue_max=100, probe=bank.probe)
    bank.held.append({5})
    to = rounds.submit([(PRINCIPAL, Transfer(1, 5, 1, "a"))], time.monotonic() + 60)
    away = rounds.submit([(PRINCIPAL, Transfer(5, 1, 1, "b"))], time.monotonic() + 60)
    await eventually(lambda: bool(bank.probed))
    assert not to.done()
    assert not away.done()
    await bank.let_go({5})
    await asyncio.gather(to, away)


async def test_who_waits_no_longer_is_refused_in_time_without_a_word_on_others(
    bank: Bank, rounds: Rounds
) -> None:
    bank.held.append({5})
    hurried = rounds.submit(deposits(5), time.monotonic() + 0.01)
    patient = rounds.submit(deposits(5), time.monotonic() + 60)
    with pytest.raises(LockTimeout) as caught:
        await hurried
    assert not caught.value.fields
    assert not patient.done()
    await bank.let_go({5})
    assert await patient == [Done(5, 0)]
    assert rounds._count == 0


async def test_a_holder_that_comes_back_is_waited_for_again(bank: Bank, submit: Submit) -> None:
    bank.held += [{5}, {6}]
    waiting = submit(5, 6)
    await eventually(lambda: [5] in bank.probed)
    await bank.let_go({5})
    await eventually(lambda: [6] in bank.probed)
    assert not waiting.done()
    await bank.let_go({6})
    assert len(await waiting) == 2


async def test_what_is_not_held_any_more_is_let_go_of_while_the_rest_is_waited_for(
    bank: Bank, rounds: Rounds, submit: Submit
) -> None:
    bank.held.append({5, 6})
    five, six, both = submit(5), submit(6), submit(5, 6)
    await eventually(lambda: bool(bank.probed))
    bank.probe_error = LockTimeout("another has taken one of them", accounts=[5, 9])
    bank.held.append({5, 9})
    await bank.let_go({5, 6})
    assert await six == [Done(6, 0)]
    await eventually(lambda: bank.probed[-1] == [5])
    assert await submit(6) == [Done(6, 0)]
    assert not five.done()
    assert not both.done()
    bank.probe_error = None
    await bank.let_go({5, 9})
    await asyncio.gather(five, both)
    assert bank.rounds[-1] == [5, 5, 6]
    assert rounds._count == 0
    assert not rounds._held_up


async def test_a_probe_that_times_out_is_made_again_and_one_that_fails_ends_the_waiting(
    bank: Bank,
) -> None:
    async def run(requests: list[Request], deadline_s: float) -> list[Outcome]:
        if isinstance(bank.probe_error, Unavailable):
            raise bank.probe_error
        return await bank.run(requests, deadline_s)

    rounds = Rounds(run, round_max=100, queue_max=100, probe=bank.probe)
    bank.held.append({5})
    bank.probe_error = LockTimeout("not yet")
    waiting = rounds.submit(deposits(5), time.monotonic() + 60)
    await eventually(lambda: len(bank.probed) >= 3)
    bank.probe_error = Unavailable("the data object is away")
    with pytest.raises(Unavailable):
        await waiting


async def test_more_than_can_be_waited_for_apart_is_refused(
    bank: Bank,
) -> None:
    bank.held += [{account} for account in range(LANES_MAX + 1)]
    rounds = Rounds(bank.run, round_max=100, queue_max=2 * LANES_MAX, probe=bank.probe)
    submit = partial(rounds.submit, deadline_s=time.monotonic() + 60)
    waiting = []
    for account in range(LANES_MAX):
        waiting.append(submit(deposits(account)))
        await turns()
    with pytest.raises(LockTimeout) as caught:
        await submit(deposits(LANES_MAX))
    assert not caught.value.fields
    assert await submit(deposits(LANES_MAX + 1)) == [Done(LANES_MAX + 1, 0)]
    await rounds.aclose(timeout_s=0)
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_when_no_more_can_be_waited_for_apart_the_others_of_a_round_go_on(
    bank: Bank, rounds: Rounds, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_up, "LANES_MAX", 1)
    bank.held += [{5, 6}, {7}]
    waiting = submit(5)
    await eventually(lambda: bool(bank.probed))
    refused, other, loose = submit(7), submit(8), submit(1, 7, 6, 2, loose=True)
    assert await other == [Done(8, 0)]
    with pytest.raises(LockTimeout):
        await refused
    assert [type(outcome) for outcome in await loose] == [Done, Refused, Refused, Done]
    bank.held[0] = {5, 6, 9}  # its lane waits for some of what this names
    with pytest.raises(LockTimeout):
        await submit(9)
    assert not waiting.done()
    await bank.let_go({5, 6, 9})
    await waiting
    assert rounds._count == 0


async def test_who_is_overtaken_again_and_again_waits_in_turn_and_keeps_nobody_else(
    bank: Bank,
) -> None:
    tried: list[list[int]] = []
    in_turn: list[list[int]] = []

    async def run(requests: list[Request], deadline_s: float) -> list[Outcome]:
        accounts = [operation.account for _, operation in requests]  # type: ignore[union-attr]
        tried.append(accounts)
        assert len(tried) < 20, "for ever"
        if 5 in accounts:
            raise LockTimeout("another was faster", accounts=[5])
        return [Done(account, 0) for account in accounts]

    async def patiently(requests: list[Request], deadline_s: float) -> list[Outcome]:
        in_turn.append([operation.account for _, operation in requests])  # type: ignore[union-attr]
        return [Done(0, 0) for _ in requests]

    rounds = Rounds(run, round_max=100, queue_max=100, probe=bank.probe, patiently=patiently)
    some = [rounds.submit(deposits(account), time.monotonic() + 60) for account in (5, 6)]
    await asyncio.gather(*some)
    assert tried == [[5, 6], [6], *[[5]] * (RETURNS_MAX - 1)]
    assert in_turn == [[5]]
    assert rounds._count == 0
    assert not rounds._held_up


async def test_those_that_wait_in_turn_take_no_round_from_the_others(bank: Bank) -> None:
    turn = asyncio.Event()
    in_turn: list[int] = []

    async def run(requests: list[Request], deadline_s: float) -> list[Outcome]:
        accounts = [operation.account for _, operation in requests]  # type: ignore[union-attr]
        if found := [account for account in accounts if account in (5, 6)]:
            raise LockTimeout("another was faster", accounts=found)
        return [Done(account, 0) for account in accounts]

    async def patiently(requests: list[Request], deadline_s: float) -> list[Outcome]:
        in_turn.extend(operation.account for _, operation in requests)  # type: ignore[union-attr]
        await turn.wait()
        return [Done(0, 0) for _ in requests]

    rounds = Rounds(run, round_max=1, queue_max=100, probe=bank.probe, patiently=patiently)
    waiting = [rounds.submit(deposits(account), time.monotonic() + 60) for account in (5, 6)]
    await eventually(lambda: in_turn != [])
    for account in range(10, 20):
        assert await rounds.submit(deposits(account), time.monotonic() + 60) == [Done(account, 0)]
    assert not any(one.done() for one in waiting)
    turn.set()
    await asyncio.gather(*waiting)
    assert sorted(in_turn) == [5, 6]
    assert rounds._count == 0


async def test_closing_in_a_hurry_answers_those_that_wait_in_turn(bank: Bank) -> None:
    async def run(requests: list[Request], deadline_s: float) -> list[Outcome]:
        raise LockTimeout("another was faster", accounts=[5])

    begun = asyncio.Event()

    async def patiently(requests: list[Request], deadline_s: float) -> list[Outcome]:
        begun.set()
        await asyncio.Event().wait()
        return []

    rounds = Rounds(run, round_max=1, queue_max=100, probe=bank.probe, patiently=patiently)
    waiting = [rounds.submit(deposits(5), time.monotonic() + 60) for _ in range(2)]
    await begun.wait()
    await eventually(lambda: len(rounds._overtaken) == 1)
    await rounds.aclose(timeout_s=0)
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(end) for end in ended} == {Interrupted, Draining}
    assert rounds._count == 0


async def test_closing_waits_for_what_is_held_up_while_there_is_time(
    bank: Bank, rounds: Rounds, submit: Submit
) -> None:
    bank.held.append({5})
    waiting = submit(5)
    await eventually(lambda: bool(bank.probed))
    closing = asyncio.ensure_future(rounds.aclose())
    await turns()
    await bank.let_go({5})
    await closing
    assert await waiting == [Done(5, 0)]


async def test_closing_in_a_hurry_tells_that_what_was_held_up_never_began(
    bank: Bank, rounds: Rounds, submit: Submit
) -> None:
    bank.held.append({5})
    waiting = submit(5)
    await eventually(lambda: bool(bank.probed))
    await rounds.aclose(timeout_s=0)
    with pytest.raises(Draining):
        await waiting
    assert rounds._count == 0


async def test_what_is_learnt_while_closing_is_answered_too(bank: Bank) -> None:
    ran, told = asyncio.Event(), asyncio.Event()

    async def run(requests: list[Request], deadline_s: float) -> list[Outcome]:
        if requests[0][1].account == 6:  # type: ignore[union-attr]
            ran.set()
            await told.wait()
        return await bank.run(requests, deadline_s)

    async def probe(keys: list[Key], wait_s: float) -> None:
        try:
            await bank.probe(keys, wait_s)
        finally:
            told.set()  # while the lanes are ended, a round learns of another
            await turns()

    rounds = Rounds(run, round_max=1, queue_max=100, probe=probe)
    bank.held += [{5}, {6}]
    waiting = [rounds.submit(deposits(account), time.monotonic() + 60) for account in (5, 6)]
    await ran.wait()
    await eventually(lambda: bool(bank.probed))
    await rounds.aclose(timeout_s=0)
    assert all(one.done() for one in waiting)
    assert rounds._count == 0
    assert not rounds._held_up
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert not any(getattr(end, "fields", None) for end in ended), "what others hold is theirs"


async def test_what_was_learnt_in_the_turn_of_closing_is_answered_too(
    bank: Bank, rounds: Rounds, submit: Submit
) -> None:
    bank.held.append({5})
    waiting = submit(5)
    lanes = rounds._held_up
    assert lanes is not None
    for _ in range(100):
        if lanes:
            break
        await asyncio.sleep(0)
    (task,) = lanes.tasks
    assert not bank.probed, "it has not begun"
    await rounds.aclose(timeout_s=0)
    assert task.cancelled()
    with pytest.raises(Draining):
        await waiting
    assert rounds._count == 0
    assert not lanes
