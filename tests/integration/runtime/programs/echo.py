"""An echo server that can be told to stop."""

import threading

from Pyro5.api import Daemon, Proxy, expose, oneway, serve


class Echo:
    """Says what it is told."""

    @expose
    def echo(self, message):
        return f"you said: {message}"

    @expose
    def error(self):
        return 1 / 0

    @expose
    @oneway
    def shutdown(self):
        self._pyroDaemon.shutdown()


def run(daemon):
    serve({Echo(): "test.echo"}, daemon=daemon, use_ns=False, verbose=False)
    print("the server has ended")


def main():
    daemon = Daemon()
    uri = daemon.uriFor("test.echo")
    thread = threading.Thread(target=run, args=(daemon,))
    thread.start()
    with Proxy(uri) as echo:
        print(echo.echo("hello"))
        print(echo.echo(["a", {"list": 1}]))
        try:
            echo.error()
        except ZeroDivisionError as error:
            print("error:", error, "remote lines:", len(error._pyroTraceback) > 1)
        echo.shutdown()
    thread.join(10)
    print("still alive:", thread.is_alive())
