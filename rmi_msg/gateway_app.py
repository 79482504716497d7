"""The gateway's application: the routes of the messages, of the bank, and of the gateway itself."""

from __future__ import annotations

import msgspec

from rmi_bank.routes import Bank, bank_routes
from rmi_msg.gateway_pages import GatewayPages
from rmi_msg.openapi import openapi_document
from rmi_msg.routes import Messages, message_routes
from rmi_runtime import __version__
from rmi_runtime.http import App, Route, make_app


def gateway_routes(bank: Bank, messages: Messages, pages: GatewayPages) -> list[Route]:
    """Return all that the gateway serves, and let *pages* describe it."""
    routes = [*message_routes(messages), *bank_routes(bank), *pages.routes()]
    pages.document = msgspec.json.encode(openapi_document(routes, __version__))
    return routes


def gateway_app(bank: Bank, messages: Messages, pages: GatewayPages) -> App:
    """Return the ASGI application.

    Args:
        bank: usually a :class:`rmi_bank.BankGateway`.
        messages: usually a :class:`rmi_msg.MessageGateway`.
        pages: what the gateway says about itself.
    """
    routes = gateway_routes(bank, messages, pages)
    return make_app(routes, on_answered=pages.metrics.on_answered)
