"""The supervisor with real processes and real signals; the services are tiny."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from rmi_launch.data_dir import DataDirInUse, locked, prepare
from rmi_launch.plan import NAMESERVER, ServiceSpec
from rmi_launch.processes import ZygoteProcess
from rmi_launch.supervisor import Service, StartFailed, State, Supervisor
from rmi_runtime.settings import Settings
from tests.processes import alive
from tests.support import eventually

TINY = "tests.integration.launch.tiny"
ROOT = Path(__file__).parents[3]

Make = Callable[..., Supervisor]


def ok(number: int) -> ServiceSpec:
    return ServiceSpec(f"ok.{number}", f"{TINY}:run_ok", (number,))


def tiny(name: str) -> ServiceSpec:
    return ServiceSpec(name, f"{TINY}:run_{name}")


def pid_of(service: Service) -> int:
    assert service.process is not None
    assert service.process.pid is not None
    return service.process.pid


def events(data_dir: Path) -> list[str]:
    path = data_dir / "events"
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, start_wait_s=20.0, stop_wait_s=10.0)


@pytest.fixture
async def zygote(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ZygoteProcess]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    log_dir = prepare(settings.data_dir)
    with ZygoteProcess.start([TINY], log_dir, settings.stop_wait_s) as zygote:
        zygote.attach()
        yield zygote
        if not zygote.lost.is_set():
            zygote.detach()


@pytest.fixture
async def make(settings: Settings, zygote: ZygoteProcess) -> AsyncIterator[Make]:
    """Make supervisors, and leave none of their processes behind."""
    made: list[Supervisor] = []

    def make(*groups: list[ServiceSpec], **changes: object) -> Supervisor:
        changed = dataclasses.replace(settings, **changes)  # type: ignore[arg-type]
        made.append(Supervisor(groups, changed, zygote, settings.data_dir / "log"))
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.hurry()
        await supervisor.stop()


async def test_every_service_is_a_process_of_its_own_and_ready_after_start(make: Make) -> None:
    supervisor = make([ok(1)], [ok(2), ok(3)])
    await supervisor.start()
    services = supervisor.services
    assert [s.state for s in services] == [State.READY] * 3
    assert [s.address for s in services] == ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]
    pids = {pid_of(s) for s in services}
    assert len(pids) == 3
    assert all(map(alive, pids))
    assert os.getpid() not in pids


async def test_ctrl_c_on_the_terminal_reaches_no_zygote_not_even_one_that_still_loads(
    zygote: ZygoteProcess,
) -> None:
    # The terminal signals the whole group of whoever was typed there.
    assert os.getpgid(zygote.pid) != os.getpgrp()


async def test_stop_ends_the_groups_from_last_to_first_and_leaves_nobody(
    make: Make, settings: Settings
) -> None:
    supervisor = make([ok(1)], [ok(2)], [ok(3)])
    await supervisor.start()
    pids = [pid_of(s) for s in supervisor.services]
    await supervisor.stop()
    assert events(settings.data_dir) == ["ok.3 stopped", "ok.2 stopped", "ok.1 stopped"]
    assert [s.state for s in supervisor.services] == [State.DEAD] * 3
    assert not any(map(alive, pids))


async def test_the_others_learn_the_port_that_the_name_server_found(
    make: Make, settings: Settings
) -> None:
    names = ServiceSpec(NAMESERVER, f"{TINY}:run_names")
    supervisor = make([names], [tiny("tells_ns")], ns=("127.0.0.1:0", "127.0.0.1:5"))
    await supervisor.start()
    assert supervisor.settings.ns == ("127.0.0.1:4711", "127.0.0.1:5")
    assert events(settings.data_dir) == ["ns 127.0.0.1:4711"]


async def test_a_service_that_dies_before_it_is_ready_fails_the_start_with_its_last_words(
    make: Make,
) -> None:
    supervisor = make([ok(1)], [ok(2), tiny("dies")])
    with pytest.raises(StartFailed) as caught:
        await supervisor.start()
    assert caught.value.fields == {"service": "dies"}
    assert "ended with status 1" in caught.value.message
    assert "about to die" in caught.value.message
    assert "broken on purpose" in caught.value.message
    await supervisor.stop()
    assert not any(alive(pid_of(s)) for s in supervisor.services)


async def test_a_service_that_is_never_ready_fails_the_start_and_is_killed(make: Make) -> None:
    supervisor = make([tiny("silent")], start_wait_s=1.0)
    with pytest.raises(StartFailed, match="not ready within 1 s"):
        await supervisor.start()
    assert not alive(pid_of(supervisor.services[0]))


async def test_a_killed_service_is_started_again(make: Make) -> None:
    supervisor = make([ok(1), ok(2)])
    await supervisor.start()
    victim, other = supervisor.services
    first, others = pid_of(victim), pid_of(other)
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: victim.restarts == 1 and victim.state is State.READY)
    assert pid_of(victim) != first
    assert alive(pid_of(victim))
    assert not alive(first)
    assert pid_of(other) == others


async def test_a_service_that_fails_to_restart_is_tried_again_and_again(make: Make) -> None:
    supervisor = make([tiny("dies_twice")])
    await supervisor.start()
    (service,) = supervisor.services
    os.kill(pid_of(service), signal.SIGKILL)
    await eventually(lambda: service.restarts == 3 and service.state is State.READY)


async def test_a_zygote_that_hangs_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    zygote = ZygoteProcess.start([], prepare(tmp_path), grace_s=0.0)
    os.kill(zygote.pid, signal.SIGSTOP)
    await asyncio.to_thread(zygote.close)
    assert not alive(zygote.pid)


async def test_why_a_service_does_not_start_is_told_though_it_cannot_be_written(
    make: Make,
) -> None:
    supervisor = make([tiny("mute")])
    with pytest.raises(StartFailed, match=r"mute did not start: ledger: No space left .*; free "):
        await supervisor.start()


async def test_a_start_without_an_output_fails_and_names_it(make: Make, settings: Settings) -> None:
    (settings.data_dir / "log" / "ok.1.out").mkdir()
    with pytest.raises(StartFailed, match=r"ok.1 did not start: .*ok\.1\.out: Is a directory; "):
        async with asyncio.timeout(20):
            await make([ok(1)]).start()


async def test_a_service_whose_output_cannot_be_opened_is_tried_again_until_it_can(
    make: Make, settings: Settings
) -> None:
    supervisor = make([ok(1)])
    await supervisor.start()
    (service,) = supervisor.services
    output = settings.data_dir / "log" / "ok.1.out"
    output.rename(output.with_name("moved"))
    output.mkdir()
    os.kill(pid_of(service), signal.SIGKILL)
    await eventually(lambda: service.restarts >= 2)
    output.rmdir()
    await eventually(lambda: service.state is State.READY)


async def test_a_service_for_which_no_descriptor_is_left_is_tried_again_until_there_is_one(
    make: Make,
) -> None:
    supervisor = make([ok(1)])
    await supervisor.start()
    (service,) = supervisor.services
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    process = service.process
    assert process is not None
    # One is left when it is to be started again: for its output, and none for the pipe.
    last_fd = max(map(int, os.listdir("/proc/self/fd")))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(last_fd)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, hard))
    try:
        os.kill(pid_of(service), signal.SIGKILL)
        await process.exited  # its pipe is closed with that, which gives one descriptor back
        await eventually(lambda: service.restarts >= 2 and "Too many open" in service.why)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
    await eventually(lambda: service.state is State.READY)


async def test_the_outputs_of_running_services_and_of_the_zygote_are_kept_bounded(
    make: Make, settings: Settings
) -> None:
    supervisor = make([ok(1)])
    await supervisor.start()
    outputs = [settings.data_dir / "log" / f"{name}.out" for name in ("ok.1", "zygote")]
    for output in outputs:
        with output.open("ab") as file:
            file.write(b"words\n" * 2**18)
    await eventually(lambda: not any(output.stat().st_size for output in outputs))
    assert all(output.with_name(f"{output.name}.1").stat().st_size for output in outputs)


async def test_without_restart_a_dead_service_stays_dead(make: Make) -> None:
    supervisor = make([ok(1), ok(2)], restart=False)
    await supervisor.start()
    victim, other = supervisor.services
    os.kill(pid_of(victim), signal.SIGKILL)
    await eventually(lambda: victim.state is State.DEAD)
    assert victim.why == "ended by SIGKILL"
    assert (victim.restarts, other.state) == (0, State.READY)


async def test_a_service_that_does_not_stop_in_time_is_killed(
    make: Make, settings: Settings
) -> None:
    supervisor = make([tiny("stubborn")], stop_wait_s=0.2)
    await supervisor.start()
    await supervisor.stop()
    (service,) = supervisor.services
    assert "stubborn was asked" in events(settings.data_dir)
    assert "killed" in service.why
    assert not alive(pid_of(service))


async def test_hurry_ends_the_grace_at_once(make: Make, settings: Settings) -> None:
    supervisor = make([tiny("stubborn")], stop_wait_s=300.0)
    await supervisor.start()
    stop = asyncio.create_task(supervisor.stop())
    await eventually(lambda: events(settings.data_dir))
    supervisor.hurry()
    await asyncio.wait_for(stop, 30)
    assert not alive(pid_of(supervisor.services[0]))


async def test_stop_in_the_middle_of_the_start_leaves_nobody(make: Make) -> None:
    supervisor = make([ok(1)], [tiny("silent"), ok(2)])
    start = asyncio.create_task(supervisor.start())
    await eventually(lambda: all(s.process and s.process.pid for s in supervisor.services))
    start.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await start
    await supervisor.stop()
    assert not any(alive(pid_of(s)) for s in supervisor.services)


async def test_the_loss_of_the_zygote_is_seen_and_the_services_still_stop(
    make: Make, zygote: ZygoteProcess
) -> None:
    supervisor = make([ok(1), ok(2)])
    await supervisor.start()
    os.kill(zygote.pid, signal.SIGKILL)
    await asyncio.wait_for(zygote.lost.wait(), 10)
    await supervisor.stop()
    assert [s.state for s in supervisor.services] == [State.DEAD] * 2
    # Seen by the end of a pipe, which comes a moment before the end of the process.
    await eventually(lambda: not any(alive(pid_of(s)) for s in supervisor.services))


async def test_a_zygote_that_cannot_load_its_modules_fails_the_start_with_its_words(
    settings: Settings,
) -> None:
    log_dir = prepare(settings.data_dir)
    with ZygoteProcess.start(["no_such_module"], log_dir, 1.0) as zygote:
        zygote.attach()
        supervisor = Supervisor([[ok(1)]], settings, zygote, log_dir)
        with pytest.raises(StartFailed, match="no_such_module"):
            await supervisor.start()
        await supervisor.stop()


MAIN = f"""
import asyncio, os, sys
from pathlib import Path
from rmi_launch.data_dir import locked, prepare
from rmi_launch.plan import ServiceSpec
from rmi_launch.processes import ZygoteProcess
from rmi_launch.supervisor import Supervisor
from rmi_runtime.settings import Settings

