"""Every row of the compatibility table, in every direction that makes sense."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

import rmi_runtime
from tests.compat import __main__ as command
from tests.compat.page import differences, page
from tests.compat.run import cases, run
from tests.compat.table import Direction, Row
from tests.compat.world import Servers

CASES = list(cases())


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    ordinary = Servers()
    yield ordinary
    ordinary.close()


# What a stock daemon does about SystemExit is part of the table.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("row", "direction"), CASES, ids=[f"{row.group}-{d}-{row.name}" for row, d in CASES]
)
def test_it_is_as_the_table_says(
    row: Row, direction: Direction, servers: Servers, tmp_path: Path
) -> None:
    run(row, direction, servers, tmp_path)


DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(("option", "code"), [("--help", 0), ("--nonsense", 2)])
def test_the_command_explains_itself_without_running_anything(
    option: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def too_much() -> NoReturn:
        raise AssertionError("it ran the whole table")

    monkeypatch.setattr(command, "run_all", too_much)
    monkeypatch.setattr(sys, "argv", ["tests.compat", option])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == code
    assert "--markdown" in "".join(capsys.readouterr())


def test_the_page_of_compatibility_is_up_to_date() -> None:
    assert (DOCS / "compatibility.md").read_text(encoding="utf-8") == page(), (
        "run: python -m tests.compat --markdown > docs/compatibility.md"
    )


def test_the_page_of_the_runtime_tells_every_difference() -> None:
    text = (DOCS / "runtime.md").read_text(encoding="utf-8")
    between = text.partition("--differences -->\n")[2].partition("<!-- end of differences")[0]
    assert between == differences(), "put in there what python -m tests.compat --differences prints"


def test_the_reference_of_the_runtime_is_up_to_date() -> None:
    generate = runpy.run_path(str(DOCS / "generate_api.py"))
    written = (DOCS / "runtime-api.md").read_text(encoding="utf-8")
    assert written == generate["page"](), "run: python docs/generate_api.py"


def test_everything_that_the_runtime_shows_is_documented() -> None:
    text = (DOCS / "runtime-api.md").read_text(encoding="utf-8")
    things = [name for name in rmi_runtime.__all__ if callable(getattr(rmi_runtime, name))]
    pyro5 = {"URI", "behavior", "callback", "expose", "oneway"}
    assert [name for name in things if name not in pyro5 and f"### {name}\n" not in text] == []
