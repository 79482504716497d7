"""``rmi config``: which settings are in force, and where each came from."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.text import Text

from rmi_launch.options import with_settings
from rmi_launch.tables import new_table, plain, show
from rmi_runtime import Loaded
from rmi_runtime.settings import FIELDS, rule_of


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@with_settings(*FIELDS)
def config(loaded: Loaded, as_json: bool) -> None:
    """Show the settings in force, and where each came from.

    Settings come from the defaults, then rmi.toml, then RMI_* variables, then options; the last
    one wins. Keys and tokens are no settings: they are in files, and never shown.
    """
    rows = [
        {
            "field": name,
            "value": _plain(getattr(loaded.settings, name)),
            "source": loaded.sources[name],
        }
        for name in FIELDS
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    table = new_table("setting", "value", "source", "meaning")
    table.columns[-1].no_wrap = False
    for row in rows:
        name, source = str(row["field"]), str(row["source"])
        rule = rule_of(name)
        style = "dim" if source == "default" else "green"
        value = str(row["value"]).lower() if isinstance(row["value"], bool) else _shown(row)
        meaning = f"{rule.doc} ({rule.unit})" if rule.unit else rule.doc
        table.add_row(name, plain(value), Text(source, style), f"[dim]{meaning}[/]")
    show(table)


def _plain(value: object) -> object:
    """Return *value* as JSON has it."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _shown(row: dict[str, object]) -> str:
    value = row["value"]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
