"""A private CA for one cluster, and certificates of its machines.

    DIRECTORY/ca.crt, ca.key        the CA; its key signs, and is needed nowhere else
    DIRECTORY/NAME.crt, NAME.key    a machine, named by its first name or address

Keys are EC P-256 and lie in files of mode 0600. A machine's certificate serves both ends: services
call each other. Extensions as RFC 5280 wants them of a CA (section 4.2.1).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rmi_runtime.errors import Conflict, InvalidRequest, NotFound

CA: Final = "ca"
CA_DAYS: Final = 3650
HOST_DAYS: Final = 365
HOST_DAYS_MAX: Final = 825
NAMES_MAX: Final = 64
CLOCK_SKEW: Final = timedelta(hours=1)
"""A machine whose clock is slow by no more than this takes a new certificate at once."""

LOCAL: Final = ("localhost", "127.0.0.1", "::1")
"""In every machine's certificate: whoever is on that machine may call it so."""

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


class CertificateExists(Conflict):
    """A file is there already, and is not overwritten. ``fields['path']`` names it."""

    code = "certificate_exists"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, on disk.

    Attributes:
        certificate: PEM file.
        key: PEM file, or where it would be.
        subject: its common name.
        names: host names and addresses that it is good for; none for a CA.
        authority: whether it is a CA's.
        not_after: when it expires.
        fingerprint: SHA-256 of it, in hex.
    """

    certificate: Path
    key: Path
    subject: str
    names: tuple[str, ...]
    authority: bool
    not_after: datetime
    fingerprint: str


def create_authority(directory: Path, now: datetime) -> Issued:
    """Make a private CA: once.

    Args:
        directory: where to; made (mode 0700) if missing.
        now: the time, with its zone.

    Raises:
        CertificateExists: there is one.
        OSError: it cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"rmi private CA {secrets.token_hex(4)}")]
    )
    builder = (
        _builder(name, name, key, now, now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _store(directory, CA, builder.sign(key, hashes.SHA256()), key)


def create_certificate(
    directory: Path, names: Sequence[str], now: datetime, days: int = HOST_DAYS
) -> Issued:
    """Make a certificate of one machine, signed by the CA in the same directory.

    Args:
        directory: where ``ca.crt`` and ``ca.key`` lie.
        names: the machine's host names and addresses, as others use them; the first one names the
            files. Those of :data:`LOCAL` are added.
        now: the time, with its zone.
        days: how long it is good, 1 to 825.

    It expires with the CA at the latest.

    Raises:
        NotFound: there is no CA.
        CertificateExists: there is a certificate of that name.
        InvalidRequest: a name is none, *days* is out of range, or the CA cannot sign: its key
            belongs to another certificate, or it has expired.
        OSError: it cannot be written.
    """
    if not 1 <= days <= HOST_DAYS_MAX:
        raise InvalidRequest(f"days is {days}, not from 1 to {HOST_DAYS_MAX}", field="days")
    if not 1 <= len(names) <= NAMES_MAX:
        raise InvalidRequest(f"give 1 to {NAMES_MAX} names, not {len(names)}", field="names")
    known = tuple(dict.fromkeys(normal_name(name) for name in (*names, *LOCAL)))
    authority, authority_key = _load_authority(directory, now)
    until = min(now + timedelta(days=days), authority.not_valid_after_utc)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, known[0][:64])])
    builder = (
        _builder(subject, authority.subject, key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in known]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
    )
    return _store(directory, file_name(known[0]), builder.sign(authority_key, hashes.SHA256()), key)


def list_certificates(directory: Path) -> list[Issued]:
    """Return the certificates in *directory*: the CA first, then by name.

    Raises:
        InvalidRequest: a file ``*.crt`` holds no certificate.
        OSError: one cannot be read.
    """
    found = [_issued(path) for path in sorted(directory.glob("*.crt"))]
    return sorted(found, key=lambda one: not one.authority)


def normal_name(name: str) -> str:
    """Return a host name or address in its normal form.

    Raises:
        InvalidRequest: it is neither, or no address that can be connected to.
    """
    text = name.strip().removeprefix("[").removesuffix("]")
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(text)
        if address.is_unspecified or address.is_multicast:
            raise InvalidRequest(f"{name!r} is nobody's address", field="names")
        if "%" in text:
            raise InvalidRequest(
                f"{name!r} has a zone, which means nothing on other machines, and certificates "
                "cannot hold: give an address without one",
                field="names",
            )
        return str(address)
    text = text.lower().removesuffix(".")
    labels = text.split(".")
    # All in digits and dots: meant as an address.
    if len(text) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise InvalidRequest(
            f"{name!r} is no host name or address, such as node1.example or 10.0.0.1", field="names"
        )
    return text


def file_name(name: str) -> str:
    """Return the name of a machine's files, without their endings."""
    return f"host-{CA}" if name == CA else name.replace(":", "-")


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    until: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _load_authority(
    directory: Path, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    path = directory / f"{CA}.crt"
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
        key = serialization.load_pem_private_key((directory / f"{CA}.key").read_bytes(), None)
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no {error.filename}: make a CA with 'rmi certs create-ca', or run this on "
            "the machine that has it",
            path=str(error.filename),
        ) from None
    except (ValueError, TypeError):
        raise InvalidRequest(
            f"the CA in {directory} cannot be read: {CA}.crt must hold its certificate and "
            f"{CA}.key its key, in PEM and without a password; put good copies back",
            path=str(path),
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidRequest(f"{directory / CA}.key is no EC key; make a CA with 'rmi certs'")
    public = key.public_key()
    # While a CA is being replaced the file holds both; the key is that of one of them.
    own = [one for one in certificates if one.public_key() == public]
    if not own:
        raise InvalidRequest(
            f"{directory / CA}.key is not the key of a certificate in {path}: nobody would believe "
            "what it signs. Bring the two together that belong together",
            path=str(path),
        )
    authority = max(own, key=lambda one: one.not_valid_after_utc)
    if authority.not_valid_after_utc <= now:
        raise InvalidRequest(
            f"{path} expired on {authority.not_valid_after_utc:%Y-%m-%d}: nobody would believe "
            "what it signs. Make another CA with 'rmi certs create-ca', in another directory",
            path=str(path),
        )
    return authority, key


def _store(
    directory: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> Issued:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificate_path, key_path = directory / f"{name}.crt", directory / f"{name}.key"
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    if certificate_path.exists():
        raise _exists(certificate_path)
    _write_new(key_path, pem, 0o600)
    try:
        _write_new(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    except BaseException:
        key_path.unlink()
        raise
    return _issued(certificate_path)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all, and never over another one."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        raise _exists(path) from None
    finally:
        draft.unlink()


def _exists(path: Path) -> CertificateExists:
    return CertificateExists(
        f"{path} is there already, and machines may rely on it: move it away first if you want a "
        "new one",
        path=str(path),
    )


def _issued(path: Path) -> Issued:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise InvalidRequest(f"{path} holds no certificate in PEM: {error}") from None
    names: tuple[str, ...] = ()
    authority = False
    with contextlib.suppress(x509.ExtensionNotFound):
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        addresses = map(str, found.get_values_for_type(x509.IPAddress))
        names = (*found.get_values_for_type(x509.DNSName), *addresses)
    with contextlib.suppress(x509.ExtensionNotFound):
        authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Issued(
        path,
        path.with_suffix(".key"),
        str(common[0].value) if common else "",
        names,
        authority,
        certificate.not_valid_after_utc,
        certificate.fingerprint(hashes.SHA256()).hex(),
    )
