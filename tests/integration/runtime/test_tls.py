"""TLS between real sockets: who gets in with which certificate, key or token, and who does not."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from Pyro5.server import expose, oneway

from rmi_runtime import (
    Daemon,
    Endpoints,
    Identity,
    NameServers,
    Proxy,
    ServiceAuthenticator,
    SyncProxy,
    client_context,
    errors,
    hash_token,
    server_context,
)
from rmi_runtime.context import current_call
from rmi_runtime.credentials.certificates import create_authority, create_certificate
from rmi_runtime.registry import NameKeeper, NameServer
from tests.integration.runtime.names import KEY, SERVICE_HANDSHAKE
from tests.support import eventually

NOW = datetime.now(UTC)
TOKEN = "token-of-seven"
SILENT = 50


@expose
class Who:
    """Says who is calling."""

    def who(self) -> str:
        """Return the kind of the caller."""
        return current_call().identity.kind


class Files:
    """Certificates of one CA, in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        create_authority(directory, NOW)
        self.ca = directory / "ca.crt"

    def machine(self, name: str, made_at: datetime = NOW) -> tuple[Path, Path]:
        """Return the certificate and key of a machine."""
        made = create_certificate(self.directory, [name], made_at, 365)
        return made.certificate, made.key


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="module")
def machine(files: Files) -> tuple[Path, Path]:
    return files.machine("node1.example")


async def identify(token_hash: str) -> Identity | None:
    """Know one client."""
    return Identity("client", 7, "teller") if token_hash == hash_token(TOKEN) else None


@pytest.fixture
async def uri(files: Files, machine: tuple[Path, Path]) -> AsyncIterator[str]:
    daemon = Daemon(
        ssl=server_context(*machine, files.ca), authenticate=ServiceAuthenticator(KEY, identify)
    )
    async with daemon:
        yield str(daemon.register(Who(), "who"))


async def ask(uri: str, context: ssl.SSLContext | None, handshake: object = "hello") -> str:
    """Call over TLS."""
    async with Proxy(uri, ssl=context, handshake=handshake, timeout_s=5) as proxy:
        return str(await proxy.who())


async def test_what_a_client_sends_last_is_carried_out_after_it_has_gone(
    files: Files, machine: tuple[Path, Path]
) -> None:
    heard: list[int] = []
    ended: list[int] = []

    @expose
    class Ear:
        def watch(self) -> None:
            connection = current_call().connection
            assert connection is not None
            connection.on_close(lambda: ended.append(len(heard)))

        @oneway
        def hear(self, number: int) -> None:
            heard.append(number)

    async with Daemon(ssl=server_context(*machine)) as daemon:
        uri = daemon.register(Ear())
        async with Proxy(uri, ssl=client_context(files.ca)) as proxy:
            await proxy.watch()
            for number in range(5_000):
                await proxy.hear(number)
        await eventually(lambda: ended)
        assert heard == list(range(5_000))
        assert ended == [5_000], "it is over when all is done"
        assert not daemon.connections


async def test_a_service_shows_the_cluster_key_and_a_certificate(
    uri: str, files: Files, machine: tuple[Path, Path]
) -> None:
    assert await ask(uri, client_context(files.ca, *machine), SERVICE_HANDSHAKE) == "service"


async def test_the_cluster_key_alone_makes_no_service(uri: str, files: Files) -> None:
    with pytest.raises(errors.Forbidden, match="certificate"):
        await ask(uri, client_context(files.ca), SERVICE_HANDSHAKE)


async def test_a_certificate_alone_makes_no_service(
    uri: str, files: Files, machine: tuple[Path, Path]
) -> None:
    context = client_context(files.ca, *machine)
    assert await ask(uri, context) == "anonymous"
    with pytest.raises(errors.Forbidden, match="cluster key"):
        await ask(uri, context, {"cluster_key": "ab" * 32})


async def test_clients_need_a_token_and_no_certificate(uri: str, files: Files) -> None:
    context = client_context(files.ca)
    assert await ask(uri, context, {"token": TOKEN}) == "client"
    assert await ask(uri, context) == "anonymous"
    with pytest.raises(errors.Forbidden, match="fake"):
        await ask(uri, context, {"token": "fake"})


