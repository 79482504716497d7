"""The version, in one place: read by the packaging, the command line and the OpenAPI document."""

__version__ = "0.1.0"
