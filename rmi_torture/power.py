"""Power cuts at every step: the states in which a disk may then be found, one after the other.

A store runs on a disk that remembers each write, sync, truncation and deletion. Then the power is
cut after every single one of them, in several ways: of what was not synced everything is lost,
everything is there, the last write is there by half, or any of it is there and any is not. What
must hold of what is left is the stores' own: :mod:`rmi_torture.power_bank`,
:mod:`rmi_torture.power_messages`.

What is assumed of a disk is what SQLite assumes of it: a sync keeps its promise, and a write that
was cut spoils nothing beyond its own bytes. A file's name is there for good once the file was
synced (SQLite syncs the directory with it).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

from rmi_torture.disks import Happening

SECTOR = 512
MEMORY = Path("/dev/shm")  # noqa: S108 (tempfile makes the directory there)

WAYS = ("lost", "kept", "torn", "mixed")
"""What becomes of the writes that were not synced."""


@dataclass
class _Image:
    """A file as it may be found after the cut."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Happening] = field(default_factory=list)
    synced: bool = False


class Disks:
    """The states in which the disk may be found, one happening after the other."""

    def __init__(self) -> None:
        self._images: dict[str, _Image] = {}

    def take(self, happening: Happening) -> None:
        """Let it happen."""
        image = self._images.setdefault(happening.path, _Image())
        if happening.what == "sync":
            image.durable = _applied(image.durable, image.pending)
            if not image.synced:
                self._sync_directory()
            image.pending, image.synced = [], True
        else:
            image.pending.append(happening)

    def _sync_directory(self) -> None:
        """SQLite syncs the directory with a new file: then deletions before it last too."""
        for path, image in list(self._images.items()):
            deleted = [n for n, h in enumerate(image.pending) if h.what == "delete"]
            if deleted:
                self._images[path] = _Image(pending=image.pending[deleted[-1] + 1 :])

    def cut(self, way: str, rng: Random) -> dict[str, bytes]:
        """Return the files as a power cut now may leave them, by path."""
        found: dict[str, bytes] = {}
        for path, image in self._images.items():
            kept = list(_kept(image.pending, way, rng))
            if not image.synced and not kept:
                continue  # nobody made its name last
            if any(happening.what == "delete" for happening in kept):
                kept = kept[1 + max(n for n, h in enumerate(kept) if h.what == "delete") :]
                if kept:
                    found[path] = bytes(_applied(bytearray(), kept))
                continue
            found[path] = bytes(_applied(bytearray(image.durable), kept))
        return found


def _kept(pending: Sequence[Happening], way: str, rng: Random) -> Iterator[Happening]:
    if way == "lost":
        return
    for place, happening in enumerate(pending):
        last = place == len(pending) - 1
        if happening.what == "write" and (way == "torn" and last):
            half = len(happening.data) // 2 // SECTOR * SECTOR or len(happening.data) // 2
            yield happening._replace(data=happening.data[:half])
        elif way == "mixed" and rng.random() < 0.5:
            continue
        else:
            yield happening


def _applied(content: bytearray, happenings: Iterable[Happening]) -> bytearray:
    content = bytearray(content)
    for happening in happenings:
        if happening.what == "delete":
            content = bytearray()
        elif happening.what == "truncate":
            del content[happening.offset :]
            content.extend(bytes(max(0, happening.offset - len(content))))
        else:
            end = happening.offset + len(happening.data)
            content.extend(bytes(max(0, end - len(content))))
            content[happening.offset : end] = happening.data
    return content


class Cut(NamedTuple):
    """A power cut.

    Attributes:
        step: how many happenings there had been.
        where: the same in words, and what became of what was not synced.
        files: what is left, by path.
    """

    step: int
    where: str
    files: Mapping[str, bytes]


def cuts(happenings: Sequence[Happening], seed: int) -> Iterator[Cut]:
    """Yield a cut after each step, in each way; of those that leave the same, one.

    Args:
        happenings: of the disk.
        seed: of what is left to chance.
    """
    rng = Random(f"cuts/{seed}")  # noqa: S311 (repeatable on purpose)
    disks = Disks()
    for step in range(len(happenings) + 1):
        tried: set[tuple[tuple[str, bytes], ...]] = set()
        for way in WAYS:
            files = disks.cut(way, rng)
            key = tuple(sorted(files.items()))
            if key not in tried:
                tried.add(key)
                yield Cut(step, f"cut after step {step}, unsynced writes {way}", files)
        if step < len(happenings):
            disks.take(happenings[step])


def scratch(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """Make a directory in memory, if there is such a thing here.

    What is lost and what is kept is decided by a disk of our own: waiting for a real one at each
    of thousands of syncs shows nothing more.
    """
    usable = MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK)
    return tempfile.TemporaryDirectory(prefix=prefix, dir=MEMORY if usable else None)


def lay_out(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a directory that has nothing else."""
    directory.mkdir(exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    for path, content in files.items():
        (directory / Path(path).name).write_bytes(content)
