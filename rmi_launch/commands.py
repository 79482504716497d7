"""The commands of ``rmi``. A command's module is loaded when the command is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

COMMANDS: Mapping[str, str] = {
    "up": "rmi_launch.up:up",
    "status": "rmi_launch.status:status",
    "token": "rmi_launch.tokens:token",
    "account": "rmi_launch.accounts:account",
    "certs": "rmi_launch.certs:certs",
    "config": "rmi_launch.config:config",
    "bench": "rmi_launch.bench:bench",
    "torture": "rmi_launch.torture:torture",
    "map-stats": "rmi_launch.map_stats:map_stats",
    "hazelcast": "rmi_launch.hazelcast:hazelcast",
    "nameserver": "rmi_launch.services:nameserver",
    "data": "rmi_launch.services:data",
    "business": "rmi_launch.services:business",
    "facade": "rmi_launch.services:facade",
    "logger": "rmi_launch.services:logger",
    "messages": "rmi_launch.services:messages",
    "gateway": "rmi_launch.services:gateway",
}
"""Every command, and where it is."""


class _Commands(click.Group):
    """The group of :data:`COMMANDS`, in their order."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rmi-bank-msg", prog_name="rmi")
def rmi() -> None:
    """A bank and a message log made of Pyro5 objects, and what runs them.

    `rmi up` starts everything; the other commands ask the running system, or start one service
    by hand.
    """
