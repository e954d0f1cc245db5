"""What a node runs: its services in order, and their counters rows."""

import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from django.conf import LazySettings

from telemetry._counters import MAX_WORKERS
from trinity_site.children import START_S, Service

# Every process that counts has a row of its own, and is its only writer.
FEEDS_ROW = 0
FIRST_HTTP_ROW = 1
FIRST_UDP_ROW = 32
MOST_WORKERS = 31  # of each of the two
FIRST_REPORTS_ROW = 63
REPORTS_UDP_ROW = 71
SPARE_REPORTS_UDP_ROW = 72  # of one that runs alone
QUEUE_SILENT_S = 300.0  # a worker says nothing while it writes, or deletes what is old
DEVELOPMENT_ROW = MAX_WORKERS - 1  # manage.py runserver, beside a node or without one


class Ports(NamedTuple):
    """Two listening sockets: one for who asks, one for who looks after the node."""

    open: socket.socket
    health: socket.socket


def manage(settings: LazySettings) -> tuple[str, ...]:
    return sys.executable, str(settings.BASE_DIR / "manage.py")


def udp_services(
    settings: LazySettings, opened: Sequence[socket.socket], *, spare: bool = False
) -> Iterator[Service]:
    """Yield a worker for each of the bound sockets, which outlive the workers.

    They count in the first rows, or in *spare* ones, which the node itself does not use.
    """
    for number, one in enumerate(opened):
        command = ["runudp", "--fd", str(one.fileno()), "--workers", str(len(opened))]
        if not spare:
            command += ["--row", str(FIRST_UDP_ROW + number)]
        if settings.TRINITY_UDP_PINNED:
            command += ["--cpu", str(settings.TRINITY_CORES[number % len(settings.TRINITY_CORES)])]
        yield Service(
            f"udp-{number + 1}",
            (*manage(settings), *command),
            descriptors=(one.fileno(),),
            start_s=0.0 if number else START_S,
            rolls=True,
        )


def reports_udp_service(settings: LazySettings, opened: socket.socket) -> Service:
    """Return the worker that answers summaries; one is enough for what the database can be asked."""
    command = ("runudp", "--reports", "--fd", str(opened.fileno()), "--row", str(REPORTS_UDP_ROW))
    descriptors = (opened.fileno(),)
    return Service("reports-udp", (*manage(settings), *command), descriptors=descriptors, rolls=True)


def usage_services(settings: LazySettings) -> Iterator[Service]:
    """Yield what brings usage into the database: workers of the queue where there is one, and the shipper.

    They stop in reverse order after all who answer: the shipper sends what these have left, then the
    workers write it.
    """
    for number in range(settings.TRINITY_QUEUE_WORKERS if settings.CELERY_BROKER_URL else 0):
        command = ("runcelery", "--beat") if number == 0 else ("runcelery",)  # one of them keeps the tables
        whole = (*manage(settings), *command)
        yield Service(f"queue-{number + 1}", whole, start_s=0.0, silent_s=QUEUE_SILENT_S)
    yield Service("shipper", (*manage(settings), "runshipper"))


def http_services(
    settings: LazySettings,
    name: str,
    command: str,
    ports: Ports,
    *,
    workers: int,
    first_row: int,
    environment: Mapping[str, str],
) -> Iterator[Service]:
    """Yield the workers that share two sockets."""
    descriptors = (ports.open.fileno(), ports.health.fileno())
    for number in range(workers):
        words = (
            "--fd",
            str(descriptors[0]),
            "--health-fd",
            str(descriptors[1]),
            "--row",
            str(first_row + number),
        )
        yield Service(
            f"{name}-{number + 1}",
            (*manage(settings), command, *words),
            environment=environment,
            descriptors=descriptors,
            start_s=0.0 if number else START_S,  # up as soon as one of them answers
            rolls=True,
        )


def node_services(
    settings: LazySettings,
    *,
    prices: Ports | None,
    reports: Ports | None,
    udp: Sequence[socket.socket],
    reports_udp: socket.socket | None = None,
) -> Iterator[Service]:
    """Yield the services of one node in the order in which they start. The sockets are bound already.

    None are those of another kind of node (SERVER_TYPE). One that answers no prices follows no exchange.
    """
    environment = _chosen_ports(prices, reports, udp, reports_udp)
    if prices is not None and settings.TRINITY_SIMULATOR_URL:
        yield Service("simulator", (*manage(settings), "runsimulator"))
    yield from together(_sources(settings, environment, prices=prices is not None))
    yield from together(_doors(settings, environment, prices, reports, udp, reports_udp))


def together(services: Iterable[Service]) -> Iterator[Service]:
    """Have these start at once, after the ones before are ready."""
    for number, service in enumerate(services):
        yield replace(service, beside=number > 0)


def _sources(settings: LazySettings, environment: Mapping[str, str], *, prices: bool) -> Iterator[Service]:
    """Yield what those who answer rely on."""
    if prices:
        yield Service("feeds", (*manage(settings), "runfeeds"), environment=environment)
    yield Service("keyring", (*manage(settings), "runkeyring"))
    yield from usage_services(settings)


def _doors(
    settings: LazySettings,
    environment: Mapping[str, str],
    prices: Ports | None,
    reports: Ports | None,
    udp: Sequence[socket.socket],
    reports_udp: socket.socket | None,
) -> Iterator[Service]:
    """Yield all who answer."""
    if prices is not None:
        yield from http_services(
            settings,
            "http",
            "runhttp",
            prices,
            workers=settings.TRINITY_HTTP_WORKERS,
            first_row=FIRST_HTTP_ROW,
            environment=environment,
        )
    if reports is not None:
        yield from http_services(
            settings,
            "reports",
            "runreports",
            reports,
            workers=settings.TRINITY_REPORT_WORKERS,
            first_row=FIRST_REPORTS_ROW,
            environment=environment,
        )
    yield from udp_services(settings, udp)
    if reports_udp is not None:
        yield reports_udp_service(settings, reports_udp)


def _chosen_ports(
    prices: Ports | None,
    reports: Ports | None,
    udp: Sequence[socket.socket],
    reports_udp: socket.socket | None,
) -> dict[str, str]:
    """Name the ports that were bound: port 0 lets the kernel choose, and the children must know what."""
    chosen = {
        "TRINITY_HTTP_PORT": prices and prices.open,
        "TRINITY_HEALTH_PORT": prices and prices.health,
        "TRINITY_REPORTS_PORT": reports and reports.open,
        "TRINITY_REPORTS_HEALTH_PORT": reports and reports.health,
        "TRINITY_UDP_PORT": udp[0] if udp else None,
        "TRINITY_REPORTS_UDP_PORT": reports_udp,
    }
    return {name: str(one.getsockname()[1]) for name, one in chosen.items() if one is not None}
