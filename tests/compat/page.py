"""The page ``docs/compatibility.md``, made from the rows."""

from __future__ import annotations

import itertools

import tests.compat.rows  # noqa: F401  (adds the rows)
from tests.compat.table import DIRECTIONS, ROWS, SAME, Direction, Row

HEAD = """# Compatibility with Pyro5

<!-- Made by: python -m tests.compat --markdown > docs/compatibility.md -->

Every row is tried by a test in every direction that is marked; `python -m tests.compat` runs them
all and prints the table with what came of it. The clients are Pyro5's own `Proxy` (stock), ours
(`rmi_runtime.Proxy`) and the one for plain scripts (`rmi_runtime.SyncProxy`, sync); the servers are
Pyro5's own `Daemon` (stock), ours (`rmi_runtime.Daemon`) and the one that takes its place in
programs written for Pyro5 (`rmi_runtime.compat.Daemon`, dropin). The first column is the reference:
it shows that the expectations are those of Pyro5.

✓ it is as the row says · ≠ stock's other way, which is shown by a test as well · empty: there is no
such thing in this direction

"""

NOT_OFFERED = {
    "`daemon.events()`, `combine()`, `selector`: foreign event loops": (
        "`rmi_runtime.Daemon` lives on any asyncio loop"
    ),
    "`connected_socket=`: a socket pair without handshake": "a Unix domain socket",
    "`config.LOGWIRE`": "any network sniffer",
    "`PYRO_LOGLEVEL`, `PYRO_LOGFILE`": (
        "they set up Python's logging as before; what ours says is under `rmi_runtime`, and its "
        "warnings also appear without them"
    ),
    "`config.PREFER_IP_VERSION`": 'the address itself: `Daemon("::1")`',
    "`SOCK_NODELAY`, `SOCK_REUSE`, `POLLTIMEOUT`, `THREADPOOL_SIZE_MIN`": (
        "nothing: they have no effect; small messages never wait, ports may be used anew at once"
    ),
    "`Daemon.serveSimple`": "`serve`",
    "an `interface` class derived from `Pyro5.server.DaemonObject`": (
        "`rmi_runtime.compat.DaemonObject`"
    ),
    "`isinstance(daemon, Pyro5.server.Daemon)`": "`rmi_runtime.compat.Daemon`",
    "`transportServer`, `streaming_responses`, `handleRequest`, and methods of Pyro5's daemon "
    "whose names begin with an underscore (`_handshake`, `_getInstance`)": (
        "`rmi_runtime.Daemon.stats()`; `validateHandshake`, `clientDisconnect` and `annotations` "
        "may be overridden"
    ),
    "more connections than threads are refused": "some share a thread",
    "a reachable address without TLS and a check of who calls": (
        "`Daemon(host, insecure=True)`, or an overridden `validateHandshake`, and TLS"
    ),
    "messages of a gigabyte": (
        "64 MB, or `MAX_MESSAGE_SIZE` if it is set, and a million values in a request to the "
        "drop-in; 8 MB and 65,536 values in one to `rmi_runtime.Daemon`; 64 MB in its replies; "
        "16 KB of handshake data; `Daemon(limits=…)` sets other bounds"
    ),
    "any number of open item streams": (
        "256 of one connection, 1,024 in all; `Daemon(limits=…)` sets other bounds"
    ),
    "any number of faulty requests": (
        "50 a second from one address are answered at once, others wait (`faults_per_s`)"
    ),
    "changes of the configuration while a daemon runs": "it is read when the daemon is made",
    "changes at the name server by anybody (`pyro5-nsc register`, `serve` with `use_ns`)": (
        "with `rmi nameserver` the [cluster key](operations.md#more-than-one-name-server); "
        "`pyro5-ns` is as it was"
    ),
    "names of any form; look-around and back-references in `list(regex=…)`": (
        "at `rmi nameserver` 1 to 200 printable characters, and RE2"
    ),
    "look-up of the name server by broadcast, by our proxies of `PYRONAME:` and `PYROMETA:`": (
        "`NS_HOST` and `NS_PORT`, or several name servers by address; `locate_ns()` broadcasts, "
        "and `rmi nameserver` answers"
    ),
    "the correlation id of a call in the header of its reply (`_pyroRawWireResponse`)": (
        "a proxy knows the id that it sent"
    ),
    "`pyroInstances`, `objectId`, `keep_open`, `timeout` of a connection": (
        "`sock`, `tracked_resources`, `getpeercert()`, `family()`, `fileno()` are there"
    ),
}


def page() -> str:
    """Return the page as Markdown."""
    parts = [HEAD]
    for group, found in itertools.groupby(ROWS, lambda row: row.group):
        rows = list(found)
        parts.append(f"## {group[0].upper()}{group[1:]}\n\n")
        parts.append("| | " + " | ".join(map(str, DIRECTIONS)) + " | ours is |\n")
        parts.append("|---|" + ":-:|" * len(DIRECTIONS) + "---|\n")
        parts += [_line(row) for row in rows]
        parts.append("\n")
    parts.append("## Where ours differs, and why\n\n" + differences())
    parts.append("\n## Not offered\n\n| of Pyro5 | instead |\n|---|---|\n")
    parts += [f"| {what} | {instead} |\n" for what, instead in NOT_OFFERED.items()]
    return "".join(parts)


def differences() -> str:
    """Return the table of what is better or different, as Markdown."""
    rows = [row for row in ROWS if row.verdict != SAME]
    lines = [f"| {row.name} | {row.verdict} | {row.why} |\n" for row in rows]
    return "".join(["| | ours is | why |\n|---|---|---|\n", *lines])


def _mark(row: Row, direction: Direction) -> str:
    if row.check_for(direction) is None:
        return ""
    return "≠" if row.is_stocks_way(direction) else "✓"


def _line(row: Row) -> str:
    marks = " | ".join(_mark(row, direction) for direction in DIRECTIONS)
    return f"| {row.name} | {marks} | {row.verdict} |\n"
