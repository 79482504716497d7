"""How the scripts in clients/ end: by Ctrl-C, with nobody to read them, and after failures."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "clients"

INTERRUPTIBLE = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where it is ignored
script = sys.argv[1]
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(script))
runpy.run_path(script, run_name="__main__")
"""


class _Bank(http.server.BaseHTTPRequestHandler):
    """Has 100 in every account, and fails with everything that would change it.

    Asked for ``/hang…``, it tells so, and does not answer before it is closed.
    """

    hung: threading.Event
    closing: threading.Event

    def do_GET(self) -> None:
        if self.path.startswith("/hang"):
            self.hung.set()
            self.closing.wait(60)
            return
        self._answer(200, b'{"balance": 100}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(200 if self.path == "/" else 500, b"{}")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def bank() -> Iterator[str]:
    _Bank.hung, _Bank.closing = threading.Event(), threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Bank) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        _Bank.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "demo-tokens.json").write_text('[{"client": 1, "token": "secret"}]')
    return tmp_path


def test_a_bank_that_fails_is_not_taken_for_one_that_answered(bank: str, data_dir: Path) -> None:
    options = ["--requests", "40", "--fake-every", "0", "--seed", "7", "--json"]
    options += ["--data-dir", str(data_dir)]
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "bank_client.py"), "--url", bank, *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    report = json.loads(done.stdout)
    posts = 40 - report["statuses"]["balance 200"]
    assert report["failed"] == posts > 0
    assert report["books"]["balanced"]  # by luck, as nothing happened
    assert not report["ok"]
    assert done.returncode == 1


@pytest.mark.parametrize("script", ["bank_client.py", "getrequest.py"])
def test_ctrl_c_ends_a_script_in_a_word(script: str, bank: str, data_dir: Path) -> None:
    options = ["--url", f"{bank}/hang"]
    if script == "bank_client.py":
        options += ["--data-dir", str(data_dir)]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, str(SCRIPTS / script), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert _Bank.hung.wait(30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, "", "interrupted")


def test_an_output_that_nobody_reads_ends_a_script_quietly(bank: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "postrequest.py"), "--url", bank, "--count", "1"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("script", "option"),
    [
        ("bank_client.py", "--requests"),
        ("bank_client.py", "--concurrency"),
        ("bank_client.py", "--patience-s"),
        ("postrequest.py", "--count"),
    ],
)
def test_what_is_no_number_is_told_with_what_was_expected(script: str, option: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), option, "many"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert f"'{option}': expected a " in done.stderr
    assert "not 'many'" in done.stderr
