"""``rmi certs``, from the command line."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rmi_launch.certs import certificate_state, certs
from rmi_launch.failures import WRONG_USE
from rmi_runtime import Settings, load_tls
from rmi_runtime.credentials.certificates import Issued, list_certificates
from rmi_runtime.errors import Conflict, InvalidRequest, NotFound


def run(data_dir: Path, *arguments: str) -> Result:
    return CliRunner().invoke(certs, [*arguments, "--data-dir", str(data_dir)])


def test_a_ca_and_a_machine_make_all_that_tls_takes(tmp_path: Path) -> None:
    assert run(tmp_path, "create-ca").exit_code == 0
    told = run(tmp_path, "host", "10.0.0.1", "node1").output
    directory = tmp_path / "certs"
    for name in ("certs/10.0.0.1.crt", "certs/10.0.0.1.key", "certs/ca.crt", "cluster.key"):
        assert str(tmp_path / name) in told
        assert (tmp_path / name).exists()
    assert "ca.key" not in told
    words = told.splitlines()[-1].split()
    assert words[:2] == ["--host", "10.0.0.1"]
    pairs = zip(words[2::2], words[3::2], strict=True)
    paths = {option[2:].replace("-", "_"): path for option, path in pairs}
    tls = load_tls(Settings(host=words[1], **paths))  # type: ignore[arg-type]
    assert tls is not None
    assert stat.S_IMODE((directory / "10.0.0.1.key").stat().st_mode) == 0o600


def test_the_private_keys_are_never_printed(tmp_path: Path) -> None:
    outputs = [
        run(tmp_path, *words).output
        for words in (["create-ca"], ["host", "a"], ["show"], ["show", "--json"])
    ]
    for key in (tmp_path / "certs").glob("*.key"):
        body = key.read_text().splitlines()[1]
        assert not any(body in output for output in outputs)
    assert not any((tmp_path / "cluster.key").read_text().strip() in each for each in outputs)


def test_nothing_is_made_twice(tmp_path: Path) -> None:
    run(tmp_path, "create-ca")
    assert isinstance(run(tmp_path, "create-ca").exception, Conflict)
    run(tmp_path, "host", "a")
    assert isinstance(run(tmp_path, "host", "a").exception, Conflict)


def test_what_is_no_name_of_a_machine_is_wrong_use(tmp_path: Path) -> None:
    run(tmp_path, "create-ca")
    for names in (["a b"], ["node1", "../node2"], ["fe80::1%eth0"], [""]):
        told = run(tmp_path, "host", *names)
        assert told.exit_code == WRONG_USE, told.exception
        assert repr(names[-1]) in told.output
    assert len(list_certificates(tmp_path / "certs")) == 1


def test_more_names_than_a_certificate_takes_are_wrong_use(tmp_path: Path) -> None:
    run(tmp_path, "create-ca")
    told = run(tmp_path, "host", *(f"node{number}" for number in range(65)))
    assert told.exit_code == WRONG_USE, told.exception
    assert "64 at most" in told.output


@pytest.mark.parametrize("name", ["ca.crt", "ca.key"])
def test_a_ca_whose_files_hold_something_else_is_told_what_they_must_hold(
    tmp_path: Path, name: str
) -> None:
    run(tmp_path, "create-ca")
    (tmp_path / "certs" / name).write_text("junk")
    told = str(run(tmp_path, "host", "a").exception)
    assert "ca.key its key, in PEM" in told
    assert "cryptography.io" not in told


def test_a_bad_cluster_key_is_told_before_anything_is_made(tmp_path: Path) -> None:
    run(tmp_path, "create-ca")
    (tmp_path / "cluster.key").touch(mode=0o600)
    assert isinstance(run(tmp_path, "host", "a").exception, InvalidRequest)
    (tmp_path / "cluster.key").unlink()
    assert run(tmp_path, "host", "a").exit_code == 0


def test_show_tells_names_days_and_where_the_keys_are(tmp_path: Path) -> None:
    assert isinstance(run(tmp_path, "show").exception, NotFound)
    run(tmp_path, "create-ca")
    run(tmp_path, "host", "node1", "--days", "20")
    (tmp_path / "certs" / "ca.key").unlink()
    (tmp_path / "certs" / "node1.key").chmod(0o644)
    authority, node = json.loads(run(tmp_path, "show", "--json").output)
    assert (authority["ca"], authority["key"], authority["state"]) == (True, "elsewhere", "good")
    assert (node["state"], node["days_left"]) == ("expires soon", 19)
    assert node["key"] == "here, mode 0644: chmod 600 it"
    assert "node1" in node["names"]
    assert "node1.crt" in run(tmp_path, "show").output


@pytest.mark.parametrize(
    ("days", "state"), [(31, "good"), (29, "expires soon"), (0, "expired"), (-3, "expired")]
)
def test_the_state_follows_the_days_left(tmp_path: Path, days: int, state: str) -> None:
    run(tmp_path, "create-ca")
    (authority,) = list_certificates(tmp_path / "certs")
    assert isinstance(authority, Issued)
    now = authority.not_after - timedelta(days=days)
    assert certificate_state(authority, now) == state
