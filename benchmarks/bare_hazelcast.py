"""A bare asyncio Hazelcast client: ``set`` into a map, 128 calls under way.

``python -m benchmarks.bare_hazelcast CLUSTER MEMBER...`` prints ``ready``; for each line that tells
for how many seconds to run it runs, and prints how many calls it made per second.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

import uvloop

from benchmarks.helpers import start_helper

IN_FLIGHT = 128
MAP = "benchmark"


async def _serve(cluster: str, members: Sequence[str]) -> None:
    from hazelcast.asyncio import HazelcastClient

    client = await HazelcastClient.create_and_start(
        cluster_name=cluster, cluster_members=list(members)
    )
    entries = await client.get_map(MAP)
    count = 0

    async def keep_setting(until_s: float) -> None:
        nonlocal count
        while time.perf_counter() < until_s:
            count += 1
            await entries.set(f"{count:032x}", f"{count:016x} says hello to the loggers")

    await keep_setting(time.perf_counter() + 0.5)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        before, began_s = count, time.perf_counter()
        until_s = began_s + float(line)
        await asyncio.gather(*[keep_setting(until_s) for _ in range(IN_FLIGHT)])
        print((count - before) / (time.perf_counter() - began_s), flush=True)
        await entries.clear()
    await client.shutdown()


class BareClientProcess:
    """Such a client in a process of its own.

    Args:
        cluster: name of the cluster.
        members: ``host:port`` of its members.
    """

    def __init__(self, cluster: str, members: Sequence[str]) -> None:
        self._process = start_helper("benchmarks.bare_hazelcast", cluster, *members)
        try:
            if self._line() != "ready":
                raise RuntimeError("the bare client did not get ready")
        except BaseException:
            self._process.kill()
            raise

    def __enter__(self) -> BareClientProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # nobody waits for what it measures
            self._process.kill()
        self._process.communicate()

    def run(self, seconds: float) -> float:
        """Let it run; return its calls per second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the bare client ended early")
        return line.strip()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], sys.argv[2:]))
