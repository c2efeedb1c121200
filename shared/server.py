"""Serve an app until told to stop, and let nobody's request fall when it is.

``python -m shared.server services.inference.main:create_app --port 8000``
"""

import argparse
import sys
from collections.abc import Sequence
from ipaddress import ip_network
from time import monotonic
from types import FrameType
from typing import Annotated

from pydantic import BeforeValidator, Field, IPvAnyNetwork, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from uvicorn import Config, Server
from uvicorn.supervisors import Multiprocess

from shared.health import DRAINING

_CLOSE = (b"connection", b"close")
_KEEP_ALIVE_S = 30
"""How long a connection may wait for its next request."""


def _networks(value: object) -> object:
    if isinstance(value, str):
        return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
    return value


# pydantic-settings would read it as JSON; it has the form that uvicorn gave it.
Networks = Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_networks)]


class ServerSettings(BaseSettings):
    """How a service leaves, and whom it believes, from environment variables of these names."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    forwarded_allow_ips: Networks = Field(
        default=(),
        description="Proxies whose X-Forwarded-For is believed: addresses and networks between"
        " commas. Nobody's, by default.",
    )
    drain_s: float = Field(
        default=0,
        ge=0,
        description="After SIGTERM, how long to go on serving while /readyz says 503, for whoever"
        " distributes requests to notice.",
    )
    root_path: str = Field(
        default="", description="The path below which a gateway shows the app; it cuts it off."
    )
    shutdown_grace_s: int = Field(
        default=20, ge=1, description="After that, how long requests in progress may take."
    )


class DrainingServer(Server):
    """uvicorn, but that it says that it is about to leave, leaves in peace, and ends with 0.

    The first SIGTERM or SIGINT makes it not ready and, ``drain_s`` later, stop accepting; requests
    in progress are finished, then the app's lifespan ends. A second one ends the draining.
    """

    def __init__(self, config: Config, *, drain_s: float) -> None:
        super().__init__(config)
        self._drain_s = drain_s
        self._asked_at_s: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal; the loop sees to it within a tenth of a second.

        uvicorn would raise it again at the end, so that the process died of it.
        """
        if self._asked_at_s is None:
            self._asked_at_s = monotonic()
        else:
            self._drain_s = 0
            super().handle_exit(sig, frame)
            self._captured_signals.clear()

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to stop accepting."""
        if self._asked_at_s is None:
            return await super().on_tick(counter)
        if not self.lifespan.state.get(DRAINING):
            self.lifespan.state[DRAINING] = True
            # Clients that keep their connections make new ones, elsewhere.
            self.config.encoded_headers.append(_CLOSE)
            self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]
        leave = monotonic() >= self._asked_at_s + self._drain_s
        return await super().on_tick(counter) or leave


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; the exit code is 0 after a signal, 3 when the app does not start."""
    parser = argparse.ArgumentParser(prog="python -m shared.server", description=__doc__)
    parser.add_argument("app", help="module:factory")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="several are served by uvicorn's own, without DRAIN_S",
    )
    asked = parser.parse_args(arguments)
    try:
        settings = ServerSettings()
    except ValidationError as error:
        for fault in error.errors():
            print(f"{str(fault['loc'][0]).upper()}: {fault['msg']}", file=sys.stderr)
        return 2
    trusted = [str(network) for network in settings.forwarded_allow_ips]
    config = Config(
        asked.app,
        factory=True,
        host=asked.host,
        port=asked.port,
        workers=asked.workers,
        loop="uvloop",
        http="shared.protocol:BoundedHttpProtocol",
        proxy_headers=bool(trusted),
        forwarded_allow_ips=trusted,
        root_path=settings.root_path,
        server_header=False,
        access_log=False,  # the services write their own
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )
    if asked.workers > 1:
        Multiprocess(config, sockets=[config.bind_socket()]).run()
        return 0
    server = DrainingServer(config, drain_s=settings.drain_s)
    server.run()
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main())
