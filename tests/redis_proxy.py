"""A proxy before Redis that passes commands on and can withhold the replies to one of them."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import unquote, urlsplit

from tests.harness import HOST


class RedisProxy:
    """``url`` leads to Redis. While ``withholding``, who sends ``command`` gets no more replies."""

    def __init__(self, redis_path: str, command: bytes) -> None:
        self._redis_path = redis_path
        self._command = command
        self.withholding = False
        self.url = ""

    def serve(self, client: socket.socket) -> None:
        """Pass on what one connection sends, until it ends."""
        withheld = threading.Event()
        with socket.socket(socket.AF_UNIX) as redis, suppress(OSError):
            redis.connect(self._redis_path)
            replies = threading.Thread(target=self._reply, args=(redis, client, withheld))
            replies.start()
            while data := client.recv(65536):
                if self.withholding and self._command in data:
                    withheld.set()
                redis.sendall(data)
            redis.shutdown(socket.SHUT_RDWR)
            replies.join()

    def _reply(
        self, redis: socket.socket, client: socket.socket, withheld: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := redis.recv(65536):
                if not withheld.is_set():
                    client.sendall(data)


@contextmanager
def redis_proxy(redis_url: str, *, command: bytes) -> Iterator[RedisProxy]:
    """A proxy before the embedded Redis at ``redis_url``."""
    proxy = RedisProxy(unquote(urlsplit(redis_url).path), command)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            proxy.serve(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server((HOST, 0), Handler) as server:
        proxy.url = f"redis://{HOST}:{server.server_address[1]}/0"
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            serving.join()
