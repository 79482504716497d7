"""Import this first: a script started with a Python that lacks what it needs changes to ``.venv``.

So ``python clients/bank_client.py`` works in a fresh shell once ``make run`` or ``make setup`` has
made the environment, whether or not it has been activated.
"""

import importlib.util
import os
import signal
import sys
from pathlib import Path

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Loading takes half a second: until the script runs, Ctrl-C ends it without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

_root = Path(__file__).resolve().parent.parent
_python = _root / ".venv" / "bin" / "python"

if importlib.util.find_spec("rmi_runtime") is None or importlib.util.find_spec("httpx") is None:
    if not _python.exists() or Path(sys.prefix) == _root / ".venv":
        sys.exit("error: the Python packages this script needs are missing: run `make setup` first")
    os.execv(_python, [str(_python), *sys.argv])  # noqa: S606
