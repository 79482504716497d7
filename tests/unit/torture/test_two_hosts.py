"""What of two hosts is decided without any: who is where, and what a link does to whom."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from rmi_torture.faults.setup import missing_means
from rmi_torture.namespaces import MACS, NOBODY, A, B, device, neighbours, ways
from rmi_torture.plan import Plan
from rmi_torture.report import print_result, write_html
from rmi_torture.result import Result
from rmi_torture.targets import (
    DATA,
    DEFAULT_KINDS,
    GATEWAY,
    KINDS,
    LINK,
    LINK_KINDS,
    NAME_SERVER,
    NETWORK,
    ON_HOST,
    TWO_HOSTS_KINDS,
    WORKLOADS,
    targets_of,
)
from rmi_torture.two_hosts import words_for


@pytest.mark.parametrize(
    ("faults", "a_sends_to", "b_sends_to"),
    [
        ((), MACS[B], MACS[A]),
        (("delay", "loss"), MACS[B], MACS[A]),
        (("partition",), NOBODY, NOBODY),
        (("deaf",), NOBODY, MACS[A]),
        (("mute",), MACS[B], NOBODY),
        (("deaf", "mute"), NOBODY, NOBODY),
    ],
)
def test_what_is_lost_is_sent_to_nobody(
    faults: tuple[str, ...], a_sends_to: str, b_sends_to: str
) -> None:
    assert neighbours(ways(faults)) == {A: a_sends_to, B: b_sends_to}


@pytest.mark.parametrize(
    ("faults", "to_a", "to_b"),
    [
        ((), set(), set()),
        (("delay", "loss"), {"delay", "loss"}, {"delay", "loss"}),
        (("delay", "partition"), {"delay", "cut"}, {"delay", "cut"}),
        (("loss", "deaf"), {"loss"}, {"loss", "cut"}),
        (("mute",), {"cut"}, set()),
    ],
)
def test_a_cut_is_in_force_on_the_relays_ways_too(
    faults: tuple[str, ...], to_a: set[str], to_b: set[str]
) -> None:
    assert ways(faults) == {A: to_a, B: to_b}


def test_packets_leave_the_veth_pair_only_to_be_late_or_lost_one_by_one() -> None:
    assert {device(faults) for faults in ((), ("partition",), ("deaf", "mute"))} == {"eth0"}
    assert {device(faults) for faults in (("delay",), ("loss", "deaf"))} == {"tun0"}


@pytest.mark.parametrize("workload", WORKLOADS)
def test_with_two_hosts_the_network_is_the_link_and_nobody_else_is_struck_who_is_not_there(
    workload: str,
) -> None:
    found = targets_of(tuple(TWO_HOSTS_KINDS), workload, hosts=2)
    assert {found[kind] for kind in NETWORK} == {(LINK,)}
    for kind in TWO_HOSTS_KINDS - NETWORK:
        assert found[kind]
        assert set(found[kind]) <= set(ON_HOST)


def test_a_plan_for_two_hosts_strikes_the_link() -> None:
    steps = Plan(faults=("partition",), hosts=2).steps()
    assert {step.target for step in steps} == {LINK}
    assert LINK not in {step.target for step in Plan(faults=("partition",)).steps()}


def test_the_gateway_and_the_books_are_on_different_hosts() -> None:
    assert {ON_HOST[GATEWAY], ON_HOST[DATA]} == {A, B}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (NAME_SERVER, ("nameserver",)),
        (DATA, ("data",)),
        (GATEWAY, ("gateway",)),
        ("bank.business.2", ("business", "--id", "2")),
        ("msg.facade.1", ("facade", "--id", "1")),
    ],
)
def test_each_service_is_started_by_the_words_of_a_user(name: str, words: tuple[str, ...]) -> None:
    assert words_for(name) == words


def test_what_there_is_not_with_two_hosts_is_said_to_be_missing() -> None:
    missing = missing_means(hosts=2)
    assert set(KINDS) - TWO_HOSTS_KINDS <= set(missing)
    assert not {"partition", "deaf", "mute", "kill", "pause", "nameserver"} & set(missing)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(faults=("partition",), hosts=2), "two hosts: network namespaces"),
        (Plan(faults=("partition",)), "one host: faults of the network are those of a TCP proxy"),
        (Plan(faults=("kill",)), None),
    ],
)
def test_the_report_tells_by_which_means_the_network_failed(plan: Plan, words: str | None) -> None:
    console = Console(file=io.StringIO(), width=160)
    print_result(Result(plan, Path(), (), (), frozenset(), {}, 1.0), console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert (words or "faults 0") in printed
    assert ("host" in printed) == (words is not None)


@pytest.mark.parametrize(("hosts", "words"), [(1, KINDS["loss"]), (2, LINK_KINDS["loss"])])
def test_the_page_tells_what_a_fault_did_to_whom(tmp_path: Path, hosts: int, words: str) -> None:
    history, page = tmp_path / "history.jsonl", tmp_path / "report.html"
    history.touch()
    plan = Plan(faults=("loss",), hosts=hosts)
    write_html(Result(plan, history, (), (), frozenset(), {"loss": 1}, 1.0), page)
    assert f"<td>{words}</td>" in page.read_text()


@pytest.mark.parametrize("hosts", [1, 2])
def test_the_usual_kinds_are_to_be_had_and_on_two_hosts_their_link_fails_too(hosts: int) -> None:
    assert set(DEFAULT_KINDS[hosts]) <= (set(KINDS) if hosts == 1 else TWO_HOSTS_KINDS)
    assert ({"partition", "delay", "loss"} <= set(DEFAULT_KINDS[hosts])) == (hosts == 2)
