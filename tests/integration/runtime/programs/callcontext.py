"""What a method learns of its call, and annotations both ways."""

import threading
import uuid

from Pyro5.api import Daemon, Proxy, current_context, expose


class Resource:
    """Something that belongs to a client."""

    def __init__(self, name, closed):
        self.name, self._closed = name, closed

    def close(self):
        self._closed.append(self.name)
        finished.set()


finished = threading.Event()
closed = []
resources = []


class Greeter:
    """Looks at its calls."""

    @expose
    def hello(self):
        notes = {name: bytes(value) for name, value in current_context.annotations.items()}
        current_context.response_annotations = {"REPL": b"from the method"}
        return [
            sorted((name, value.decode()) for name, value in notes.items()),
            str(current_context.correlation_id),
            current_context.client_sock_addr[0],
            current_context.client.sock.getpeername()[0],
        ]

    @expose
    def allocate(self, name):
        resource = Resource(name, closed)
        resources.append(resource)
        current_context.track_resource(resource)


class OwnDaemon(Daemon):
    """Adds to every reply, checks every client, and notices when one leaves."""

    def annotations(self):
        return {"DDAE": b"from the daemon"}

    def validateHandshake(self, conn, data):
        if data != "open sesame":
            raise ValueError("wrong word")
        return "come in"

    def clientDisconnect(self, conn):
        left.set()


left = threading.Event()


def main():
    with OwnDaemon() as daemon:
        uri = daemon.register(Greeter)
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        try:
            Proxy(uri)._pyroBind()
        except Exception as error:
            print("refused:", "wrong word" in str(error))
        proxy = Proxy(uri)
        proxy._pyroHandshake = "open sesame"
        current_context.annotations = {"NOTE": b"from the client"}
        current_context.correlation_id = uuid.UUID(int=7)
        print(proxy.hello())
        answered = current_context.response_annotations
        print(sorted((name, bytes(value).decode()) for name, value in answered.items()))
        current_context.annotations, current_context.correlation_id = {}, None
        proxy.allocate("file")
        left.clear()
        proxy._pyroRelease()
        print("client gone:", left.wait(10), "closed:", finished.wait(10), closed)
        daemon.shutdown()
        thread.join(10)
