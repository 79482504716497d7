"""Who may call: the cluster key that services share, and the tokens of clients.

The cluster key lies in ``DATA_DIR/cluster.key`` (mode 0600, 64 hexadecimal digits); whoever can
read it is a service. A client's token is 32 random bytes in URL-safe base64; only its SHA-256 is
ever stored: a token has full entropy, so a slow password hash would add nothing.

A caller says who it is in the handshake of its connection:

======================== =================================
``{"token": "..."}``     a client, where clients are known; elsewhere nobody in particular
``{"cluster_key": "…"}`` a service
anything else            nobody in particular (anonymous)
======================== =================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeGuard

from rmi_runtime import errors
from rmi_runtime.context import Identity

KEY_FILE = "cluster.key"
_KEY_BYTES = 32
_KEY = re.compile(r"[0-9a-f]{64}")
_SECRET_LENGTH_MAX = 512

FAKE = "the token is fake, revoked or expired"

Identify = Callable[[str], Awaitable[Identity | None]]
"""Finds the identity of a token's hash, or None if there is no such token."""


def load_or_create_cluster_key(data_dir: str | os.PathLike[str]) -> str:
    """Return the cluster key of a data directory, made if there is none.

    Any number of processes may call this at once: all get the same key.

    Args:
        data_dir: where ``cluster.key`` lies; made (mode 0700) if missing.

    Returns:
        64 hexadecimal digits.

    Raises:
        Forbidden: the file is another user's, or others may read or write it, or anybody may write
            to the directory.
        InvalidRequest: the file does not hold a key.
        OSError: it cannot be read or made.
    """
    directory = Path(data_dir)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_public(directory)
    path = directory / KEY_FILE
    with contextlib.suppress(FileNotFoundError):
        return _read_key(path)
    _create_key(path)
    return _read_key(path)


def _refuse_public(directory: Path) -> None:
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o002 and not mode & stat.S_ISVTX:
        raise errors.Forbidden(
            f"{directory} has mode {mode:04o}: anybody on this machine could put a key and books "
            f"of their own there. Run: chmod 700 {directory}",
            path=str(directory),
        )


def _create_key(path: Path) -> None:
    # Written under another name and linked: nobody ever sees half a key, and of several processes
    # only the first one's link succeeds.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read_key(path: Path) -> str:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid not in (os.geteuid(), path.parent.stat().st_uid):
            raise errors.Forbidden(
                f"{path} belongs to another user (number {status.st_uid}), who could call as a "
                "service; remove it, and copy the cluster's key there or have a new one made",
                path=str(path),
            )
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise errors.Forbidden(
                f"{path} has mode {mode:04o}: others than its owner could call as a service. "
                f"Run: chmod 600 {path}",
                path=str(path),
            )
        key = file.read(4096).decode("ascii", "replace").strip()
    if not _KEY.fullmatch(key):
        raise errors.InvalidRequest(
            f"{path} holds no cluster key (64 hexadecimal digits); copy it from another machine of "
            "the cluster, or remove it to have a new one made",
            path=str(path),
        )
    return key


def new_token() -> str:
    """Return a new client token: 32 random bytes as 43 URL-safe characters."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Return the SHA-256 of *token*, as 64 hexadecimal digits: the form that is stored."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def same_secret(given: str, expected: str) -> bool:
    """Compare two secrets in a time that does not tell where they differ."""
    return hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass")
    )


class ServiceAuthenticator:
    """Turns handshake data into an identity: fit for ``Daemon(authenticate=...)``.

    Args:
        cluster_key: what services must know, as :func:`load_or_create_cluster_key` returns it.
        identify: finds the identity of a token's hash. None: this service knows no clients. To it
            whoever shows a token, which it cannot check, is anybody.

    Attributes:
        identify: may be set later, when the service knows how.
    """

    def __init__(self, cluster_key: str, identify: Identify | None = None) -> None:
        self._cluster_key = cluster_key
        self.identify = identify

    async def __call__(self, handshake: object, peer: object = None) -> Identity:
        """Say who the caller is.

        Args:
            handshake: what the caller sent when it connected.
            peer: where it called from; not used.

        Returns:
            The identity; anonymous if the handshake names neither a token nor a cluster key. That
            of a client can be asked again (:attr:`Identity.renew`).

        Raises:
            Forbidden: the token or the cluster key is wrong.
        """
        if isinstance(handshake, Mapping):
            if "cluster_key" in handshake:
                return self._service(handshake["cluster_key"])
            if "token" in handshake:
                return await self._client(handshake["token"])
        return Identity("anonymous")

    def _service(self, key: object) -> Identity:
        if not _plausible(key) or not same_secret(key, self._cluster_key):
            raise errors.Forbidden(
                "the cluster key is not this cluster's; all services need the same cluster.key"
            )
        return Identity("service")

    async def _client(self, token: object) -> Identity:
        if self.identify is None:
            return Identity("anonymous")
        if not _plausible(token):
            raise errors.Forbidden(FAKE)
        return await self._client_of(hash_token(token))

    async def _client_of(self, token_hash: str) -> Identity:
        identity = await self.identify(token_hash) if self.identify is not None else None
        if identity is None:
            raise errors.Forbidden(FAKE)
        # Tokens are revoked and expire, while connections stay.
        return dataclasses.replace(identity, renew=partial(self._client_of, token_hash))


def _plausible(secret: object) -> TypeGuard[str]:
    return isinstance(secret, str) and 0 < len(secret) <= _SECRET_LENGTH_MAX
