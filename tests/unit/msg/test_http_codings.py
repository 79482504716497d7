"""Bodies in a content coding."""

from __future__ import annotations

import gzip

import pytest

from tests.unit.msg.http_bank_requests import TRANSFER
from tests.unit.msg.http_fakes import assert_problem, gateway

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize("coding", ["gzip", "br", "GZIP", "gzip, identity", "unheard-of"])
async def test_a_coded_body_is_415_and_says_how_to_send_it(coding: str) -> None:
    async with gateway() as g:
        headers = {"Content-Encoding": coding}
        response = await g.post("/bank/transfers", TRANSFER, headers=headers)
        document = assert_problem(response, 415, "unsupported_content_encoding")
        assert "Content-Encoding" in document["detail"]
        assert response.headers["accept-encoding"] == "identity"
        packed = gzip.compress(b"msg=hello")
        response = await g.post("/", raw=packed, headers=FORM | headers)
        assert_problem(response, 415, "unsupported_content_encoding")
        assert not g.bank.operations
        assert not g.messages.texts


@pytest.mark.parametrize("coding", ["identity", "Identity"])
async def test_a_body_as_it_is_may_say_so(coding: str) -> None:
    async with gateway() as g:
        headers = {"Content-Encoding": coding}
        assert (await g.post("/bank/transfers", TRANSFER, headers=headers)).status_code == 201
