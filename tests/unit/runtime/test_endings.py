"""The end of a connection: what is done then, by the loop, and by threads that went on after it."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from rmi_runtime.daemon.endings import Endings

MANY = 20_000
ROUNDS = 20


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def _at_once(*acts: Callable[[], object]) -> None:
    """Do these on a thread each, and pass on what one raised."""
    barrier = threading.Barrier(len(acts))
    raised: list[Exception] = []

    def run(act: Callable[[], object]) -> None:
        barrier.wait(20)
        try:
            act()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in raised:
        raise error


class Resource:
    """Notes that it was closed."""

    def __init__(self, closed: list[int], number: int) -> None:
        self._closed, self._number = closed, number

    def close(self) -> None:
        """Note it."""
        self._closed.append(self._number)


@pytest.mark.usefixtures("hasty")
def test_the_loop_and_a_thread_that_end_it_at_once_do_each_thing_once() -> None:
    for _ in range(ROUNDS):
        endings, done = Endings(), list[int]()
        for number in range(MANY):
            endings.add(functools.partial(done.append, number))
        _at_once(lambda: endings.happen(None), lambda: endings.happen(None))  # noqa: B023
        assert sorted(done) == list(range(MANY))


@pytest.mark.usefixtures("hasty")
def test_a_resource_that_a_thread_adds_just_then_disturbs_nothing() -> None:
    for _ in range(ROUNDS):
        endings, closed = Endings(), list[int]()
        kept = [Resource(closed, number) for number in range(MANY)]
        endings.resources.update(kept[: MANY // 2])

        def add() -> None:
            for one in kept[MANY // 2 :]:  # noqa: B023
                endings.resources.add(one)  # noqa: B023
            endings.happen(None)  # noqa: B023  as a thread does after each method

        _at_once(add, lambda: endings.happen(None))  # noqa: B023
        endings.happen(None)
        assert sorted(closed) == list(range(MANY))
