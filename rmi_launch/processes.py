"""The supervisor's side of the zygote: start service processes, hear of their ready and their end.

with ZygoteProcess.start(PRELOAD, log_dir) as zygote:     # before the event loop, it takes time
    asyncio.run(supervise(zygote))                        # await zygote.attach() in there
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rmi_launch.failures import said
from rmi_launch.outputs import open_output, output_size_bytes
from rmi_launch.plan import ServiceSpec
from rmi_runtime import Settings

READY_SIZE_BYTES_MAX = 64 * 1024
ZYGOTE = "zygote"
END_WAIT_S = 2.0
"""How much longer than the services' grace the zygote may take to end."""

UNKNOWN_STATUS = 255
"""Exit status of a process whose end nobody could observe."""


class ServiceProcess:
    """One process made by the zygote.

    Attributes:
        pid: process id, None until the zygote has told it.
        ready: what the service said when it was ready, once its pid is known too; cancelled if it
            ends before.
        not_started: what prevented it from being started, unless its output says it.
        exited: its exit status; negative: the number of the signal that ended it.
    """

    def __init__(self, zygote: ZygoteProcess, spawn_id: int, name: str) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.not_started = ""
        self.pid: int | None = None
        self.ready: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.exited: asyncio.Future[int] = loop.create_future()
        self._zygote = zygote
        self._spawn_id = spawn_id
        self._said = b""
        self._ready_note: dict[str, Any] | None = None
        self._pipe_open = False

    def open_pipe(self) -> int:
        """Listen to what the process will say; return the end of the pipe that is to be its own.

        Raises:
            OSError: too many files are open.
        """
        self._ready_fd, ready_write_fd = os.pipe()
        self._pipe_open = True
        os.set_blocking(self._ready_fd, False)
        asyncio.get_running_loop().add_reader(self._ready_fd, self._on_pipe)
        return ready_write_fd

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process has not ended."""
        if not self.exited.done():
            self._zygote.send_signal(self._spawn_id, self.pid, number)

    def _on_pipe(self) -> None:
        data = os.read(self._ready_fd, READY_SIZE_BYTES_MAX)
        if not data:
            # The process held the other end to its last moment.
            self._close_pipe()
            if self._zygote.lost.is_set():
                self.end(UNKNOWN_STATUS)
            return
        self._said = (self._said + data)[:READY_SIZE_BYTES_MAX]
        line, newline, _ = self._said.partition(b"\n")
        if not newline or self._ready_note is not None:
            return
        said = json.loads(line)
        if "failed" in said:
            self.not_started = str(said["failed"])
        else:
            self._ready_note = said
            self._settle_ready()

    def spawned(self, pid: int) -> None:
        """Take note of the process id. The service may have been quicker than this news of it."""
        self.pid = pid
        self._settle_ready()

    def _settle_ready(self) -> None:
        known = self.pid is not None or self._zygote.lost.is_set()
        if known and self._ready_note is not None and not self.ready.done():
            self.ready.set_result(self._ready_note)

    def _close_pipe(self) -> None:
        if self._pipe_open:
            self._pipe_open = False
            asyncio.get_running_loop().remove_reader(self._ready_fd)
            os.close(self._ready_fd)

    def end(self, status: int) -> None:
        """Take note that the process has ended."""
        if self._pipe_open:
            with contextlib.suppress(BlockingIOError):
                self._on_pipe()  # its last words may have come together with this
        self._close_pipe()
        self.ready.cancel()
        if not self.exited.done():
            self.exited.set_result(status)

    def zygote_lost(self) -> None:
        """From now on the end of the pipe alone tells the end of the process."""
        self._settle_ready()
        if not self._pipe_open:
            self.end(UNKNOWN_STATUS)


class ZygoteProcess:
    """The zygote as its parent sees it. Make one with :meth:`start`.

    Attributes:
        lost: set when the zygote ended although nobody told it to.
        printed_bytes: size of its output before it was started.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        lifeline_fd: int,
        printed_bytes: int = 0,
        end_wait_s: float = END_WAIT_S,
    ) -> None:
        self.printed_bytes = printed_bytes
        self.lost = asyncio.Event()
        self.pid = process.pid
        self._end_wait_s = end_wait_s
        self._process = process
        self._control = control
        self._lifeline_fd = lifeline_fd
        self._services: dict[int, ServiceProcess] = {}
        self._spawned = 0
        self._lines = b""

    @classmethod
    def start(
        cls,
        preload: Sequence[str],
        log_dir: Path,
        grace_s: float,
        keep_fds: Sequence[int] = (),
    ) -> ZygoteProcess:
        """Start the zygote; it loads its modules while the caller goes on.

        Args:
            preload: modules that the services share.
            log_dir: directory of ``zygote.out``, where its own output goes.
            grace_s: how long services may drain, should the supervisor die.
            keep_fds: descriptors that the zygote and every service are to hold open.
        """
        ours, theirs = socket.socketpair()
        lifeline_read_fd, lifeline_fd = os.pipe()
        command = [sys.executable, "-P", "-m", "rmi_launch.zygote"]
        command += [f"--control-fd={theirs.fileno()}", f"--lifeline-fd={lifeline_read_fd}"]
        command += [f"--keep-fd={fd}" for fd in keep_fds]
        command += [f"--grace-s={grace_s}", *preload]
        try:
            with open_output(log_dir, ZYGOTE) as output:
                printed_bytes = output_size_bytes(log_dir, ZYGOTE)
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(theirs.fileno(), lifeline_read_fd, *keep_fds),
                    process_group=0,  # Ctrl-C on the terminal is ours: while it loads, it would die
                )
        except BaseException:
            ours.close()
            os.close(lifeline_fd)
            raise
        finally:
            theirs.close()
            os.close(lifeline_read_fd)
        return cls(process, ours, lifeline_fd, printed_bytes, grace_s + END_WAIT_S)

    def __enter__(self) -> ZygoteProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the zygote with whatever services it still has, and reap it."""
        self._control.close()
        os.close(self._lifeline_fd)  # the services see this themselves
        try:
            self._process.wait(self._end_wait_s)
        except subprocess.TimeoutExpired:  # it hangs, or was stopped
            self._process.kill()
            self._process.wait()

    def attach(self) -> None:
        """Begin to listen on the running event loop."""
        asyncio.get_running_loop().add_reader(self._control, self._on_control)

    def detach(self) -> None:
        """Stop listening on the running event loop."""
        asyncio.get_running_loop().remove_reader(self._control)

    def spawn(self, spec: ServiceSpec, settings: Settings, log_dir: Path) -> ServiceProcess:
        """Ask for a service process; its output is appended to ``log_dir/NAME.out``.

        Returns:
            The process, at once; its ``pid`` is known a little later.
        """
        self._spawned += 1
        spawn_id = self._spawned
        values = dataclasses.asdict(settings) | {"data_dir": str(settings.data_dir)}
        request = {
            "do": "spawn",
            "id": spawn_id,
            "name": spec.name,
            "target": spec.target,
            "args": spec.args,
            "settings": values,
        }
        process = ServiceProcess(self, spawn_id, spec.name)
        self._services[spawn_id] = process
        try:
            with open_output(log_dir, spec.name) as output:
                ready_write_fd = process.open_pipe()
                try:
                    line = json.dumps(request).encode() + b"\n"
                    socket.send_fds(self._control, [line], [ready_write_fd, output.fileno()])
                finally:
                    os.close(ready_write_fd)
        except ConnectionError:
            self._lose()
            process.end(UNKNOWN_STATUS)
        except OSError as error:
            # The disk is full, or there are too many files: a start that failed, like any other.
            process.not_started = f"it cannot be started: {said(error)}"
            del self._services[spawn_id]
            process.end(UNKNOWN_STATUS)
        return process

    def send_signal(self, spawn_id: int, pid: int | None, number: signal.Signals) -> None:
        """Signal a service: through the zygote, which knows for sure whose the pid is."""
        if self.lost.is_set():
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            return
        request = {"do": "signal", "id": spawn_id, "signal": int(number)}
        with contextlib.suppress(ConnectionError):
            self._control.sendall(json.dumps(request).encode() + b"\n")

    def _on_control(self) -> None:
        try:
            # The socket itself blocks: a request is sent whole, and the zygote always reads.
            data = self._control.recv(READY_SIZE_BYTES_MAX, socket.MSG_DONTWAIT)
        except ConnectionError:
            data = b""
        if not data:
            self._lose()
            return
        *lines, self._lines = (self._lines + data).split(b"\n")
        for line in lines:
            notice = json.loads(line)
            process = self._services[notice["id"]]
            if notice["event"] == "spawned":
                process.spawned(notice["pid"])
            else:
                process.end(notice["status"])
                del self._services[notice["id"]]

    def _lose(self) -> None:
        self.detach()
        self.lost.set()
        for process in self._services.values():
            process.zygote_lost()
