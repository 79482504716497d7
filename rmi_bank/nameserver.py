"""Hosts the name server as a service: the first thing to start, the last to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from Pyro5.core import NAMESERVER_NAME

from rmi_runtime import (
    OWN_TAGS,
    Daemon,
    NameKeeper,
    NameServer,
    ServiceAuthenticator,
    Settings,
    answering_broadcasts,
    cancelled_by,
    is_loopback,
    load_or_create_cluster_key,
    load_tls,
    signal_ready,
    split_address,
    stop_on_signals,
)

log = logging.getLogger(__name__)

FILE_NAME = "nameserver.sqlite"
"""Where the names are kept, in the data directory."""


async def run_nameserver(settings: Settings, *, stop: asyncio.Event | None = None) -> None:
    """Serve ``Pyro.NameServer`` at the first of ``settings.ns`` until told to stop.

    Look-ups are open to everybody; who wants to register needs the cluster key. The names are kept
    in ``DATA_DIR/nameserver.sqlite``. On an address that others can reach, it is found by broadcast
    too (``Pyro5.api.locate_ns()``).

    Args:
        settings: the settings in force.
        stop: set it to stop. None: SIGTERM, SIGINT and SIGHUP stop it.

    Raises:
        OSError: the address is taken, or is not this machine's.
        TlsUnusable: the certificate, its key or the CA cannot be used.
    """
    stopping = stop if stop is not None else stop_on_signals()
    host, port = split_address(settings.ns[0])
    tls = load_tls(settings)
    daemon = Daemon(
        host,
        port,
        authenticate=ServiceAuthenticator(load_or_create_cluster_key(settings.data_dir)),
        ssl=tls.server if tls else None,
        insecure=settings.insecure,
    )
    try:
        async with (
            cancelled_by(stopping) as built,
            contextlib.AsyncExitStack() as stack,
            NameKeeper(Path(settings.data_dir) / FILE_NAME) as keeper,
        ):
            built()
            uri = str(daemon.register(NameServer(keeper), NAMESERVER_NAME))
            keeper.table.pin(uri, OWN_TAGS)
            await daemon.start()
            if not is_loopback(host) and settings.ns_broadcast_port:
                await stack.enter_async_context(
                    answering_broadcasts(uri, settings.ns_broadcast_port)
                )
            signal_ready(NAMESERVER_NAME, {"location": daemon.location, "uri": uri})
            log.info("the name server is ready at %s", daemon.location)
            await stopping.wait()
            log.info("the name server is stopping")
            await daemon.drain(settings.stop_wait_s)
            await daemon.close()
    finally:
        await daemon.close()


if __name__ == "__main__":
    raise SystemExit("this module is no command; the service is started with: rmi nameserver")
