"""The rule of one setting: its type, bounds, choices and unit, and how a text becomes a value.

Plain functions from what was given to a checked value; they know neither files nor environments.
They raise ValueError; :mod:`rmi_runtime.settings` adds the field and the source.
"""

from __future__ import annotations

import ipaddress
import math
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rmi_runtime.errors import shown

PORT_MAX: Final = 0xFFFF

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True)
class Rule:
    """What one setting means and which values it takes.

    Args:
        doc: one line for people.
        unit: of a number: ``s``, ``bytes``, ``processes``; empty where there is none.
        low: smallest number allowed, or None.
        high: largest number allowed, or None.
        choices: the only words allowed, or empty.
        check: further check of a text; returns it in its normal form or raises ValueError.
    """

    doc: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    check: Callable[[str], str] | None = None


def rule(
    doc: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    check: Callable[[str], str] | None = None,
) -> dict[str, Rule]:
    """Return a :class:`Rule` as the metadata of a dataclass field; arguments as there."""
    return {"rule": Rule(doc, unit, low, high, choices, check)}


def split_address(address: str) -> tuple[str, int]:
    """Split ``host:port`` (an IPv6 host stands in brackets: ``[::1]:9090``).

    Args:
        address: the text; port 0 means "any free port" to whoever listens.

    Returns:
        Host without brackets, and port.

    Raises:
        ValueError: *address* has another form.
    """
    host, colon, digits = address.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host and "/" not in host:
        raise ValueError(f"{address!r}: an IPv6 host stands in brackets, as in [::1]:9090")
    if not colon or not host or "/" in host or not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{address!r} is not host:port, as in 127.0.0.1:9090")
    port = int(digits) if len(digits) <= 5 else PORT_MAX + 1
    if port > PORT_MAX:
        raise ValueError(f"{address!r}: a port is at most {PORT_MAX}")
    return host, port


def is_loopback(host: str) -> bool:
    """Say whether *host* (name or address) can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_unspecified(host: str) -> bool:
    """Say whether *host* stands for all addresses of a machine, to which nobody can connect."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def normal_address(text: str) -> str:
    """Return *text* in the form that :func:`split_address` reads, or raise ValueError."""
    host, port = split_address(text)
    host = normal_host(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def normal_host(text: str) -> str:
    """Return *text* as a host without brackets, or raise ValueError."""
    host = text.strip().removeprefix("[").removesuffix("]")
    try:
        host.encode("idna")  # as it is when the name is looked up: no label is empty or too long
        right = host.isprintable() and not any(c.isspace() or c == "/" for c in host)
    except UnicodeError:
        right = False
    if not host or not right:
        raise ValueError(f"{text!r} is not a host name or address, as in 127.0.0.1")
    return host


def normal_word(text: str) -> str:
    """Return *text* as a word of letters, digits, ``-``, ``_`` and ``.``, or raise ValueError."""
    word = text.strip()
    if (
        not word
        or not word.isascii()
        or not word.replace("-", "").replace("_", "").replace(".", "").isalnum()
    ):
        raise ValueError(f"{text!r} is not a word of letters, digits, -, _ and .")
    return word


def checked(given: object, default: object, rule: Rule, *, from_text: bool) -> object:
    """Bring *given* to the type of *default* and check it against *rule*.

    Args:
        given: the value as the caller, the file or the environment has it.
        default: the setting's default, which says its type.
        rule: what is allowed.
        from_text: numbers and truth values may be written as text (environment, command line).

    Returns:
        The value, in its normal form.

    Raises:
        ValueError: it has another type or is not allowed.
    """
    value = _typed(given, default, from_text=from_text)
    if isinstance(value, tuple):
        if not value and default:
            raise ValueError("at least one is needed")
        items = tuple(_checked_text(item, rule) for item in value)
        if twice := [item for item, times in Counter(items).items() if times > 1]:
            raise ValueError(f"{shown(twice[0])} is there twice: name each once")
        return items
    if isinstance(value, str):
        return _checked_text(value, rule)
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_bounds(value, rule)
    return value


def _typed(given: object, default: object, *, from_text: bool) -> object:
    """Return *given* as the type of *default*, or raise ValueError."""
    match default:
        case bool():
            return _as_bool(given, from_text=from_text)
        case int():
            return _as_int(given, from_text=from_text)
        case float():
            return _as_float(given, from_text=from_text)
        case Path():
            return _as_path(given)
        case tuple():
            return _as_words(given)
        case _:
            if isinstance(given, str):
                return given
            raise ValueError(f"{shown(given)} is not a text")


def _as_path(given: object) -> Path:
    if not isinstance(given, str | Path) or not str(given).strip() or "\0" in str(given):
        raise ValueError(f"{shown(given)} is not a path")
    try:
        str(given).encode()  # SQLite cannot open what lies elsewhere
        os.fsencode(given)
        return Path(given).expanduser()
    except UnicodeEncodeError:
        raise ValueError(_no_name(str(given))) from None
    except RuntimeError:
        raise ValueError(f"{shown(given)}: nobody's home directory is called so") from None


def _no_name(given: str) -> str:
    """Return why the path *given* cannot be used, though the system may know it."""
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        return f"{shown(given)} is not UTF-8 text"
    return (
        f"{shown(given)} cannot be used: Python takes the names of files for {encoding} here; "
        "set LC_ALL=C.UTF-8 or PYTHONUTF8=1"
    )


def _as_bool(given: object, *, from_text: bool) -> bool:
    if isinstance(given, bool):
        return given
    if from_text and isinstance(given, str):
        word = given.strip().lower()
        if word in _TRUE | _FALSE:
            return word in _TRUE
    raise ValueError(f"{shown(given)} is neither true nor false")


def _as_int(given: object, *, from_text: bool) -> int:
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    if from_text and isinstance(given, str):
        digits = given.strip()
        # Twenty characters hold every bound here; more would only cost time to convert.
        if len(digits) <= 20 and digits.isascii() and digits.removeprefix("-").isdigit():
            return int(digits)
    raise ValueError(f"{shown(given)} is not a whole number")


def _as_float(given: object, *, from_text: bool) -> float:
    number = math.nan
    if isinstance(given, int | float) and not isinstance(given, bool):
        try:
            number = float(given)
        except OverflowError:
            number = math.inf
    elif from_text and isinstance(given, str):
        try:
            number = float(given)
        except ValueError:
            number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{shown(given)} is not a number")
    return number


def _as_words(given: object) -> tuple[str, ...]:
    parts = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"{shown(given)} is not a list of texts")
    words = (word.strip() for part in parts for word in part.split(","))
    return tuple(word for word in words if word)


def _checked_text(value: str, rule: Rule) -> str:
    if rule.choices:
        for choice in rule.choices:
            if value.strip().lower() == choice.lower():
                return choice
        raise ValueError(f"{shown(value)} is not one of {', '.join(rule.choices)}")
    return rule.check(value) if rule.check else value


def _check_bounds(value: float, rule: Rule) -> None:
    too_low = rule.low is not None and value < rule.low
    too_high = rule.high is not None and value > rule.high
    if too_low or too_high:
        unit = f" {rule.unit}" if rule.unit else ""
        raise ValueError(
            f"{shown(value)} is not between {rule.low:.15g} and {rule.high:.15g}{unit}"
        )
