"""The seeds' demonstrations, through the command line and real processes."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.system import BIN, System, running_system
from tests.support import eventually

TEN = {f"msg{n}" for n in range(1, 11)}
MSG1 = "487e0156-a04c-5aeb-b42c-52c752bc2dd7"
MSG10 = "02f2bfad-3e03-5f09-87e3-1c06de44a9c1"
BUSINESS_LINE = re.compile(
    r"Timestamp:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} - OperationNumber: (\d+) - ClientID: \d+ - "
    r"OperationType: (Saldo|Deposito|Saque|Transferencia) - Account: \d+ - Value: (\d+|N/A)"
)
DATA_LINE = re.compile(
    r"Timestamp:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} - OperationNumber: (\d+) - "
    r"BusinessServerID: \d+ - OperationType: [a-z]+ - Account: \d+ - Value: -?\d+"
)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("demo"), "--demo") as running:
        yield running


def assert_numbered_without_gap(lines: list[str], form: re.Pattern[str]) -> None:
    numbers = []
    for line in lines:
        found = form.fullmatch(line)
        assert found, f"not in the seed's format: {line}"
        numbers.append(int(found[1]))
    assert numbers == list(range(1, len(numbers) + 1))


def texts_read_back(output: str) -> set[str]:
    """Return the texts that getrequest.py printed of the loggers' messages."""
    status, _, answer = output.partition("\n")
    assert status == "200"
    logged, _consumed = ast.literal_eval(answer)
    return {text for _, text in ast.literal_eval(logged)}


