"""Settings: what may be set, by which rules, and where each value came from."""

from rmi_runtime.settings.rules import is_loopback, split_address
from rmi_runtime.settings.settings import (
    FIELDS,
    OTHER_VARIABLES,
    Loaded,
    Settings,
    SettingsError,
    check_reachable,
    flag_of,
    load_settings,
    rule_of,
)

__all__ = [
    "FIELDS",
    "OTHER_VARIABLES",
    "Loaded",
    "Settings",
    "SettingsError",
    "check_reachable",
    "flag_of",
    "is_loopback",
    "load_settings",
    "rule_of",
    "split_address",
]
