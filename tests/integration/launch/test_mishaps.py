"""What goes wrong around the system is told in a line, never in a traceback."""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.launch.running import RMI, Up, rmi, up
from tests.support import sync_eventually

UP = [*RMI, "up", "--demo", "--http", "127.0.0.1:0", "--ns", "127.0.0.1:0"]


def ended(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("name", ["cluster.key", "log/bank.data.log"])
def test_a_directory_where_a_file_should_be_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    tmp_path.chmod(0o700)
    done = ended([*UP, "--data-dir", str(tmp_path)])
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert f"{tmp_path / name}: Is a directory; " in done.stdout.splitlines()[-1]


def test_last_words_are_those_of_the_last_start(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir(mode=0o700)
    (tmp_path / "log" / "Pyro.NameServer.out").write_text("words of an earlier start\n")
    (tmp_path / "cluster.key").mkdir()
    done = ended([*UP, "--data-dir", str(tmp_path)])
    assert "Is a directory" in done.stdout
    assert "earlier start" not in done.stdout


def limited(which: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(which, (value, value))


@pytest.mark.parametrize(
    ("which", "value", "words"),
    [
        (resource.RLIMIT_NOFILE, 10, "ulimit -n"),
        (resource.RLIMIT_FSIZE, 20_480, "ulimit"),
    ],
)
def test_a_limit_that_is_too_low_is_named(
    tmp_path: Path, which: int, value: int, words: str
) -> None:
    done = ended([*UP, "--data-dir", str(tmp_path)], preexec_fn=limited(which, value))
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert words in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("mebibytes", range(32, 53, 4))
def test_too_little_memory_to_load_it_is_one_line_and_not_a_traceback(mebibytes: int) -> None:
    done = ended(
        [*RMI, "account", "list", "--data-dir", "nowhere"],
        preexec_fn=limited(resource.RLIMIT_AS, mebibytes * 1024 * 1024),
    )
    assert done.stdout.startswith("rmi: ")
    assert done.stdout.count("\n") == 1
    assert "ulimit -v" in done.stdout or done.returncode == 3


NO_ROOM_FOR_A_THREAD = """
import asyncio, resource, sys, threading
from rmi_launch.failures import run
async def work():
    await asyncio.to_thread(int)
threading.stack_size(64 * 1024 * 1024)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 24 * 1024 * 1024,) * 2)
sys.exit(run(lambda: asyncio.run(work())))
"""


def test_too_little_memory_for_a_thread_is_said_by_the_command_that_wants_one() -> None:
    done = ended([sys.executable, "-P", "-c", NO_ROOM_FOR_A_THREAD])
    assert done.returncode == 1
    assert done.stdout.startswith("rmi: no thread can be started")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("given", ["--data-dir", "--config"])
def test_a_path_that_the_locale_has_no_signs_for_is_refused_for_that_reason(
    tmp_path: Path, given: str
) -> None:
    (tmp_path / "rmi.toml").write_text('data_dir = "där"\n', encoding="utf-8")
    value = str(tmp_path / ("där" if given == "--data-dir" else "rmi.toml"))
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = ended([*RMI, "config", given, value], env=os.environ | plain)
    assert done.returncode == 2
    assert "Python takes the names of files for ascii here; set LC_ALL=C.UTF-8" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_variable_that_pyro_does_not_know_is_wrong_use() -> None:
    done = ended([*RMI, "status"], env=os.environ | {"PYRO_NONSENSE": "1"})
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        "rmi: environment: invalid Pyro environment config variable: PYRO_NONSENSE; "
        "correct it, or unset that variable"
    ]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PYRO_LOGLEVEL": "debug"}, "PYRO_LOGLEVEL is 'debug', and not one of CRITICAL, "),
        ({"PYRO_LOGLEVEL": "nonsense"}, "PYRO_LOGLEVEL is 'nonsense', and not one of CRITICAL, "),
        ({"PYRO_LOGLEVEL": "INFO", "PYRO_LOGFILE": "/nowhere/x"}, "PYRO_LOGFILE: "),
    ],
)
def test_a_log_that_pyro_cannot_write_is_wrong_use(variables: dict[str, str], words: str) -> None:
    done = ended([*RMI, "status"], env=os.environ | variables)
    assert done.returncode == 2
    assert done.stdout.startswith(f"rmi: environment: {words}")
    assert done.stdout.count("\n") == 1


