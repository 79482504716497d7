"""The private CA and the certificates of machines."""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from rmi_runtime import errors
from rmi_runtime.credentials.certificates import (
    CertificateExists,
    create_authority,
    create_certificate,
    list_certificates,
    normal_name,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    create_authority(tmp_path / "certs", NOW)
    return tmp_path / "certs"


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_their_owners_alone_and_nothing_else_is_left(directory: Path) -> None:
    create_certificate(directory, ["node1"], NOW)
    assert {path.name: mode(path) for path in directory.iterdir()} == {
        "ca.crt": 0o644,
        "ca.key": 0o600,
        "node1.crt": 0o644,
        "node1.key": 0o600,
    }
    assert mode(directory) == 0o700


def test_the_ca_signs_certificates_and_nothing_else_for_ten_years(directory: Path) -> None:
    authority = load(directory / "ca.crt")
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = authority.extensions.get_extension_for_class(x509.KeyUsage)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert authority.not_valid_after_utc == NOW + timedelta(days=3650)


def test_a_machines_certificate_serves_both_ends_under_all_its_names(directory: Path) -> None:
    made = create_certificate(directory, ["Node1.Example.", "10.0.0.1", "fd00::1"], NOW)
    certificate = load(made.certificate)
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert set(made.names) == {
        *("node1.example", "10.0.0.1", "fd00::1", "localhost", "127.0.0.1", "::1")
    }
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert certificate.not_valid_after_utc == NOW + timedelta(days=365)
    assert certificate.not_valid_before_utc == NOW - timedelta(hours=1)


def test_a_strict_verifier_takes_it_for_its_names_and_no_other(directory: Path) -> None:
    certificate = load(create_certificate(directory, ["10.0.0.1", "node1"], NOW).certificate)
    policy = PolicyBuilder().store(Store([load(directory / "ca.crt")])).time(NOW)
    for name in ("10.0.0.1", "127.0.0.1"):
        address = x509.IPAddress(ipaddress.ip_address(name))
        policy.build_server_verifier(address).verify(certificate, [])
    policy.build_server_verifier(x509.DNSName("node1")).verify(certificate, [])
    policy.build_client_verifier().verify(certificate, [])
    with pytest.raises(VerificationError):
        policy.build_server_verifier(x509.DNSName("node2")).verify(certificate, [])


def test_what_is_there_is_never_overwritten(directory: Path) -> None:
    create_certificate(directory, ["node1"], NOW)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(CertificateExists, match="move it away"):
        create_authority(directory, NOW)
    with pytest.raises(CertificateExists):
        create_certificate(directory, ["node1"], NOW)
    (directory / "node1.crt").unlink()
    with pytest.raises(CertificateExists, match=r"node1\.key"):
        create_certificate(directory, ["node1"], NOW)
    del before["node1.crt"]
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_a_machine_called_ca_does_not_touch_the_ca(directory: Path) -> None:
    assert create_certificate(directory, ["ca"], NOW).certificate.name == "host-ca.crt"


def test_without_a_ca_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match="rmi certs create-ca"):
        create_certificate(tmp_path, ["node1"], NOW)


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "*.example", "a b", "0.0.0.0", "::", "224.0.0.1", "10.0.0", "-a", "a..b"),
        *("x" * 64, "../../etc/passwd", "a/b", "münchen", "a\nb", "fe80::1%eth0", "fe80::1%a\nb"),
    ],
)
def test_what_is_no_name_or_address_is_refused(directory: Path, name: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        create_certificate(directory, [name], NOW)
    assert len(list(directory.iterdir())) == 2


def test_while_a_ca_is_replaced_the_one_whose_key_is_there_signs(
    directory: Path, tmp_path: Path
) -> None:
    create_authority(tmp_path / "new", NOW)
    new = load(tmp_path / "new" / "ca.crt")
    both = (directory / "ca.crt").read_bytes() + (tmp_path / "new" / "ca.crt").read_bytes()
    (tmp_path / "new" / "ca.crt").write_bytes(both)
    made = create_certificate(tmp_path / "new", ["node1"], NOW)
    load(made.certificate).verify_directly_issued_by(new)


def test_a_key_of_another_ca_signs_nothing(directory: Path, tmp_path: Path) -> None:
    create_authority(tmp_path / "other", NOW)
    (directory / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(errors.InvalidRequest, match="nobody would believe"):
        create_certificate(directory, ["node1"], NOW)


def test_an_expired_ca_signs_nothing(directory: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"expired on .*create-ca"):
        create_certificate(directory, ["node1"], NOW + timedelta(days=3650))


def test_no_certificate_outlives_its_ca(directory: Path) -> None:
    made = create_certificate(directory, ["node1"], NOW + timedelta(days=3640))
    assert made.not_after == NOW + timedelta(days=3650)


@pytest.mark.parametrize("days", [0, -1, 826])
def test_validity_is_bounded(directory: Path, days: int) -> None:
    with pytest.raises(errors.InvalidRequest, match="days"):
        create_certificate(directory, ["a"], NOW, days)


def test_names_have_one_form() -> None:
    assert normal_name("[FD00::0:1]") == "fd00::1"
    assert normal_name("A.Example.") == "a.example"


def test_the_list_begins_with_the_ca_and_tells_fingerprints(directory: Path) -> None:
    create_certificate(directory, ["a"], NOW)
    create_certificate(directory, ["fd00::1"], NOW)
    found = list_certificates(directory)
    assert [each.certificate.name for each in found] == ["ca.crt", "a.crt", "fd00--1.crt"]
    der = ssl.PEM_cert_to_DER_cert((directory / "a.crt").read_text())
    assert found[1].fingerprint == hashlib.sha256(der).hexdigest()