async def main(zygote, settings, log_dir, names):
    zygote.attach()
    groups = [[ServiceSpec(name, f"{TINY}:run_{{name}}")] for name in names]
    supervisor = Supervisor(groups, settings, zygote, log_dir)
    await supervisor.start()
    print(zygote.pid, *(s.process.pid for s in supervisor.services), flush=True)
    await asyncio.Event().wait()

settings = Settings(data_dir=Path(sys.argv[1]))
log_dir = prepare(settings.data_dir)
with locked(settings.data_dir, 1.0) as fd:
    with ZygoteProcess.start(["{TINY}"], log_dir, 0.5, (fd,)) as zygote:
        asyncio.run(main(zygote, settings, log_dir, sys.argv[2:]))
"""


@contextlib.contextmanager
def supervisor_apart(data_dir: Path, *names: str) -> Iterator[subprocess.Popen[str]]:
    """Run a supervisor in a process of its own, so that it can be killed."""
    command = [sys.executable, "-c", MAIN, str(data_dir), *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_when_the_supervisor_is_killed_the_services_drain_and_everybody_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with supervisor_apart(tmp_path, "names", "stubborn") as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 3
        process.kill()
        process.wait()
        await eventually(lambda: not any(map(alive, pids)))
    # The good one was asked, and drained; the stubborn one was asked, and killed.
    assert sorted(events(tmp_path)) == ["nameserver stopped", "stubborn was asked"]


async def test_the_data_directory_is_held_until_the_last_service_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with supervisor_apart(tmp_path, "stubborn") as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        with pytest.raises(DataDirInUse) as caught, locked(tmp_path, 0.0):
            pass
        assert caught.value.fields["pid"] == process.pid
        process.kill()
        process.wait()
        with locked(tmp_path, 20.0):
            assert not any(map(alive, pids))
