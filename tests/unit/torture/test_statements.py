"""The checker of statements, alone and on the files of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmi_torture.checkers import Ledger, Line, check_statements
from rmi_torture.kept import Kept, read_kept, write_kept

LINES = [
    *(Line(1, 1, 0, 1, 1000, ""), Line(2, 2, 0, 2, 1000, "")),
    *(Line(3, 3, 1, 2, 7, "a"), Line(4, 4, 2, 1, 5, "b")),
]


def test_statements_with_the_accounts_own_lines_in_order_are_valid() -> None:
    verdict = check_statements({1: [1, 3, 4], 2: [2, 3, 4]}, Ledger(LINES))
    assert verdict.valid
    assert verdict.checked == 2


@pytest.mark.parametrize(
    ("shown", "kind"),
    [
        ([2, 4], "missing"),
        ([2, 3, 3, 4], "doubled"),
        ([1, 2, 3, 4], "foreign"),
        ([2, 4, 3], "disordered"),
    ],
)
def test_each_wrong_statement_is_caught(shown: list[int], kind: str) -> None:
    verdict = check_statements({1: [1, 3, 4], 2: shown}, Ledger(LINES))
    assert {found for found, count in verdict.counts.items() if count} == {kind}


def test_statements_are_read_as_they_were_written(tmp_path: Path) -> None:
    kept = Kept(lines=set(LINES), statements={1: [1, 3, 3], 2: []})
    write_kept(kept, tmp_path / "kept.jsonl")
    assert read_kept(tmp_path / "kept.jsonl") == kept
