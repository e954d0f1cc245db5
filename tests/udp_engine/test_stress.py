"""What may be loaded, what the system allows, and a run over several levels."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.udp_engine.loaded import HttpServer, UdpServer, echo, http_answer
from udp_engine import stress
from udp_engine._load import ID_PLACEHOLDER, Reading
from udp_engine.stress import (
    LimitReached,
    Plan,
    Protocol,
    Stress,
    Target,
    TargetRefused,
    build_requests,
    find_target,
    is_own,
    processes_for,
    raise_file_limit,
)

QUICK = Plan(levels=(2, 5), seconds=0.2, warm_up_s=0.1, pause_s=0.0)


def ignore(reading: Reading) -> None:
    pass


# ---- the target


@pytest.mark.parametrize(
    ("protocol", "text", "target"),
    [
        ("udp", "127.0.0.1:2679", Target("udp", "127.0.0.1", 2679, "127.0.0.1")),
        ("udp", "[::1]:2679", Target("udp", "::1", 2679, "::1")),
        ("udp", "10.1.2.3:1", Target("udp", "10.1.2.3", 1, "10.1.2.3")),
        ("http", "127.0.0.1:8080", Target("http", "127.0.0.1", 8080, "127.0.0.1", "/price")),
        ("http", "http://127.0.0.1", Target("http", "127.0.0.1", 80, "127.0.0.1", "/price")),
        ("http", "http://127.0.0.1:9/x/", Target("http", "127.0.0.1", 9, "127.0.0.1", "/x")),
    ],
)
def test_target_is_read(protocol: Protocol, text: str, target: Target) -> None:
    assert find_target(protocol, text) == target


@pytest.mark.parametrize(
    ("protocol", "text"),
    [
        ("udp", "127.0.0.1"),
        ("udp", ":2679"),
        ("udp", "127.0.0.1:0x"),
        ("udp", "127.0.0.1:70000"),
        ("udp", "http://127.0.0.1:1"),
        ("udp", "127.0.0.1:1/path"),
        ("http", "https://127.0.0.1"),
        ("http", "http://user@127.0.0.1"),
        ("http", "http://127.0.0.1/price?asset=BTC"),
        ("http", "http://"),
        ("udp", "no-such-host.invalid:1"),
    ],
)
def test_target_that_cannot_be_understood_is_refused(protocol: Protocol, text: str) -> None:
    with pytest.raises(TargetRefused):
        find_target(protocol, text)


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("10.0.0.1", True),
        ("172.31.255.255", True),
        ("172.32.0.1", False),
        ("192.168.1.1", True),
        ("::1", True),
        ("fd00::1", True),
        ("::ffff:10.0.0.1", True),
        ("::ffff:8.8.8.8", False),
        ("0.0.0.0", False),
        ("169.254.169.254", False),
        ("8.8.8.8", False),
        ("2001:db8::1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_only_loopback_and_private_addresses_are_own(address: str, own: bool) -> None:
    assert is_own(address) is own


def test_target_on_another_network_must_be_forced() -> None:
    with pytest.raises(TargetRefused, match=r"192\.0\.2\.1 is not on this machine"):
        find_target("udp", "192.0.2.1:2679")
    assert find_target("udp", "192.0.2.1:2679", forced=True).address == "192.0.2.1"


def test_every_address_of_a_name_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, **options: object) -> list[tuple[object, ...]]:
        found = ("127.0.0.1", "10.0.0.1", "8.8.8.8")
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (address, port)) for address in found]

    monkeypatch.setattr(stress.socket, "getaddrinfo", resolve)
    with pytest.raises(TargetRefused, match=r"8\.8\.8\.8"):
        find_target("udp", "prices.example:2679")


def test_requests_carry_the_key_and_the_asset() -> None:
    udp, http = find_target("udp", "127.0.0.1:1"), find_target("http", "127.0.0.1:1")
    first, second = build_requests(udp, ["BTC", "ETH"], "k")
    assert ID_PLACEHOLDER in first
    assert b'"BTC"' in first
    assert b'"ETH"' in second
    assert b'"api_key":"k"' in first
    plain = build_requests(udp, ["BTC"], "k", ids=False)[0]
    assert b'"id"' not in plain
    assert plain.startswith(b"{")
    assert plain.endswith(b"}")
    request = build_requests(http, ["B&C"], "k")[0]
    assert request.startswith(b"GET /price?asset=B%26C HTTP/1.1\r\nHost: 127.0.0.1:1\r\n")
    assert b"X-API-Key: k\r\n" in request
    assert request.endswith(b"\r\n\r\n")
    assert b"X-API-Key" not in build_requests(http, ["BTC"], "")[0]


# ---- the system


def test_file_limit_is_raised_as_far_as_the_system_does(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(100, 500)]

    def set_limits(kind: int, wanted: tuple[int, int]) -> None:
        if wanted[1] > 500:
            raise ValueError("not allowed to raise maximum limit")
        limits.append(wanted)

    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", set_limits)
    assert raise_file_limit(80) == 100
    assert raise_file_limit(300) == 300
    assert raise_file_limit(1_000) == 500


@pytest.mark.parametrize(
    ("sockets", "wanted", "processes"), [(100, 1, 1), (936, 1, 1), (937, 1, 2), (100, 4, 4), (2_000, 1, 3)]
)
def test_processes_share_what_one_cannot_open(
    monkeypatch: pytest.MonkeyPatch, sockets: int, wanted: int, processes: int
) -> None:
    monkeypatch.setattr(stress, "raise_file_limit", lambda files: 1_000)
    assert processes_for(sockets, wanted) == processes


def test_too_few_files_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stress, "raise_file_limit", lambda files: 164)
    with pytest.raises(LimitReached, match=r"2,000 sockets are wanted and 1,600 fit.*ulimit -n"):
        processes_for(2_000, 1)


def test_too_few_ports_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ports = tmp_path / "range"
    ports.write_text("32768\t33767\n")
    monkeypatch.setattr(stress, "PORT_RANGE", ports)
    assert processes_for(1_000, 1) == 1
    with pytest.raises(LimitReached, match="1,001 sockets are wanted and 1,000 fit"):
        processes_for(1_001, 1)
    ports.unlink()
    assert processes_for(1_001, 1) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"levels": ()},
        {"levels": (0,)},
        {"levels": (5, 5)},
        {"levels": (9, 5)},
        {"levels": (2_000_000,)},
        {"window": 0},
        {"window": 65},
        {"seconds": 0.0},
        {"rate": -1.0},
        {"timeout_s": 0.0},
        {"pause_s": -1.0},
        {"processes": 0},
        {"levels": (2,), "processes": 3},
    ],
    ids=str,
)
def test_plan_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Plan(**wrong)  # type: ignore[arg-type]  # a table of wrong ones


def test_usual_plan_has_thirteen_levels() -> None:
    assert (len(Plan().levels), Plan().levels[0], Plan().levels[-1]) == (13, 30, 21_000)


# ---- the run


def run_over(server: UdpServer | HttpServer, plan: Plan) -> list[stress.Level]:
    protocol: Protocol = "udp" if isinstance(server, UdpServer) else "http"
    target = find_target(protocol, "{}:{}".format(*server.address))
    with Stress(target, build_requests(target, ["BTC"], "k"), plan) as running:
        running.warm_up()
        server.received = 0
        return [running.run_level(sockets, ignore) for sockets in plan.levels]


@pytest.mark.parametrize("make", [UdpServer, lambda: HttpServer(lambda number: [http_answer()])])
def test_levels_grow_and_every_request_is_accounted_for(make: Callable[[], UdpServer | HttpServer]) -> None:
    with make() as server:
        first, second = run_over(server, QUICK)
        assert (first.sockets, second.sockets) == (2, 5)
        assert first.is_clean and second.is_clean
        assert first.sent + second.sent == server.received
        assert len(server.peers) == 5
        assert first.per_second == pytest.approx(first.answered / 0.2, rel=0.2)
        assert 0 < first.p50_us <= first.p99_us <= first.p999_us <= first.longest_us


def test_window_and_rate_are_used() -> None:
    with UdpServer() as server:
        levels = run_over(server, Plan(levels=(2,), seconds=0.2, window=8, rate=500, warm_up_s=0, pause_s=0))
        assert levels[0].concurrent == 16
        assert levels[0].sent == server.received == 100


def test_losses_and_refusals_are_told() -> None:
    def answer(datagram: bytes, number: int) -> list[bytes]:
        if number % 10 == 3:
            return [echo(datagram, 0)[0].replace(b'"asset":"BTC","price":"67123.45"', b'"error":"stale"')]
        return [] if number % 10 == 7 else echo(datagram, number)

    with UdpServer(answer) as server:
        level = run_over(server, Plan(levels=(4,), seconds=0.3, timeout_s=0.05, warm_up_s=0))[0]
        assert level.errors == {"stale": (server.received + 6) // 10}
        assert level.lost == (server.received + 2) // 10
        assert not level.is_clean


def test_stopping_ends_the_level_and_keeps_what_was_measured() -> None:
    def stop(reading: Reading) -> None:
        if reading.answered:
            running.stop()

    with UdpServer() as server:
        target = find_target("udp", "{}:{}".format(*server.address))
        with Stress(target, build_requests(target, ["BTC"], "k"), Plan(levels=(2,), seconds=60)) as running:
            assert not running.is_stopped
            level = running.run_level(2, stop)
            assert running.is_stopped
            assert level.seconds < 20
            assert level.sent == level.answered == server.received > 0
