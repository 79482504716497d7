"""Tokens of clients, as remote methods of the data object.

A token is shown once, when it is made; only its SHA-256 is kept.
"""

from __future__ import annotations

import asyncio
from abc import ABC
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from rmi_bank.rules import ROLES
from rmi_bank.store_keeper import StoreKeeper
from rmi_bank.stores import Ledger, NewToken, Token
from rmi_bank.stores.sqlite import now_us
from rmi_bank.values import checked_int, checked_limit, iso_time
from rmi_runtime import allow, expose, hash_token, new_token
from rmi_runtime.errors import InvalidRequest, NotFound, shown

Kept = TypeVar("Kept")

TOKEN_LIFE_S_MAX = 100 * 366 * 86_400


@expose
@allow("service")
class TokenDesk(ABC):
    """The part of the data object that knows tokens."""

    _ledger: Ledger
    _store: StoreKeeper

    @allow("service", "admin")
    async def token_create(
        self, client: int, role: str, life_s: int | None = None
    ) -> dict[str, Any]:
        """Make a token.

        Args:
            client: whose it will be.
            role: ``teller``, ``customer`` or ``admin``.
            life_s: how many seconds it is good; None: until it is revoked.

        Returns:
            ``{"id", "client", "role", "created_at", "expires_at", "revoked_at", "state",
            "token"}``. Nobody can find out the token later.

        Raises:
            InvalidRequest: an argument is of the wrong type or out of range.
            StoreFull, Unavailable: the store takes nothing now; there is no such token.
            Interrupted: the store failed; the token, which nobody has seen, may be listed.
        """
        checked_int("client", client, 0, 2**53)
        if role not in ROLES:
            raise InvalidRequest(
                f"role must be one of {', '.join(ROLES)}, not {shown(role)}", field="role"
            )
        expires_at_us = None
        if life_s is not None:
            checked_int("life_s", life_s, 1, TOKEN_LIFE_S_MAX)
            expires_at_us = int((datetime.now(UTC).timestamp() + life_s) * 1_000_000)
        token = new_token()
        new = NewToken(hash_token(token), client, role, expires_at_us)
        kept = await self._written(self._ledger.add_token(new))
        return {**_shown(kept, now_us()), "token": token}

    @allow("service", "admin")
    async def token_list(self, after: int = 0, limit: int = 1000) -> dict[str, Any]:
        """List tokens, without the tokens themselves.

        Args:
            after: list those with an id above this.
            limit: most to list, 1 to 1,000.

        Returns:
            ``{"tokens": [{"id", "client", "role", "created_at", "expires_at", "revoked_at",
            "state"}], "next": id to go on after, or None}``. The state is ``good``, ``revoked`` or
            ``expired``, by the clock that decides about the token.
        """
        checked_int("after", after, 0, 2**63 - 1)
        found = await self._ledger.tokens(after, checked_limit(limit))
        at_us = now_us()
        return {
            "tokens": [_shown(token, at_us) for token in found],
            "next": found[-1].id if len(found) == limit else None,
        }

    @allow("service", "admin")
    async def token_revoke(self, token_id: int) -> None:
        """Revoke a token. It is refused everywhere within two seconds.

        Raises:
            NotFound: there is no such token, or it has been revoked before.
            StoreFull, Unavailable: the store takes nothing now; the token is good still.
            Interrupted: the store failed; see the list of tokens.
        """
        checked_int("token_id", token_id, 0, 2**63 - 1)
        if not await self._written(self._ledger.revoke_token(token_id)):
            raise NotFound(f"there is no token {token_id}, or it has been revoked before")

    def identify(self, token_hash: str) -> dict[str, Any] | None:
        """Say whose token it is.

        Args:
            token_hash: SHA-256 of the token, in hex.

        Returns:
            ``{"client", "role"}``; None if it is unknown, revoked or expired.
        """
        if not isinstance(token_hash, str) or len(token_hash) != 64:
            return None
        self._store.check_open()
        found = self._ledger.identify(token_hash)
        return None if found is None else {"client": found[0], "role": found[1]}

    async def _written(self, work: Coroutine[Any, Any, Kept]) -> Kept:
        # Shielded: who gives up does not take the write back, and how it ended must be heard.
        writing = asyncio.create_task(work)
        writing.add_done_callback(self._heard)
        return await asyncio.shield(writing)

    def _heard(self, writing: asyncio.Task[Any]) -> None:
        if not writing.cancelled():
            writing.exception()  # else it would be an error of the loop, if the caller gave up
        self._store.look()


def _state(token: Token, at_us: int) -> str:
    if token.revoked_at_us is not None:
        return "revoked"
    return "good" if token.expires_at_us is None or token.expires_at_us > at_us else "expired"


def _shown(token: Token, at_us: int) -> dict[str, Any]:
    return {
        "id": token.id,
        "client": token.client,
        "role": token.role,
        "created_at": iso_time(token.created_at_us),
        "expires_at": None if token.expires_at_us is None else iso_time(token.expires_at_us),
        "revoked_at": None if token.revoked_at_us is None else iso_time(token.revoked_at_us),
        "state": _state(token, at_us),
    }
