"""What the client scripts share: where the system is, and the demonstration's tokens."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
import httpx

DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_NAME_SERVER = "127.0.0.1:9090"
IS_IT_THERE = "is the system running (`make run`), with its gateway there (--url)?"
"""What to look at where nobody answers."""

PORT_MAX = 65535

INTERRUPTED = 130
UNREAD = 141
"""Exit statuses of `rmi`, too: Ctrl-C, and an output that nobody reads any more (`… | head`)."""


class WholeRange(click.IntRange):
    """A range of whole numbers; what is none is told so, not that it is "no integer range"."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return *value* as a number within the range; end with wrong use if it is none."""
        try:
            int(value)
        except ValueError:
            self.fail(f"expected a whole number such as 10, not {value!r}", param, ctx)
        number: int = super().convert(value, param, ctx)
        return number


class Seconds(click.FloatRange):
    """A range of seconds; what is no number, or none that ends (``nan``, ``inf``), is told so."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return *value* as a number within the range; end with wrong use if it is none."""
        try:
            finite = math.isfinite(float(value))
        except ValueError:
            finite = False
        if not finite:
            self.fail(f"expected a number of seconds such as 2.5, not {value!r}", param, ctx)
        number: float = super().convert(value, param, ctx)
        return number


def give_up(why: str) -> NoReturn:
    """End the script with one line on standard error and exit status 2."""
    print(f"error: {why}", file=sys.stderr)
    raise SystemExit(2)


def run(script: click.Command) -> NoReturn:
    """Run a script to its end; Ctrl-C, and an output that cannot be written, are told in a line."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see _venv
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack signs that messages have
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        # Not script(): an output that nobody reads would be a failure like any other there.
        with script.make_context(Path(sys.argv[0]).name, sys.argv[1:]) as context:
            script.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as ended:  # after --help
        raise SystemExit(ended.exit_code) from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except OSError as error:
        with open(os.devnull, "w") as nothing:  # for what Python still writes at its end
            os.dup2(nothing.fileno(), 1)
        if isinstance(error, BrokenPipeError):
            raise SystemExit(UNREAD) from None
        give_up(f"the output cannot be written: {error.strerror or error}")
    raise SystemExit


def gateway_url(context: click.Context, option: click.Parameter, text: str) -> str:
    """Refuse what cannot be the address of a gateway, before anything is sent there."""
    try:
        url = httpx.URL(text)
        url.host.encode("idna")  # as the system does when it looks the name up
        right = url.scheme in ("http", "https") and url.host and (url.port or 0) <= PORT_MAX
    except (httpx.InvalidURL, UnicodeError):
        right = False
    if not right:
        raise click.BadParameter(f"expected an address such as {DEFAULT_URL}, not {text!r}")
    if url.host in ("localhost", "::1") or url.host.startswith("127."):
        # This machine: a proxy that the environment names would be another machine's word for it.
        os.environ["no_proxy"] = "*"
    return text


def readable(context: click.Context, option: click.Parameter, text: str) -> str:
    """Refuse bytes that are no text in the terminal's encoding: they cannot be sent on."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("expected text in the terminal's encoding") from None
    return text


def json_of(answer: httpx.Response) -> Any:
    """Return what a gateway answered as plain values; end the script if it is no JSON."""
    try:
        return answer.json()
    except ValueError:
        not_a_gateway(answer)


def not_a_gateway(answer: httpx.Response) -> NoReturn:
    """End the script: whoever answers there is not our gateway."""
    give_up(
        f"{answer.url} gave an answer that is not the gateway's ({answer.text[:60]!r}); what else "
        "listens there? --url says where the gateway is"
    )


def what_it_said(answer: httpx.Response) -> str:
    """Return an answer that tells of a failure as one line: its status, and its text if any."""
    phrase = f"{answer.status_code} {answer.reason_phrase}".strip()
    return f"{phrase}: {answer.text}" if answer.text else phrase


def demo_tokens(data_dir: Path) -> dict[int, str]:
    """Return the demonstration clients' tokens.

    Args:
        data_dir: the data directory of a system started with ``--demo`` (``make run`` does).

    Returns:
        Client number to token, in order of the numbers; at least one.
    """
    path = data_dir / "demo-tokens.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        tokens = {int(entry["client"]): str(entry["token"]) for entry in entries}
    except FileNotFoundError:
        give_up(f"{path} is not there: start the system with `make run` first, or give --data-dir")
    except KeyError as error:
        give_up(f"{path}: an entry has no {error}: expected [{{'client': 1, 'token': '…'}}]")
    except (OSError, ValueError, TypeError, OverflowError) as error:
        give_up(f"{path} cannot be read as a list of client and token: {error}")
    if not tokens:
        give_up(f"{path} has no tokens: expected a list such as [{{'client': 1, 'token': '…'}}]")
    for client, token in tokens.items():
        if not token or not token.isascii() or not token.isprintable():
            give_up(f"{path}: the token of client {client} is none: expected printable ASCII text")
    return tokens
