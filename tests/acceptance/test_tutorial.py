"""What a newcomer types works: every command of docs/tutorial.md, in order, and README's script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.system import BIN, ROOT, System, running_system

README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"
MARK = "--- done:"


@dataclass(frozen=True)
class Block:
    """One fenced block: a script to save, or commands to type."""

    kind: str
    title: str
    text: str


def blocks(page: Path = TUTORIAL) -> list[Block]:
    found = re.findall(
        r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL
    )
    return [Block(*groups) for groups in found]


def commands(system: System) -> list[str]:
    """Return what is typed, with the addresses and the directory of *system*."""
    lines = [
        line.removeprefix("$ ")
        for block in blocks()
        if block.kind == "console"
        for line in block.text.splitlines()
    ]
    assert lines[0] == "make run", "the page begins with the main job, which is running already"
    return [localized(line, system) for line in lines[1:]]


def localized(text: str, system: System) -> str:
    for theirs, ours in (
        ("http://127.0.0.1:8080", system.url),
        ("-p 9090", "-p " + system.name_server.partition(":")[2]),
        ("127.0.0.1:9090", system.name_server),
        ("var/", f"{system.data_dir}/"),
        ("clock.py var", f"clock.py {system.data_dir}"),
        (".venv/bin/activate", str(BIN / "activate")),
    ):
        text = text.replace(theirs, ours)
    if text.startswith("rmi ") or "$(rmi " in text:
        text = text.replace("rmi status", f"rmi status --data-dir {system.data_dir}")
    if "bank_client.py" in text:
        text += f" --url {system.url} --data-dir {system.data_dir}"
    elif "request.py" in text:
        text += f" --url {system.url}"
    return text


@pytest.mark.timeout(240)
def test_every_command_of_the_tutorial_works(tmp_path: Path) -> None:
    with running_system(tmp_path, "--demo") as system:
        typed = commands(system)
        for block in blocks():
            if block.title:
                (tmp_path / block.title).write_text(localized(block.text, system))
        # The scripts are saved where the newcomer stands; clients/ is there too.
        (tmp_path / "clients").symlink_to(ROOT / "clients")
        script = "\n".join(f"{line}\nprintf '\\n{MARK} %d\\n' $?" for line in typed)
        done = subprocess.run(
            ["/bin/bash", "-m", "-c", script],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=200,
            check=False,
            env={**os.environ, "TERM": "dumb"},
        )
        answers = re.split(rf"^{MARK} (\d+)\n", done.stdout, flags=re.MULTILINE)
        outputs, codes = [output.strip() for output in answers[0::2]], answers[1::2]
        assert len(codes) == len(typed), done.stdout + done.stderr
        for line, output, code in zip(typed, outputs, codes, strict=False):
            assert code == "0", f"{line}\n{output}\n{done.stderr}"
        by_line = dict(zip(typed, outputs, strict=False))
        assert_the_page_tells_the_truth(by_line)


def assert_the_page_tells_the_truth(outputs: dict[str, str]) -> None:
    def output_of(part: str) -> str:
        return next(output for line, output in outputs.items() if part in line)

    assert output_of("-d msg=hello") == "POST request b'msg=hello'"
    assert len(output_of("grep UUID").splitlines()) == 11
    assert len(output_of("'msg = msg1 '").splitlines()) == 1
    transfers = [out for line, out in outputs.items() if "rent-may" in line]
    assert len(set(transfers)) == 1
    assert '"balance":950' in transfers[0].replace(" ", "")
    assert "Forbidden" in output_of("Bearer fake")
    assert "the books balance" in output_of("bank_client.py")
    assert "bank.data --> PYRO:bank.data@" in output_of(" list")
    assert "insufficient_funds" in output_of("first.py")
    assert "1 holds" in output_of("second.py")
    assert "[0, 1, 2]" in output_of("demo.clock@")
    assert "committed [-1000, 950, 50]" in output_of("inside.py")


def test_the_script_of_the_readme_works_and_moves_money_once(tmp_path: Path) -> None:
    (script,) = (block.text for block in blocks(README) if block.kind == "python")
    with running_system(tmp_path, "--demo") as system:
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", localized(script, system)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                env={**os.environ, "PYRO_NS_PORT": system.name_server.partition(":")[2]},
            )
            assert done.returncode == 0, done.stderr
            assert "'balance': 900" in done.stdout
