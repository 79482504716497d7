"""TLS contexts: who shows which certificate to whom.

Three files make all of them: a certificate of this machine, its key, and the private CA that signed
the certificates of all machines (``rmi certs`` makes them).

======== ========================= ==========================================================
context  for                       shows and asks
======== ========================= ==========================================================
server   daemons                   shows the certificate; asks for one of the CA, may do without
client   proxies                   wants one of the CA that names the host; shows its own if asked
web      the HTTPS gateway         shows the certificate; asks for none
======== ========================= ==========================================================

A caller that shows no certificate can be a client with a token or a stranger, but never a service:
see :func:`rmi_runtime.daemon.handshake.check_certificate`.
"""

from __future__ import annotations

import logging
import os
import ssl
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from rmi_runtime.errors import Forbidden, InvalidRequest
from rmi_runtime.settings.settings import Settings

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

log = logging.getLogger(__name__)

CIPHERS_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""With TLS 1.2; those of TLS 1.3 are all good."""

EXPIRES_SOON: Final = timedelta(days=30)
"""A certificate with less time left than this is warned of at every start."""

SHUTDOWN_S: Final = 1.0
"""How long the other end may take to say goodbye; TLS knows who hung up in the middle."""

Path = str | os.PathLike[str]


class TlsUnusable(InvalidRequest):
    """A certificate, key or CA cannot be used. ``fields['path']`` names the file."""

    code = "tls_unusable"


@dataclass(frozen=True, slots=True)
class TlsContexts:
    """The contexts of one process; see the table above."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    web: ssl.SSLContext


def load_tls(settings: Settings) -> TlsContexts | None:
    """Return the TLS contexts that the settings ask for, or None if they ask for none.

    Raises:
        TlsUnusable: a file is missing, holds the wrong thing, has expired, or does not fit the
            others.
        Forbidden: the key is another user's, or others than its owner may read it.
    """
    if not settings.tls:
        return None
    cert, key, ca = settings.tls_cert, settings.tls_key, settings.tls_ca
    _check_validity(cert, ca, datetime.now(UTC))
    return TlsContexts(
        server_context(cert, key, ca), client_context(ca, cert, key), server_context(cert, key)
    )


def server_context(cert: Path, key: Path, ca: Path | None = None) -> ssl.SSLContext:
    """Return a context for whoever is called.

    Args:
        cert: PEM file with the certificate, and those between it and its CA, if there are any.
        key: PEM file with its key, readable by its owner only.
        ca: PEM file with the CA that callers' certificates must come from. A caller may do without
            one, but one that it shows has to be good. None: they are not asked for any.

    Raises:
        TlsUnusable, Forbidden: as :func:`load_tls`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    _load_own(context, cert, key)
    if ca is not None:
        _load_ca(context, ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(ca: Path, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return a context for whoever calls.

    Args:
        ca: PEM file with the CA that the called ones' certificates must come from; no other is
            trusted.
        cert: PEM file with the certificate to show when asked for one. Services need one; clients
            with tokens do not.
        key: PEM file with its key, readable by its owner only.

    Raises:
        TlsUnusable, Forbidden: as :func:`load_tls`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the host's name
    _harden(context)
    _load_ca(context, ca)
    if cert is not None and key is not None:
        _load_own(context, cert, key)
    return context


def connect_options(context: ssl.SSLContext | None) -> dict[str, Any]:
    """Return the options for TLS of asyncio's ``create_connection``; *context* None: no TLS."""
    return {"ssl": context, "ssl_shutdown_timeout": SHUTDOWN_S} if context is not None else {}


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS_1_2)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _load_own(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    _check_key_file(key)

    def password() -> str:
        raise ValueError("it is protected by a password; services start with nobody to type one")

    try:
        context.load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        raise TlsUnusable(
            f"{cert} and {key} are no certificate and its key in PEM: {_said(error)}",
            path=str(cert),
        ) from None
    except ValueError as error:
        raise TlsUnusable(f"{key}: {error}", path=str(key)) from None
    except OSError as error:
        raise _unreadable(cert, error) from None


def _check_key_file(key: Path) -> None:
    try:
        status = os.stat(key)
        owners = (os.geteuid(), os.stat(os.path.dirname(os.path.abspath(key))).st_uid)
    except OSError as error:
        raise _unreadable(key, error) from None
    if status.st_uid not in owners:
        raise Forbidden(
            f"{key} belongs to another user (number {status.st_uid}), who could pass for this "
            "machine: have a new one made (rmi certs host)",
            path=str(key),
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise Forbidden(
            f"{key} has mode {mode:04o}: others than its owner could pass for this machine. "
            f"Run: chmod 600 {key}",
            path=str(key),
        )


def _load_ca(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(cafile=ca)
    except ssl.SSLError as error:
        raise TlsUnusable(f"{ca} is no CA in PEM: {_said(error)}", path=str(ca)) from None
    except OSError as error:
        raise _unreadable(ca, error) from None


def _check_validity(cert: Path, ca: Path, now: datetime) -> None:
    """Find what every peer would refuse, before any does."""
    own, *between = _read(cert)
    issuers = [issuer for issuer in (*between, *_read(ca)) if _issued(own, issuer)]
    if not issuers:
        raise TlsUnusable(
            f"{cert} was not signed by the CA in {ca}: nobody would believe it. Use the CA that "
            "signed it, or have this CA sign another (rmi certs host)",
            path=str(cert),
        )
    _check_time(cert, own, now)
    # While a CA is being replaced, both are in the file.
    _check_time(ca, max(issuers, key=lambda issuer: issuer.not_valid_after_utc), now)


def of_tls(error: BaseException) -> bool:
    """Say whether a failed connection's *error* comes of certificates, or of TLS itself."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__
    return cause is not None


def _check_time(path: Path, certificate: Certificate, now: datetime) -> None:
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not since <= now < until:
        raise TlsUnusable(
            f"{path} is valid from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC, and it is "
            f"{now:%Y-%m-%d %H:%M}: make a new one (see 'rmi certs'), or set the clock",
            path=str(path),
        )
    if until - now < EXPIRES_SOON:
        log.warning("%s expires on %s: make a new one soon", path, f"{until:%Y-%m-%d}")


def _read(path: Path) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415  # only with TLS

    try:
        with open(path, "rb") as file:
            return load_pem_x509_certificates(file.read())
    except ValueError as error:
        raise TlsUnusable(f"{path} holds no certificate in PEM: {error}", path=str(path)) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _issued(certificate: Certificate, issuer: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # another name, kind of key or signature: whichever it is, it is not that one
        return False
    return True


def _unreadable(path: Path, error: OSError) -> TlsUnusable:
    return TlsUnusable(f"{path} cannot be read: {error.strerror or error}", path=str(path))


def _said(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
