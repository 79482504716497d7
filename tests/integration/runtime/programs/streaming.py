"""Generators that take their time, read by two clients at once."""

import threading
import time

from Pyro5.api import Daemon, Proxy, expose


class Streamer:
    """Gives out items one by one."""

    @expose
    def slowly(self, count):
        for number in range(count):
            time.sleep(0.02)  # blocks its own client only
            yield number * number

    @expose
    def listing(self):
        return ["one", "two"]

    @expose
    def words(self, text):
        return iter(text.split())

    @expose
    def broken(self):
        yield "first"
        raise RuntimeError("no more")


def main():
    with Daemon() as daemon:
        uri = daemon.register(Streamer)
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        with Proxy(uri) as one, Proxy(uri) as two:
            first, second = one.slowly(4), two.slowly(4)
            print(list(zip(first, second, strict=True)))
            print(one.listing())
            print(list(one.words("a few words")))
            broken = one.broken()
            print(next(broken))
            try:
                next(broken)
            except RuntimeError as error:
                print("error:", error)
            unfinished = one.slowly(1000)
            print(next(unfinished), next(unfinished))
            unfinished.close()
            print(one.listing())
        daemon.shutdown()
        thread.join(10)
