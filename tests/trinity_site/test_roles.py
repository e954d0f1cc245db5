"""What a node runs."""

import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from telemetry._counters import MAX_WORKERS
from trinity_site import roles
from trinity_site.children import Service
from trinity_site.roles import Ports, node_services
from udp_engine.sockets import open_socket


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as http, socket.create_server(("127.0.0.1", 0)) as health:
        yield http, health


def services_of(
    sockets: tuple[socket.socket, socket.socket],
    udp: Sequence[socket.socket] = (),
    *,
    reports_udp: socket.socket | None = None,
    kinds: Sequence[str] = ("prices",),
    **changes: object,
) -> dict[str, Service]:
    chosen: dict[str, Any] = {
        "BASE_DIR": Path("/srv"),
        "TRINITY_SIMULATOR_URL": "",
        "TRINITY_HTTP_WORKERS": 1,
        "TRINITY_REPORT_WORKERS": 1,
        "TRINITY_UDP_PINNED": False,
        "TRINITY_CORES": [0, 1],
        "CELERY_BROKER_URL": "",
        "TRINITY_QUEUE_WORKERS": 1,
    }
    settings: Any = SimpleNamespace(**chosen | changes)
    prices, reports = (Ports(*sockets) if kind in kinds else None for kind in ("prices", "reports"))
    services = node_services(settings, prices=prices, reports=reports, udp=udp, reports_udp=reports_udp)
    return {one.name: one for one in services}


def test_feeds_keyring_and_shipper_start_before_the_workers_and_stop_after_them(sockets: Any) -> None:
    services = services_of(sockets, TRINITY_HTTP_WORKERS=2)
    assert list(services) == ["feeds", "keyring", "shipper", "http-1", "http-2"]


def test_workers_of_the_queue_outlast_the_shipper_and_one_of_them_keeps_the_tables(sockets: Any) -> None:
    services = services_of(sockets, CELERY_BROKER_URL="redis://valkey:6379/0", TRINITY_QUEUE_WORKERS=2)
    assert list(services)[2:5] == ["queue-1", "queue-2", "shipper"]
    assert [services[f"queue-{number}"].command[-1] for number in (1, 2)] == ["--beat", "runcelery"]


def test_queue_workers_of_other_nodes_are_enough(sockets: Any) -> None:
    services = services_of(sockets, CELERY_BROKER_URL="sqs://", TRINITY_QUEUE_WORKERS=0)
    assert list(services) == ["feeds", "keyring", "shipper", "http-1"]


def test_node_for_reports_follows_no_exchange_and_ships_its_own_usage(sockets: Any) -> None:
    services = services_of(sockets, kinds=("reports",), TRINITY_SIMULATOR_URL="http://127.0.0.1:9123")
    assert list(services) == ["keyring", "shipper", "reports-1"]
    worker = services["reports-1"]
    assert "runreports" in worker.command
    assert worker.environment == {
        "TRINITY_REPORTS_PORT": str(sockets[0].getsockname()[1]),
        "TRINITY_REPORTS_HEALTH_PORT": str(sockets[1].getsockname()[1]),
    }


def test_node_for_both_answers_prices_first(sockets: Any) -> None:
    services = services_of(sockets, kinds=("prices", "reports"), TRINITY_REPORT_WORKERS=2)
    assert list(services) == ["feeds", "keyring", "shipper", "http-1", "reports-1", "reports-2"]
    assert [services[f"reports-{number}"].start_s > 0 for number in (1, 2)] == [True, False]


def test_one_worker_is_waited_for_and_no_other(sockets: Any) -> None:
    services = services_of(sockets, TRINITY_HTTP_WORKERS=3)
    assert [services[f"http-{number}"].start_s > 0 for number in (1, 2, 3)] == [True, False, False]


def test_who_answers_starts_at_once_when_all_that_they_rely_on_is_ready(sockets: Any) -> None:
    services = services_of(
        sockets, kinds=("prices", "reports"), TRINITY_SIMULATOR_URL="http://127.0.0.1:9123"
    )
    begun: list[list[str]] = []
    for name, service in services.items():
        begun += [] if service.beside else [[]]
        begun[-1].append(name)
    assert begun == [["simulator"], ["feeds", "keyring", "shipper"], ["http-1", "reports-1"]]


def test_simulator_starts_first_where_prices_are_simulated(sockets: Any) -> None:
    services = services_of(sockets, TRINITY_SIMULATOR_URL="http://127.0.0.1:9123")
    assert list(services) == ["simulator", "feeds", "keyring", "shipper", "http-1"]


def test_node_for_reports_answers_summaries_over_udp_in_one_worker(sockets: Any) -> None:
    with open_socket("127.0.0.1", 0) as opened:
        services = services_of(sockets, kinds=("reports",), reports_udp=opened)
        assert list(services)[-2:] == ["reports-1", "reports-udp"]
        worker = services["reports-udp"]
        assert worker.command[-5:] == ("--reports", "--fd", str(opened.fileno()), "--row", "71")
        assert (worker.descriptors, worker.rolls) == ((opened.fileno(),), True)
        port = str(opened.getsockname()[1])
        assert services["reports-1"].environment["TRINITY_REPORTS_UDP_PORT"] == port


def test_workers_inherit_both_sockets_and_learn_their_ports(sockets: Any) -> None:
    http, health = sockets
    worker = services_of(sockets)["http-1"]
    assert worker.descriptors == (http.fileno(), health.fileno())
    assert worker.environment["TRINITY_HEALTH_PORT"] == str(health.getsockname()[1])


def test_every_process_counts_in_a_row_of_its_own(sockets: Any) -> None:
    with contextlib.ExitStack() as stack:
        udp = [stack.enter_context(open_socket("127.0.0.1", 0)) for _ in range(31)]
        kinds = ("prices", "reports")
        reports_udp = stack.enter_context(open_socket("127.0.0.1", 0))
        numbers = {"TRINITY_HTTP_WORKERS": 31, "TRINITY_REPORT_WORKERS": 8}
        most = services_of(sockets, udp, kinds=kinds, reports_udp=reports_udp, **numbers)
    rows = [int(row_of(one)) for one in most.values() if "--row" in one.command]
    everyone = [roles.FEEDS_ROW, *rows, roles.SPARE_REPORTS_UDP_ROW, roles.DEVELOPMENT_ROW]
    assert len(rows) == 71
    assert len(set(everyone)) == len(everyone)
    assert max(everyone) < MAX_WORKERS


def row_of(service: Service) -> str:
    return service.command[service.command.index("--row") + 1]


def test_udp_workers_inherit_a_socket_each_and_share_their_limits(sockets: Any) -> None:
    with open_socket("127.0.0.1", 0) as first, open_socket("127.0.0.1", 0) as second:
        services = services_of(sockets, [first, second])
        assert [services[name].descriptors for name in ("udp-1", "udp-2")] == [
            (first.fileno(),),
            (second.fileno(),),
        ]
        assert all("--workers 2" in " ".join(services[name].command) for name in ("udp-1", "udp-2"))


def test_pinned_udp_workers_take_the_cores_in_turn(sockets: Any) -> None:
    with contextlib.ExitStack() as stack:
        udp = [stack.enter_context(open_socket("127.0.0.1", 0)) for _ in range(3)]
        services = services_of(sockets, udp, TRINITY_UDP_PINNED=True, TRINITY_CORES=[2, 5])
    assert [services[f"udp-{number}"].command[-2:] for number in (1, 2, 3)] == [
        ("--cpu", "2"),
        ("--cpu", "5"),
        ("--cpu", "2"),
    ]
