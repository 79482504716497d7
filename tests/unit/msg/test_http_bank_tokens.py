"""``/bank/*``: who is let in, and to which accounts."""

from __future__ import annotations

import pytest

from tests.unit.msg.http_bank_requests import BODIES, TRANSFER
from tests.unit.msg.http_fakes import CUSTOMER, assert_problem, gateway


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic dGVsbGVyOjE=", "teller-1", "Token teller-1"]
)
async def test_no_token_is_401_with_a_challenge(path: str, authorization: str) -> None:
    async with gateway() as g:
        response = await g.post(path, BODIES[path], headers={"Authorization": authorization})
        assert_problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert g.bank.operations == []


@pytest.mark.parametrize("path", ["/bank/accounts/1", "/bank/accounts/1/statement"])
async def test_reading_without_a_token_is_401(path: str) -> None:
    async with gateway() as g:
        assert_problem(await g.get(path, headers={}), 401, "unauthenticated")


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("token", ["fake", "x" * 600, "teller-1 x", "ü"])
async def test_a_fake_token_is_403_forbidden_with_the_seeds_word(path: str, token: str) -> None:
    async with gateway() as g:
        response = await g.http.post(
            path, json=BODIES[path], headers={"Authorization": f"Bearer {token}".encode()}
        )
        document = assert_problem(response, 403, "forbidden")
        assert (document["title"], document["detail"]) == ("Forbidden", "Forbidden")
        assert g.bank.operations == []


async def test_a_token_longer_than_any_is_not_even_asked_about() -> None:
    async with gateway() as g:
        await g.get("/bank/accounts/1", {"Authorization": f"Bearer {'x' * 513}"})
        assert g.bank.tokens_asked_for == []


async def test_the_scheme_bearer_may_be_in_any_case() -> None:
    async with gateway() as g:
        assert (await g.get("/bank/accounts/1", {"Authorization": "bearer teller-1"})).is_success


@pytest.mark.parametrize("path", BODIES)
async def test_a_stranger_cannot_make_us_parse(path: str) -> None:
    async with gateway() as g:
        response = await g.post(path, raw=b"{", headers={"Authorization": "", "Content-Type": "x"})
        assert_problem(response, 401, "unauthenticated")


async def test_another_ones_account_is_403() -> None:
    async with gateway() as g:
        assert_problem(await g.get("/bank/accounts/1", CUSTOMER), 403, "another_account")
        response = await g.post("/bank/transfers", TRANSFER, headers=CUSTOMER)
        assert_problem(response, 403, "another_account")
