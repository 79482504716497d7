"""Settings that are fine one by one, and not together. Plain code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rmi_runtime.settings.rules import is_loopback, is_unspecified, split_address

if TYPE_CHECKING:
    from rmi_runtime.settings.settings import Settings

_WAYS_OUT = (
    "give a certificate (tls_cert, tls_key and tls_ca: see 'rmi certs'), or accept this with "
    "--insecure; 127.0.0.1 needs neither"
)
_NEEDS = (
    ", together with a certificate (tls_cert, tls_key and tls_ca: see 'rmi certs') or the word "
    "--insecure; 127.0.0.1 needs neither"
)


def conflicts(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield what is wrong between settings: the field to blame, and why.

    Args:
        settings: each of its values is valid.
    """
    yield from _half_tls(settings)
    yield from _nobodys_addresses(settings)
    if not (settings.insecure or settings.tls):
        yield from _open_addresses(settings)


def unreachable(settings: Settings) -> str | None:
    """Return why services that announce themselves could not be reached, or None if they could."""
    if is_loopback(settings.host):
        for address in settings.ns:
            if not is_loopback(split_address(address)[0]):
                return (
                    f"the name server {address} would tell other machines of {settings.host}, "
                    "where they find only themselves; give the address of this machine with --host"
                )
    return None


def _half_tls(settings: Settings) -> Iterator[tuple[str, str]]:
    names = ("tls_cert", "tls_key", "tls_ca")
    missing = [name for name in names if not getattr(settings, name)]
    if missing and len(missing) < len(names):
        yield (
            missing[0],
            "is needed as well: TLS takes tls_cert, tls_key and tls_ca ('rmi certs' makes them)",
        )


def _nobodys_addresses(settings: Settings) -> Iterator[tuple[str, str]]:
    """The address that a service or name server listens on is the one that it tells others."""
    hosts = [("host", settings.host), *(("ns", split_address(each)[0]) for each in settings.ns)]
    needs = "" if settings.insecure or settings.tls else _NEEDS
    for name, host in hosts:
        if is_unspecified(host):
            yield (
                name,
                f"nobody can connect to {host}; give the address or name under which others "
                f"reach this machine{needs}",
            )


def _open_addresses(settings: Settings) -> Iterator[tuple[str, str]]:
    """Whoever lets keys, tokens and money travel between machines unencrypted says the word."""
    for name, host in (("host", settings.host), ("http", split_address(settings.http)[0])):
        if not is_loopback(host):
            yield (
                name,
                f"{host} can be reached from other machines, and the traffic would not be "
                f"encrypted; {_WAYS_OUT}",
            )
    for address in settings.ns:
        host, _ = split_address(address)
        if not is_loopback(host):
            yield (
                "ns",
                f"the cluster key would travel to or from {host} unencrypted; {_WAYS_OUT}",
            )
