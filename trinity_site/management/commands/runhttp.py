"""`manage.py runhttp`: one HTTP worker, on the supervisor's sockets or on its own."""

import contextlib
import resource
import socket
from argparse import ArgumentParser
from typing import Any

import uvicorn
from django.conf import settings
from django.core.management.base import BaseCommand

from pricing.doors import Limits
from pricing.edge import EdgeConfig
from telemetry.running import say_ready, wait_to_begin
from trinity_site.asgi import Application
from trinity_site.roles import FIRST_HTTP_ROW
from trinity_site.sockets import adopt, listen

KEEP_ALIVE_S = 75  # longer than a load balancer keeps an idle connection, so that it never meets a closed one
GRACE_S = 5  # for answers under way when the worker is stopped; the supervisor kills after 8 s
WEBSOCKET_FRAME_BYTES = 65_536


class Command(BaseCommand):
    help = "Run one HTTP worker: prices, pages, admin; health and metrics on the health port."
    requires_system_checks = ()  # the supervisor has made them once for all

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--fd", type=int, help="a listening socket that was inherited")
        parser.add_argument("--health-fd", type=int, help="the same for the health port")
        parser.add_argument("--go-fd", type=int, help="a pipe: begin when its other end is closed")
        parser.add_argument("--ready-fd", type=int, help="a pipe to write to when this worker accepts")
        parser.add_argument("--row", type=int, default=FIRST_HTTP_ROW, help="this worker's row of counters")

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's signature
        raise_descriptor_limit()
        wait_to_begin(options["ready_fd"], options["go_fd"])
        wanted = (
            (options["fd"], settings.TRINITY_HTTP_PORT, "TRINITY_HTTP_PORT"),
            (options["health_fd"], settings.TRINITY_HEALTH_PORT, "TRINITY_HEALTH_PORT"),
        )
        sockets = [
            adopt(fd) or listen(settings.TRINITY_BIND, port, variable, "./run manage runhttp")
            for fd, port, variable in wanted
        ]
        config = EdgeConfig(
            Application(row=options["row"]),
            limits=Limits(connections_per_address=settings.TRINITY_CONNECTIONS_PER_ADDRESS),
            health_port=settings.TRINITY_HEALTH_PORT,
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
