"""Who is calling: refusals by identity, deadlines, and calls without a connection."""

from __future__ import annotations

import asyncio
import time

import pytest

from rmi_runtime import (
    ANONYMOUS,
    SERVICE,
    Call,
    Identity,
    allow,
    call_as,
    current_call,
    errors,
    wire,
)
from rmi_runtime.context import check_allowed

TELLER = Identity("client", 1, "teller")


@pytest.mark.parametrize(
    ("words", "identity"),
    [
        ({"service"}, SERVICE),
        ({"client"}, TELLER),
        ({"teller"}, TELLER),
        ({"service", "admin", "teller"}, TELLER),
        ({"anonymous"}, ANONYMOUS),
    ],
)
def test_a_kind_or_a_role_that_fits_is_enough(words: set[str], identity: Identity) -> None:
    check_allowed(frozenset(words), identity, "thing")  # or else it raises


def test_a_stranger_is_asked_who_it_is() -> None:
    with pytest.raises(errors.Unauthenticated, match="send the cluster key"):
        check_allowed(frozenset({"service"}), ANONYMOUS, "thing")


@pytest.mark.parametrize("identity", [TELLER, Identity("client", 2, None), SERVICE])
def test_one_who_is_known_and_may_not_is_forbidden(identity: Identity) -> None:
    with pytest.raises(errors.Forbidden, match="for admin only"):
        check_allowed(frozenset({"admin"}), identity, "thing")


def test_allow_needs_words() -> None:
    with pytest.raises(TypeError, match="at least one"):
        allow()


def test_no_call_outside_of_a_call() -> None:
    with pytest.raises(LookupError, match="call_as"):
        current_call()
    with call_as(TELLER) as call:
        assert current_call() is call
        assert call.identity == TELLER
        with call_as(SERVICE):
            assert current_call().identity == SERVICE
        assert current_call() is call
    with pytest.raises(LookupError):
        current_call()


async def test_each_task_has_its_own_call() -> None:
    async def who() -> Identity:
        await asyncio.sleep(0)
        return current_call().identity

    tasks = []
    for number in range(3):
        with call_as(Identity("client", number)):
            tasks.append(asyncio.ensure_future(who()))
    assert [identity.client for identity in await asyncio.gather(*tasks)] == [0, 1, 2]


def test_the_remaining_time_is_never_negative_and_has_a_default() -> None:
    assert Call(ANONYMOUS).remaining_s(7.0) == 7.0
    assert Call(ANONYMOUS, deadline=time.monotonic() - 5).remaining_s(7.0) == 0.0
    assert 0 < Call(ANONYMOUS, deadline=time.monotonic() + 5).remaining_s(7.0) <= 5.0


def test_the_correlation_id_as_a_uuid() -> None:
    assert Call(ANONYMOUS).correlation_uuid() is None
    message = wire.Message(wire.MSG_INVOKE, 1, 0, 0, b"", correlation_id=bytes(range(16)))
    found = Call(ANONYMOUS, message=message).correlation_uuid()
    assert found is not None
    assert found.bytes == bytes(range(16))
