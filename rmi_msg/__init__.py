"""A message log: a facade, loggers over a shared store, messages services, and the HTTP gateway.

Everything that code outside this package uses is here.
"""

from rmi_msg.facade import run_facade
from rmi_msg.gateway_messages import MessageGateway
from rmi_msg.http_gateway import run_gateway
from rmi_msg.ids import keyed_message_id, message_id, new_message_id
from rmi_msg.logger import run_logger
from rmi_msg.messages import run_messages

__all__ = [
    "MessageGateway",
    "keyed_message_id",
    "message_id",
    "new_message_id",
    "run_facade",
    "run_gateway",
    "run_logger",
    "run_messages",
]
