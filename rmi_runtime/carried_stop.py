"""A ``StopIteration`` on its way through coroutines and futures."""

from __future__ import annotations

from typing import Self


class CarriedStop(StopAsyncIteration):
    """Stands for a ``StopIteration`` where coroutines and futures cannot carry one."""

    @classmethod
    def of(cls, stop: StopIteration) -> Self:
        """Return what carries *stop*, with its traceback, notes and other attributes."""
        carried = cls(*stop.args).with_traceback(stop.__traceback__)
        vars(carried).update(vars(stop))
        return carried

    def carried(self) -> StopIteration:
        """Return what it carries."""
        stop = StopIteration(*self.args).with_traceback(self.__traceback__)
        vars(stop).update(vars(self))
        return stop
