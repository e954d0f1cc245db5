"""`manage.py runnode`: a whole node under a supervisor; what `./run up` and `./run demo` start."""

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from trinity_site.children import Service
from trinity_site.output import Output, logging_to
from trinity_site.roles import Ports, node_services
from trinity_site.shared_memory import open_board_reader, open_counter_reader, open_gate
from trinity_site.sockets import listen, listen_udp, shown_address
from trinity_site.sole_node import sole_node
from trinity_site.supervisor import Supervisor, rolling_on_signal

logger = logging.getLogger(__name__)

COLOURS = (36, 35, 33, 32, 34)
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_SIGNAL_S = 0.3  # a wrapper may pass on the Ctrl-C that its whole process group has got already


class Command(BaseCommand):
    help = "Run a whole node: what SERVER_TYPE names, and simulated exchanges in a demo. Ctrl-C stops it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--typed", default="./run manage runnode", help="the command a person typed")

    def handle(self, *args: Any, **options: Any) -> None:  # Any: Django's signature
        typed = options["typed"]
        with contextlib.ExitStack() as stack:
            stack.enter_context(sole_node(settings.TRINITY_DATA_DIR, typed))
            prices = reports = reports_udp = None
            udp: list[socket.socket] = []
            if settings.SERVER_TYPE != "REPORT_SERVER":
                if settings.TRINITY_SIMULATOR_URL:  # fail before anything has started when its port is taken
                    port = settings.TRINITY_SIMULATOR_PORT
                    listen("127.0.0.1", port, "TRINITY_SIMULATOR_PORT", typed).close()
                prices = open_ports(stack, "TRINITY_HTTP_PORT", "TRINITY_HEALTH_PORT", typed)
                if settings.TRINITY_UDP_WORKERS:
                    udp = listen_udp(settings, settings.TRINITY_UDP_WORKERS, typed)
                    for one in udp:
                        stack.enter_context(one)
            if settings.SERVER_TYPE != "APP_SERVER":
                reports = open_ports(stack, "TRINITY_REPORTS_PORT", "TRINITY_REPORTS_HEALTH_PORT", typed)
                if settings.TRINITY_UDP_WORKERS:
                    (reports_udp,) = listen_udp(settings, 1, typed, "TRINITY_REPORTS_UDP_PORT")
                    stack.enter_context(reports_udp)
            # Held open here, shared memory outlives any child: prices and counts stay while one restarts.
            node, folder = settings.CLUSTER_NODE, settings.TRINITY_DATA_DIR
            stack.enter_context(open_counter_reader(node, folder))
            stack.enter_context(open_board_reader(node, folder, slots=settings.TRINITY_BOARD_SLOTS))
            stack.enter_context(open_gate(node, folder, rows=settings.TRINITY_GATE_ROWS))
            services = list(
                node_services(settings, prices=prices, reports=reports, udp=udp, reports_udp=reports_udp)
            )
            asyncio.run(self.run_node(services, greeting(prices, reports, udp, reports_udp)))

    async def run_node(self, services: list[Service], greeting: str) -> None:
        output, errors = Output(sys.stdout.fileno()), Output(sys.stderr.fileno())
        stop = asyncio.Event()
        supervisor = Supervisor(services, self.line_writer(services, output))

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

        for number in STOPS:
            loop.add_signal_handler(number, on_signal)
        with logging_to(errors), rolling_on_signal(supervisor):
            await supervisor.run(stop, lambda: output.write(greeting))
        # What is left takes milliseconds: one more Ctrl-C would leave shared memory behind, and save nothing.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)

    def line_writer(self, services: list[Service], output: Output) -> Callable[[str, str], None]:
        """Return a function that shows a line of a service under its name."""
        width = max(len(service.name) for service in services)
        coloured = self.stdout.isatty() and self.style.SUCCESS("") != ""
        prefixes = {}
        for service, colour in zip(services, itertools.cycle(COLOURS), strict=False):
            prefix = f"{service.name:<{width}} |"
            prefixes[service.name] = f"\x1b[{colour}m{prefix}\x1b[0m" if coloured else prefix

        def write(name: str, line: str) -> None:
            output.write(f"{prefixes[name]} {line}\n")

        return write


def open_ports(stack: contextlib.ExitStack, variable: str, health_variable: str, typed: str) -> Ports:
    opened = [
        stack.enter_context(listen(settings.TRINITY_BIND, getattr(settings, name), name, typed))
        for name in (variable, health_variable)
    ]
    return Ports(*opened)


def greeting(
    prices: Ports | None,
    reports: Ports | None,
    udp: Sequence[socket.socket],
    reports_udp: socket.socket | None = None,
) -> str:
    """Return what a person is told when everything has started."""
    rows: list[tuple[str, str]] = []
    if prices is not None:
        site = shown_address(prices.open)
        rows.append(("prices", f"curl -H \"X-API-Key: $TRINITY_KEY\" '{site}/price?asset=BTC'"))
        if udp:
            rows.append(("over UDP", f"port {udp[0].getsockname()[1]}, see {site}/docs#udp"))
    if reports is not None:
        address = f"{shown_address(reports.open)}/reports/summary?group_by=day&format=text"
        rows.append(("reports", f"curl -H \"X-API-Key: $TRINITY_KEY\" '{address}'"))
        if reports_udp is not None:
            rows.append(("over UDP", f"port {reports_udp.getsockname()[1]}: what a key has used this month"))
    if prices is not None:
        rows += [
            ("home page", f"{site}/"),
            ("command centre", f"{site}/admin/"),
            ("documentation", f"{site}/docs"),
        ]
    for ports in (prices, reports):
        if ports is not None:
            rows.append(("health", f"{shown_address(ports.health)}/health/ready"))
    is_simulated = settings.TRINITY_SIMULATOR_URL and prices is not None
    simulated = " Prices are simulated." if is_simulated else ""
    lines = "\n".join(f"  {name:<15} {text}" for name, text in rows)
    return f"\n{settings.CLUSTER_NODE} is up.{simulated} Ctrl-C stops it.\n{lines}\n\n"
