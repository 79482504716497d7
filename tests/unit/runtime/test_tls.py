"""TLS contexts from files that are good, and errors for those that are not."""

from __future__ import annotations

import dataclasses
import logging
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_certificate

from rmi_runtime import Settings, client_context, errors, load_tls, server_context
from rmi_runtime.credentials.certificates import _builder, create_authority, create_certificate
from rmi_runtime.credentials.tls import TlsUnusable

NOW = datetime.now(UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    create_authority(tmp_path, NOW)
    made = create_certificate(tmp_path, ["node1"], NOW)
    return Settings(
        tls_cert=str(made.certificate), tls_key=str(made.key), tls_ca=str(tmp_path / "ca.crt")
    )


def test_without_settings_there_is_no_tls() -> None:
    assert load_tls(Settings()) is None


def test_servers_ask_for_a_certificate_clients_want_one_and_the_web_asks_none(
    settings: Settings,
) -> None:
    tls = load_tls(settings)
    assert tls is not None
    assert tls.server.verify_mode == ssl.CERT_OPTIONAL
    assert tls.client.verify_mode == ssl.CERT_REQUIRED
    assert tls.client.check_hostname
    assert tls.web.verify_mode == ssl.CERT_NONE
    for context in (tls.server, tls.client, tls.web):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        names = [cipher["name"] for cipher in context.get_ciphers()]
        assert all(name.startswith(("TLS_", "ECDHE-")) for name in names)


def test_only_the_private_ca_is_believed(settings: Settings) -> None:
    context = client_context(settings.tls_ca)
    assert len(context.get_ca_certs()) == 1


def test_a_key_that_others_can_read_is_refused(settings: Settings) -> None:
    os.chmod(settings.tls_key, 0o640)
    with pytest.raises(errors.Forbidden, match="chmod 600"):
        load_tls(settings)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_of_another_user_is_refused(settings: Settings) -> None:
    os.chown(settings.tls_key, 1, -1)
    with pytest.raises(errors.Forbidden, match="another user"):
        load_tls(settings)
    os.chown(Path(settings.tls_key).parent, 1, -1)  # root looks at that user's directory
    load_tls(settings)


@pytest.mark.parametrize("field", ["tls_cert", "tls_key", "tls_ca"])
def test_a_missing_file_is_named(settings: Settings, field: str) -> None:
    missing = dataclasses.replace(settings, **{field: "/nowhere/x.pem"})
    with pytest.raises(TlsUnusable, match=r"/nowhere/x\.pem cannot be read: No such file"):
        load_tls(missing)


@pytest.mark.parametrize("field", ["tls_cert", "tls_key", "tls_ca"])
def test_a_file_of_something_else_is_named(settings: Settings, field: str, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_text("nothing of the kind")
    other.chmod(0o600)
    with pytest.raises(TlsUnusable, match=r"other\.pem"):
        load_tls(dataclasses.replace(settings, **{field: str(other)}))


def test_a_key_of_another_certificate_is_refused(settings: Settings, tmp_path: Path) -> None:
    other = create_certificate(tmp_path, ["node2"], NOW)
    with pytest.raises(TlsUnusable, match="mismatch"):
        load_tls(dataclasses.replace(settings, tls_key=str(other.key)))


def test_a_certificate_of_another_ca_is_refused_before_any_peer_does(
    settings: Settings, tmp_path: Path
) -> None:
    create_authority(tmp_path / "other", NOW)
    with pytest.raises(TlsUnusable, match="not signed by the CA"):
        load_tls(dataclasses.replace(settings, tls_ca=str(tmp_path / "other" / "ca.crt")))


@pytest.mark.parametrize("shift", [timedelta(days=-400), timedelta(days=2)])
def test_a_certificate_out_of_its_time_is_refused(
    settings: Settings, tmp_path: Path, shift: timedelta
) -> None:
    other = create_certificate(tmp_path, ["late"], NOW + shift)
    with pytest.raises(TlsUnusable, match="is valid from"):
        load_tls(
            dataclasses.replace(settings, tls_cert=str(other.certificate), tls_key=str(other.key))
        )


def test_while_a_ca_is_replaced_the_file_holds_both(settings: Settings, tmp_path: Path) -> None:
    create_authority(tmp_path / "old", NOW - timedelta(days=4000))
    bundle = tmp_path / "both.crt"
    parts = [tmp_path / "old" / "ca.crt", Path(settings.tls_ca)]
    bundle.write_text("".join(part.read_text() for part in parts))
    tls = load_tls(dataclasses.replace(settings, tls_ca=str(bundle)))
    assert tls is not None
    assert len(tls.client.get_ca_certs()) == 2


def test_an_expired_ca_is_refused(settings: Settings, tmp_path: Path) -> None:
    create_authority(tmp_path / "old", NOW - timedelta(days=3660))
    ca, key_file = tmp_path / "old" / "ca.crt", tmp_path / "old" / "ca.key"
    name = load_pem_x509_certificate(ca.read_bytes()).subject
    key = load_pem_private_key(key_file.read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    made = _builder(name, name, key, NOW, NOW + timedelta(days=90)).sign(key, SHA256())
    (tmp_path / "late.crt").write_bytes(made.public_bytes(Encoding.PEM))
    late = dataclasses.replace(
        settings,
        tls_cert=str(tmp_path / "late.crt"),
        tls_key=str(key_file),
        tls_ca=str(ca),
    )
    with pytest.raises(TlsUnusable, match=r"ca\.crt is valid from"):
        load_tls(late)


def test_one_that_expires_soon_is_warned_of(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    load_tls(settings)
    assert not caplog.messages
    other = create_certificate(tmp_path, ["soon"], NOW, 20)
    load_tls(dataclasses.replace(settings, tls_cert=str(other.certificate), tls_key=str(other.key)))
    assert "expires on" in caplog.text


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(
    settings: Settings, tmp_path: Path
) -> None:
    locked = tmp_path / "locked.key"
    key = load_pem_private_key(Path(settings.tls_key).read_bytes(), None)
    lock = BestAvailableEncryption(b"secret")
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    locked.chmod(0o600)
    with pytest.raises(TlsUnusable, match="password"):
        server_context(settings.tls_cert, locked)
