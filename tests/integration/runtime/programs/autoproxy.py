"""Objects that are handed out as proxies, and taken back."""

import threading

from Pyro5.api import Daemon, Proxy, expose


@expose
class Item:
    """Made by the factory."""

    def __init__(self, name):
        self._name = name

    def name(self):
        return self._name

    def sibling(self, name):
        item = Item(name)
        self._pyroDaemon.register(item)
        return item


@expose
class Factory:
    """Makes items and registers them in its own daemon."""

    def create(self, *names):
        items = [Item(name) for name in names]
        for item in items:
            self._pyroDaemon.register(item)
        return items

    def where(self, item):
        return str(item._pyroUri) == str(self._pyroDaemon.uriFor(item._pyroUri.object))

    def remove(self, item_id):
        self._pyroDaemon.unregister(item_id)
        return item_id in self._pyroDaemon.objectsById


def main():
    with Daemon() as daemon:
        uri = daemon.register(Factory())
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        with Proxy(uri) as factory:
            items = factory.create("one", "two")
            print([type(item) is Proxy for item in items], [item.name() for item in items])
            print(items[0].sibling("three").name())
            print(factory.where(items[1]))
            print(factory.remove(items[1]._pyroUri.object))
            try:
                items[1].name()
            except Exception as error:
                print("error:", error)
            for item in items:
                item._pyroRelease()
        daemon.shutdown()
        thread.join(10)
