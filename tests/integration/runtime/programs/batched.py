"""Many calls in one message."""

import threading

from Pyro5.api import BatchProxy, Daemon, Proxy, behavior, expose


@expose
@behavior(instance_mode="single")
class Calculator:
    """Keeps a sum."""

    def __init__(self):
        self._sum = 0

    def add(self, number):
        self._sum += number
        return self._sum

    def divide(self, number):
        return self._sum / number

    @property
    def sum(self):
        return self._sum


def main():
    with Daemon() as daemon:
        uri = daemon.register(Calculator)
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        with Proxy(uri) as calculator:
            batch = BatchProxy(calculator)
            for number in range(1, 6):
                batch.add(number)
            print(list(batch()))
            batch.add(10)
            batch.divide(0)
            batch.add(1000)
            results = batch()
            print(next(results))
            try:
                next(results)
            except ZeroDivisionError as error:
                print("error:", error)
            print(calculator.sum)
            batch.add(1)
            print(batch(oneway=True))
            while calculator.sum != 26:
                pass
            print(calculator.sum)
        daemon.shutdown()
        thread.join(10)
