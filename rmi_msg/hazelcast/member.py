"""A logger's own Hazelcast member: started, kept running, stopped; taken over if it is there.

The JVM is the child of a small keeper process (:mod:`~rmi_msg.hazelcast.keeper`), which outlives
this one for a moment if this one crashes. Three files tell who is who:

    DATA_DIR/hazelcast/member-N.owner    locked by the logger
    DATA_DIR/hazelcast/member-N.lock     locked by the keeper; names the processes
    DATA_DIR/hazelcast/member-N.yaml     the member's configuration
    DATA_DIR/log/hazelcast-N.log         what the member says; the part before it has .1
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from rmi_msg.hazelcast import keeper
from rmi_msg.hazelcast.addresses import among_members, member_address, member_addresses
from rmi_msg.hazelcast.install import find_java, hazelcast_dir, is_installed, lib_dir
from rmi_msg.hazelcast.locks import is_locked, try_lock
from rmi_msg.hazelcast.member_config import java_options, member_config
from rmi_runtime import Settings, errors
from rmi_runtime.files.printed import keep_end

log = logging.getLogger(__name__)

GRACE_S: Final = 15.0
"""How long a member waits for a new logger when its own has died, in seconds."""

OWN_S_MAX: Final = GRACE_S + keeper.STOP_S_MAX
"""Longest wait for a member that is just being given up, in seconds."""

LOOK_S: Final = 0.2
RESTART_S_MAX: Final = 30.0
LOG_SIZE_BYTES_MAX: Final = 4 * 1024 * 1024
_TAIL_SIZE_BYTES: Final = 16 * 1024
_TAIL_LINES: Final = 12


class MemberFailed(errors.Unavailable):
    """A member ended, or did not start. The message has what it said last."""

    code = "member_failed"


class Member:
    """The member of logger *number*. An async context manager: in it, the member is kept running.

    Args:
        settings: where, and how. If they name members, it is one of those, at *address*.
        number: the logger's; its files have it in their names.
        address: ``host:port`` that it listens on; None: that of the logger's own.
        grace_s: how long the member waits for a new logger should this process crash.
    """

    def __init__(
        self,
        settings: Settings,
        number: int,
        address: str | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        self.address = address or member_address(settings, number)
        self._settings = settings
        self._members = member_addresses(settings, number)
        self._number = number
        self._grace_s = grace_s
        directory = hazelcast_dir(settings.data_dir).absolute()
        self._config = directory / f"member-{number}.yaml"
        self._member_file = directory / f"member-{number}.lock"
        self._owner_file = directory / f"member-{number}.owner"
        self.log_path = settings.data_dir.absolute() / "log" / f"hazelcast-{number}.log"
        self._owner_fd: int | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Member:
        if not is_installed(self._settings.data_dir):
            raise MemberFailed(
                f"Hazelcast is not in {lib_dir(self._settings.data_dir)}; "
                "fetch it with `rmi hazelcast install`"
            )
        self._config.parent.mkdir(parents=True, exist_ok=True)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._owner_fd = await self._own()
        try:
            await self._take_over_or_start()
        except BaseException:
            os.close(self._owner_fd)
            raise
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        assert self._owner_fd is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        log.info("member %s hands over its data and leaves", self.address)
        try:
            await self._stop()
        finally:
            os.close(self._owner_fd)

    @property
    def alive(self) -> bool:
        """Whether the member's process is there."""
        if self._keeper is not None:
            return self._keeper.poll() is None
        return is_locked(self._member_file)

    @property
    def pid(self) -> int:
        """Process id of the JVM; 0 if there is none."""
        return int(_read_note(self._member_file).get("member", 0)) if self.alive else 0

    def kill(self) -> None:
        """Kill the JVM, as it is; it is started again, empty."""
        if pid := self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def failure(self, what: str) -> MemberFailed:
        """Return an error that has what the member said last."""
        tail = _tail(self.log_path)
        return MemberFailed(
            f"Hazelcast member {self.address} {what}. It said last, in {self.log_path}:\n{tail}"
            if tail
            else f"Hazelcast member {self.address} {what}, and said nothing in {self.log_path}"
        )

    async def _own(self) -> int:
        """Take the owner file's lock; wait for a member that is just being given up."""
        fd = os.open(self._owner_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            async with asyncio.timeout(OWN_S_MAX):
                while not try_lock(fd):  # noqa: ASYNC110 - the kernel has no event for it
                    await asyncio.sleep(LOOK_S)
        except BaseException as error:
            os.close(fd)
            if isinstance(error, TimeoutError):
                raise errors.Conflict(
                    f"another logger {self._number} runs on {self._settings.data_dir}; give this "
                    "one another --id, or another --data-dir"
                ) from None
            raise
        return fd

    async def _take_over_or_start(self) -> None:
        note = self._note()
        if is_locked(self._member_file):
            there = _read_note(self._member_file)
            if {name: there.get(name) for name in note} == note:
                log.info("member %s is running and is taken over", self.address)
                return
            log.info("member %s runs with other settings and is started anew", self.address)
            await self._stop()
        self._start()

    def _start(self) -> None:
        text = member_config(
            self.address,
            self._members,
            self._settings.hazelcast_cluster,
            processors=_processors(),
        )
        self._config.write_text(text, encoding="utf-8")
        keep_end(self.log_path, LOG_SIZE_BYTES_MAX)
        # -I: only the standard library, and nothing from this directory or the environment.
        command = [sys.executable, "-I", keeper.__file__]
        command += ["--member-file", str(self._member_file), "--owner-file", str(self._owner_file)]
        command += ["--grace-s", str(self._grace_s), "--note", json.dumps(self._note()), "--"]
        command += self._java_command()
        with self.log_path.open("ab") as output:
            self._keeper = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._config.parent,
                # Ctrl-C on the terminal is the logger's to act on.
                start_new_session=True,
            )
        log.info("member %s is starting and looks for %s", self.address, ", ".join(self._members))

    def _java_command(self) -> list[str]:
        return [
            find_java(),
            *java_options(self._settings.hazelcast_heap_mib, processors=_processors()),
            f"-Dhazelcast.config={self._config}",
            # What Hazelcast asks for; without it, it warns and runs a little slower.
            *("--add-modules", "java.se"),
            *_opened("--add-exports", "java.base/jdk.internal.ref"),
            *_opened("--add-opens", "java.base/java.lang"),
            *_opened("--add-opens", "java.base/sun.nio.ch"),
            *_opened("--add-opens", "java.management/sun.management"),
            *_opened("--add-opens", "jdk.management/com.sun.management.internal"),
            *("-cp", f"{lib_dir(self._settings.data_dir).absolute()}/*"),
            "com.hazelcast.core.server.HazelcastMemberStarter",
        ]

    def _note(self) -> dict[str, Any]:
        """Return what a running member must agree with to be taken over."""
        return {
            "address": self.address,
            "among_members": among_members(self.address),
            "members": list(self._members),
            "cluster": self._settings.hazelcast_cluster,
            "heap_mib": self._settings.hazelcast_heap_mib,
        }

    async def _keep(self) -> None:
        """Start the member again whenever it has ended, and keep its log within its bound."""
        pause_s = 1.0
        clock = asyncio.get_running_loop().time
        started_s = clock()
        while True:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(OSError):  # the member matters more than its log
                keep_end(self.log_path, LOG_SIZE_BYTES_MAX)
            if self.alive:
                continue
            if clock() - started_s > RESTART_S_MAX:
                pause_s = 1.0
            log.warning("member %s has ended; it starts again in %g s", self.address, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RESTART_S_MAX)
            started_s = clock()
            try:
                self._start()
            except (OSError, errors.RmiError) as error:  # for want of disk, memory or Java: for now
                log.warning("member %s cannot be started, trying on: %s", self.address, error)

    async def _stop(self) -> None:
        """Let the member hand over its data and leave; its keeper sees to it that it ends."""
        pid = self._keeper.pid if self._keeper else _read_note(self._member_file).get("keeper", 0)
        if pid > 0 and self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        while self.alive:  # noqa: ASYNC110 - it may be somebody else's child
            await asyncio.sleep(LOOK_S / 4)


