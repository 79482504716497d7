"""What a checker finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

EXAMPLES_MAX = 20


@dataclass
class Verdict:
    """The finding of one checker.

    Attributes:
        checker: its name.
        checked: how many things it looked at; a verdict on nothing is worth nothing.
        counts: how many of each kind of error it found.
        examples: a sentence for each of the first errors.
        first: place in the history of the earliest operation that was found to be wrong, if the
            checker can tell.
    """

    checker: str
    checked: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    first: int | None = None

    @property
    def valid(self) -> bool:
        """True if it found no error."""
        return not any(self.counts.values())

    def expect(self, *kinds: str) -> Verdict:
        """Name the kinds of error looked for, so that a count of none is shown too."""
        for kind in kinds:
            self.counts.setdefault(kind, 0)
        return self

    def blame(self, kind: str, sentence: str, at: int | None = None) -> None:
        """Note one error, and the place in the history of the operation it is seen in."""
        if at is not None:
            self.first = at if self.first is None else min(self.first, at)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(f"{kind}: {sentence}")

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as plain values."""
        return {
            "checker": self.checker,
            "valid": self.valid,
            "checked": self.checked,
            "counts": self.counts,
            "examples": self.examples,
        }


def all_valid(verdicts: Iterable[Verdict]) -> bool:
    """Tell whether no checker found an error, and each looked at something."""
    return all(verdict.valid and verdict.checked for verdict in verdicts)
