"""`rmi up` as a user has it: a real process, its output, its signals, its exit code."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.integration.launch.running import gone, rmi, up
from tests.ports import free_ports
from tests.support import eventually

NOWHERE = "127.0.0.1:1"


def test_it_tells_where_everything_is_then_that_it_is_ready_and_stops_on_sigint(
    tmp_path: Path,
) -> None:
    with up(tmp_path, "--demo") as system:
        url = system.until("ready: ")
        with urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer:
            assert answer.status == 200
        assert f"gateway: {url}" in system.lines
        assert any(line.startswith("demo tokens: ") for line in system.lines)
        pids = system.pids()
        assert len(pids) == 7
        system.process.send_signal(signal.SIGINT)
        system.until("stopped")
        assert system.process.wait(30) == 0
        assert gone(pids)
        assert not (tmp_path / "running.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_stops_on_other_signals_too(tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path) as system:
        system.until("ready: ")
        pids = system.pids()
        system.process.send_signal(number)
        assert system.process.wait(30) == 0
        assert gone(pids)


def test_a_signal_during_the_start_stops_it_and_leaves_nobody(tmp_path: Path) -> None:
    with up(tmp_path) as system:
        system.until("Pyro.NameServer ready")
        system.process.send_signal(signal.SIGINT)
        assert system.process.wait(30) == 0
    with up(tmp_path) as again:
        # Nobody holds the directory any more.
        again.until("ready: ")


@pytest.mark.parametrize("demo", ["--demo", "--no-demo"])
def test_the_examples_it_prints_work(tmp_path: Path, demo: str) -> None:
    if (curl := shutil.which("curl")) is None:
        pytest.skip("needs curl, which is not on the PATH")
    path = os.environ["PATH"]
    if demo == "--no-demo":  # its lines have the command, which need not be on the path
        path = f"{Path(curl).parent}{os.pathsep}{os.defpath}"
    with up(tmp_path, demo, before=["env", f"PATH={path}"]) as system:
        system.until("to try:")
        system.until("ready: ")
        start = system.lines.index("to try:") + 1
        script = [line for line in system.lines[start:] if line.startswith("  ")]
        done = subprocess.run(
            ["sh", "-ec", "\n".join(script).replace("curl ", "curl -sS --fail-with-body ")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | {"PATH": path},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "POST request b'msg=msg1'" in done.stdout
        assert '"commit"' in done.stdout


def test_status_tells_of_every_service(tmp_path: Path) -> None:
    with up(tmp_path) as system:
        system.until("ready: ")
        done = rmi("status", "--json", data_dir=tmp_path)
        assert done.returncode == 0, done.stderr
        rows = {row["name"]: row for row in json.loads(done.stdout)}
        written = {service["name"]: service for service in system.running()["services"]}
        assert set(rows) == set(written)
        assert {row["state"] for row in rows.values()} == {"ready"}
        for name, row in rows.items():
            assert row["address"] == written[name]["address"], name
            assert row["pid"] == written[name]["pid"], name
            assert row["uptime_s"] >= 0, name
            assert row["errors"] >= 0, name
        assert "bank.business.1" in rmi("status", data_dir=tmp_path).stdout


def test_status_of_nothing_says_so_with_its_own_exit_code(tmp_path: Path) -> None:
    done = rmi("status", data_dir=tmp_path / "never")
    assert (done.returncode, done.stdout) == (3, "")
    assert "rmi up" in done.stderr
    assert not (tmp_path / "never").exists()


def test_who_is_not_told_where_a_running_system_is_is_not_told_to_start_another(
    tmp_path: Path,
) -> None:
    with up(tmp_path) as system:
        system.until("ready:")
        (tmp_path / "running.json").unlink()
        for command in (["status", "--http", NOWHERE], ["account", "list"]):
            done = rmi(*command, "--ns", NOWHERE, data_dir=tmp_path)
            assert (done.returncode, done.stdout) == (3, "")
            assert f"`rmi up` runs on data directory {tmp_path} (process {system.process.pid})" in (
                done.stderr
            )
            assert "running.json" in done.stderr
            assert "start the system" not in done.stderr


def test_who_cannot_reach_the_data_object_of_a_running_system_is_sent_to_its_status(
    tmp_path: Path,
) -> None:
    with up(tmp_path, "--no-restart") as system:
        system.until("ready:")
        os.kill(system.service("bank.data")["pid"], signal.SIGKILL)
        system.until("bank.data dead")
        done = rmi("account", "list", data_dir=tmp_path)
        assert (done.returncode, done.stdout) == (3, "")
        assert "`rmi status` tells how its services are" in done.stderr


def test_a_killed_service_is_back_and_status_shows_it(tmp_path: Path) -> None:
    with up(tmp_path) as system:
        system.until("ready: ")
        before = {service["name"]: service["pid"] for service in system.running()["services"]}
        os.kill(before["bank.business.1"], signal.SIGKILL)
        system.until("bank.business.1 waiting: ended by SIGKILL")
        system.until("bank.business.1 ready")
        rows = json.loads(rmi("status", "--json", data_dir=tmp_path).stdout)
        (row,) = [row for row in rows if row["name"] == "bank.business.1"]
        assert row["state"] == "ready"
        assert row["pid"] != before["bank.business.1"]


async def test_services_are_started_again_while_running_json_cannot_be_written(
    tmp_path: Path,
) -> None:
    with up(tmp_path) as system:
        system.until("ready: ")
        before = system.service("bank.business.1")
        in_the_way = tmp_path / "running.json.new"
        in_the_way.mkdir()
        os.kill(before["pid"], signal.SIGKILL)
        system.until("bank.business.1 ready")
        in_the_way.rmdir()
        await eventually(lambda: system.service("bank.business.1")["restarts"] == 1)
        assert system.service("bank.business.1")["pid"] != before["pid"]


def test_a_killed_gateway_comes_back_on_its_port(tmp_path: Path) -> None:
    with up(tmp_path) as system:
        url = system.until("ready: ")
        (gateway,) = [row for row in system.running()["services"] if row["name"] == "gateway"]
        os.kill(gateway["pid"], signal.SIGKILL)
        assert system.until("gateway ready at ").split()[0] == url.removeprefix("http://")


def test_a_second_signal_kills_a_service_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMI_STOP_WAIT_S", "300")
    with up(tmp_path) as system:
        system.until("ready: ")
        pids = system.pids()
        hanging = system.running()["services"][3]["pid"]
        os.kill(hanging, signal.SIGSTOP)
        system.process.send_signal(signal.SIGINT)
        system.until("stopping")
        system.process.send_signal(signal.SIGINT)
        assert system.process.wait(30) == 0
        assert gone(pids)


async def test_without_restart_status_shows_the_dead(tmp_path: Path) -> None:
    with up(tmp_path, "--no-restart") as system:
        system.until("ready: ")
        before = {service["name"]: service["pid"] for service in system.running()["services"]}
        os.kill(before["msg.logger.1"], signal.SIGKILL)
        system.until("msg.logger.1 dead: ended by SIGKILL")

        def shown() -> bool:
            rows = json.loads(rmi("status", "--json", data_dir=tmp_path).stdout)
            return [row["state"] for row in rows if row["name"] == "msg.logger.1"] == ["dead"]

        await eventually(shown, every_s=0.2)


def test_a_second_one_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with up(tmp_path) as system:
        system.until("ready: ")
        done = rmi("up", data_dir=tmp_path)
        assert done.returncode == 1
        assert f"process {system.process.pid}" in done.stderr
        assert system.process.poll() is None


def test_a_taken_port_is_refused_with_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = rmi("up", "--ns", "127.0.0.1:0", "--http", address, data_dir=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{address} is already in use" in line


def test_it_runs_on_when_nobody_reads_its_output_any_more(tmp_path: Path) -> None:
    with up(tmp_path, "--demo") as system:
        system.until("Pyro.NameServer ready")
        assert system.process.stdout is not None
        system.process.stdout.close()
        data_dir = system.data_dir

        def ready() -> bool:
            done = rmi("status", "--json", data_dir=data_dir)
            return done.returncode == 0 and len(json.loads(done.stdout)) == 7

        asyncio.run(eventually(ready, every_s=0.2, timeout_s=30))
        system.process.send_signal(signal.SIGINT)
        assert system.process.wait(30) == 0


def test_two_gateways_share_the_port(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_ports()}"
    with up(tmp_path, "--http", address, "--gateway-workers", "2") as system:
        assert system.until("ready: ") == f"http://{address}"
        rows = json.loads(rmi("status", "--json", data_dir=tmp_path).stdout)
        gateways = [row for row in rows if row["name"].startswith("gateway")]
        assert [row["name"] for row in gateways] == ["gateway.1", "gateway.2"]
        assert all(row["state"] == "ready" and row["pid"] for row in gateways)


async def test_when_it_is_killed_its_services_end_by_themselves(tmp_path: Path) -> None:
    with up(tmp_path) as system:
        system.until("ready: ")
        pids = system.pids()
        system.process.kill()
        system.process.wait()
        await eventually(lambda: gone(pids), timeout_s=30)
    with up(tmp_path) as again:
        again.until("ready: ")


def test_it_waits_for_what_hangs_of_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMI_STOP_WAIT_S", "0.5")
    with up(tmp_path) as system:
        system.until("ready: ")
        os.kill(system.service("bank.business.1")["pid"], signal.SIGSTOP)
        system.process.kill()
        system.process.wait()
    with up(tmp_path) as again:
        again.until("ready: ")
