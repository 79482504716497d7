"""Reads all messages back from the HTTP entry: ``python clients/getrequest.py``.

Prints the status, and a list of two texts as the original script did: the loggers' messages as
(uuid, text) pairs, and what a messages service picked at random has consumed.
"""

from __future__ import annotations

import _venv  # noqa: F401  # isort: skip
import click
import httpx
from _common import (
    DEFAULT_URL,
    IS_IT_THERE,
    gateway_url,
    give_up,
    json_of,
    not_a_gateway,
    readable,
    run,
    what_it_said,
)


@click.command(help=__doc__)
@click.option(
    "--url",
    default=DEFAULT_URL,
    show_default=True,
    callback=gateway_url,
    help="The HTTP gateway.",
)
@click.option(
    "--msg", default="HELLO", show_default=True, callback=readable, help="Sent along, as ever."
)
def main(url: str, msg: str) -> None:
    """Get ``/?msg=…`` and print it."""
    try:
        answer = httpx.get(url, params={"msg": msg}, timeout=30.0)
    except httpx.HTTPError as error:
        give_up(f"no answer from {url} ({error}); {IS_IT_THERE}")
    print(answer.status_code)
    if answer.status_code != httpx.codes.OK:
        give_up(what_it_said(answer))
    try:
        logged, consumed = json_of(answer)
        lists = [str([(uuid, text) for uuid, text in pairs]) for pairs in (logged, consumed)]
    except (TypeError, ValueError):
        not_a_gateway(answer)
    print(lists)


if __name__ == "__main__":
    run(main)
