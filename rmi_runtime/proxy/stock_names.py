"""What programs written for Pyro5's own proxy look for at ours, and what takes its place there."""

from __future__ import annotations

from typing import Final

NOTHING: Final = "nothing takes its place"

INSTEAD: Final = {
    "_pyroAttrs": NOTHING,
    "_pyroBind": "use _bind()",
    "_pyroClaimOwnership": (
        "use _claim_ownership(), and proxy._batch() in place of BatchProxy(proxy)"
    ),
    "_pyroConnection": NOTHING,
    "_pyroGetMetadata": "use _bind(): connecting tells what the object offers",
    "_pyroHandshake": "make the proxy with handshake=…",
    "_pyroInvoke": "use _call(method, args, kwargs)",
    "_pyroInvokeBatch": "use _batch()",
    "_pyroLocalSocket": NOTHING,
    "_pyroMaxRetries": "what was sent is never sent again",
    "_pyroMethods": NOTHING,
    "_pyroOneway": NOTHING,
    "_pyroRawWireResponse": NOTHING,
    "_pyroReconnect": "the next call connects, if need be",
    "_pyroRelease": "use _close()",
    "_pyroSeq": NOTHING,
    "_pyroSerializer": "make the proxy with serializer=…",
    "_pyroTimeout": "make the proxy with timeout_s=…",
    "_pyroUri": "keep the URI that you make it with",
    "_pyroValidateHandshake": NOTHING,
}
"""What to use in place of the members of Pyro5's proxy."""


def refusal(name: str) -> str:
    """Return why a proxy of ours has no member of this name for its users to set or get.

    Args:
        name: one that begins with an underscore.
    """
    if name in INSTEAD:
        return f"{name!r} belongs to Pyro5's own Proxy; of this one: {INSTEAD[name]}"
    return f"{name!r} is private; for an exposed special method use proxy._call({name!r})"
