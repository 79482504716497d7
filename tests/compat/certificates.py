"""A small private CA for tests of TLS."""

from __future__ import annotations

import atexit
import datetime
import functools
import ipaddress
import os
import shutil
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificates:
    """Files of one CA, and of a server and a client that it vouches for."""

    ca: str
    server: str
    server_key: str
    client: str
    client_key: str

    def server_context(self, *, mutual: bool) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
        context.load_cert_chain(self.server, self.server_key)
        context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE
        return context

    def client_context(self, *, mutual: bool) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.ca)
        if mutual:
            context.load_cert_chain(self.client, self.client_key)
        return context

    def stock_config(self, *, mutual: bool) -> dict[str, Any]:
        """Return Pyro5's configuration for both sides of one process."""
        items = {
            "SSL": True,
            "SSL_SERVERCERT": self.server,
            "SSL_SERVERKEY": self.server_key,
            "SSL_CACERTS": self.ca,
        }
        if mutual:
            items |= {
                "SSL_REQUIRECLIENTCERT": True,
                "SSL_CLIENTCERT": self.client,
                "SSL_CLIENTKEY": self.client_key,
            }
        return items


@functools.cache
def certificates(name: str = "ca") -> Certificates:
    """Make the certificates; once per process and name."""
    directory = Path(tempfile.mkdtemp(prefix="compat-tls-"))
    atexit.register(_remove, directory, os.getpid())
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate(name, ca_key, name, ca_key, is_ca=True)
    files = {"ca": _written(directory / "ca.pem", _pem(ca))}
    for who in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        files[who] = _written(directory / f"{who}.pem", _pem(_certificate(who, key, name, ca_key)))
        files[f"{who}_key"] = _written(
            directory / f"{who}.key",
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
    return Certificates(**files)


def _remove(directory: Path, maker: int) -> None:
    if os.getpid() == maker:  # and not a process it has forked
        shutil.rmtree(directory, ignore_errors=True)


def _certificate(
    subject: str, key: Any, issuer: str, issuer_key: Any, *, is_ca: bool = False
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        # What Python 3.13 and later insist on: who has signed, and what an authority's key is for.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .add_extension(_usage(is_ca=is_ca), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)
