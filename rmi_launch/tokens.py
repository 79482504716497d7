"""``rmi token``: who may act at the bank."""

from __future__ import annotations

import json
from typing import Any

import click

from rmi_launch.options import REACH_SETTINGS, WholeRange, with_settings
from rmi_launch.system import ask, find_system
from rmi_launch.tables import new_table, show
from rmi_runtime import Loaded, Proxy

ROLES = ("teller", "customer", "admin")
PAGE_MAX = 1000

EXPIRES_S_MAX = 100 * 366 * 86_400
"""Longest life of a token, in seconds: what the data object takes."""


@click.group()
def token() -> None:
    """Make, list and revoke the tokens that clients show the bank."""


@token.command()
@click.option("--client", type=WholeRange(0, 2**53), required=True, help="Whose it will be.")
@click.option(
    "--role",
    type=click.Choice(ROLES),
    default="teller",
    show_default=True,
    help="teller: any account; customer: its own; admin: opens accounts, makes tokens.",
)
@click.option(
    "--expires-s",
    type=WholeRange(1, EXPIRES_S_MAX),
    metavar="SECONDS",
    help="How long it is good. [default: until it is revoked]",
)
@click.option("--quiet", is_flag=True, help="Print the token and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings(*REACH_SETTINGS)
def create(
    loaded: Loaded, client: int, role: str, expires_s: int | None, quiet: bool, as_json: bool
) -> None:
    """Make a token and print it: this once, for only its hash is kept."""
    if quiet and as_json:
        raise click.UsageError("--quiet prints the token alone, --json more: leave one of them out")

    async def question(data: Proxy) -> dict[str, Any]:
        made: dict[str, Any] = await data._call("token_create", (client, role, expires_s))
        return made

    made = ask(find_system(loaded), question)
    if as_json:
        click.echo(json.dumps(made))
    elif quiet:
        click.echo(made["token"])
    else:
        until = f"until {made['expires_at']}" if made["expires_at"] else "until it is revoked"
        click.echo(made["token"])
        click.echo(
            f"token {made['id']}: client {client} as {role}, good {until}; "
            "it cannot be shown again",
            err=True,
        )


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@with_settings(*REACH_SETTINGS)
def list_(loaded: Loaded, as_json: bool) -> None:
    """List the tokens, without the tokens themselves."""
    rows = ask(find_system(loaded), all_tokens)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    columns = ("id", "client", "role", "state", "created", "expires")
    table = new_table(*columns, right=("id", "client"))
    for row in rows:
        state = row["state"]
        table.add_row(
            str(row["id"]),
            str(row["client"]),
            row["role"],
            f"[{'green' if state == 'good' else 'red'}]{state}[/]",
            row["created_at"],
            row["expires_at"] or "never",
        )
    show(table)


@token.command()
@click.argument("token_id", type=WholeRange(0, 2**63 - 1))
@with_settings(*REACH_SETTINGS)
def revoke(loaded: Loaded, token_id: int) -> None:
    """Revoke the token with the number TOKEN_ID (see rmi token list)."""

    async def question(data: Proxy) -> None:
        await data._call("token_revoke", (token_id,))

    ask(find_system(loaded), question)
    click.echo(f"token {token_id} is revoked; it is refused everywhere within two seconds")


async def all_tokens(data: Proxy) -> list[dict[str, Any]]:
    """Return all tokens, page by page, as the data object describes them."""
    rows: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = await data._call("token_list", (after, PAGE_MAX))
        rows += page["tokens"]
        after = page["next"]
    return rows