async def test_plain_scripts_can_use_it_too(uri: str, files: Files) -> None:
    def use() -> str:
        with SyncProxy(uri, ssl=client_context(files.ca), handshake={"token": TOKEN}) as proxy:
            return str(proxy.who())

    assert await asyncio.to_thread(use) == "client"


@pytest.mark.parametrize("age", ["another CA", "expired", "not yet valid"])
async def test_a_bad_certificate_is_refused_even_with_the_right_key(
    uri: str, files: Files, tmp_path: Path, age: str
) -> None:
    if age == "another CA":
        shown = Files(tmp_path).machine("node1.example")
    else:
        shift = timedelta(days=-400 if age == "expired" else 2)
        shutil.copy(files.ca, tmp_path)
        shutil.copy(files.directory / "ca.key", tmp_path)
        made = create_certificate(tmp_path, ["late"], NOW + shift)
        shown = made.certificate, made.key
    with pytest.raises(errors.Unavailable):
        await ask(uri, client_context(files.ca, *shown), SERVICE_HANDSHAKE)
    assert await ask(uri, client_context(files.ca)) == "anonymous"


async def test_a_server_of_another_ca_is_not_told_anything(uri: str, tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await ask(uri, client_context(Files(tmp_path).ca), SERVICE_HANDSHAKE)


async def test_a_server_with_another_name_is_not_told_anything(
    files: Files, machine: tuple[Path, Path]
) -> None:
    async with Daemon(host="127.0.0.2", ssl=server_context(*machine)) as daemon:
        uri = str(daemon.register(Who(), "who"))
        with pytest.raises(errors.Unavailable, match="mismatch"):
            await ask(uri, client_context(files.ca), SERVICE_HANDSHAKE)


async def test_an_expired_server_is_not_told_anything(files: Files, tmp_path: Path) -> None:
    shutil.copy(files.ca, tmp_path)
    shutil.copy(files.directory / "ca.key", tmp_path)
    made = create_certificate(tmp_path, ["late"], NOW - timedelta(days=400))
    async with Daemon(ssl=server_context(made.certificate, made.key)) as daemon:
        uri = str(daemon.register(Who(), "who"))
        with pytest.raises(errors.Unavailable, match="expired"):
            await ask(uri, client_context(files.ca), SERVICE_HANDSHAKE)


async def test_who_does_not_speak_tls_is_not_answered(uri: str) -> None:
    with pytest.raises(errors.Unavailable):
        await ask(uri, None, SERVICE_HANDSHAKE)
    host, _, port = uri.rpartition("@")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    assert b"PYRO" not in answer
    writer.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_old_versions_of_tls_are_refused(uri: str, files: Files) -> None:
    context = client_context(files.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises(errors.Unavailable):
        await ask(uri, context)


async def test_silent_sockets_on_the_port_keep_nobody_waiting(uri: str, files: Files) -> None:
    host, _, port = uri.rpartition("@")[2].rpartition(":")
    with ExitStack() as stack:
        for _ in range(SILENT):
            stack.enter_context(socket.create_connection((host, int(port))))
        assert await asyncio.wait_for(ask(uri, client_context(files.ca)), 5) == "anonymous"


async def test_a_server_that_asks_for_no_certificate_takes_services_by_their_key(
    files: Files, machine: tuple[Path, Path]
) -> None:
    daemon = Daemon(ssl=server_context(*machine), authenticate=ServiceAuthenticator(KEY))
    async with daemon:
        uri = str(daemon.register(Who(), "who"))
        assert await ask(uri, client_context(files.ca), SERVICE_HANDSHAKE) == "service"


async def test_endpoints_take_their_tls_from_the_name_servers(
    uri: str, files: Files, machine: tuple[Path, Path]
) -> None:
    server, client = server_context(*machine, files.ca), client_context(files.ca, *machine)
    daemon = Daemon(ssl=server, authenticate=ServiceAuthenticator(KEY))
    async with NameKeeper(None) as keeper, daemon:
        daemon.register(NameServer(keeper), "Pyro.NameServer")
        async with (
            NameServers([daemon.location], handshake=SERVICE_HANDSHAKE, ssl=client) as names,
            Endpoints(names, "who", handshake=SERVICE_HANDSHAKE) as endpoints,
        ):
            await names.call_at(daemon.location, "register", "who", uri)
            assert await endpoints.call("who") == "service"
            uri_by_name = f"PYRONAME:who@{daemon.location}"
            async with Proxy(uri_by_name, ssl=client, resolve=names.resolve) as proxy:
                assert await proxy.who() == "anonymous"


async def test_a_service_whose_certificate_has_expired_is_told_once_in_its_callers_log(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(files.ca, tmp_path)
    shutil.copy(files.directory / "ca.key", tmp_path)
    made = create_certificate(tmp_path, ["late"], NOW - timedelta(days=400))
    daemon = Daemon(ssl=server_context(made.certificate, made.key))
    apart = Daemon(authenticate=ServiceAuthenticator(KEY))
    async with NameKeeper(None) as keeper, daemon, apart:
        uri = str(daemon.register(Who(), "who"))
        apart.register(NameServer(keeper), "Pyro.NameServer")
        async with (
            NameServers([apart.location], handshake=SERVICE_HANDSHAKE) as names,
            Endpoints(names, "who", ssl=client_context(files.ca)) as endpoints,
        ):
            await names.call_at(apart.location, "register", "who", uri)
            for _ in range(2):
                with pytest.raises(errors.Unavailable):
                    await endpoints.call("who", timeout_s=0.5)
    told = [record.getMessage() for record in caplog.records if "no TLS with" in record.message]
    assert len(told) == 1
    assert told[0].startswith(f"no TLS with who at {uri}: ")
    assert "expired" in told[0]


async def test_a_name_server_whose_certificate_has_expired_is_not_just_absent(
    files: Files, tmp_path: Path
) -> None:
    shutil.copy(files.ca, tmp_path)
    shutil.copy(files.directory / "ca.key", tmp_path)
    made = create_certificate(tmp_path, ["late"], NOW - timedelta(days=400))
    async with (
        Daemon(ssl=server_context(made.certificate, made.key)) as daemon,
        NameServers([daemon.location], ssl=client_context(files.ca)) as names,
    ):
        for ask in (names.lookup("x"), names.find("x"), names.list()):
            with pytest.raises(errors.Unavailable, match=r"no name server answers .* expired"):
                await ask


STOCK_CLIENT = """
import json, sys
import Pyro5.api
options = json.loads(sys.argv[1])
for name, value in options["config"].items():
    setattr(Pyro5.config, name, value)
Pyro5.config.SSL = True
with Pyro5.api.Proxy(options["uri"]) as proxy:
    proxy._pyroHandshake = options["handshake"]
    print(proxy.who())
"""


async def stock(uri: str, handshake: object, **config: Any) -> tuple[str, str]:
    """Call with a stock client; return its output and its errors."""
    options = {"uri": uri, "handshake": handshake, "config": {k: str(v) for k, v in config.items()}}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STOCK_CLIENT, json.dumps(options)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return out.decode().strip(), err.decode()


async def test_stock_clients_with_the_ca_and_a_token(uri: str, files: Files) -> None:
    assert (await stock(uri, {"token": TOKEN}, SSL_CACERTS=files.ca))[0] == "client"


async def test_stock_clients_with_a_certificate_and_the_cluster_key(
    uri: str, files: Files, machine: tuple[Path, Path]
) -> None:
    config = {"SSL_CACERTS": files.ca, "SSL_CLIENTCERT": machine[0], "SSL_CLIENTKEY": machine[1]}
    assert (await stock(uri, SERVICE_HANDSHAKE, **config))[0] == "service"


async def test_stock_clients_without_the_ca_do_not_trust_us_and_without_certificate_are_no_service(
    uri: str, files: Files
) -> None:
    assert "CERTIFICATE_VERIFY_FAILED" in (await stock(uri, {"token": TOKEN}))[1]
    said = (await stock(uri, SERVICE_HANDSHAKE, SSL_CACERTS=files.ca))[1]
    assert "a certificate of the private CA" in said
