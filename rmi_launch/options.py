"""Command-line options made from the settings' own rules, so that no word is said twice."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from rmi_runtime import Settings, SettingsError, load_settings
from rmi_runtime.settings import FIELDS, flag_of, rule_of

Command = Callable[..., Any]

TLS_SETTINGS = ("tls_cert", "tls_key", "tls_ca")

OPERATION_LOG_SETTINGS = ("log_size_mib_max", "log_files_max")

REACH_SETTINGS = ("data_dir", "ns", "insecure", *TLS_SETTINGS)
"""What a command needs to reach a running system, here or on another machine."""


class WholeRange(click.IntRange):
    """A range of whole numbers; what is none is told so, not that it is "no integer range"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return *value* as a number within the range; end with wrong use if it is none."""
        try:
            int(value)
        except ValueError:
            self.fail(f"{value!r} is not a whole number.", param, ctx)
        number: int = super().convert(value, param, ctx)
        return number


class FiniteRange(click.FloatRange):
    """A range of numbers that are some: ``nan`` is neither below nor above any bound."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return *value* as a number within the range; end with wrong use if it is none."""
        try:
            finite = math.isfinite(float(value))
        except ValueError:
            self.fail(f"{value!r} is not a number.", param, ctx)
        if not finite:
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        number: float = super().convert(value, param, ctx)
        return number


def tls_paths(settings: Settings) -> dict[str, str]:
    """Return the settings for TLS by name; none if there is no TLS."""
    return {name: getattr(settings, name) for name in TLS_SETTINGS} if settings.tls else {}


def with_settings(*names: str) -> Callable[[Command], Command]:
    """Give a command the options for the settings *names*, and ``--config``.

    The command is called with ``loaded`` (:class:`rmi_runtime.settings.Loaded`) in their place;
    settings that have no option here still come from the file and the environment.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapper(*args: Any, config: str | None, **options: Any) -> Any:
            flags = {name: options.pop(name) for name in names}
            if config == "":
                raise SettingsError(
                    "--config: the name of the file is empty; name one, or leave the option out",
                    field="",
                    source="--config",
                )
            loaded = load_settings(Path(config) if config else None, flags=flags)
            return command(*args, loaded=loaded, **options)

        wrapped: Command = wrapper
        for name in reversed(names):
            wrapped = _option(name)(wrapped)
        return click.option(
            "--config",
            metavar="FILE",
            help="Settings file. [default: rmi.toml, if there is one]",
        )(wrapped)

    return decorate


def _option(name: str) -> Callable[[Command], Command]:
    rule = rule_of(name)
    default = FIELDS[name].default
    text = rule.doc[0].upper() + rule.doc[1:]
    if isinstance(default, bool):
        flags = f"{flag_of(name)}/{flag_of(name, value=False)}"
        said = flag_of(name, default).removeprefix("--")
        return click.option(flags, name, default=None, help=f"{text}. [default: {said}]")
    said = (",".join(default) if isinstance(default, tuple) else str(default)) or "none"
    metavar = "|".join(rule.choices) or _metavar(name, default)
    # Checked by the settings themselves, whose message names the bounds.
    return click.option(
        flag_of(name), name, metavar=metavar, default=None, help=f"{text}. [default: {said}]"
    )


def _metavar(name: str, default: object) -> str:
    if isinstance(default, Path):
        return "DIR"
    if name in TLS_SETTINGS:
        return "FILE"
    if isinstance(default, tuple) or name == "http":
        return "HOST:PORT"
    if isinstance(default, float):
        return "SECONDS"
    return "NUMBER" if isinstance(default, int) else "TEXT"
