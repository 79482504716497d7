"""An end from within: the condition of the request loop."""

import contextlib
import threading

import Pyro5.errors
from Pyro5.api import Daemon, Proxy, expose


@expose
class Counter:
    """Counts to a limit."""

    left = 3

    def count(self):
        Counter.left -= 1
        return Counter.left


def main():
    daemon = Daemon(port=0)
    uri = daemon.register(Counter, "counter")
    ended = threading.Event()

    def loop():
        daemon.requestLoop(loopCondition=lambda: Counter.left > 0)
        ended.set()

    thread = threading.Thread(target=loop)
    thread.start()
    with Proxy(uri) as counter:
        print([counter.count() for _ in range(3)])
        other = Proxy(uri)  # a stock loop asks its condition when somebody connects
        with contextlib.suppress(Pyro5.errors.CommunicationError), other:
            other._pyroBind()
    print("ended:", ended.wait(10))
    thread.join(10)
    print(uri.object, daemon.uriFor("other").object, daemon.locationStr == uri.location)
    daemon.close()
