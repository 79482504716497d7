"""Bodies of the processes that tests start: ``python -m tests.integration.msg.process …``.

``service KIND NUMBER DATA_DIR NAME_SERVER`` runs one service; ``writer NUMBER DATA_DIR`` puts
messages of its own, and some that all writers put, into the store.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

from rmi_msg import run_facade, run_logger, run_messages
from rmi_msg.stores.opening import open_stores
from rmi_runtime import Settings

BATCHES = 60
OWN, SHARED = 8, 2
"""Messages per batch that only one writer puts, and that all of them put."""

RUN = {"facade": run_facade, "logger": run_logger, "messages": run_messages}


async def write(number: int, data_dir: Path) -> Counter[str]:
    """Put batches as fast as the store takes them; return how often each word was the answer."""
    words: Counter[str] = Counter()
    async with open_stores(Settings(data_dir=data_dir)) as stores:
        for batch in range(BATCHES):
            pairs = [(f"{number}.{batch}.{n}", f"own {n}") for n in range(OWN)]
            pairs += [(f"shared.{batch}.{n}", f"shared {n}") for n in range(SHARED)]
            words.update(await stores.messages.put_many(pairs, f"msg.logger.{number}"))
    return words


def main(arguments: list[str]) -> None:
    """Run what the arguments say."""
    if arguments[0] == "writer":
        print(json.dumps(asyncio.run(write(int(arguments[1]), Path(arguments[2])))))
        return
    _, kind, number, data_dir, name_server = arguments
    settings = Settings(data_dir=Path(data_dir), ns=(name_server,))
    asyncio.run(RUN[kind](settings, int(number)))


if __name__ == "__main__":
    main(sys.argv[1:])