INTERRUPTED_WHILE_IT_LOADS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where it is ignored
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from rmi_launch.cli import main
main()
"""


def test_ctrl_c_while_it_is_loaded_ends_it_quietly() -> None:
    done = ended([sys.executable, "-P", "-c", INTERRUPTED_WHILE_IT_LOADS, "status"])
    assert (done.returncode, done.stdout) == (130, "")


def test_it_runs_without_stdin_stdout_and_stderr(tmp_path: Path) -> None:
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *UP, "--data-dir", str(tmp_path)]
    )
    try:
        sync_eventually((tmp_path / "running.json").exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def ended_with(out_fd: int, error_fd: int, *arguments: str) -> tuple[int, str]:
    """Return how a command ends whose output and errors go there, and its errors if to a pipe."""
    done = subprocess.run(
        [*RMI, *arguments], stdout=out_fd, stderr=error_fd, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", [["config"], ["config", "--json"], ["--help"]])
def test_an_output_whose_disk_is_full_is_told_to_be_that(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        code, said = ended_with(full.fileno(), subprocess.PIPE, *arguments)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith("rmi: stdout cannot be written: No space left on device; make room")


@pytest.mark.parametrize("arguments", [["config"], ["config", "--json"], ["--help"]])
def test_a_command_whose_reader_has_gone_ends_as_others_do_and_in_silence(
    arguments: list[str],
) -> None:
    unread_fd, printed_fd = os.pipe()
    os.close(unread_fd)
    try:
        assert ended_with(printed_fd, subprocess.PIPE, *arguments) == (128 + signal.SIGPIPE, "")
    finally:
        os.close(printed_fd)


def test_an_error_that_cannot_be_told_has_its_exit_code_all_the_same(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        nowhere = str(tmp_path / "nowhere")
        code, _ = ended_with(
            subprocess.DEVNULL, full.fileno(), "account", "list", "--data-dir", nowhere
        )
    assert code == 3


def started_again(system: Up) -> bool:
    """Kill a service; say whether it comes back."""
    killed = system.service("bank.business.1")["pid"]
    os.kill(killed, signal.SIGKILL)

    def back() -> bool:
        service = system.service("bank.business.1")
        return service["state"] == "ready" and service["pid"] != killed

    sync_eventually(back)
    return True


def test_services_are_started_again_when_nothing_can_be_printed_any_more(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        process = subprocess.Popen([*UP, "--data-dir", str(tmp_path)], stdout=full, text=True)
    try:
        sync_eventually((tmp_path / "running.json").exists)
        assert started_again(Up(process, tmp_path))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert not (tmp_path / "running.json").exists()
    finally:
        process.kill()
        process.wait()


def fill(pipe_fd: int) -> None:
    """Write into a pipe that nobody reads until it takes no more."""
    room = select.poll()
    room.register(pipe_fd, select.POLLOUT)
    while room.poll(0):
        os.write(pipe_fd, bytes(4096))


def test_services_are_started_again_and_stopped_while_nobody_reads_what_is_printed(
    tmp_path: Path,
) -> None:
    unread_fd, printed_fd = os.pipe()
    process = subprocess.Popen([*UP, "--data-dir", str(tmp_path)], stdout=printed_fd)
    try:
        sync_eventually((tmp_path / "running.json").exists)
        fill(printed_fd)
        assert started_again(Up(process, tmp_path))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert not (tmp_path / "running.json").exists()
    finally:
        process.kill()
        process.wait()
        os.close(unread_fd)
        os.close(printed_fd)


def test_under_nohup_it_outlives_the_terminal(tmp_path: Path) -> None:
    with up(tmp_path, before=["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh"]) as system:
        system.until("ready:")
        system.process.send_signal(signal.SIGHUP)
        assert started_again(system)
        system.process.send_signal(signal.SIGINT)
        assert system.process.wait(30) == 0


def test_a_deleted_current_directory_is_named_and_no_matter_if_none_is_needed(
    tmp_path: Path,
) -> None:
    gone = ["/bin/sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "sh"]
    done = ended([*gone, *UP], cwd=tmp_path)
    assert done.returncode == 1
    assert "rmi: the current directory: No such file or directory" in done.stdout
    with up(tmp_path / "data", before=gone, cwd=tmp_path) as system:
        system.until("ready:")
        system.process.send_signal(signal.SIGINT)
        assert system.process.wait(30) == 0


def test_what_the_encoding_of_stdout_lacks_is_told_all_the_same() -> None:
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = ended([*RMI, "config", "--data-dir", "d\xe4ta"], env=env)
    assert done.returncode == 0, done.stdout
    assert r"d\xe4ta" in done.stdout


@pytest.mark.parametrize("name", ["COLUMNS", "LINES"])
@pytest.mark.parametrize("size", ["0", "\u00b2", "9" * 5000])
def test_a_terminal_whose_size_is_said_to_be_none_is_told_all_the_same(
    name: str, size: str
) -> None:
    done = ended([*RMI, "config"], env=os.environ | {name: size})
    assert done.returncode == 0, done.stdout
    assert "data_dir" in done.stdout


def test_what_the_c_locale_lacks_is_told_all_the_same(tmp_path: Path) -> None:
    names = 'tls_cert = "d\xe4ta"\ntls_key = "key"\ntls_ca = "ca"\n'
    (tmp_path / "rmi.toml").write_text(names, encoding="utf-8")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [*RMI, "config", "--config", str(tmp_path / "rmi.toml")]
    done = ended(command, env=os.environ | plain)
    assert done.returncode == 0, done.stdout
    assert r"d\xe4ta" in done.stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["nameserver", "--ns", "ADDRESS"], "cannot listen on ADDRESS: Address already in use"),
        (["gateway", "--http", "ADDRESS"], "cannot listen for HTTP on ADDRESS"),
        (
            ["business", "--id", "1", "--host", "192.0.2.1", "--insecure", "--ns", "192.0.2.2:1"],
            "cannot listen on 192.0.2.1: ",
        ),
    ],
)
def test_an_address_that_cannot_be_used_is_named_and_a_failure(
    tmp_path: Path, command: list[str], words: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [word.replace("ADDRESS", address) for word in command]
        done = rmi(*command, data_dir=tmp_path)
    assert done.returncode == 1
    assert words.replace("ADDRESS", address) in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["token", "create", "--client", "1", "--expires-s", "9" * 11], "--expires-s"),
        (["token", "revoke", "9" * 20], "TOKEN_ID"),
        (["account", "list", "--after", "9" * 20], "--after"),
    ],
)
def test_a_number_that_is_too_large_is_wrong_use(
    command: list[str], named: str, tmp_path: Path
) -> None:
    done = rmi(*command, data_dir=tmp_path)
    assert done.returncode == 2
    assert named in done.stderr


def test_the_settings_file_may_have_a_byte_order_mark_but_not_an_empty_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rmi.toml"
    path.write_text("business = 7\n", encoding="utf-8-sig")
    done = ended([*RMI, "config", "--json", "--config", str(path)])
    assert done.returncode == 0, done.stdout
    assert "7" in done.stdout
    done = ended([*RMI, "config", "--config", ""])
    assert done.returncode == 2
    assert "--config: the name of the file is empty" in done.stdout


def test_a_lost_ledger_is_not_begun_anew_and_its_directory_may_be_deleted_under_it(
    tmp_path: Path,
) -> None:
    data_dir = tmp_path / "data"
    with up(data_dir, "--demo") as system:
        system.until("ready:")
        running = system.running()
        ns, url = running["ns"][0], f"http://{running['http']}"
        (data_dir / "demo-tokens.json").unlink()
        shutil.copytree(data_dir, tmp_path / "left")
        assert httpx.get(f"{url}/readyz").status_code == 200
        shutil.rmtree(data_dir)
        problem: dict[str, Any] = {}

        def unready() -> bool:
            problem.update(httpx.get(f"{url}/readyz").json())
            return len(problem.get("reasons", ())) == 2

        sync_eventually(unready)
        for what, reason in zip(("data object", "logger"), problem["reasons"], strict=True):
            assert f"no {what} of " in reason
            assert "can do its work: its store cannot be used" in reason
        assert str(tmp_path) not in json.dumps(problem)  # open to anybody
        asked = ended([*RMI, "status", "--json", "--data-dir", str(data_dir), "--ns", ns])
        assert asked.returncode == 0, asked.stdout
        note, _, rows = asked.stdout.partition("\n")
        assert "without their cluster key" in note
        assert ("bank.data", "refuses") in [(row["name"], row["state"]) for row in json.loads(rows)]
        system.process.send_signal(signal.SIGINT)
        system.process.wait(30)
    left = tmp_path / "left"
    log = (left / "bank.sqlite-wal").read_bytes()
    (left / "bank.sqlite-wal").unlink()
    with up(left, "--demo") as system:
        assert "bank.id" in system.until("bank.data: ")
        assert system.process.wait(30) == 1
    assert not (left / "demo-tokens.json").exists()
    (left / "bank.sqlite-wal").write_bytes(log)
    with up(left, "--demo") as system:
        system.until("ready:")
        assert not any("account create" in line for line in system.lines)
        system.process.send_signal(signal.SIGINT)
        assert system.process.wait(30) == 0
