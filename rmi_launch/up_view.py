"""What ``rmi up`` shows: on a terminal in colour with a progress bar, elsewhere plain lines.

The last line before the system is left to itself is ``ready: http://HOST:PORT`` where the output
is not a terminal, so that a script can wait for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from rmi_launch.stdout import forgiving
from rmi_launch.supervisor import Service, State
from rmi_launch.tables import new_table, plain, show
from rmi_runtime import Settings

ROOM_WAIT_S = 0.5
"""How long a slow terminal or pipe may take before what is to be printed is left out."""


class UpView(Protocol):
    """What a run tells its view."""

    def starting(self, count: int, settings: Settings) -> None:
        """*count* services are being started."""

    def changed(self, service: Service) -> None:
        """*service* has a new state."""

    def ready(self, settings: Settings, services: Sequence[Service]) -> None:
        """Everything is ready, at the addresses in *settings*."""

    def stopping(self) -> None:
        """Everything is being stopped."""

    def stopped(self) -> None:
        """Nothing runs any more."""


def make_view(began: float) -> UpView:
    """Return the view that suits stdout.

    Args:
        began: when the command began (``time.monotonic()``).
    """
    view = TerminalView(Console(), began) if sys.stdout.isatty() else PlainView(began)
    return UnheardView(view)


def places(settings: Settings) -> list[tuple[str, str]]:
    """Return where everything is: what it is, and its address or path."""
    found = [
        ("gateway", gateway_url(settings)),
        ("API description", f"{gateway_url(settings)}/openapi.json"),
        ("name server", ", ".join(settings.ns)),
        ("data", shown(settings.data_dir)),
        ("logs", shown(settings.data_dir / "log")),
    ]
    if (tokens := settings.data_dir / "demo-tokens.json").exists():
        found.append(("demo tokens", shown(tokens)))
    return found


def examples(settings: Settings) -> list[str]:
    """Return shell lines that work now, in this order."""
    url = gateway_url(settings)
    curl = f"curl --cacert {shlex.quote(shown(Path(settings.tls_ca)))}" if settings.tls else "curl"
    lines = [
        f"{curl} -d msg=msg1 {url}/",
        f"{curl} '{url}/?msg=HELLO'",
    ]
    tokens = settings.data_dir / "demo-tokens.json"
    if tokens.exists():
        # In double quotes, so that the shell's single ones stay around all of it.
        path = json.dumps(shown(tokens), ensure_ascii=False)
        program = f'import json; print(json.load(open({path}))[0]["token"])'
        lines.append(f"TOKEN=$(python3 -c {shlex.quote(program)})")
    else:
        rmi = _this_command()
        where = f"--data-dir {shlex.quote(shown(settings.data_dir))}"
        new = sorted({1, 2} - _accounts(settings.data_dir / "bank.sqlite"))
        lines += [f"{rmi} account create {n} --balance 1000 {where}" for n in new]
        lines.append(f"TOKEN=$({rmi} token create --client 1 --role teller --quiet {where})")
    bearer = f'{curl} -H "Authorization: Bearer $TOKEN"'
    lines.append(
        f"{bearer} -H 'Content-Type: application/json' "
        f"""-d '{{"source": 1, "target": 2, "amount": 100}}' {url}/bank/transfers"""
    )
    lines.append(f"{bearer} {url}/bank/accounts/1")
    return lines


def _this_command() -> str:
    """Return what starts ``rmi`` in a shell, here and now."""
    if shutil.which("rmi"):
        return "rmi"
    if os.path.isfile(sys.argv[0]) and os.access(sys.argv[0], os.X_OK):
        return shlex.quote(sys.argv[0])
    return f"{shlex.quote(sys.executable)} -m rmi_launch"


def _accounts(path: Path) -> set[int]:
    """Return which of the accounts 1 and 2 the bank in that file has."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as bank:
            return {n for (n,) in bank.execute("SELECT account FROM accounts WHERE account < 3")}
    except sqlite3.Error:
        return set()


def gateway_url(settings: Settings) -> str:
    """Return where the gateway is, without a slash at the end."""
    return f"{'https' if settings.tls else 'http'}://{settings.http}"


def shown(path: Path) -> str:
    """Return *path* as people like to read it: relative if it is below the current directory."""
    try:
        relative = os.path.relpath(path)
    except FileNotFoundError:  # the current directory has been deleted
        return str(path)
    return str(path) if relative.startswith("..") else relative


def pid_of(service: Service) -> str:
    """Return the service's process id as text, or nothing."""
    return str(service.process.pid or "") if service.process else ""


class UnheardView:
    """Passes all on to *view*, and goes on in silence while nothing can be printed.

    Whoever read has gone (``rmi up | head``), or reads no more (Ctrl-S, a script that has seen
    enough), the terminal was closed, the disk under the output is full: no service may go
    unwatched, and no stop be held up or cut short, because of that.

    Args:
        view: prints.
    """

    def __init__(self, view: UpView) -> None:
        self._view = view
        self._heard = True

    def starting(self, count: int, settings: Settings) -> None:
        """*count* services are being started."""
        self._tell(lambda: self._view.starting(count, settings))

    def changed(self, service: Service) -> None:
        """*service* has a new state."""
        self._tell(lambda: self._view.changed(service))

    def ready(self, settings: Settings, services: Sequence[Service]) -> None:
        """Everything is ready, at the addresses in *settings*."""
        self._tell(lambda: self._view.ready(settings, services))

    def stopping(self) -> None:
        """Everything is being stopped."""
        self._tell(self._view.stopping)

    def stopped(self) -> None:
        """Nothing runs any more."""
        self._tell(self._view.stopped)

    def _tell(self, tell: Callable[[], None]) -> None:
        with forgiving(sys.stdout):
            # Who does not read is waited for once, not with every line.
            self._heard = _is_room(ROOM_WAIT_S if self._heard else 0.0)
            if self._heard:
                tell()


