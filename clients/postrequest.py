"""Posts ten messages to the HTTP entry, one after the other: ``python clients/postrequest.py``.

Prints, for each, the status and the answer, as the original script did. Exits with 0 if all were
accepted.
"""

from __future__ import annotations

import _venv  # noqa: F401  # isort: skip
import click
import httpx
from _common import DEFAULT_URL, IS_IT_THERE, WholeRange, gateway_url, give_up, run


@click.command(help=__doc__)
@click.option(
    "--url",
    default=DEFAULT_URL,
    show_default=True,
    callback=gateway_url,
    help="The HTTP gateway.",
)
@click.option("--count", default=10, show_default=True, type=WholeRange(1), help="Messages.")
def main(url: str, count: int) -> None:
    """Post ``msg1`` to ``msg<count>`` as forms."""
    refused = 0
    with httpx.Client(base_url=url, timeout=30.0) as http:
        for number in range(1, count + 1):
            try:
                answer = http.post("/", data={"msg": f"msg{number}"})
            except httpx.HTTPError as error:
                give_up(f"no answer from {url} ({error}); {IS_IT_THERE}")
            print(answer.status_code)
            print(answer.text)
            refused += answer.status_code != httpx.codes.OK
    if refused:
        give_up(f"{refused} of {count} messages were not accepted, see above")


if __name__ == "__main__":
    run(main)
