"""Cluster key and tokens: made once, kept private, compared safely."""

from __future__ import annotations

import multiprocessing
import os
import re
import stat
from pathlib import Path

import pytest

from rmi_runtime import errors
from rmi_runtime.context import Identity
from rmi_runtime.credentials import authenticator as credentials
from rmi_runtime.credentials.authenticator import (
    KEY_FILE,
    ServiceAuthenticator,
    hash_token,
    load_or_create_cluster_key,
    new_token,
    same_secret,
)

KEY = "ab" * 32
PEER = ("127.0.0.1", 4711)


def test_the_key_is_made_once_with_mode_0600(tmp_path: Path) -> None:
    data_dir = tmp_path / "var"
    key = load_or_create_cluster_key(data_dir)
    assert re.fullmatch(r"[0-9a-f]{64}", key)
    assert load_or_create_cluster_key(data_dir) == key
    assert stat.S_IMODE((data_dir / "cluster.key").stat().st_mode) == 0o600
    assert [path.name for path in data_dir.iterdir()] == ["cluster.key"]


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        keys = pool.map(load_or_create_cluster_key, [tmp_path] * 32, chunksize=1)
    assert len(set(keys)) == 1


def test_who_loses_the_race_takes_the_winners_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = credentials.os.link

    def lose(draft: Path, path: Path) -> None:
        path.touch(mode=0o600)
        path.write_text(KEY)
        link(draft, path)

    monkeypatch.setattr(credentials.os, "link", lose)
    assert load_or_create_cluster_key(tmp_path) == KEY
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_key_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    load_or_create_cluster_key(tmp_path)
    (tmp_path / "cluster.key").chmod(mode)
    with pytest.raises(errors.Forbidden, match="chmod 600"):
        load_or_create_cluster_key(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    load_or_create_cluster_key(tmp_path)
    os.chown(tmp_path / KEY_FILE, 1, -1)
    with pytest.raises(errors.Forbidden, match="another user"):
        load_or_create_cluster_key(tmp_path)


def test_a_directory_that_anybody_can_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(errors.Forbidden, match="chmod 700"):
        load_or_create_cluster_key(tmp_path)
    tmp_path.chmod(0o1777)  # as of /tmp: others' files are safe there
    load_or_create_cluster_key(tmp_path)


@pytest.mark.parametrize("content", ["", "short", KEY + "ff", "g" * 64, KEY.upper()])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cluster.key"
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(errors.InvalidRequest, match="64 hexadecimal digits"):
        load_or_create_cluster_key(tmp_path)


def test_tokens_are_new_each_time_and_stored_as_sha256() -> None:
    assert new_token() != new_token()
    assert len(new_token()) == 43
    assert hash_token("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_secrets_are_the_same_only_if_equal() -> None:
    assert same_secret(KEY, KEY)
    assert not same_secret(KEY, KEY[:-1] + "c")
    assert not same_secret("", KEY)
    assert not same_secret("é\ud800", KEY)


async def test_the_cluster_key_makes_a_service() -> None:
    assert await ServiceAuthenticator(KEY)({"cluster_key": KEY}, PEER) == Identity("service")


@pytest.mark.parametrize("key", ["", "cd" * 32, None, 7, [KEY], "x" * 10_000])
async def test_a_wrong_cluster_key_is_forbidden(key: object) -> None:
    with pytest.raises(errors.Forbidden):
        await ServiceAuthenticator(KEY)({"cluster_key": key}, PEER)


async def test_a_token_is_looked_up_by_its_hash() -> None:
    token = new_token()
    teller = Identity("client", 4, "teller")

    async def identify(token_hash: str) -> Identity | None:
        return teller if token_hash == hash_token(token) else None

    authenticate = ServiceAuthenticator(KEY)
    authenticate.identify = identify
    assert await authenticate({"token": token}, PEER) == teller
    for fake in (token[:-1], "", None, 5, "x" * 10_000):
        with pytest.raises(errors.Forbidden, match="fake"):
            await authenticate({"token": fake}, PEER)


async def test_a_token_is_worth_nothing_to_a_service_that_knows_no_clients() -> None:
    assert await ServiceAuthenticator(KEY)({"token": new_token()}, PEER) == Identity("anonymous")


async def test_a_client_can_be_asked_for_again_without_its_token_being_kept() -> None:
    token = new_token()
    known = {hash_token(token): Identity("client", 4, "teller")}

    async def identify(token_hash: str) -> Identity | None:
        return known.get(token_hash)

    identity = await ServiceAuthenticator(KEY, identify)({"token": token}, PEER)
    assert identity.renew is not None
    assert token not in repr(identity.renew)
    known[hash_token(token)] = Identity("client", 4, "customer")
    assert (await identity.renew()).role == "customer"
    del known[hash_token(token)]
    with pytest.raises(errors.Forbidden, match="revoked"):
        await identity.renew()


@pytest.mark.parametrize("handshake", ["hello", None, {}, {"user": "me"}, ["token"], 3])
async def test_anything_else_is_anonymous(handshake: object) -> None:
    assert await ServiceAuthenticator(KEY)(handshake, PEER) == Identity("anonymous")
