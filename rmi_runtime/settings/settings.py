"""Settings: what may be set, where each value came from, and errors that name both.

A value is looked for in four places, the later ones winning: the defaults below, the file
``rmi.toml``, the environment (``RMI_<FIELD>``), the command line (``--<field>``). The result is
frozen and handed on as an argument; nothing here is global.

    loaded = load_settings(flags={"business": 5})
    loaded.settings.business       # 5
    loaded.sources["business"]     # "--business"

Every field carries its own rule (bounds, choices, unit; the type is its default's), so that the
file, the environment and a direct ``Settings(...)`` are all checked by the same lines.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmi_runtime.errors import InvalidRequest
from rmi_runtime.settings.conflicts import conflicts, unreachable
from rmi_runtime.settings.rules import (
    PORT_MAX,
    Rule,
    checked,
    normal_address,
    normal_host,
    normal_word,
    rule,
)

TOML_NAME = "rmi.toml"
TOML_CHARS_MAX = 100_000
"""Something else was named, a log or a device, if there is more in it."""

OTHER_VARIABLES: Mapping[str, str] = {
    "RMI_CONFIG": f"path of the settings file, if it is not ./{TOML_NAME}",
    "RMI_READY_FD": "file descriptor on which a started service says that it is ready",
    "RMI_REQUIRE_HAZELCAST": "1: the tests fail, rather than skip, where Hazelcast is missing",
}
"""``RMI_*`` variables that are not settings, and what each is for."""

_KIB = 1024
_MIB = 1024 * _KIB


class SettingsError(InvalidRequest):
    """A setting is unknown, of the wrong type or out of bounds.

    ``fields`` has ``field`` (the setting, or the unknown word) and ``source`` (where it was given:
    ``rmi.toml``, ``RMI_<FIELD>``, ``--<field>``, or ``Settings``).
    """

    code = "invalid_settings"


@dataclass(frozen=True)
class Settings:
    """All that can be set. Build one with :func:`load_settings`, or directly in a test.

    Raises:
        SettingsError: a value is of the wrong type or out of bounds.
    """

    data_dir: Path = field(
        default=Path("var"), metadata=rule("directory for the databases, keys and logs")
    )
    host: str = field(
        default="127.0.0.1",
        metadata=rule("address that the services listen on", check=normal_host),
    )
    ns: tuple[str, ...] = field(
        default=("127.0.0.1:9090",),
        metadata=rule("name servers, as host:port, separated by commas", check=normal_address),
    )
    http: str = field(
        default="127.0.0.1:8080",
        metadata=rule("address of the HTTP gateway, as host:port", check=normal_address),
    )
    business: int = field(
        default=3, metadata=rule("business objects", unit="processes", low=1, high=64)
    )
    loggers: int = field(default=3, metadata=rule("loggers", unit="processes", low=1, high=64))
    messages: int = field(
        default=2, metadata=rule("messages services", unit="processes", low=1, high=64)
    )
    gateway_workers: int = field(
        default=1, metadata=rule("gateway processes", unit="processes", low=1, high=64)
    )
    store: str = field(
        default="sqlite",
        metadata=rule("where the loggers keep messages", choices=("sqlite", "hazelcast")),
    )
    hazelcast_members: tuple[str, ...] = field(
        default=(),
        metadata=rule(
            "Hazelcast members that run elsewhere, as host:port; none: each logger starts its own",
            check=normal_address,
        ),
    )
    hazelcast_cluster: str = field(
        default="rmi",
        metadata=rule("name of the Hazelcast cluster", check=normal_word),
    )
    hazelcast_port: int = field(
        default=5701,
        metadata=rule(
            "TCP port of the first logger's Hazelcast member",
            unit="port",
            low=1024,
            high=PORT_MAX - 64,
        ),
    )
    hazelcast_heap_mib: int = field(
        default=256,
        metadata=rule("Java heap of a Hazelcast member", unit="MiB", low=128, high=1024 * 1024),
    )
    demo: bool = field(
        default=False, metadata=rule("make demonstration accounts and tokens on the first start")
    )
    restart: bool = field(default=True, metadata=rule("start a service that died again"))
    insecure: bool = field(
        default=False, metadata=rule("allow addresses other than loopback without TLS")
    )
    tls_cert: str = field(
        default="", metadata=rule("certificate of this machine (PEM file); none: no TLS")
    )
    tls_key: str = field(default="", metadata=rule("key of that certificate (PEM file)"))
    tls_ca: str = field(
        default="", metadata=rule("private CA that all certificates come from (PEM file)")
    )
    ns_broadcast_port: int = field(
        default=9091,
        metadata=rule(
            "UDP port where a name server that others can reach is found by broadcast; 0: none",
            unit="port",
            low=0,
            high=PORT_MAX,
        ),
    )
    log_level: str = field(
        default="INFO",
        metadata=rule(
            "least severity that is logged", choices=("DEBUG", "INFO", "WARNING", "ERROR")
        ),
    )
    log_size_mib_max: int = field(
        default=1024,
        metadata=rule("largest file of an operation log", unit="MiB", low=1, high=1024 * 1024),
    )
    log_files_max: int = field(
        default=2,
        metadata=rule(
            "files of each operation log, the current one among them",
            unit="files",
            low=2,
            high=1000,
        ),
    )
    lease_s: float = field(
        default=2.0,
        metadata=rule("life of an announcement at the name server", unit="s", low=0.2, high=60),
    )
    lock_wait_s: float = field(
        default=5.0,
        metadata=rule("longest wait for the locks of accounts", unit="s", low=0.01, high=60),
    )
    lock_lease_s: float = field(
        default=10.0,
        metadata=rule(
            "longest life of the right to commit on locked accounts",
            unit="s",
            low=0.1,
            high=300,
        ),
    )
    call_timeout_s: float = field(
        default=10.0,
        metadata=rule("longest wait for the answer to a call", unit="s", low=0.1, high=300),
    )
    start_wait_s: float = field(
        default=30.0,
        metadata=rule("longest wait for a started service to be ready", unit="s", low=1, high=600),
    )
    stop_wait_s: float = field(
        default=8.0,
        metadata=rule(
            "grace to finish what is under way before a service is killed",
            unit="s",
            low=0.1,
            high=300,
        ),
    )
    message_size_bytes_max: int = field(
        default=64 * _MIB,
        metadata=rule("largest Pyro message", unit="bytes", low=64 * _KIB, high=1024 * _MIB),
    )
    body_size_bytes_max: int = field(
        default=_MIB, metadata=rule("largest HTTP body", unit="bytes", low=_KIB, high=64 * _MIB)
    )
    queue_max: int = field(
        default=16384,
        metadata=rule(
            "entries in a queue before callers are refused", unit="entries", low=1, high=2**20
        ),
    )
    batch_max: int = field(
        default=1024,
        metadata=rule(
            "entries gathered into one call or one commit", unit="entries", low=1, high=2**16
        ),
    )

    def __post_init__(self) -> None:
        for name in FIELDS:
            value = _value(name, getattr(self, name), "Settings", from_text=False)
            object.__setattr__(self, name, value)
        for name, why in conflicts(self):
            raise SettingsError(f"{name}: {why}", field=name, source="Settings")

    @property
    def tls(self) -> bool:
        """Whether all traffic is encrypted."""
        return bool(self.tls_cert)


FIELDS: Mapping[str, dataclasses.Field[Any]] = {f.name: f for f in dataclasses.fields(Settings)}
"""The settings by name, in the order of their declaration."""


@dataclass(frozen=True)
class Loaded:
    """Settings in force, and where each came from.

    Args:
        settings: the values.
        sources: per field, ``default``, ``rmi.toml``, ``RMI_<FIELD>`` or ``--<field>``.
    """

    settings: Settings
    sources: Mapping[str, str]


def rule_of(name: str) -> Rule:
    """Return the rule of the setting *name*; KeyError if there is none."""
    found = FIELDS[name].metadata["rule"]
    assert isinstance(found, Rule)
    return found


def load_settings(
    toml_path: Path | None = None,
    env: Mapping[str, str] = os.environ,
    flags: Mapping[str, object] | None = None,
) -> Loaded:
    """Gather the settings from defaults, file, environment and command line, in that order.

    Args:
        toml_path: the settings file, which must exist; None: the one named by ``RMI_CONFIG``, or
            ``./rmi.toml`` if there is one.
        env: the environment; every ``RMI_*`` in it must be known.
        flags: values from the command line by field name; None values were not given.

    Returns:
        The settings and the source of each.

    Raises:
        SettingsError: a value is wrong, a name unknown, or the file cannot be read.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = dict.fromkeys(FIELDS, "default")

    def take(name: str, value: object, source: str, *, from_text: bool) -> None:
        values[name] = _value(name, value, source, from_text=from_text)
        sources[name] = source

    path = toml_path or (Path(env["RMI_CONFIG"]) if env.get("RMI_CONFIG") else None)
    for name, value in _read_toml(path).items():
        source = path.name if path else TOML_NAME
        if name not in FIELDS:
            raise _unknown(name, FIELDS, source, "setting")
        take(name, value, source, from_text=False)
    for variable, text in env.items():
        if not variable.startswith("RMI_") or variable in OTHER_VARIABLES:
            continue
        name = variable.removeprefix("RMI_").lower()
        if variable != variable.upper() or name not in FIELDS:
            variables = [*(f"RMI_{known.upper()}" for known in FIELDS), *OTHER_VARIABLES]
            raise _unknown(variable, variables, "environment", "variable")
        take(name, text, variable, from_text=True)
    for name, value in (flags or {}).items():
        if value is None:
            continue
        if name not in FIELDS:
            raise _unknown(name, FIELDS, "command line", "setting")
        take(name, value, flag_of(name, value), from_text=isinstance(value, str))
    settings = _build(values, sources)
    return Loaded(settings, sources)


