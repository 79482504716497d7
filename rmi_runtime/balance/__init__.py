"""Equal services: a live view of them, and which one gets the next call."""

from rmi_runtime.balance.balancer import EndpointView
from rmi_runtime.balance.endpoints import Endpoints

__all__ = ["EndpointView", "Endpoints"]
