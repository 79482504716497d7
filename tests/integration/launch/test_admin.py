"""`rmi token` and `rmi account` against a running system."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.launch.running import rmi, up
from tests.support import eventually


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of a running system, with accounts 1 and 2."""
    directory = tmp_path_factory.mktemp("admin")
    with up(directory) as system:
        system.until("ready: ")
        for number in ("1", "2"):
            done = rmi("account", "create", number, "--balance", "1000", data_dir=directory)
            assert done.returncode == 0, done.stderr
        yield directory
        system.process.terminate()
        assert system.process.wait(30) == 0


def status_of(data_dir: Path, path: str, token: str) -> int:
    """Ask the gateway with a token; return the HTTP status."""
    http = json.loads((data_dir / "running.json").read_text())["http"]
    request = urllib.request.Request(
        f"http://{http}{path}", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def created(data_dir: Path, *args: str) -> dict[str, Any]:
    done = rmi("token", "create", "--json", *args, data_dir=data_dir)
    assert done.returncode == 0, done.stderr
    token: dict[str, Any] = json.loads(done.stdout)
    return token


def listed(data_dir: Path) -> dict[int, dict[str, Any]]:
    rows = json.loads(rmi("token", "list", "--json", data_dir=data_dir).stdout)
    return {row["id"]: row for row in rows}


async def test_a_created_token_opens_the_bank_until_it_is_revoked(data_dir: Path) -> None:
    made = created(data_dir, "--client", "1", "--role", "teller")
    assert (made["client"], made["role"], made["expires_at"]) == (1, "teller", None)
    assert status_of(data_dir, "/bank/accounts/1", made["token"]) == 200
    done = rmi("token", "revoke", str(made["id"]), data_dir=data_dir)
    assert done.returncode == 0, done.stderr
    await eventually(lambda: status_of(data_dir, "/bank/accounts/1", made["token"]) == 403)
    assert listed(data_dir)[made["id"]]["revoked_at"]
    again = rmi("token", "revoke", str(made["id"]), data_dir=data_dir)
    assert again.returncode == 1
    assert "revoked before" in again.stderr


def test_a_token_is_printed_alone_so_that_a_shell_can_take_it(data_dir: Path) -> None:
    for flags in ([], ["--quiet"]):
        done = rmi("token", "create", "--client", "2", *flags, data_dir=data_dir)
        (token,) = done.stdout.splitlines()
        assert status_of(data_dir, "/bank/accounts/2", token) == 200
        assert bool(done.stderr) is not bool(flags)


def test_a_token_is_not_made_where_it_is_unclear_how_to_print_it(data_dir: Path) -> None:
    before = listed(data_dir)
    done = rmi("token", "create", "--client", "2", "--quiet", "--json", data_dir=data_dir)
    assert (done.returncode, done.stdout) == (2, "")
    assert "leave one of them out" in done.stderr
    assert listed(data_dir) == before


def test_a_list_of_tokens_has_no_token(data_dir: Path) -> None:
    made = created(data_dir, "--client", "3", "--role", "customer", "--expires-s", "3600")
    assert made["expires_at"]
    assert listed(data_dir)[made["id"]] == {k: v for k, v in made.items() if k != "token"}
    table = rmi("token", "list", data_dir=data_dir).stdout
    assert "customer" in table
    assert made["token"] not in table


def test_accounts_are_listed_with_balance_and_owner(data_dir: Path) -> None:
    done = rmi(
        "account", "create", "77", "--balance", "5", "--owner", "9", "--json", data_dir=data_dir
    )
    assert json.loads(done.stdout)["balance"] == 5
    rows = json.loads(rmi("account", "list", "--json", data_dir=data_dir).stdout)
    assert {"account": 77, "balance": 5, "owner": 9} in rows
    for form in ([], ["--json"]):
        first = rmi("account", "list", "--limit", "1", *form, data_dir=data_dir)
        # The same: another --limit or data directory would list other accounts.
        assert first.stderr == "there are more: the same command with --after 1\n"


def test_an_account_is_opened_once(data_dir: Path) -> None:
    done = rmi("account", "create", "1", data_dir=data_dir)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1


def test_without_a_running_system_commands_say_how_to_start_it(tmp_path: Path) -> None:
    for command in (["token", "list"], ["account", "list"], ["status"]):
        done = rmi(*command, data_dir=tmp_path)
        assert (done.returncode, done.stdout) == (3, "")
        assert "rmi up" in done.stderr
