"""What the client scripts share: where the system is, and the demonstration's tokens."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NoReturn

DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_NAME_SERVER = "127.0.0.1:9090"


def give_up(why: str) -> NoReturn:
    """End the script with one line on standard error and exit status 2."""
    print(f"error: {why}", file=sys.stderr)
    raise SystemExit(2)


def demo_tokens(data_dir: Path) -> dict[int, str]:
    """Return the demonstration clients' tokens.

    Args:
        data_dir: the data directory of a system started with ``--demo`` (``make run`` does).

    Returns:
        Client number to token, in order of the numbers.
    """
    path = data_dir / "demo-tokens.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {int(entry["client"]): str(entry["token"]) for entry in entries}
    except FileNotFoundError:
        give_up(f"{path} is not there: start the system with `make run` first, or give --data-dir")
    except (OSError, ValueError, KeyError, TypeError) as error:
        give_up(f"{path} cannot be read as a list of client and token: {error}")
