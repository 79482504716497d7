"""The bank and the message log as remote objects, scripted twice.

First through stock ``Pyro5.api.Proxy``, as any Pyro5 program would; then through the asyncio
``Proxy`` of ``rmi_runtime``, with many calls in flight on one connection. Both do the same: read a
balance, deposit, transfer, repeat a transfer with the same request id (it moves money once), try
what is not allowed, post a message and read it back.
"""

from __future__ import annotations

import _venv  # noqa: F401  # isort: skip
import asyncio
import uuid
from pathlib import Path
from typing import Any

import click
import Pyro5.api
import Pyro5.errors
from _common import DEFAULT_NAME_SERVER, demo_tokens, give_up, run

from rmi_runtime import Proxy, errors

BANK = "bank.business.1"
FACADE = "msg.facade.1"


def with_stock_proxies(location: str, token: str) -> None:
    """Do everything through ``Pyro5.api.Proxy``."""
    with Pyro5.api.Proxy(f"PYRONAME:{BANK}@{location}") as bank:
        bank._pyroHandshake = {"token": token}
        print("balance of 1:", bank.balance(1)["balance"])
        print("deposit 50 :", bank.deposit(1, 50, str(uuid.uuid4()))["balance"])
        request_id = str(uuid.uuid4())
        first = bank.transfer(1, 2, 25, request_id)
        again = bank.transfer(1, 2, 25, request_id)
        print("transfer 25:", first["balance"], "- the same again:", again["balance"])
        assert first["commit"] == again["commit"], "one request id has one effect"
        try:
            bank.withdraw(1, 10**12, str(uuid.uuid4()))
        except ValueError as error:
            print("withdraw too much:", type(error).__name__, error.code)  # type: ignore[attr-defined]
    with Pyro5.api.Proxy(f"PYRONAME:{BANK}@{location}") as bank:
        bank._pyroHandshake = {"token": "fake"}
        try:
            bank.balance(1)
        except Pyro5.errors.CommunicationError as error:
            print("fake token :", error)
    with Pyro5.api.Proxy(f"PYRONAME:{FACADE}@{location}") as facade:
        posted = facade.post("hello from a stock proxy")
        print("posted     :", posted["id"])
        print("read back  :", read_back(facade, posted["id"]))


def read_back(facade: Any, message_id: str) -> str | None:
    """Return the text of a message, on whichever page it is; None if it is on none."""
    after: Any = None
    while True:
        page = facade.page(after, 1000)
        for message in page["messages"]:
            if message["id"] == message_id:
                return str(message["text"])
        if (after := page["next"]) is None:
            return None


async def with_async_proxies(location: str, token: str) -> None:
    """Do the same through the asyncio proxy."""
    uri = f"PYRONAME:{BANK}@{location}"
    async with Proxy(uri, handshake={"token": token}) as bank:
        print("balance of 1:", (await bank.balance(1))["balance"])
        print("deposit 50 :", (await bank.deposit(1, 50, str(uuid.uuid4())))["balance"])
        request_id = str(uuid.uuid4())
        # Both are in flight at once, on one connection; one of them has the effect.
        first, again = await asyncio.gather(
            bank.transfer(1, 2, 25, request_id), bank.transfer(1, 2, 25, request_id)
        )
        print("transfer 25:", first["balance"], "- the same again:", again["balance"])
        assert first["commit"] == again["commit"], "one request id has one effect"
        try:
            await bank.withdraw(1, 10**12, str(uuid.uuid4()))
        except errors.Definite as error:
            print("withdraw too much:", type(error).__name__, error.code)
        many: list[Any] = await asyncio.gather(*(bank.balance(n) for n in range(1, 11)))
        print("ten at once:", [answer["balance"] for answer in many])
    try:
        async with Proxy(uri, handshake={"token": "fake"}):
            print("a fake token was let in")
    except errors.Forbidden as error:
        print("fake token :", error)
    async with Proxy(f"PYRONAME:{FACADE}@{location}") as facade:
        posted = await facade.post("hello from an asyncio proxy")
        print("posted     :", posted["id"])


@click.command(help=__doc__)
@click.option("--ns", default=DEFAULT_NAME_SERVER, show_default=True, help="The name server.")
@click.option(
    "--data-dir",
    default=Path("var"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where the demonstration's tokens are.",
)
def main(ns: str, data_dir: Path) -> None:
    """Run the script."""
    token = next(iter(demo_tokens(data_dir).values()))
    try:
        print("-- stock Pyro5.api.Proxy")
        with_stock_proxies(ns, token)
        print("-- rmi_runtime.Proxy")
        asyncio.run(with_async_proxies(ns, token))
    except (Pyro5.errors.PyroError, errors.RmiError) as error:
        give_up(
            f"{error}; does the system run (`make run`), with its name server at {ns} (--ns) and "
            f"its directory {data_dir} (--data-dir)?"
        )
    except Exception as error:
        # What a service refuses reaches a stock client as a builtin exception with a code.
        if not hasattr(error, "code"):
            raise
        give_up(f"{error.code}: {error}")


if __name__ == "__main__":
    run(main)
