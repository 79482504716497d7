"""The process that all services are forked from.

It loads the services' modules once, then forks a child for every request, so that twelve services
start in the time of one import. It runs no event loop and no thread of its own, which is what
makes forking it safe. It is a process apart from the supervisor's, so that the supervisor may use
both. Nothing is pickled; the requests are JSON.

The control socket carries one JSON object a line. To the zygote:

    {"do": "spawn", "id": 1, "name": ..., "target": "module:function", "args": [...],
     "settings": {...}}               with two file descriptors: the ready pipe, and the output file
    {"do": "signal", "id": 1, "signal": 15}

and from it:

    {"event": "spawned", "id": 1, "pid": 4711}
    {"event": "exited", "id": 1, "status": 0}            negative: the number of the signal

The end of the control socket means that the supervisor is gone. The children see that for
themselves (the lifeline pipe ends at the same time) and drain; the zygote waits for them, kills
those that take too long, and leaves nobody behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import importlib
import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import uvloop

from rmi_launch.failures import UNUSABLE, said
from rmi_launch.shortage import shortage
from rmi_runtime import Settings
from rmi_runtime.errors import RmiError

REQUEST_SIZE_BYTES_MAX = 64 * 1024
WORDS_CHARS_MAX = 500  # six bytes each at most: a pipe takes them at once
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)

ServiceFunction = Callable[..., Coroutine[Any, Any, None]]


def resolve(target: str) -> ServiceFunction:
    """Return the coroutine function that *target*, ``module:function``, names."""
    module, _, function = target.partition(":")
    found: ServiceFunction = getattr(importlib.import_module(module), function)
    return found


class Zygote:
    """Forks services on request, and reaps them.

    Args:
        control: stream socket to the supervisor; its end is the order to finish.
        lifeline_fd: read end of the pipe that the supervisor holds open while it lives.
        grace_s: how long children may drain once the supervisor is gone.
    """

    def __init__(self, control: socket.socket, lifeline_fd: int, grace_s: float) -> None:
        self._control = control
        self._lifeline_fd = lifeline_fd
        self._grace_s = grace_s
        self._pids: dict[int, int] = {}
        self._ids: dict[int, int] = {}
        self._orphaned = False
        self._lines = b""
        self._fds: list[int] = []
        self._wake_fd, self._wake_write_fd = os.pipe()
        os.set_blocking(self._wake_write_fd, False)
        os.set_blocking(self._wake_fd, False)

    def run(self) -> None:
        """Serve until the control socket ends and the last child is reaped."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # A signal to the whole process group is the supervisor's business.
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake_write_fd, warn_on_full_buffer=False)
        gc.collect()
        gc.freeze()
        with selectors.DefaultSelector() as ready:
            ready.register(self._control, selectors.EVENT_READ, self._on_requests)
            ready.register(self._wake_fd, selectors.EVENT_READ, self._on_child)
            while not self._orphaned:
                for key, _ in ready.select():
                    key.data()
            ready.unregister(self._control)
            self._finish(ready)

    def _on_requests(self) -> None:
        """Read and do what the supervisor asks; take note if it is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self._control, REQUEST_SIZE_BYTES_MAX, 64)
        except ConnectionError:
            data, fds = b"", []
        self._orphaned = not data
        self._fds += fds
        self._lines += data
        while b"\n" in self._lines:
            line, self._lines = self._lines.split(b"\n", 1)
            request = json.loads(line)
            if request["do"] == "spawn":
                # Descriptors arrive in the order of the requests they belong to.
                ready_fd, output_fd = self._fds[:2]
                del self._fds[:2]
                self._spawn(request, ready_fd, output_fd)
            elif request["id"] in self._pids:
                os.kill(self._pids[request["id"]], request["signal"])

    def _spawn(self, request: dict[str, Any], ready_fd: int, output_fd: int) -> None:
        # Blocked over the fork, so that an early SIGTERM meets the child's own dispositions.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            pid = os.fork()
        except OSError as error:
            # No memory or no process number is left; the supervisor will try again later.
            words = f"{request['name']} cannot be forked: {said(error)}"
            try:
                os.write(output_fd, f"{words}\n".encode())
            except OSError:  # the disk is full as well
                _tell_failed(words, ready_fd)
            self._tell(event="exited", id=request["id"], status=1)
            return
        else:
            if pid == 0:
                _run_child(request, ready_fd, output_fd, self._lifeline_fd, self._become_child)
        finally:
            # Only the zygote comes here.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
            os.close(ready_fd)
            os.close(output_fd)
        self._pids[request["id"]] = pid
        self._ids[pid] = request["id"]
        self._tell(event="spawned", id=request["id"], pid=pid)

    def _become_child(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in _HANDLED:
            signal.signal(number, signal.SIG_DFL)
        for fd in (self._control.detach(), self._wake_fd, self._wake_write_fd, *self._fds):
            os.close(fd)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)

    def _on_child(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_fd, 4096)
        while self._ids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            spawn_id = self._ids.pop(pid)
            del self._pids[spawn_id]
            self._tell(event="exited", id=spawn_id, status=os.waitstatus_to_exitcode(status))

    def _tell(self, **notice: Any) -> None:
        # If the supervisor is gone, the end of the control socket says so in a moment.
        with contextlib.suppress(ConnectionError):
            self._control.sendall(json.dumps(notice).encode() + b"\n")

    def _finish(self, ready: selectors.BaseSelector) -> None:
        self._on_child()
        deadline = time.monotonic() + self._grace_s
        while self._ids and (left_s := deadline - time.monotonic()) > 0:
            if ready.select(left_s):
                self._on_child()
        for pid in self._ids:
            os.kill(pid, signal.SIGKILL)
        for pid in list(self._ids):
            os.waitpid(pid, 0)


def _run_child(
    request: dict[str, Any],
    ready_fd: int,
    output_fd: int,
    lifeline_fd: int,
    leave_zygote: Callable[[], None],
) -> NoReturn:
    """Be the service that *request* asks for, and leave without returning to the zygote."""
    status = 1
    words = ""
    try:
        leave_zygote()
        # A session of its own: Ctrl-C on the terminal reaches the supervisor alone, which then
        # stops the services in order.
        os.setsid()
        os.dup2(output_fd, 1)
        os.dup2(output_fd, 2)
        os.close(output_fd)
        # The duplicate stays open for life: the end of the pipe is the end of this process.
        os.environ["RMI_READY_FD"] = str(os.dup(ready_fd))
        _name_process(request["name"])
        settings = Settings(**request["settings"])
        log_to_stderr(settings.log_level)
        service = functools.partial(resolve(request["target"]), settings, *request["args"])
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(service, lifeline_fd))
        status = 0
    except RmiError as error:
        words = error.message
    except UNUSABLE as error:
        words = said(error)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        if short := shortage(error):
            words = short
        else:
            traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            _tell_why(request["name"], words, ready_fd)
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _tell_why(name: str, words: str, ready_fd: int) -> None:
    """Print why a service ends; tell the supervisor if that cannot be written (a full disk)."""
    if not words:
        return
    try:
        print(f"{name}: {words}", file=sys.stderr, flush=True)
    except OSError:
        _tell_failed(words, ready_fd)


def _tell_failed(words: str, ready_fd: int) -> None:
    os.write(ready_fd, json.dumps({"failed": words[:WORDS_CHARS_MAX]}).encode() + b"\n")


def log_to_stderr(level: str) -> None:
    """Send what the modules log to stderr, which is ``DATA_DIR/log/NAME.out`` or the terminal."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


