"""The scripts in clients/ say in a line what is wrong with what they were told or answered."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_ports

SCRIPTS = Path(__file__).resolve().parents[3] / "clients"
READERS = ("bank_client.py", "getrequest.py")


class _Canned(http.server.BaseHTTPRequestHandler):
    """Answers everything as its path begins: ``/200/hello/…`` with status 200 and ``hello``."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urllib.parse.unquote(self.path.partition("?")[0])
        _, status, text, *_ = path.split("/")
        self.send_response(int(status))
        if text == "squeezed":
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    """A server that is no gateway."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Canned) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "demo-tokens.json").write_text('[{"client": 1, "token": "secret"}]')
    return tmp_path


def run(script: str, *options: str | bytes, data_dir: Path | None = None, line: int = -1) -> str:
    """Run a script that must give up; return what it said: its last line, or another."""
    command: list[str | bytes] = [sys.executable, str(SCRIPTS / script), *options]
    if data_dir is not None and script not in ("getrequest.py", "postrequest.py"):
        command += ["--data-dir", str(data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[line]


@pytest.mark.parametrize("script", [*READERS, "postrequest.py"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_gateway_on_this_machine_is_asked_without_a_proxy(
    script: str, proxy: str, stranger: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    said = run(script, "--url", f"{stranger}/500/broken/", data_dir=data_dir)
    assert "500" in said or "were not accepted" in said


@pytest.mark.parametrize("script", READERS)
@pytest.mark.parametrize("answer", ["hello", "{}", "5", "[[5],5]"])
def test_an_answer_that_is_not_the_gateways_is_told(
    script: str, answer: str, stranger: str, data_dir: Path
) -> None:
    said = run(script, "--url", f"{stranger}/200/{answer}", data_dir=data_dir)
    assert "not the gateway's" in said
    assert answer in said


def test_an_answer_that_cannot_be_unpacked_is_none(stranger: str, data_dir: Path) -> None:
    url = f"{stranger}/200/squeezed"
    said = run("bank_client.py", "--url", url, "--patience-s", "0.2", data_dir=data_dir)
    assert stranger in said
    assert "decompressing" in said


def test_a_bank_client_that_waits_for_a_bank_says_so_at_once(stranger: str, data_dir: Path) -> None:
    url = f"{stranger}/503/away/"
    said = run("bank_client.py", "--url", url, "--patience-s", "0.5", data_dir=data_dir, line=0)
    assert f"no answer from {url} yet (away); trying for 0.5 s" in said


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "\\xe9"), ("utf-8", "é")])
def test_messages_are_shown_on_a_terminal_that_lacks_their_signs(
    stranger: str, encoding: str, shown: str
) -> None:
    answer = urllib.parse.quote('[[["1", "\\u00e9"]], []]')
    command = [sys.executable, str(SCRIPTS / "getrequest.py"), "--url", f"{stranger}/200/{answer}"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done
    assert f"('1', '{shown}')" in done.stdout.decode(encoding)


def test_bytes_that_are_no_text_are_wrong_use(stranger: str) -> None:
    assert "expected text" in run("getrequest.py", "--url", f"{stranger}/200/", "--msg", b"\xff")


def test_a_message_that_is_not_accepted_is_a_failure(stranger: str) -> None:
    said = run("postrequest.py", "--url", f"{stranger}/599/no", "--count", "2")
    assert said == "error: 2 of 2 messages were not accepted, see above"


@pytest.mark.parametrize("script", [*READERS, "postrequest.py"])
@pytest.mark.parametrize(
    "url", ["localhost:8080", "http://127.0.0.1:99999", "http://a..b", "ftp://x"]
)
def test_what_cannot_be_an_address_is_wrong_use(script: str, url: str, data_dir: Path) -> None:
    said = run(script, "--url", url, data_dir=data_dir)
    assert "'--url'" in said
    assert url in said


@pytest.mark.parametrize("accounts", ["1-99999999999999999999", "5", "1-x", "1-10000000"])
def test_what_cannot_be_accounts_is_wrong_use(accounts: str, data_dir: Path) -> None:
    assert "'--accounts'" in run("bank_client.py", "--accounts", accounts, data_dir=data_dir)


@pytest.mark.parametrize("tokens", [[], [{"client": 1, "token": "\n"}], [{"client": 1e400}]])
@pytest.mark.parametrize("script", ["bank_client.py", "proxy_scripting.py"])
def test_a_file_without_tokens_is_named(script: str, tokens: object, data_dir: Path) -> None:
    path = data_dir / "demo-tokens.json"
    path.write_text(json.dumps(tokens))
    assert str(path) in run(script, data_dir=data_dir)


@pytest.mark.parametrize("token", ["", "\n", "sécret"])
def test_a_token_that_cannot_be_sent_is_told_with_its_client(token: str, data_dir: Path) -> None:
    tokens = [{"client": 1, "token": "good"}, {"client": 2, "token": token}]
    (data_dir / "demo-tokens.json").write_text(json.dumps(tokens))
    assert "the token of client 2 is none: expected" in run("bank_client.py", data_dir=data_dir)


@pytest.mark.parametrize("script", [*READERS, "postrequest.py"])
def test_a_gateway_that_is_not_there_is_named_with_its_option(script: str, data_dir: Path) -> None:
    url = f"http://127.0.0.1:{free_ports()}"
    patience = ("--patience-s", "0.1") if script == "bank_client.py" else ()
    command = (script, "--url", url, *patience)
    for line in (0, -1):  # what it says at once, and in the end
        said = run(*command, data_dir=data_dir, line=line)
        assert url in said
        assert "--url" in said


@pytest.mark.parametrize("script", [*READERS, "postrequest.py", "proxy_scripting.py"])
def test_every_option_explains_itself(script: str) -> None:
    command = [sys.executable, "-c", OPTIONS_WITHOUT_HELP, str(SCRIPTS), script.removesuffix(".py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_a_name_server_that_is_not_there_is_named_with_its_option(data_dir: Path) -> None:
    location = f"127.0.0.1:{free_ports()}"
    said = run("proxy_scripting.py", "--ns", location, data_dir=data_dir)
    assert f"its name server at {location} (--ns)" in said


def test_an_entry_without_a_token_is_told_what_it_lacks(data_dir: Path) -> None:
    (data_dir / "demo-tokens.json").write_text('[{"client": 1}]')
    assert "an entry has no 'token': expected" in run("bank_client.py", data_dir=data_dir)


OPTIONS_WITHOUT_HELP = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
options = importlib.import_module(sys.argv[2]).main.params
print([option.name for option in options if not option.help])
"""

SECOND_PAGE = """
import sys
sys.path.insert(0, sys.argv[1])
import proxy_scripting
class Facade:
    def page(self, after, limit):
        text = "later" if after else "first"
        return {"messages": [{"id": text, "text": text}], "next": None if after else "there"}
print(proxy_scripting.read_back(Facade(), "later"))
"""


def test_a_posted_message_is_read_back_from_whichever_page_it_is_on() -> None:
    command = [sys.executable, "-c", SECOND_PAGE, str(SCRIPTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "later\n"


INTERRUPTED_WHILE_IT_LOADS = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where it is ignored
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.path.insert(0, os.path.dirname(sys.argv[1]))
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.mark.parametrize("script", [*READERS, "postrequest.py", "proxy_scripting.py"])
def test_ctrl_c_while_it_is_loaded_ends_it_quietly(script: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED_WHILE_IT_LOADS, str(SCRIPTS / script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_an_output_that_cannot_be_written_is_told(stranger: str) -> None:
    command = [sys.executable, str(SCRIPTS / "postrequest.py"), "--url", f"{stranger}/200/yes"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*command, "--count", "1"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    assert done.returncode == 2
    assert done.stderr == "error: the output cannot be written: No space left on device\n"
