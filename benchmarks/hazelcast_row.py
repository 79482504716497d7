"""HTTP messages on the Hazelcast store, beside a bare client's ``set`` on the same members."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from typing import TYPE_CHECKING

from benchmarks.bare_hazelcast import IN_FLIGHT, BareClientProcess
from benchmarks.our_system import has_wrk, our_system, wrk
from benchmarks.rows import alternate
from rmi_msg.hazelcast.addresses import ports_taken

if TYPE_CHECKING:
    from benchmarks.run import Run

CLUSTER = "rmi-bench"
MEMBERS = 3


def measure_hazelcast(run: Run) -> None:
    """Measure the row ``hazelcast``."""
    needed = {
        "wrk (apt-get install wrk)": has_wrk(),
        "Java 17 (apt-get install openjdk-17-jre-headless)": shutil.which("java") is not None,
        "Maven (apt-get install maven)": shutil.which("mvn") is not None,
        "its client (pip install '.[hazelcast]')": bool(importlib.util.find_spec("hazelcast")),
    }
    absent = [name for name, found in needed.items() if not found]
    if absent:
        run.missing(f"needs {', '.join(absent)}", "hazelcast")
        return
    first = _free_ports()
    members = [f"127.0.0.1:{first + number}" for number in range(MEMBERS)]
    options = ["--store", "hazelcast", "--hazelcast-port", str(first)]
    options += ["--hazelcast-cluster", CLUSTER]
    with (
        our_system(run.directory / "hazelcast", options) as ours,
        BareClientProcess(CLUSTER, members) as bare,
    ):

        def messages() -> float:
            return wrk(ours.url, "messages", connections=IN_FLIGHT, seconds=run.seconds).per_s

        messages()
        alternate(
            run.rounds,
            {"messages": messages, "bare": lambda: bare.run(run.seconds)},
            [(run.rows["hazelcast"], "messages", "bare")],
        )
        run.memory["Hazelcast store"] = ours.rss_mb()


def _free_ports() -> int:
    """Return the first of free ports for the members."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            first: int = probe.getsockname()[1]
        if first > 60_000:
            continue
        try:
            for port in ports_taken(first, MEMBERS):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
