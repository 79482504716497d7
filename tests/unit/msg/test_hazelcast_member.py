"""A member's configuration, its starts, and what is said when something is missing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from rmi_msg.hazelcast import install as install_module
from rmi_msg.hazelcast.addresses import among_members, member_addresses, ports_taken
from rmi_msg.hazelcast.install import (
    JavaMissing,
    MavenMissing,
    check_java,
    find_java,
    install_hazelcast,
    java_version,
)
from rmi_msg.hazelcast.member import (
    LOG_SIZE_BYTES_MAX,
    Member,
    MemberFailed,
)
from rmi_msg.hazelcast.member_config import FEW_PROCESSORS, java_options, member_config
from rmi_runtime import Settings, SettingsError
from tests.support import eventually

# --- addresses and configuration ----------------------------------------------------------------


def test_there_is_a_member_for_each_logger_and_for_one_beyond() -> None:
    settings = Settings(loggers=2, hazelcast_port=6000)
    assert member_addresses(settings) == ("127.0.0.1:6000", "127.0.0.1:6001")
    assert member_addresses(settings, 4)[-1] == "127.0.0.1:6003"


def test_a_logger_whose_member_would_have_no_port_is_told_its_number_is_too_high() -> None:
    assert member_addresses(Settings(loggers=1), 59_835)[-1] == "127.0.0.1:65535"
    with pytest.raises(SettingsError, match=r"--id: .* logger 70000 would listen on port 75700"):
        member_addresses(Settings(loggers=1), 70_000)
    elsewhere = Settings(hazelcast_members=("127.0.0.1:5701",))
    assert member_addresses(elsewhere, 70_000) == ("127.0.0.1:5701",)


def test_named_members_are_the_only_ones() -> None:
    assert member_addresses(Settings(hazelcast_members=("10.0.0.1:5701",))) == ("10.0.0.1:5701",)


@pytest.mark.parametrize(
    ("address", "among"),
    [
        ("127.0.0.1:5701", "127.0.0.1:5801"),
        ("[fd00::1]:5701", "[fd00::1]:5801"),
        ("hz:65435", "hz:65535"),
        ("hz:65436", "hz:65336"),
    ],
)
def test_a_member_has_another_port_for_other_members(address: str, among: str) -> None:
    assert among_members(address) == among


@pytest.mark.parametrize("first", [1024, 5701, 65_400, 65_471])
def test_no_two_members_take_the_same_port(first: int) -> None:
    ports = ports_taken(first, 64)
    assert len(set(ports)) == 128
    assert min(ports) >= 1024
    assert max(ports) <= 65535


def test_the_configuration_is_yaml_that_keeps_to_one_address() -> None:
    yaml = pytest.importorskip("yaml")
    members = ["127.0.0.1:6001", "127.0.0.1:6002"]
    text = member_config("127.0.0.1:6001", members, "rmi", processors=8)
    root = yaml.safe_load(text)["hazelcast"]
    assert root["cluster-name"] == "rmi"
    network = root["advanced-network"]
    for whom, port in (("client", 6001), ("member", 6101)):
        assert network[f"{whom}-server-socket-endpoint-config"] == {
            "port": {"port": port, "auto-increment": False},
            "interfaces": {"enabled": True, "interfaces": ["127.0.0.1"]},
        }
    assert network["join"]["multicast"] == {"enabled": False}
    assert network["join"]["auto-detection"] == {"enabled": False}
    assert network["join"]["tcp-ip"]["member-list"] == ["127.0.0.1:6101", "127.0.0.1:6102"]
    assert {name: one["backup-count"] for name, one in root["map"].items()} == {
        "default": 2,
        "*.order": 2,
        "queue": 2,
    }
    assert root["properties"]["hazelcast.socket.bind.any"] == "false"
    assert root["properties"]["hazelcast.shutdownhook.policy"] == "GRACEFUL"
    assert "hazelcast.io.thread.count" not in root["properties"]


def test_on_a_small_machine_members_leave_the_processors_to_others() -> None:
    yaml = pytest.importorskip("yaml")
    text = member_config("127.0.0.1:6001", ["127.0.0.1:6001"], "rmi", processors=FEW_PROCESSORS)
    properties = yaml.safe_load(text)["hazelcast"]["properties"]
    assert properties["hazelcast.io.thread.count"] == "1"
    assert properties["hazelcast.wait.seconds.before.join"] == "0", "all others are there too"
    quick = "-XX:TieredStopAtLevel=1"
    assert quick in java_options(256, processors=FEW_PROCESSORS)
    assert quick not in java_options(256, processors=FEW_PROCESSORS + 1)
    assert {"-Xms300m", "-Xmx300m"} < set(java_options(300, processors=8))


# --- what is missing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_292"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ("command not found", 0),
    ],
)
def test_the_version_of_java_is_read(said: str, version: int) -> None:
    assert java_version(said) == version


def test_without_java_both_ways_to_get_it_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(JavaMissing, match=r"apt install openjdk-17.*adoptium\.net"):
        find_java()


def test_an_old_java_is_named_with_its_version(tmp_path: Path) -> None:
    java = script(tmp_path / "java", "echo 'java version \"11.0.2\"' >&2")
    with pytest.raises(JavaMissing, match=r"is Java 11; .* needs 17"):
        check_java(str(java))


def test_java_home_wins_over_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    java = script(tmp_path / "bin" / "java", "")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert find_java() == str(java)


def test_without_maven_both_ways_to_get_it_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script(tmp_path / "java", "echo 'java version \"17\"' >&2")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(MavenMissing, match=r"apt install maven.*maven\.apache\.org"):
        install_hazelcast(tmp_path / "data")


def test_a_failed_fetch_says_what_maven_said_and_leaves_nothing_half(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script(tmp_path / "java", "echo 'java version \"17\"' >&2")
    script(tmp_path / "mvn", "echo '[ERROR] no route to the repository'; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(install_module.FetchFailed, match="no route to the repository"):
        install_hazelcast(tmp_path / "data")
    assert not install_module.is_installed(tmp_path / "data")


@pytest.mark.timeout(60)
def test_a_fetch_that_hangs_is_ended_in_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script(tmp_path / "java", "echo 'java version \"17\"' >&2")
    script(tmp_path / "mvn", "echo 'fetching the first of many'; sleep 600")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(install_module, "MAVEN_S_MAX", 0.2)
    with pytest.raises(install_module.FetchFailed, match=r"many\nit was killed; 0\.2 s are"):
        install_hazelcast(tmp_path / "data")


async def test_a_member_without_its_jar_says_how_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(MemberFailed, match="rmi hazelcast install"):
        async with Member(Settings(data_dir=tmp_path), 1):
            pass


async def test_what_a_running_member_says_is_kept_within_its_bound(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "java", "echo up; exec sleep 600")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setattr("rmi_msg.hazelcast.member.is_installed", lambda data_dir: True)
    async with Member(Settings(data_dir=tmp_path), 1) as member:
        await eventually(lambda: member.log_path.read_text() == "up\n")
        with member.log_path.open("ab") as output:
            output.write(b"words\n" * 2**20)
        await eventually(lambda: member.log_path.stat().st_size == 0)
        assert member.alive
    before = member.log_path.with_name("hazelcast-1.log.1").read_bytes()
    assert set(before.splitlines()) == {b"words"}
    assert LOG_SIZE_BYTES_MAX - 6 <= len(before) <= LOG_SIZE_BYTES_MAX


async def test_a_member_that_cannot_be_started_again_is_tried_until_it_can(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "java", "exec sleep 600")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setattr("rmi_msg.hazelcast.member.is_installed", lambda data_dir: True)
    async with Member(Settings(data_dir=tmp_path), 1) as member:
        await eventually(lambda: member.pid)
        config = tmp_path / "hazelcast" / "member-1.yaml"
        config.unlink()
        config.mkdir()  # it cannot be written now, as on a full disk
        os.kill(member.pid, signal.SIGKILL)
        await eventually(lambda: "cannot be started, trying on" in caplog.text)
        config.rmdir()
        await eventually(lambda: member.pid, timeout_s=20)


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path
