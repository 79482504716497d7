"""What of a class can be reached from outside."""

import threading

from Pyro5.api import Daemon, Proxy, expose


class Thing:
    """Has public and private sides."""

    version = "class attribute"

    def __init__(self):
        self._value = 1

    @expose
    @property
    def value(self):
        return self._value

    @value.setter
    def value(self, new):
        self._value = new

    @expose
    @property
    def double(self):
        return 2 * self._value

    @property
    def secret(self):
        return "secret"

    @expose
    def method(self):
        return "called"

    @staticmethod
    @expose
    def static(number):
        return number + 1

    def hidden(self):
        return "hidden"

    @expose
    def __len__(self):
        return 42


def refused(what, action):
    try:
        print(what, "gave", action())
    except AttributeError:
        print(what, "refused")


def main():
    with Daemon() as daemon:
        uri = daemon.register(Thing())
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        with Proxy(uri) as thing:
            print(thing.value, thing.double)
            thing.value = 21
            print(thing.value, thing.double, thing.method(), thing.static(1), len(thing))
            print(sorted(thing._pyroMethods), sorted(thing._pyroAttrs))
            refused("secret", lambda: thing.secret)
            refused("version", lambda: thing.version)
            refused("hidden", lambda: thing.hidden(1))
            refused("setting double", lambda: setattr(thing, "double", 1))
            refused("_value", lambda: thing._value)
            refused("a forged call", lambda: thing._pyroInvoke("_value", (), {}))
        daemon.shutdown()
        thread.join(10)
