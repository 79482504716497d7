"""What the commands can do is written down, and what is written down is what they can do."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rmi_launch.commands import COMMANDS, rmi
from rmi_launch.reference import reference
from rmi_runtime.settings import FIELDS

ROOT = Path(__file__).parents[3]


def test_the_reference_page_is_up_to_date() -> None:
    written = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert written == reference(), "run: python -m rmi_launch.reference > docs/reference.md"


def test_the_reference_page_has_every_command_and_every_setting() -> None:
    page = reference()
    assert all(f"### `rmi {name}`" in page for name in COMMANDS)
    assert all(f"| `{name}` |" in page for name in FIELDS)


def test_a_default_that_is_nothing_is_called_none() -> None:
    assert "[default: ]" not in reference()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_names_every_command(name: str) -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Commands")[2]
    assert f"`rmi {name}" in table or f"`{name}" in table


def test_no_line_in_a_list_of_commands_is_cut_off() -> None:
    context = click.Context(rmi)
    commands = {name: rmi.get_command(context, name) for name in COMMANDS}
    groups = [[], *([name] for name in commands if isinstance(commands[name], click.Group))]
    for group in groups:
        said = CliRunner().invoke(rmi, [*group, "--help"], terminal_width=80)
        listed = said.output.partition("Commands:\n")[2].splitlines()
        assert listed
        assert not [line for line in listed if line.endswith("...")]
