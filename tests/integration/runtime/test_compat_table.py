"""Every row of the compatibility table, in every direction that makes sense."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.page import page
from tests.compat.run import cases, run
from tests.compat.table import Direction, Row
from tests.compat.world import Servers

CASES = list(cases())


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    ordinary = Servers()
    yield ordinary
    ordinary.close()


@pytest.mark.parametrize(
    ("row", "direction"), CASES, ids=[f"{row.group}-{d}-{row.name}" for row, d in CASES]
)
def test_it_is_as_the_table_says(
    row: Row, direction: Direction, servers: Servers, tmp_path: Path
) -> None:
    run(row, direction, servers, tmp_path)


def test_the_page_is_up_to_date() -> None:
    written = Path(__file__).parents[3] / "docs" / "compatibility.md"
    assert written.read_text(encoding="utf-8") == page(), (
        "run: python -m tests.compat --markdown > docs/compatibility.md"
    )
