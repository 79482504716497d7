"""Whatever a signal's handler interrupts in a script's client, the next call goes as ever."""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from rmi_runtime import SyncProxy, compat, errors, expose
from tests.support import sync_eventually

POINTS_MAX = 20_000


class Alarm(Exception):
    """What the handler raises."""


class AlarmInTime(TimeoutError):
    """The same, for those who take it for an error of the network."""


@expose
class Counter:
    def __init__(self) -> None:
        self.counted = 0

    def count(self, text: str = "") -> int:
        self.counted += 1
        return self.counted


def _ignore(raised: object) -> None:
    pass


class Interruption:
    """Has a signal's handler raise at the n-th point where Python heeds signals.

    That is where a function begins, or one that is written in C has returned.
    """

    def __init__(self, error: type[Exception], point: int) -> None:
        self.raised = False
        self._error, self._left = error, point

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.raised = True
        raise self._error

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_return"):
            self._left -= 1
            if self._left == 0:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGUSR1)

    def of(self, use: Callable[[], object]) -> None:
        """Interrupt *use*. What is raised of that comes out of it, or nothing, never another.

        But asyncio takes errors of the system for the network's while it connects.
        """
        before = signal.signal(signal.SIGUSR1, functools.partial(Interruption._handle, self))
        hook = sys.unraisablehook
        # What destructors raise goes nowhere: pytest's own hook is not to be interrupted.
        sys.unraisablehook = _ignore
        # Held here: where a collection of garbage, as Python is about to call it, comes to the
        # point, Python 3.11 calls it once more after it was unset, and freed.
        profile = self._profile
        try:
            sys.setprofile(profile)
            use()
        except self._error:
            pass
        except errors.Unavailable:
            assert issubclass(self._error, OSError)
        finally:
            sys.setprofile(None)
            sys.unraisablehook = hook
            signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def uri(counter: Counter) -> Iterator[str]:
    daemon = compat.Daemon()
    serving = threading.Thread(target=daemon.requestLoop)
    serving.start()
    yield str(daemon.register(counter)).replace("localhost", "127.0.0.1")
    daemon.shutdown()
    serving.join()


def _descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def _call(proxy: SyncProxy) -> None:
    proxy.count()


def _large_call(proxy: SyncProxy) -> None:
    proxy.count("x" * 4_000_000)


def _batch(proxy: SyncProxy) -> None:
    batch = proxy._batch()
    batch.count()
    list(batch())


def _close_and_call(proxy: SyncProxy) -> None:
    proxy._close()
    proxy.count()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in destructors
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("error", [Alarm, AlarmInTime])
@pytest.mark.parametrize(
    ("use", "step"), [(_call, 1), (_large_call, 5), (_batch, 3), (_close_and_call, 11)]
)
def test_a_script_goes_on_wherever_it_was_interrupted(
    uri: str,
    counter: Counter,
    use: Callable[[SyncProxy], None],
    step: int,
    error: type[Exception],
) -> None:
    proxy = SyncProxy(uri)
    proxy.count()
    before = _descriptors()
    for rounds, point in enumerate(range(1, POINTS_MAX, step), 1):
        interruption = Interruption(error, point)
        interruption.of(lambda: use(proxy))
        proxy.count()
        assert counter.counted <= 1 + 2 * rounds, "a call was sent twice"
        if not interruption.raised:
            break
    else:
        pytest.fail("it never came to an end")
    assert rounds > 10
    # Python's own socketpair() loses one where it is interrupted between two of its steps.
    sync_eventually(lambda: _descriptors() <= before + rounds // 20)
    proxy._close()