class _OneLine(logging.Formatter):
    """Writes what cannot be printed as escapes (a line break as ``\\n``).

    Messages quote what strangers sent: it shall begin no line of its own, and command no terminal.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record; a traceback follows it as it is."""
        if not record.message.isprintable():
            record.message = "".join(map(_printable, record.message))
        return super().formatMessage(record)


def _printable(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


async def _serve(service: ServiceFunction, lifeline_fd: int) -> None:
    loop = asyncio.get_running_loop()

    def supervisor_is_gone() -> None:
        loop.remove_reader(lifeline_fd)
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(lifeline_fd, supervisor_is_gone)
    await service()


def _name_process(name: str) -> None:
    """Show the service's name in ps and top, where the system has a place for it (Linux)."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write(name[:15])


def main() -> None:
    """Load the modules to be shared, then serve the control socket."""
    parser = argparse.ArgumentParser(prog="rmi-zygote", description=__doc__)
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--lifeline-fd", type=int, required=True)
    parser.add_argument("--keep-fd", type=int, action="append", default=[])
    parser.add_argument("--grace-s", type=float, required=True)
    parser.add_argument("preload", nargs="*")
    options = parser.parse_args()
    for fd in (options.control_fd, options.lifeline_fd, *options.keep_fd):
        # For the forked children, but not for programs that they run.
        os.set_inheritable(fd, False)
    try:
        for module in options.preload:
            importlib.import_module(module)
    except Exception as error:
        if not (short := shortage(error)):
            raise
        sys.exit(short)
    with socket.socket(fileno=options.control_fd) as control:
        Zygote(control, options.lifeline_fd, options.grace_s).run()


if __name__ == "__main__":
    main()
