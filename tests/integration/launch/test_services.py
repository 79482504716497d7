"""One service each, by hand, against a stock pyro5-ns."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import Pyro5.api
import pytest

from rmi_runtime import split_address
from tests.ports import free_ports

RMI = [sys.executable, "-P", "-c", "from rmi_launch.cli import main; main()"]


@contextlib.contextmanager
def started(command: list[str], first_words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a program; yield it and the rest of its first line that begins with *first_words*."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            seen = []
            for line in process.stdout:
                seen.append(line)
                if line.startswith(first_words):
                    yield process, line.removeprefix(first_words).strip()
                    return
            raise AssertionError(f"no line {first_words!r} in:\n" + "".join(seen))
        finally:
            process.kill()


@pytest.fixture
def stock_ns() -> Iterator[str]:
    """A stock name server; its address."""
    port = free_ports()
    command = [sys.executable, "-m", "Pyro5.nameserver", "-n", "127.0.0.1", "-p", str(port), "-x"]
    with started(command, "URI = ") as (_, uri):
        assert uri.endswith(f":{port}")
        yield f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["data"], "bank.data"),
        (["business", "--id", "7"], "bank.business.7"),
        (["facade"], "msg.facade.1"),
        (["logger", "--id", "2"], "msg.logger.2"),
        (["messages", "--id", "3"], "msg.messages.3"),
    ],
)
def test_a_service_is_found_through_a_stock_name_server_until_it_stops(
    command: list[str], name: str, stock_ns: str, tmp_path: Path
) -> None:
    where = ["--ns", stock_ns, "--data-dir", str(tmp_path)]
    host, port = stock_ns.split(":")
    with (
        started([*RMI, *command, *where], f"{name} ready at ") as (process, address),
        Pyro5.api.locate_ns(host, int(port)) as names,
    ):
        uri, tags = names.lookup(name, return_metadata=True)
        assert uri.location == address
        assert {"rmi", f"rmi.{name.split('.')[1]}"} <= set(tags)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert name not in names.list()


def test_a_service_whose_terminal_is_closed_leaves_in_order(stock_ns: str, tmp_path: Path) -> None:
    command = [*RMI, "facade", "--ns", stock_ns, "--data-dir", str(tmp_path)]
    with started(command, "msg.facade.1 ready at ") as (process, _):
        process.send_signal(signal.SIGHUP)
        assert process.wait(20) == 0
        host, port = split_address(stock_ns)
        with Pyro5.api.locate_ns(host, port) as names:
            assert "msg.facade.1" not in names.list()


def test_our_own_name_server_by_hand_serves_stock_clients(tmp_path: Path) -> None:
    command = [*RMI, "nameserver", "--ns", "127.0.0.1:0", "--data-dir", str(tmp_path)]
    with started(command, "Pyro.NameServer ready at ") as (process, address):
        host, port = address.split(":")
        with Pyro5.api.locate_ns(host, int(port)) as names:
            assert "Pyro.NameServer" in names.list()
        process.terminate()
        assert process.wait(20) == 0


def test_the_gateway_by_hand_serves_http_without_any_service(stock_ns: str, tmp_path: Path) -> None:
    command = [*RMI, "gateway", "--ns", stock_ns, "--http", "127.0.0.1:0"]
    command += ["--data-dir", str(tmp_path)]
    with started(command, "gateway ready at ") as (process, address):
        where = ["--ns", stock_ns, "--http", address, "--data-dir", str(tmp_path)]
        done = subprocess.run(
            [*RMI, "status", "--json", *where],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)
        assert (row["name"], row["state"], row["pid"]) == ("gateway", "ready", process.pid)


def test_a_name_server_that_knows_no_service_is_not_said_to_be_absent(
    stock_ns: str, tmp_path: Path
) -> None:
    where = ["--ns", stock_ns, "--http", "127.0.0.1:1", "--data-dir", str(tmp_path)]
    done = subprocess.run(
        [*RMI, "status", *where], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 3
    assert f"no service answers that the name server at {stock_ns} knows" in done.stderr
    assert "no gateway at 127.0.0.1:1" in done.stderr


def test_a_service_without_a_name_server_says_what_it_waits_for(tmp_path: Path) -> None:
    command = [*RMI, "logger", "--id", "1", "--ns", "127.0.0.1:1", "--data-dir", str(tmp_path)]
    with started(command, "msg.logger.1 waits for a name server at ") as (process, rest):
        assert rest == "127.0.0.1:1; is one running?"
        process.terminate()
        assert process.wait(20) == 0


def test_a_service_whose_store_is_held_up_does_not_put_it_on_the_name_server(
    stock_ns: str, tmp_path: Path
) -> None:
    command = [*RMI, "logger", "--id", "1", "--ns", stock_ns, "--data-dir", str(tmp_path)]
    with open(tmp_path / "messages.sqlite.turn", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        with started(command, "msg.logger.1 ") as (process, rest):
            assert rest == (
                f"is not ready, though a name server answers at {stock_ns}: its store may take long"
            )
            process.terminate()
            assert process.wait(20) == 0


@pytest.mark.parametrize("out", ["/dev/full", "a pipe that nobody reads"])
def test_a_service_that_cannot_say_that_it_is_ready_serves_without_a_traceback(
    out: str, tmp_path: Path
) -> None:
    if out.startswith("/"):
        out_fd = os.open(out, os.O_WRONLY)
    else:
        unread_fd, out_fd = os.pipe()
        os.close(unread_fd)
    command = [*RMI, "nameserver", "--ns", "127.0.0.1:0", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=out_fd, stderr=subprocess.PIPE, text=True) as process:
        os.close(out_fd)
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            address = said.rpartition(" is ready at ")[2].strip()
            host, port = split_address(address)
            with Pyro5.api.locate_ns(host, port) as names:
                assert "Pyro.NameServer" in names.list()
            process.terminate()
            said += process.stderr.read()
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert "Traceback" not in said


def test_a_taken_port_is_one_line_and_not_a_traceback(stock_ns: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*RMI, "nameserver", "--ns", stock_ns, "--data-dir", str(tmp_path), "--log-level", "ERROR"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "in use" in line


def test_the_gateway_on_ipv6_tells_an_address_that_can_be_used(tmp_path: Path) -> None:
    command = [*RMI, "gateway", "--ns", "127.0.0.1:1", "--http", "[::1]:0"]
    with started([*command, "--data-dir", str(tmp_path)], "gateway ready at ") as (_, address):
        host, port = split_address(address)
        assert (host, int(port) > 0) == ("::1", True)


@pytest.mark.parametrize(
    "module",
    [
        *(f"rmi_bank.{name}" for name in ("business", "data", "nameserver")),
        *(f"rmi_msg.{name}" for name in ("facade", "logger", "messages", "http_gateway")),
    ],
)
def test_a_module_that_is_run_names_the_command_of_its_service(module: str) -> None:
    run = [sys.executable, "-W", "ignore", "-m", module]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    words, _, command = done.stderr.strip().partition(" with: rmi ")
    assert words == "this module is no command; the service is started"
    subprocess.run([*RMI, *command.split(), "--help"], capture_output=True, timeout=60, check=True)
