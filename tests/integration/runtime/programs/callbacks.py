"""The server calls the client back, while the client's call is under way and after it."""

import threading

from Pyro5.api import Daemon, Proxy, behavior, callback, expose, oneway


class Handler:
    """Lives at the client."""

    def __init__(self):
        self.heard = []
        self.done = threading.Event()

    @expose
    @callback
    def progress(self, percent):
        self.heard.append(percent)
        return percent < 100

    @expose
    @callback
    def fail(self):
        raise LookupError("the handler fails")

    @expose
    @oneway
    def finished(self, text):
        self.heard.append(text)
        self.done.set()


@expose
@behavior(instance_mode="single")
class Worker:
    """Lives at the server."""

    def work(self, handler):
        handler._pyroClaimOwnership()
        return [handler.progress(percent) for percent in (50, 100)]

    def work_and_fail(self, handler):
        handler.fail()

    def work_later(self, handler):
        self._handler = handler
        threading.Thread(target=self._finish).start()

    def _finish(self):
        self._handler._pyroClaimOwnership()
        self._handler.finished("all done")


def main():
    with Daemon() as server, Daemon() as client:
        uri = server.register(Worker)
        handler = Handler()
        client.register(handler)
        threads = [threading.Thread(target=daemon.requestLoop) for daemon in (server, client)]
        for thread in threads:
            thread.start()
        with Proxy(uri) as worker:
            print(worker.work(handler))
            try:
                worker.work_and_fail(handler)
            except LookupError as error:
                print("error:", error)
            worker.work_later(handler)
            print(handler.done.wait(10), handler.heard)
        server.shutdown()
        client.shutdown()
        for thread in threads:
            thread.join(10)