def flag_of(name: str, value: object = None) -> str:
    """Return the command-line form of a field: ``--data-dir``, or ``--no-restart`` for False."""
    return f"--{'no-' if value is False else ''}{name.replace('_', '-')}"


def _build(values: Mapping[str, Any], sources: Mapping[str, str]) -> Settings:
    try:
        return Settings(**values)
    except SettingsError as error:
        # Each value alone was fine: what is left are rules between fields. Name the true source.
        name = str(error.fields["field"])
        if sources.get(name, "default") == "default":
            raise
        source = sources[name]
        why = error.message.removeprefix(f"{name}: ")
        raise SettingsError(f"{_where(name, source)}: {why}", field=name, source=source) from None


def check_reachable(settings: Settings) -> None:
    """Refuse to announce a service to other machines at an address of this machine only.

    Raises:
        SettingsError: ``host`` is a loopback address, and a name server is elsewhere.
    """
    if (why := unreachable(settings)) is not None:
        raise SettingsError(f"host: {why}", field="host", source="Settings")


def _read_toml(path: Path | None) -> Mapping[str, object]:
    if path is None:
        path = Path(TOML_NAME)
        if not os.path.lexists(path):  # a link to nowhere is a file that cannot be read
            return {}
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(TOML_CHARS_MAX + 1)
        if len(text) <= TOML_CHARS_MAX:
            return tomllib.loads(text)
        why = f"it has more than {TOML_CHARS_MAX:,} characters"
    except OSError as error:
        why = error.strerror or str(error)
    except UnicodeDecodeError:
        why = "it is not UTF-8 text"
    except (ValueError, RecursionError) as error:  # a ValueError also for a number too long
        why = f"it is not TOML: {error}"
    raise SettingsError(f"settings file {path} cannot be read: {why}", field="", source=str(path))


def _unknown(word: str, known: Iterable[str], source: str, what: str) -> SettingsError:
    # Capitals count least: they tell a variable from a setting, and are mixed up first.
    like = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(like), n=1)
    hint = f"did you mean {like[near[0]]!r}?" if near else "docs/reference.md has them all"
    return SettingsError(
        f"{source}: no {what} is called {word!r}; {hint}", field=word, source=source
    )


def _value(name: str, given: object, source: str, *, from_text: bool) -> Any:
    """Bring *given* to the field's type and check it; *from_text*: it may need parsing."""
    default = FIELDS[name].default
    try:
        return checked(given, default, rule_of(name), from_text=from_text)
    except ValueError as error:
        raise SettingsError(f"{_where(name, source)}: {error}", field=name, source=source) from None


def _where(name: str, source: str) -> str:
    """Return what a message begins with: a variable and a flag name the field themselves."""
    if source == "Settings":
        return name
    return source if source.startswith(("RMI_", "--")) else f"{source}: {name}"
