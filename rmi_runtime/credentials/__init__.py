"""Who may call: cluster key, tokens, certificates, TLS."""

from rmi_runtime.credentials.authenticator import (
    ServiceAuthenticator,
    hash_token,
    load_or_create_cluster_key,
    new_token,
    same_secret,
)
from rmi_runtime.credentials.identities import Identities
from rmi_runtime.credentials.tls import TlsContexts, client_context, load_tls, server_context

__all__ = [
    "Identities",
    "ServiceAuthenticator",
    "TlsContexts",
    "client_context",
    "hash_token",
    "load_or_create_cluster_key",
    "load_tls",
    "new_token",
    "same_secret",
    "server_context",
]
