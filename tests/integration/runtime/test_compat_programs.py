"""Programs written for stock Pyro5 do the same with only the import of the daemon changed."""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path

import Pyro5.api
import pytest

from rmi_runtime import compat

STOCK = "from Pyro5.api import "
OURS = "from rmi_runtime.compat import "
PROGRAMS = sorted(
    path for path in (Path(__file__).parent / "programs").glob("*.py") if path.name != "__init__.py"
)


def _run(path: Path, source: str, name: str, capsys: pytest.CaptureFixture[str]) -> str:
    program = types.ModuleType(name)
    sys.modules[name] = program  # classes look for their module
    try:
        exec(compile(source, str(path), "exec"), program.__dict__)
        program.main()
    finally:
        del sys.modules[name]
    return capsys.readouterr().out


@pytest.mark.parametrize("path", PROGRAMS, ids=[path.stem for path in PROGRAMS])
def test_a_program_prints_the_same_with_only_the_import_changed(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count(STOCK) == 1
    before = set(threading.enumerate())
    expected = _run(path, source, "stock_program", capsys)
    found = _run(path, source.replace(STOCK, OURS), "our_program", capsys)
    assert expected.count("\n") >= 3
    assert found == expected
    left = {thread for thread in set(threading.enumerate()) - before if thread.is_alive()}
    assert not [thread for thread in left if "requestLoop" in thread.name]


def test_whatever_a_program_imports_is_there() -> None:
    assert set(Pyro5.api.__all__) <= set(compat.__all__)
    assert all(hasattr(compat, name) for name in compat.__all__)
