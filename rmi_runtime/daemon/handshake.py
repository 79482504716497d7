"""The handshake of a connection, server side: its messages, and what a certificate is needed for.

A CONNECT message carries a dictionary: ``object``, the id of the object that is wanted, and
``handshake``, what the client has to say for itself. The answer is CONNECTOK with ``handshake`` and
``meta`` (what the object offers), or CONNECTFAIL with a text (``Pyro5.server.Daemon``).
"""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Mapping
from typing import Any, Final

from Pyro5.errors import DaemonError

from rmi_runtime import errors, wire
from rmi_runtime.context import SERVICE, Identity
from rmi_runtime.wire import serializers
from rmi_runtime.wire.serializers import Serializer

KNOWN_S: Final = 0.75
"""For how long it is believed that a caller is still who the handshake said, if that may change.
With the second for which answers are remembered on the way, a revoked token is good for less than
two seconds, on open connections too."""

ASK_AGAIN_S: Final = 0.25
"""After nobody could say who a caller is, the next one to ask comes no sooner than this."""


def read_connect(
    serializer: Serializer, message: wire.Message, elements_max: int
) -> dict[str, Any]:
    """Return the dictionary in a CONNECT message.

    Raises:
        MalformedRequest: it holds something else.
        Exception: it cannot be parsed.
    """
    data = serializer.load_bounded(message.payload, elements_max)
    if not isinstance(data, dict) or not isinstance(data.get("object"), str):
        raise errors.MalformedRequest(
            "a handshake is a dictionary with the object's id and the handshake data"
        )
    return data


def metadata(members: Mapping[str, set[str]]) -> dict[str, Any]:
    """Return an object's members as they travel: empty sets as serpent writes them, as tuples."""
    return {kind: names or () for kind, names in members.items()}


def check_certificate(identity: Identity, transport: asyncio.BaseTransport) -> None:
    """Refuse a service without a certificate, where the server asks for one.

    The server's TLS context says whether it does; a certificate that was shown has been verified.

    Raises:
        Forbidden: the caller knows the cluster key, and has shown no certificate.
    """
    if identity.kind != SERVICE.kind:
        return
    encrypted = transport.get_extra_info("ssl_object")
    if encrypted is None or encrypted.context.verify_mode == tls.CERT_NONE:
        return
    if not transport.get_extra_info("peercert"):
        raise errors.Forbidden(
            "a service shows a certificate of the private CA as well as the cluster key: "
            "set tls_cert, tls_key and tls_ca (see 'rmi certs')"
        )


def asks_for_pipelining(message: wire.Message) -> bool:
    """Tell whether a CONNECT message asks for replies in any order."""
    return message.annotations.get(wire.ANNOTATION_PIPELINING) == wire.PIPELINING_VERSION


def encode_welcome(
    message: wire.Message,
    payload: bytes,
    annotations: Mapping[str, bytes],
    grant: bytes,
) -> bytes:
    """Return the answer to a CONNECT message that lets the client in.

    Args:
        message: what is answered.
        payload: of the answer.
        annotations: of the answer.
        grant: what grants pipelining (:func:`wire.grant`) to a client that asks for it.
    """
    if asks_for_pipelining(message):
        annotations = {**(annotations or {}), wire.ANNOTATION_PIPELINING: grant}
    return wire.encode(
        wire.MSG_CONNECTOK,
        message.serializer_id,
        0,
        message.seq,
        payload,
        annotations,
        message.correlation_id,
    )


def encode_refusal(message: wire.Message, error: BaseException) -> bytes:
    """Return the answer to a CONNECT message that turns the client away, and says why."""
    speaks = serializers.BY_ID.get(message.serializer_id) or serializers.BY_NAME["serpent"]
    code = errors.Forbidden.code
    if isinstance(error, errors.RmiError):
        code = error.code
    elif isinstance(error, DaemonError):
        code = errors.NotFound.code
    return wire.encode(
        wire.MSG_CONNECTFAIL,
        speaks.serializer_id,
        0,
        message.seq,
        speaks.dumps(errors.describe(error)),
        {wire.ANNOTATION_REFUSAL: code.encode("ascii")},
    )
