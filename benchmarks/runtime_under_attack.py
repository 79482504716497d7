"""How long a valid client waits while others misbehave.

``python -m benchmarks.runtime_under_attack``: for each bad input (``tests/attacks.py``) windows
take turns: the valid client alone, beside an ordinary client that calls as fast as it can, and
beside an attacker that strikes as fast as it can.
Server, client and other are processes of their own. With two cores or fewer the three compete for
them, whatever the server does; so the fair comparison is that with an ordinary client, and the
server's processor time for one strike says most.

As in a real service the daemon can tell who is calling: the valid client shows a token, attackers
are strangers. With ``--open`` everybody is anonymous and may send as much as anybody.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click
import Pyro5.api
import uvloop

import rmi_runtime
from benchmarks.echo_processes import Peer
from benchmarks.helpers import start_helper
from tests.attacks import ATTACKS
from tests.raw_client import RESULT, Address, RawClient, call

WARM_UP_S = 0.1
TOKEN = {"token": "valid"}


@rmi_runtime.expose
class Target:
    """What is attacked."""

    def echo(self, value: Any) -> Any:
        """Return *value*."""
        return value

    def repeat(self, text: str, times: int) -> str:
        """Return a long text."""
        return text * times


def _identify(handshake: object, _: object) -> rmi_runtime.Identity:
    return rmi_runtime.Identity("client", 1) if handshake == TOKEN else rmi_runtime.ANONYMOUS


async def _serve(everybody_is_anonymous: bool) -> None:
    authenticate = None if everybody_is_anonymous else _identify
    async with rmi_runtime.Daemon(authenticate=authenticate) as daemon:
        print(daemon.register(Target(), "target"), flush=True)
        await asyncio.to_thread(sys.stdin.read)


def _valid_client(uri: str) -> None:
    """Measure a window for each line that comes in: how many seconds."""
    with Pyro5.api.Proxy(uri) as proxy:
        proxy._pyroHandshake = TOKEN
        proxy._pyroBind()
        print("ready", flush=True)
        for line in sys.stdin:
            end = time.perf_counter() + float(line)
            took = []
            now = time.perf_counter()
            while now < end:
                proxy.echo("hello")
                before, now = now, time.perf_counter()
                took.append(now - before)
            took.sort()
            p99 = took[len(took) * 99 // 100]
            print(json.dumps([p99 * 1e6, took[-1] * 1e6, len(took)]), flush=True)


def _other(address: Address) -> None:
    """Do again and again what the last line names; ``rest`` is nothing."""
    kinds: dict[str, Callable[[Address], Any]] = {a.name: a.strike for a in ATTACKS}
    ordinary = RawClient(address)

    def ordinary_call(_: Address) -> None:
        ordinary.send(call("echo", "hello"))
        assert ordinary.outcome() == RESULT

    kinds["ordinary"] = ordinary_call
    doing = ["rest"]
    strikes = 0

    def listen() -> None:
        for line in sys.stdin:
            doing[0] = line.strip()
            print(strikes, flush=True)
        doing[0] = "end"

    threading.Thread(target=listen, daemon=True).start()
    print("ready", flush=True)
    while doing[0] != "end":
        if doing[0] == "rest":
            time.sleep(0.005)
            continue
        kinds[doing[0]](address)
        strikes += 1


class Process(Peer):
    """One of the three processes."""

    def __init__(self, *arguments: str) -> None:
        self.process = start_helper("benchmarks.runtime_under_attack", "--role", *arguments)

    def tell(self, line: str) -> str:
        """Send a line; return the next one it prints."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.line()


def _cost_us(server: Process, other: Process, name: str, seconds: float) -> float:
    """Return the server's processor time for one strike, in µs."""
    strikes, used_s = int(other.tell(name)), server.cpu_s()
    time.sleep(seconds)
    return (server.cpu_s() - used_s) / max(1, int(other.tell("rest")) - strikes) * 1e6


def chosen(only: str, part: str) -> list[str]:
    """Return the names of the attacks whose name contains *only*, or the part N/M of them."""
    number, _, parts = part.partition("/")
    return [a.name for a in ATTACKS if only in a.name][int(number) - 1 :: int(parts)]


def measure(
    rounds: int, seconds: float, names: list[str], role: str
) -> Iterator[dict[str, float | str]]:
    """Yield, for each attack, the 99th percentiles of each window in µs."""
    server = Process(role)
    uri = server.line()
    valid, other = Process("valid", uri), Process("other", uri)
    try:
        assert valid.line() == other.line() == "ready"
        for name in names:
            windows: dict[str, list[float]] = {"rest": [], "ordinary": [], name: []}
            worst, strikes = 0.0, 0
            for _ in range(rounds):
                for kind, p99s in windows.items():
                    before = int(other.tell(kind))
                    valid.tell(str(WARM_UP_S))
                    p99, longest, _ = json.loads(valid.tell(str(seconds)))
                    p99s.append(p99)
                    if kind == name:
                        worst = max(worst, longest)
                        strikes += int(other.tell("rest")) - before
            alone, ordinary, during = (statistics.median(p99s) for p99s in windows.values())
            yield {
                "attack": name,
                "strikes_per_s": strikes / rounds / (seconds + WARM_UP_S),
                "server_us_per_strike": _cost_us(server, other, name, seconds),
                "p99_alone_us": alone,
                "p99_ordinary_us": ordinary,
                "p99_during_us": during,
                "longest_us": worst,
                "during_to_alone": during / alone,
                "during_to_ordinary": during / ordinary,
            }
    finally:
        for process in (valid, other, server):
            process.end()


HEADINGS = {
    "attack": "99th percentile of a valid client's call, µs",
    "strikes_per_s": "strikes/s",
    "server_us_per_strike": "CPU/strike",
    "p99_alone_us": "alone",
    "p99_ordinary_us": "ordinary",
    "p99_during_us": "during",
    "longest_us": "longest",
    "during_to_alone": "/alone",
    "during_to_ordinary": "/ordinary",
}


def line(row: Mapping[str, float | str]) -> str:
    """Return one line of the table."""
    cells = [f"{row['attack']:45}"]
    for key in [*HEADINGS][1:]:
        value = row[key]
        if not isinstance(value, str):
            value = f"{value:.2f}" if key.startswith("during_") else f"{value:,.0f}"
        cells.append(f"{value:>11}")
    return "".join(cells)


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=0.4, show_default=True, help="Length of a window.")
@click.option("--only", default="", help="Only attacks whose name contains this.")
@click.option("--part", default="1/1", help="The first of three parts of them: 1/3.")
@click.option("--open", "is_open", is_flag=True, help="Everybody is anonymous.")
@click.option("--json", "json_path", type=click.Path(), help="Also write the figures there.")
@click.option("--role", hidden=True, default="")
@click.argument("uri", default="")
def main(
    rounds: int,
    seconds: float,
    only: str,
    part: str,
    is_open: bool,
    json_path: str,
    role: str,
    uri: str,
) -> None:
    """Measure what bad inputs do to a valid client's waiting time."""
    if role in ("server", "open"):
        uvloop.run(_serve(role == "open"))
    elif role == "valid":
        _valid_client(uri)
    elif role == "other":
        host, _, port = uri.partition("@")[2].rpartition(":")
        _other((host, int(port)))
    else:
        found = []
        print(line(HEADINGS), flush=True)
        for row in measure(rounds, seconds, chosen(only, part), "open" if is_open else "server"):
            print(line(row), flush=True)
            found.append(row)
        if json_path:
            with open(json_path, "w") as file:
                json.dump(found, file, indent=2)


if __name__ == "__main__":
    main()
