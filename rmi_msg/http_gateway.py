"""The gateway: one HTTP port for the bank and the messages.

It keeps no state of its own. Requests that arrive together travel on together; each has one effect,
whatever breaks on the way, because it carries its own id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
from collections.abc import AsyncIterator
from ssl import SSLContext

from rmi_bank import BankGateway
from rmi_msg.batches import CallLimits
from rmi_msg.gateway_app import gateway_app
from rmi_msg.gateway_messages import MessageGateway
from rmi_msg.gateway_metrics import GatewayMetrics
from rmi_msg.gateway_pages import GatewayPages
from rmi_msg.gateway_status import Census, Readiness
from rmi_runtime import (
    Endpoints,
    NameServers,
    Settings,
    collect_rarely,
    load_or_create_cluster_key,
    load_tls,
    signal_ready,
    split_address,
    stop_on_signals,
)
from rmi_runtime.http import App, HttpLimits, HttpServer, listen

NAME = "gateway"
SAMPLE_EVERY_S = 1.0

log = logging.getLogger(__name__)


async def run_gateway(settings: Settings, *, stop: asyncio.Event | None = None) -> None:
    """Serve HTTP at ``settings.http`` until told to stop; then finish what is under way.

    Args:
        settings: the settings in force.
        stop: set it to stop. None: SIGTERM, SIGINT and SIGHUP stop it.

    Raises:
        Unavailable: the port is taken, or the address is not this machine's.
        TlsUnusable: the certificate, its key or the CA cannot be used.
    """
    stopping = stop if stop is not None else stop_on_signals()
    host, port = split_address(settings.http)
    # Several processes on one port need all of them to say so.
    sock = listen(host, port, reuse_port=settings.gateway_workers > 1)
    _allow_many_connections()
    tls = load_tls(settings)
    async with _gateway(settings, tls.client if tls else None) as (app, pages):
        server = HttpServer(
            app,
            direct=app.direct,
            methods=app.methods,
            refusal=app.refusal,
            limits=HttpLimits(body_size_bytes_max=settings.body_size_bytes_max),
            on_refused=pages.metrics.on_refused,
        )
        async with server:
            await server.start(sock, tls.web if tls else None)
            pages.server = server
            shown_host = f"[{host}]" if ":" in host else host
            location = f"{shown_host}:{server.address[1]}"
            collect_rarely()
            signal_ready(NAME, {"location": location, "uri": f"{server.scheme}://{location}"})
            log.info("the gateway listens at %s", location)
            await stopping.wait()
            log.info("the gateway is stopping")
            if not await server.drain(settings.stop_wait_s):
                log.warning("the gateway gives up %d requests under way", server.under_way)


@contextlib.asynccontextmanager
async def _gateway(
    settings: Settings, ssl: SSLContext | None
) -> AsyncIterator[tuple[App, GatewayPages]]:
    """Open the ways to the services; yield the application and its pages."""
    handshake = {"cluster_key": load_or_create_cluster_key(settings.data_dir)}
    async with contextlib.AsyncExitStack() as stack:
        names = await stack.enter_async_context(
            NameServers(settings.ns, handshake=handshake, ssl=ssl)
        )
        data, business, facades, loggers = [
            await stack.enter_async_context(
                Endpoints(
                    names,
                    prefix,
                    handshake=handshake,
                    policy="less_busy",
                    timeout_s=settings.call_timeout_s,
                )
            )
            for prefix in ("bank.data", "bank.business.", "msg.facade.", "msg.logger.")
        ]
        bank = BankGateway(
            business,
            batch_max=settings.batch_max,
            queue_max=settings.queue_max,
            wait_s_max=settings.call_timeout_s,
        )
        stack.push_async_callback(bank.aclose)
        messages = MessageGateway(
            facades,
            queue_max=settings.queue_max,
            timeout_s=settings.call_timeout_s,
            limits=CallLimits.within(settings.message_size_bytes_max),
        )
        stack.push_async_callback(messages.aclose)
        metrics = GatewayMetrics()
        needed = {"data object": data, "business object": business}
        needed |= {"facade": facades, "logger": loggers}
        readiness = Readiness(needed, handshake, ssl)
        pages = GatewayPages(metrics, readiness.reasons, Census(names, handshake).rows)
        sampler = asyncio.create_task(_sample(metrics))
        stack.callback(sampler.cancel)
        yield gateway_app(bank, messages, pages), pages


async def _sample(metrics: GatewayMetrics) -> None:
    while True:
        await asyncio.sleep(SAMPLE_EVERY_S)
        metrics.sample()


def _allow_many_connections() -> None:
    """Raise the soft limit of open files to the hard one: each connection is a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    raise SystemExit("this module is no command; the service is started with: rmi gateway")