async def until(done: Callable[[], bool], member: Member, wait_s: float) -> None:
    """Wait for *done*, as long as *member* lives.

    Raises:
        MemberFailed: the member ended, or *wait_s* seconds have passed.
    """
    try:
        async with asyncio.timeout(wait_s):
            while not done():
                if not member.alive:
                    raise member.failure("ended while it was starting")
                await asyncio.sleep(LOOK_S / 4)
    except TimeoutError:
        raise member.failure(f"did not join a cluster within {wait_s:g} s") from None


def find_members(settings: Settings) -> tuple[tuple[str, ...], str]:
    """Find the members that a data directory's loggers started, or that the settings name.

    Args:
        settings: if they name members, those are taken.

    Returns:
        Their addresses, none if none is running; and the name of their cluster.
    """
    if settings.hazelcast_members:
        return settings.hazelcast_members, settings.hazelcast_cluster
    notes = _running_notes(settings.data_dir)
    clusters = [str(note["cluster"]) for note in notes if "cluster" in note]
    cluster = clusters[-1] if clusters else settings.hazelcast_cluster
    return tuple(str(note.get("address")) for note in notes), cluster


def running_members(data_dir: Path) -> set[str]:
    """Return the addresses of a data directory's members whose processes run, joined or not."""
    return {str(note.get("address")) for note in _running_notes(data_dir)}


def _running_notes(data_dir: Path) -> list[dict[str, Any]]:
    paths = sorted(hazelcast_dir(data_dir).glob("member-*.lock"))
    return [note for path in paths if is_locked(path) and (note := _read_note(path))]


def _processors() -> int:
    """Return how many processors this process may use, and so its member."""
    return len(os.sched_getaffinity(0))


def _opened(flag: str, what: str) -> tuple[str, str]:
    return flag, f"{what}=ALL-UNNAMED"


def _read_note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_SIZE_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-_TAIL_LINES:])
