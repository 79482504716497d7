"""The fuzz target for a bounded time, and proof that it can fail."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rmi_runtime import wire
from tests.fuzz.wire import mutated, one_input, run_mutations


def test_mutated_messages_for_three_seconds() -> None:
    assert run_mutations(3.0, seed=502, save=None) > 100


@given(st.binary(max_size=400))
@example(b"PYRO")
@example(wire.encode(wire.MSG_INVOKE, 1, 0, 0, b"(" * 5000))
def test_any_bytes(data: bytes) -> None:
    one_input(data)


@given(st.randoms(use_true_random=False))
def test_mutated_messages_that_shrink(source: object) -> None:
    one_input(mutated(source))  # type: ignore[arg-type]


def test_the_target_notices_a_parser_that_depends_on_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = wire.Parser.feed

    def wrong(self: wire.Parser, data: bytes, messages_max: int = 1 << 30) -> list[wire.Message]:
        return right(self, data, messages_max) if len(data) != 3 else []

    monkeypatch.setattr(wire.Parser, "feed", wrong)
    with pytest.raises(AssertionError):
        run_mutations(10.0, seed=1, save=None)
