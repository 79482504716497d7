"""``rmi account``: the bank's accounts."""

from __future__ import annotations

import json
from typing import Any

import click

from rmi_launch.options import REACH_SETTINGS, WholeRange, with_settings
from rmi_launch.system import ask, find_system
from rmi_launch.tables import new_table, show
from rmi_runtime import Loaded, Proxy

PAGE_MAX = 1000


@click.group()
def account() -> None:
    """Open and list accounts. Amounts are whole numbers of minor units (cents)."""


@account.command()
@click.argument("number", type=WholeRange(1, 2**53))
@click.option(
    "--balance",
    type=WholeRange(0, 10**15),
    default=0,
    show_default=True,
    help="Minor units on it from the start.",
)
@click.option("--owner", type=WholeRange(0, 2**53), help="Client whose it is. [default: none]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings(*REACH_SETTINGS)
def create(loaded: Loaded, number: int, balance: int, owner: int | None, as_json: bool) -> None:
    """Open the account NUMBER."""

    async def question(data: Proxy) -> dict[str, Any]:
        opened: dict[str, Any] = await data._call("open_account", (number, balance, owner))
        return opened

    opened = ask(find_system(loaded), question)
    if as_json:
        click.echo(json.dumps(opened))
    else:
        click.echo(f"account {number} is open, balance {opened['balance']}")


@account.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@click.option(
    "--after",
    type=WholeRange(-1, 2**53),
    default=0,
    help="List those above this number. [default: 0]",
)
@click.option(
    "--limit",
    type=WholeRange(1, PAGE_MAX),
    default=100,
    show_default=True,
    help="Most accounts to list.",
)
@with_settings(*REACH_SETTINGS)
def list_(loaded: Loaded, as_json: bool, after: int, limit: int) -> None:
    """List accounts, their balances and owners; all as of one commit."""

    async def question(data: Proxy) -> dict[str, Any]:
        found: dict[str, Any] = await data._call("account_list", (after, limit))
        return found

    page = ask(find_system(loaded), question)
    if as_json:
        click.echo(json.dumps(page["accounts"], indent=1))
    else:
        _show(page["accounts"])
    if page["next"] is not None:
        # All that it was called with counts for the next page too: --limit, the system's place.
        click.echo(f"there are more: the same command with --after {page['next']}", err=True)


def _show(accounts: list[dict[str, Any]]) -> None:
    columns = ("account", "balance", "owner")
    table = new_table(*columns, right=columns)
    for row in accounts:
        owner = "-" if row["owner"] is None else str(row["owner"])
        table.add_row(str(row["account"]), str(row["balance"]), owner)
    show(table)
