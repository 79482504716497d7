"""The whole system of one machine with TLS: nothing else is answered, commands find their way."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from rmi_bank import BankClient
from rmi_runtime import NameServers, client_context, errors, split_address
from tests.acceptance.system import BIN, ROOT, System, running_system

SILENT = 50


def certs(data_dir: Path, *arguments: str) -> None:
    command = [str(BIN / "rmi"), "certs", *arguments, "--data-dir", str(data_dir)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    data_dir = tmp_path_factory.mktemp("data")
    certs(data_dir, "create-ca")
    certs(data_dir, "host", "localhost")
    # Relative to where it is started, as a user would give them.
    paths = {"cert": "localhost.crt", "key": "localhost.key", "ca": "ca.crt"}
    options = [word for name, path in paths.items() for word in (f"--tls-{name}", f"certs/{path}")]
    sizes = ("--business", "1", "--loggers", "1", "--messages", "1")
    with running_system(data_dir, "--demo", *options, *sizes) as running:
        yield running


def ca(system: System) -> Path:
    return system.data_dir / "certs" / "ca.crt"


def trusting(system: System) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca(system))


def test_the_gateway_speaks_https_and_nothing_else(system: System) -> None:
    assert system.url.startswith("https://127.0.0.1:")
    answer = httpx.post(system.url, data={"msg": "msg1"}, verify=trusting(system))
    assert answer.text == "POST request b'msg=msg1'"
    assert httpx.get(f"{system.url}/readyz", verify=trusting(system)).json() == {"ready": True}
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(system.url)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(system.url.replace("https", "http"))


def test_commands_need_not_be_told_the_certificates_again(system: System) -> None:
    rows = json.loads(system.rmi("status", "--json").stdout)
    assert {row["state"] for row in rows} == {"ready"}
    assert "gateway" in {row["name"] for row in rows}
    assert system.rmi("token", "create", "--client", "9", "--quiet").stdout.strip()


def test_the_lines_it_prints_to_try_work(system: System) -> None:
    start = system.output.index("to try:") + 1
    end = next(place for place, line in enumerate(system.output) if line.startswith("all "))
    script = "\n".join(system.output[start:end])
    done = subprocess.run(
        ["bash", "-ec", script.replace("curl ", "curl -sS --fail-with-body ")],
        capture_output=True,
        text=True,
        cwd=system.data_dir,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"balance":900' in done.stdout.replace(" ", "")


async def test_a_client_needs_the_ca_and_its_token(system: System) -> None:
    token = system.tokens()[1]
    context = client_context(ca(system))
    async with BankClient([system.name_server], token=token, ssl=context) as bank:
        assert await bank.balance(3) == 1000
    async with BankClient([system.name_server], token=token, timeout_s=1) as bank:
        with pytest.raises(errors.Unavailable):
            await bank.balance(3)


async def test_the_cluster_key_without_a_certificate_opens_no_service(system: System) -> None:
    key = (system.data_dir / "cluster.key").read_text().strip()
    context = client_context(ca(system))
    async with NameServers([system.name_server], ssl=context) as names:
        uri = await names.lookup("bank.data")
    handshake = {"cluster_key": key}
    async with NameServers([system.name_server], ssl=context, handshake=handshake) as names:
        with pytest.raises(errors.Forbidden, match="certificate"):
            await names.call_at(system.name_server, "register", "x", uri)


async def test_silent_sockets_on_every_port_keep_nobody_waiting(system: System) -> None:
    addresses = [service["address"] for service in system.running()["services"]]
    with ExitStack() as stack:
        for address in addresses:
            for _ in range(SILENT):
                stack.enter_context(socket.create_connection(split_address(address)))
        async with httpx.AsyncClient(verify=trusting(system), timeout=5) as http:
            headers = {"Authorization": f"Bearer {system.tokens()[1]}"}
            answer = await http.get(f"{system.url}/bank/accounts/3", headers=headers)
            assert answer.status_code == 200
        context = client_context(ca(system))
        token = system.tokens()[2]
        async with BankClient([system.name_server], token=token, ssl=context, timeout_s=5) as bank:
            assert await asyncio.wait_for(bank.balance(3), 5) == 1000


def test_a_certificate_that_does_not_fit_is_one_line_before_anything_starts(
    system: System, tmp_path: Path
) -> None:
    certs(tmp_path, "create-ca")
    directory = system.data_dir / "certs"
    done = system.run(
        *(str(BIN / "rmi"), "up", "--data-dir", str(tmp_path), "--http", "127.0.0.1:0"),
        *("--tls-cert", str(directory / "localhost.crt")),
        *("--tls-key", str(directory / "localhost.key")),
        *("--tls-ca", str(tmp_path / "certs" / "ca.crt")),
    )
    assert done.returncode == 1
    assert "was not signed by the CA" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == ["certs"]
