"""Who gets which object of a registered class."""

import threading

from Pyro5.api import Daemon, Proxy, behavior, current_context, expose

made = []


class Base:
    """Remembers that it was made."""

    def __init__(self):
        made.append(type(self).__name__)
        self._calls = 0

    @expose
    def count(self):
        self._calls += 1
        assert current_context.client is not None
        return self._calls


@behavior(instance_mode="single")
class Single(Base):
    pass


@behavior(instance_mode="session", instance_creator=lambda cls: cls.create())
class Session(Base):
    @classmethod
    def create(cls):
        instance = cls()
        instance._calls = 10
        return instance


@behavior(instance_mode="percall")
class PerCall(Base):
    pass


def main():
    with Daemon() as daemon:
        uris = [daemon.register(cls) for cls in (Single, Session, PerCall)]
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        for uri in uris:
            with Proxy(uri) as one, Proxy(uri) as two:
                print([one.count(), one.count(), two.count(), two.count(), one.count()])
        print(made)
        daemon.shutdown()
        thread.join(10)
