"""Serve an app until SIGTERM, then leave without cutting off a request.

``python -m shared.web.server services.inference.main:create_app --port 8000``
"""

import argparse
import asyncio
import ctypes
import socket
import sys
from collections.abc import Sequence
from time import monotonic
from types import FrameType
from typing import Final

from uvicorn import Config, Server
from uvicorn.config import STARTUP_FAILURE

from shared import USUAL_THRESHOLDS, keep_loaded
from shared.observability.logs import get_logger, take_over_output
from shared.settings import read_settings_or_exit
from shared.web.health import DRAINING
from shared.web.protocol import BoundedHttpProtocol
from shared.web.settings import ServerSettings

_CLOSE: Final = (b"connection", b"close")
_KEEP_ALIVE_S: Final = 30
"""How long a connection may wait for its next request."""
_HANDSHAKE_S: Final = 0.05
"""How long a handshake that began before the listener stopped may take to complete."""

_log = get_logger("shared.web.server")


class DrainingServer(Server):
    """A uvicorn server that announces its leaving, finishes its work and exits with 0.

    The first SIGTERM or SIGINT makes it not ready and, ``drain_s`` later, stop accepting; requests
    in progress and those on their way over an established connection are finished, then the app's
    lifespan ends. A second signal ends the draining.

    A client that connects after that is refused before it has sent a request, so it can safely
    send it to another replica.
    """

    def __init__(self, config: Config, *, drain_s: float) -> None:
        super().__init__(config)
        self._drain_s = drain_s
        self._signalled_at_s: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Record the signal; ``on_tick`` acts on it within a tenth of a second.

        uvicorn would raise it again at the end, and the process would die of it.
        """
        if self._signalled_at_s is None:
            self._signalled_at_s = monotonic()
        else:
            self._drain_s = 0
            super().handle_exit(sig, frame)
            self._captured_signals.clear()

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to stop accepting."""
        if self._signalled_at_s is None:
            return await super().on_tick(counter)
        if not self.lifespan.state.get(DRAINING):
            self.lifespan.state[DRAINING] = True
            # Clients that keep their connections reconnect, to another replica.
            self.config.encoded_headers.append(_CLOSE)
            self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]
        leave = monotonic() >= self._signalled_at_s + self._drain_s
        return await super().on_tick(counter) or leave

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Leave without resetting a connection.

        Closing a listener resets connections that are established but not yet accepted, on which
        a client may have sent its request already: they are accepted first.
        """
        listeners = sockets or []
        for listener in listeners:
            _ignore_new_connections(listener)
        await asyncio.sleep(_HANDSHAKE_S)
        waiting = [connection for listener in listeners for connection in _accept_all(listener)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(
                lambda: self.config.http_protocol_class(  # type: ignore[call-arg]
                    config=self.config,
                    server_state=self.server_state,
                    app_state=self.lifespan.state,
                ),
                connection,
            )
        await super().shutdown(sockets)


def _ignore_new_connections(listener: socket.socket) -> None:
    """Let the kernel drop the first packet of new connections, where it can (Linux).

    The client's kernel retries a second later and is then refused; nothing has been sent yet.
    The filter is classic BPF on the TCP header: man 7 socket, SO_ATTACH_FILTER.
    """
    if sys.platform != "linux":
        return
    attach_filter, flags_at, syn = 26, 13, 0x02
    program = b"".join(
        code.to_bytes(2, sys.byteorder) + bytes(jumps) + operand.to_bytes(4, sys.byteorder)
        for code, jumps, operand in (
            (0x30, (0, 0), flags_at),  # load the byte with the flags
            (0x45, (0, 1), syn),  # is it the first packet of a connection?
            (0x06, (0, 0), 0),  # then drop it
            (0x06, (0, 0), 0xFFFFFFFF),  # otherwise pass it on whole
        )
    )
    code = ctypes.create_string_buffer(program)

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    attached = Program(len(program) // 8, ctypes.addressof(code))
    try:
        listener.setsockopt(socket.SOL_SOCKET, attach_filter, bytes(attached))
    except OSError as error:
        _log.warning("connections made during shutdown may be reset", error=str(error))


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    """The connections that are established and not yet accepted."""
    accepted: list[socket.socket] = []
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # BlockingIOError when there are no more
            return accepted
        connection.setblocking(False)
        accepted.append(connection)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; the exit code is 0 after a signal, 2 for an unusable setting, 3 for a failed start."""
    parser = argparse.ArgumentParser(prog="python -m shared.web.server", description=__doc__)
    parser.add_argument("app", help="module:factory")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(arguments)
    take_over_output()
    settings = read_settings_or_exit(ServerSettings)
    trusted = [str(network) for network in settings.forwarded_allow_ips]
    config = Config(
        options.app,
        factory=True,
        host=options.host,
        port=options.port,
        loop="uvloop",
        http=BoundedHttpProtocol,
        proxy_headers=bool(trusted),
        forwarded_allow_ips=trusted,
        root_path=settings.root_path,
        server_header=False,
        access_log=False,  # the services write their own
        log_config=None,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )
    BoundedHttpProtocol.request_timeout_s = settings.request_timeout_s
    config.load()  # first: a service that cannot start listens on no port
    keep_loaded(*USUAL_THRESHOLDS)
    server = DrainingServer(config, drain_s=settings.drain_s)
    server.run([config.bind_socket()])
    return 0 if server.started else STARTUP_FAILURE


if __name__ == "__main__":
    sys.exit(main())