def _is_room(wait_s: float) -> bool:
    """Wait until stdout takes some lines at once; False if it does not within *wait_s*."""
    room = select.poll()
    room.register(sys.stdout.fileno(), select.POLLOUT)
    return bool(room.poll(1000 * wait_s))


class PlainView:
    """Lines without colour, flushed one by one."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._quiet = False

    def _say(self, line: str = "") -> None:
        print(line, flush=True)

    def starting(self, count: int, settings: Settings) -> None:
        """Say what begins."""
        self._say(f"starting {count} services, data in {shown(settings.data_dir)}")

    def changed(self, service: Service) -> None:
        """Say what changed; the single ends of an orderly stop are not worth a line."""
        if service.state is State.READY:
            where = f" at {service.address}" if service.address else ""
            self._say(f"{service.name} ready{where} (process {pid_of(service)})")
        elif service.state in (State.DEAD, State.WAITING) and not self._quiet:
            self._say(f"{service.name} {service.state.value}: {service.why}")

    def ready(self, settings: Settings, services: Sequence[Service]) -> None:
        """Say where everything is, and end with the line that scripts wait for."""
        for what, where in places(settings):
            self._say(f"{what}: {where}")
        self._say("to try:")
        for line in examples(settings):
            self._say(f"  {line}")
        self._say(f"all {len(services)} services ready in {_since(self._began)}")
        self._say(f"ready: {gateway_url(settings)}")

    def stopping(self) -> None:
        """Say that it stops."""
        self._quiet = True
        self._say("stopping")

    def stopped(self) -> None:
        """Say that it has stopped."""
        self._say("stopped")


class TerminalView:
    """Colour, a progress bar, a table."""

    def __init__(self, console: Console, began: float) -> None:
        self._console = console
        self._began = began
        self._bar: Progress | None = None
        self._starting: set[str] = set()
        self._stopping = False

    def _hide_bar(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def starting(self, count: int, settings: Settings) -> None:
        """Show an empty bar."""
        # Redrawn at every change rather than by a thread of its own.
        self._bar = Progress(
            TextColumn("[bold]starting"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.description}"),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        self._bar.add_task("", total=count)
        self._bar.start()
        self._bar.refresh()

    def changed(self, service: Service) -> None:
        """Move the bar while starting; later, print a line."""
        if self._bar:
            self._move_bar(self._bar, service)
        elif self._stopping:
            return
        elif service.state is State.READY:
            self._line("green", service, f"ready again, process {pid_of(service)}")
        elif service.state in (State.DEAD, State.WAITING):
            self._line("red", service, service.why)

    def _move_bar(self, bar: Progress, service: Service) -> None:
        task = bar.tasks[0]
        if service.state is State.STARTING:
            self._starting.add(service.name)
        elif service.state is State.READY:
            self._starting.discard(service.name)
            bar.advance(task.id)
        first, more = min(self._starting, default=""), len(self._starting) - 1
        bar.update(task.id, description=f"{first} and {more} more" if more > 0 else first)
        bar.refresh()

    def _line(self, colour: str, service: Service, text: str) -> None:
        clock = time.strftime("%H:%M:%S")
        line = Text.assemble((clock, "dim"), " ", (service.name, colour), f" {text}")
        self._console.print(line, highlight=False)

    def ready(self, settings: Settings, services: Sequence[Service]) -> None:
        """Show where everything is, the services, and lines to try."""
        self._hide_bar()
        took = f"{len(services)} services in {_since(self._began)}"
        self._console.print(f"[bold green]ready[/] [dim]({took})[/]", highlight=False)
        here = Table.grid(padding=(0, 2))
        here.add_column(no_wrap=True)
        here.add_column(no_wrap=True)
        for what, where in places(settings):
            here.add_row(f"  [dim]{what}[/]", plain(where))
        table = new_table("  name", "address", "pid", "state", right=("pid",))
        for service in services:
            state = f"[green]{service.state.value}[/]"
            table.add_row(f"  {service.name}", plain(service.address), pid_of(service), state)
        self._console.print()
        show(here, self._console)
        self._console.print()
        show(table, self._console)
        self._console.print("\n  [dim]to try:[/]")
        for line in examples(settings):
            # Never wrapped or marked up: it is there to be copied.
            self._console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
        self._console.print("\n  [dim]Ctrl-C stops everything[/]")

    def stopping(self) -> None:
        """Say that it stops."""
        self._hide_bar()
        self._stopping = True
        self._console.print("[dim]stopping; Ctrl-C again kills what is left[/]")

    def stopped(self) -> None:
        """Say that it has stopped."""
        self._console.print("[bold]stopped[/]")


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"
