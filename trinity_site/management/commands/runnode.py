"""`manage.py runnode`: a whole node under a supervisor; what `./run up` and `./run demo` start."""

import asyncio
import contextlib
import errno
import itertools
import logging
import signal
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from trinity_site.roles import local_address, node_services
from trinity_site.shared_memory import open_board_reader, open_counter_reader
from trinity_site.supervisor import Service, Supervisor

logger = logging.getLogger(__name__)

COLOURS = (36, 35, 33, 32, 34)
BACKLOG = 2048
SAME_SIGNAL_S = 0.3  # a wrapper may pass on the Ctrl-C that its whole process group has got already


class Command(BaseCommand):
    help = "Run a whole node: feeds and HTTP workers, and simulated exchanges in a demo. Ctrl-C stops it."

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's signature
        with contextlib.ExitStack() as stack:
            check_simulator_port()
            bind = settings.TRINITY_BIND
            http = stack.enter_context(listen(bind, settings.TRINITY_HTTP_PORT, "TRINITY_HTTP_PORT"))
            health = stack.enter_context(listen(bind, settings.TRINITY_HEALTH_PORT, "TRINITY_HEALTH_PORT"))
            # Held open here, shared memory outlives any child: prices stay while the feed process restarts.
            node, folder = settings.CLUSTER_NODE, settings.TRINITY_DATA_DIR
            stack.enter_context(open_counter_reader(node, folder))
            board = stack.enter_context(open_board_reader(node, folder, slots=settings.TRINITY_BOARD_SLOTS))
            services = list(node_services(settings, http=http, health=health, board=board))
            asyncio.run(self.run_node(services, lambda: self.announce(http, health)))

    async def run_node(self, services: list[Service], on_started: Callable[[], None]) -> None:
        stop = asyncio.Event()
        supervisor = Supervisor(services, self.line_writer(services))

        loop = asyncio.get_running_loop()
        stopping_s = 0.0

        def on_signal() -> None:
            nonlocal stopping_s
            if not stop.is_set():
                logger.info("Stopping in order; a second signal kills")
                stopping_s = loop.time()
                stop.set()
            elif loop.time() - stopping_s > SAME_SIGNAL_S:
                logger.warning("Asked a second time: killing what is left")
                supervisor.kill()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, on_signal)
        await supervisor.run(stop, on_started)

    def line_writer(self, services: list[Service]) -> Callable[[str, str], None]:
        """Return a function that shows a line of a service under its name."""
        width = max(len(service.name) for service in services)
        coloured = self.stdout.isatty() and self.style.SUCCESS("") != ""
        prefixes = {}
        for service, colour in zip(services, itertools.cycle(COLOURS), strict=False):
            prefix = f"{service.name:<{width}} |"
            prefixes[service.name] = f"\x1b[{colour}m{prefix}\x1b[0m" if coloured else prefix

        def write(name: str, line: str) -> None:
            # Whoever read our output may be gone (`./run up | head`); the node is not stopped by that.
            with contextlib.suppress(OSError):
                self.stdout.write(f"{prefixes[name]} {line}")

        return write

    def announce(self, http: socket.socket, health: socket.socket) -> None:
        site = f"http://{shown_host(http)}:{http.getsockname()[1]}"
        about_health = f"http://{shown_host(health)}:{health.getsockname()[1]}"
        simulated = " Prices are simulated." if settings.TRINITY_SIMULATOR_URL else ""
        lines = (
            "",
            f"{settings.CLUSTER_NODE} is up.{simulated} Ctrl-C stops it.",
            f"  prices          {site}/price?asset=BTC",
            f"  home page       {site}/",
            f"  command centre  {site}/admin/",
            f"  documentation   {site}/docs",
            f"  health          {about_health}/health/ready",
            "",
        )
        with contextlib.suppress(OSError):
            self.stdout.write("\n".join(lines))


def listen(host: str, port: int, variable: str) -> socket.socket:
    """Listen on *port*; CommandError that names *variable* when that cannot be."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            problem = f"Port {port} is taken by another program"
        else:
            problem = f"Port {port} on {host} cannot be opened ({error.strerror})"
        raise CommandError(f"{problem}. Choose another one: {variable}={port + 1000} ./run up") from error


def check_simulator_port() -> None:
    """Fail before anything has started when the simulator's port is taken."""
    if settings.TRINITY_SIMULATOR_URL:
        host = urlsplit(settings.TRINITY_SIMULATOR_URL).hostname or "127.0.0.1"
        listen(host, settings.TRINITY_SIMULATOR_PORT, "TRINITY_SIMULATOR_PORT").close()


def shown_host(listening: socket.socket) -> str:
    host = local_address(listening)
    return f"[{host}]" if ":" in host else host.replace("127.0.0.1", "localhost")
