"""How long whoever makes faults has to wait, with a clock that is ours."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmi_runtime import Identity, errors
from rmi_runtime.context import ANONYMOUS, SERVICE
from rmi_runtime.daemon import faults
from rmi_runtime.daemon.faults import HOLD_S_MAX, FaultMeter, caller_of, is_fault


def test_a_few_faults_cost_no_wait() -> None:
    meter = FaultMeter(per_s=10, burst=5)
    assert [meter.note("a", 0.0) for _ in range(5)] == [0.0] * 5
    assert meter.note("a", 0.0) == pytest.approx(0.1)
    assert meter.note("a", 0.0) == pytest.approx(0.2)


def test_others_do_not_wait_for_it() -> None:
    meter = FaultMeter(per_s=10, burst=5)
    for _ in range(100):
        meter.note("a", 0.0)
    assert meter.wait_s("b", 0.0) == 0.0
    assert meter.note("b", 0.0) == 0.0


def test_a_wait_has_a_bound_and_ends_soon_after_the_last_fault() -> None:
    meter = FaultMeter(per_s=10, burst=5)
    waits = [meter.note("a", 0.0) for _ in range(10_000)]
    assert max(waits) == pytest.approx(HOLD_S_MAX)
    assert meter.wait_s("a", HOLD_S_MAX + 1e-9) == 0.0
    assert meter.wait_s("a", 0.0) == pytest.approx(HOLD_S_MAX)


@given(
    per_s=st.floats(0.1, 1000),
    burst=st.integers(0, 50),
    gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=200),
)
@settings(max_examples=100, deadline=None)
def test_one_that_waits_as_told_makes_no_more_than_the_bound(
    per_s: float, burst: int, gaps: list[float]
) -> None:
    meter = FaultMeter(per_s, burst)
    now = 0.0
    for made, gap in enumerate(gaps, 1):
        wait_s = meter.note("a", now)
        assert 0 <= wait_s <= HOLD_S_MAX + 1e-9
        if wait_s < HOLD_S_MAX - 1e-9:
            assert made <= burst + per_s * (now + wait_s) + 1.001
        else:
            return
        now += max(gap, wait_s)


def test_infinitely_many_faults_may_be_allowed() -> None:
    meter = FaultMeter(math.inf, 0)
    assert {meter.note("a", 0.0) for _ in range(1000)} == {0.0}


@pytest.mark.parametrize("per_s", [0.0, -1.0, math.nan])
def test_no_faults_at_all_is_no_bound(per_s: float) -> None:
    with pytest.raises(ValueError, match="infinity"):
        FaultMeter(per_s, 1)


def test_the_memory_of_callers_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "CALLERS_MAX", 10)
    meter = FaultMeter(per_s=10, burst=0)
    for caller in range(100):
        meter.note(caller, 0.0)
    assert [meter.wait_s(caller, 0.0) > 0 for caller in (0, 89, 90, 99)] == [
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("identity", "peer", "caller"),
    [
        (ANONYMOUS, ("10.0.0.1", 5), "10.0.0.1"),
        (ANONYMOUS, ("::1", 5, 0, 0), "::1"),
        (ANONYMOUS, "", "here"),
        (Identity("client", 7, "teller"), ("10.0.0.1", 5), ("client", 7)),
        (SERVICE, ("10.0.0.1", 5), None),
    ],
)
def test_clients_go_by_number_and_strangers_by_address(
    identity: Identity, peer: Any, caller: Any
) -> None:
    assert caller_of(SimpleNamespace(identity=identity, peer=peer)) == caller


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (AttributeError("private"), True),
        (ValueError("no such message"), True),
        (errors.Forbidden("no"), True),
        (errors.InvalidRequest("no"), True),
        (errors.MalformedRequest("no"), True),
        (errors.Overloaded("later"), False),
        (errors.Draining("elsewhere"), False),
        (errors.DeadlinePassed("too late"), False),
        (errors.Unavailable("nobody can be asked who you are"), False),
        (ConnectionRefusedError("nobody can be asked who you are"), False),
        (PermissionError("no"), True),
    ],
)
def test_what_the_service_cannot_do_is_nobodys_fault(error: Exception, fault: bool) -> None:
    assert is_fault(error) is fault
