"""What a call raises here for what was raised there."""

from __future__ import annotations

import time

import pytest

from rmi_runtime import errors
from rmi_runtime.proxy.calls import raised_there

GIVEN_UP = errors.Interrupted("the work was given up before it was finished")
PAST_S, FUTURE_S = 0.0, time.monotonic() + 1e6


def test_work_given_up_at_the_callers_deadline_is_a_call_that_timed_out() -> None:
    assert type(raised_there(GIVEN_UP, PAST_S)) is errors.CallTimeout
    assert raised_there(GIVEN_UP, FUTURE_S) is GIVEN_UP


@pytest.mark.parametrize("deadline_s", [PAST_S, FUTURE_S], ids=["late", "in time"])
def test_other_errors_are_what_they_are_whenever_they_come(deadline_s: float) -> None:
    for error in (ValueError("x"), errors.DeadlinePassed("x"), errors.Draining("x")):
        assert raised_there(error, deadline_s) is error
    assert isinstance(raised_there("no exception", deadline_s), errors.RmiError)
