"""``/bank/*`` when services fail: what is said to have happened, and how to ask again."""

from __future__ import annotations

import pytest

from rmi_bank.errors import LockTimeout
from rmi_runtime import StoreGone, errors
from tests.unit.msg.http_bank_requests import TRANSFER
from tests.unit.msg.http_fakes import assert_problem, gateway


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Unavailable("10.0.0.7:5555 refused"), "unavailable"),
        (errors.Overloaded("queue of 16384 is full"), "overloaded"),
        (errors.Draining("leaving"), "draining"),
        (errors.DeadlinePassed("late"), "deadline_passed"),
        (errors.StoreFull("no room"), "store_full"),
        (StoreGone("/srv/10.0.0.7/bank.sqlite"), "store_gone"),
        (LockTimeout("locked"), "lock_timeout"),
    ],
)
async def test_no_service_in_time_is_503_and_certainly_nothing_happened(
    error: Exception, code: str
) -> None:
    async with gateway() as g:
        g.bank.error = error
        response = await g.post("/bank/transfers", TRANSFER, headers={"Idempotency-Key": "k"})
        document = assert_problem(response, 503, code)
        assert (document["definite"], document["request_id"]) == (True, "k")
        assert response.headers["retry-after"] == "1"
        assert "10.0.0.7" not in response.text


async def test_what_is_damaged_is_told_with_what_to_do() -> None:
    async with gateway() as g:
        g.bank.error = StoreGone("/srv/bank.sqlite")
        document = assert_problem(await g.post("/bank/transfers", TRANSFER), 503, "store_gone")
        assert "damaged" in document["detail"]
        assert "put a good copy back" in document["detail"]


@pytest.mark.parametrize(
    "error", [errors.ConnectionLost("x"), errors.CallTimeout("x"), errors.Interrupted("x")]
)
async def test_what_may_have_happened_is_503_with_the_id_to_ask_again(
    error: errors.RmiError,
) -> None:
    async with gateway() as g:
        g.bank.error = error
        response = await g.post("/bank/transfers", TRANSFER)
        document = assert_problem(response, 503, error.code)
        assert document["definite"] is False
        assert response.headers["retry-after"]
        g.bank.error = None
        headers = {"Idempotency-Key": document["request_id"]}
        assert (await g.post("/bank/transfers", TRANSFER, headers=headers)).status_code == 201
        assert "request_id" not in error.fields  # the error may be shared with other waiters


@pytest.mark.parametrize("error", [errors.InternalError("secret"), RuntimeError("secret")])
async def test_a_failure_inside_is_500_without_its_words(error: Exception, caplog) -> None:
    async with gateway() as g:
        g.bank.error = error
        response = await g.post("/bank/transfers", TRANSFER)
        document = assert_problem(response, 500, "internal")
        assert document["definite"] is False
        assert "secret" not in response.text
        assert "Traceback" not in response.text


async def test_a_retry_after_of_the_error_is_passed_on() -> None:
    async with gateway() as g:
        g.bank.error = errors.Overloaded("full", retry_after_s=2.2)
        response = await g.post("/bank/transfers", TRANSFER)
        assert response.headers["retry-after"] == "3"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InternalError("secret"), 500),
        (RuntimeError("secret"), 500),
        (errors.ConnectionLost("secret"), 503),
        (errors.CallTimeout("secret"), 503),
    ],
)
@pytest.mark.parametrize("path", ["/bank/accounts/1", "/bank/accounts/1/statement", "/messages"])
async def test_a_read_that_fails_has_changed_nothing_and_needs_no_key(
    error: Exception, status: int, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*args: object) -> None:
        raise error

    async with gateway() as g:
        for read in ("balance", "statement"):
            monkeypatch.setattr(g.bank, read, fails)
        monkeypatch.setattr(g.messages, "page", fails)
        response = await g.get(path)
        assert (response.status_code, response.json()["definite"]) == (status, True)
        assert "Idempotency-Key" not in response.text
        assert "secret" not in response.text
