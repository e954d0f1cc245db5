"""One HTTP worker of either kind: uvicorn with the limits of pricing.edge."""

import contextlib
import resource
import socket
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

import uvicorn
from django.conf import settings

from pricing.doors import Limits
from pricing.edge import EdgeConfig
from telemetry.running import say_ready, wait_to_begin
from trinity_site.sockets import adopt, listen

KEEP_ALIVE_S = 75  # longer than a load balancer keeps an idle connection, so that it never meets a closed one
GRACE_S = 5  # for answers under way when the worker is stopped; the supervisor kills after 8 s
WEBSOCKET_FRAME_BYTES = 65_536


def add_arguments(parser: ArgumentParser, *, first_row: int) -> None:
    parser.add_argument("--fd", type=int, help="a listening socket that was inherited")
    parser.add_argument("--health-fd", type=int, help="the same for the health port")
    parser.add_argument("--go-fd", type=int, help="a pipe: begin when its other end is closed")
    parser.add_argument("--ready-fd", type=int, help="a pipe to write to when this worker accepts")
    parser.add_argument("--row", type=int, default=first_row, help="this worker's row of counters")


def serve(
    make: Callable[[int], Callable[..., Any]],  # Any: an ASGI application of that row, and Django's options
    options: dict[str, Any],
    *,
    variable: str,
    health_variable: str,
    command: str,
) -> None:
    """Serve on the ports of two settings until a signal comes."""
    raise_descriptor_limit()
    wait_to_begin(options["ready_fd"], options["go_fd"])
    wanted = ((options["fd"], variable), (options["health_fd"], health_variable))
    sockets = [
        adopt(fd) or listen(settings.TRINITY_BIND, getattr(settings, name), name, command)
        for fd, name in wanted
    ]
    config = EdgeConfig(
        make(options["row"]),
        limits=Limits(connections_per_address=settings.TRINITY_CONNECTIONS_PER_ADDRESS),
        health_port=getattr(settings, health_variable),
        loop="uvloop",
        ws_max_size=WEBSOCKET_FRAME_BYTES,
        lifespan="on",
        log_config=None,  # the settings have configured logging
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    # uvicorn stops in order on SIGINT and SIGTERM, then lets the signal have its ordinary effect.
    with contextlib.suppress(KeyboardInterrupt):
        Server(config, options["ready_fd"]).run(sockets=sockets)


class Server(uvicorn.Server):
    """Says when it accepts, once its own application has opened: neighbours share the sockets."""

    def __init__(self, config: uvicorn.Config, ready_fd: int | None) -> None:
        super().__init__(config)
        self._ready_fd = ready_fd

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            say_ready(self._ready_fd)


def raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets us: the usual 1,024 are fewer than Limits.connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