def test_the_concurrent_bank_client_ends_with_balanced_books(system: System) -> None:
    done = system.client(
        "bank_client",
        *("--requests", "500", "--concurrency", "50", "--fake-every", "10", "--json"),
        *("--url", system.url, "--data-dir", str(system.data_dir)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["books"]["balanced"]
    assert report["fake_tokens"] == 50
    assert report["forbidden"] == 50
    assert report["unanswered"] == 0
    for name in system.names("bank.business."):
        assert_numbered_without_gap(system.log(name), BUSINESS_LINE)
    assert_numbered_without_gap(system.log("bank.data"), DATA_LINE)
    logged = sum(len(system.log(name)) for name in system.names("bank.business."))
    done_well = sum(n for key, n in report["statuses"].items() if key[-3:] in ("200", "201"))
    read_before_and_after = 2 * 10
    assert logged == done_well + read_before_and_after


def test_ten_posts_are_answered_as_by_the_seed_and_spread_over_the_loggers(
    system: System,
) -> None:
    posted = system.client("postrequest", "--url", system.url)
    assert posted.returncode == 0, posted.stderr
    expected = [line for n in range(1, 11) for line in ("200", f"POST request b'msg=msg{n}'")]
    assert posted.stdout.splitlines() == expected

    logged = [line for name in system.names("msg.logger.") for line in system.log(name)]
    assert sorted(logged) == sorted(set(logged)), "a message was logged twice"
    assert f"msg = msg1 UUID = {MSG1}" in logged
    assert f"msg = msg10 UUID = {MSG10}" in logged
    assert {line.split(" UUID")[0].removeprefix("msg = ") for line in logged} >= TEN

    read = system.client("getrequest", "--url", system.url)
    assert texts_read_back(read.stdout) >= TEN
    assert f"('{MSG1}', 'msg1')" in read.stdout


async def test_each_message_is_consumed_by_exactly_one_messages_service(system: System) -> None:
    assert system.client("postrequest", "--url", system.url).returncode == 0

    def all_consumed() -> bool:
        lines = [line for name in system.names("msg.messages.") for line in system.log(name)]
        assert len(lines) == len(set(lines)), "a message was consumed twice"
        return len(lines) >= len(TEN)

    await eventually(all_consumed)


def test_stock_tools_and_both_kinds_of_proxy_can_use_the_system(system: System) -> None:
    host, _, port = system.name_server.partition(":")
    listed = system.run(str(BIN / "pyro5-nsc"), "-n", host, "-p", port, "list")
    for name in ("bank.data", "bank.business.1", "msg.facade.1", "msg.logger.3", "msg.messages.2"):
        assert f"{name} --> PYRO:{name}@" in listed.stdout, listed.stdout + listed.stderr
    scripted = system.client(
        "proxy_scripting", "--ns", system.name_server, "--data-dir", str(system.data_dir)
    )
    assert scripted.returncode == 0, scripted.stdout + scripted.stderr
    assert scripted.stdout.count("withdraw too much:") == 2
    assert scripted.stdout.count("insufficient_funds") == 2
    assert "a fake token was let in" not in scripted.stdout


def test_a_script_with_tokens_of_another_system_says_which_directory_it_took_them_from(
    system: System, tmp_path: Path
) -> None:
    (tmp_path / "demo-tokens.json").write_text('[{"client": 1, "token": "of-another-system"}]')
    refused = system.client(
        "proxy_scripting", "--ns", system.name_server, "--data-dir", str(tmp_path)
    )
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "the token is fake" in refused.stderr
    assert f"its directory {tmp_path} (--data-dir)" in refused.stderr


def test_status_shows_every_service_as_ready(system: System) -> None:
    shown = system.rmi("status", "--json")
    assert shown.returncode == 0, shown.stderr
    rows = {row["name"]: row for row in json.loads(shown.stdout)}
    assert set(system.names()) <= set(rows)
    assert {row["state"] for row in rows.values()} == {"ready"}


def test_with_ever_fewer_loggers_all_ten_messages_are_read(tmp_path: Path) -> None:
    with running_system(tmp_path, "--demo", "--no-restart") as system:
        assert system.client("postrequest", "--url", system.url).returncode == 0
        for name in ("", "msg.logger.2", "msg.logger.1"):
            if name:
                system.kill_service(name)
            read = system.client("getrequest", "--url", system.url)
            assert read.returncode == 0, read.stderr
            assert texts_read_back(read.stdout) == TEN
            for _ in range(10):  # whichever logger is asked
                logged, _consumed = httpx.get(system.url, timeout=30).raise_for_status().json()
                assert {text for _, text in logged} == TEN
        again = system.client("postrequest", "--url", system.url)
        assert again.returncode == 0, again.stderr


def test_a_second_start_finds_the_data_again(tmp_path: Path) -> None:
    with running_system(tmp_path, "--demo") as system:
        assert system.client("postrequest", "--url", system.url).returncode == 0
        before = system.client(
            "bank_client",
            *("--requests", "50", "--json", "--seed", "1"),
            *("--url", system.url, "--data-dir", str(tmp_path)),
        )
        tokens = system.tokens()
        lines = len(system.log("bank.data"))
        assert system.stop() == 0
    with running_system(tmp_path, "--demo") as system:
        assert system.tokens() == tokens
        assert texts_read_back(system.client("getrequest", "--url", system.url).stdout) == TEN
        after = system.client(
            "bank_client",
            *("--requests", "50", "--json", "--seed", "2"),
            *("--url", system.url, "--data-dir", str(tmp_path)),
        )
        old, new = (json.loads(done.stdout)["books"] for done in (before, after))
        assert new["before"] == old["after"]
        assert new["balanced"]
        assert_numbered_without_gap(system.log("bank.data"), DATA_LINE)
        assert len(system.log("bank.data")) > lines


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--patience-s", "nan", "a number of seconds"),
        ("--patience-s", "inf", "a number of seconds"),
        ("--accounts", "1-99999999999", "at most 1000000 accounts"),
        ("--accounts", "7", "at least two accounts"),
        ("--accounts", "x", "such as 1-10"),
    ],
)
def test_the_bank_client_refuses_options_that_make_no_sense(
    option: str, value: str, words: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "clients/bank_client.py", option, value],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert words in ended.stderr
