"""The native loop against small real servers: every request is accounted for, whatever comes back."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import socket
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

import pytest

from tests.udp_engine.loaded import PRICE, HttpServer, UdpServer, echo, http_answer, refusal
from udp_engine._load import HTTP, MAX_REQUEST, UDP, Load, Reading, latency_ns

REQUEST = b'{"id":"00000000","asset":"BTC"}'
PLAIN = b'{"asset":"BTC"}'
GET = b"GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\n\r\n"


@contextlib.contextmanager
def load_of(
    server: UdpServer | HttpServer,
    *requests: bytes,
    sockets: int = 4,
    window: int = 1,
    timeout_ms: int = 2_000,
) -> Iterator[Load]:
    kind, usual = (UDP, REQUEST) if isinstance(server, UdpServer) else (HTTP, GET)
    load = Load(
        kind, server.address, requests or (usual,), most=sockets, window=window, timeout_ms=timeout_ms
    )
    with contextlib.closing(load):
        load.grow(sockets)
        yield load


def run(load: Load, seconds: float = 0.15, rate: float = 0.0) -> Reading:
    load.run(seconds, rate)
    reading = load.reading()
    assert reading.in_flight == 0
    assert reading.sent == reading.answered + sum(reading.errors.values()) + reading.lost
    assert sum(array("Q", reading.latencies)) == reading.answered
    return reading


# ---- datagrams


@pytest.mark.parametrize(("sockets", "window"), [(1, 1), (8, 1), (3, 5), (2, 64)])
def test_every_datagram_is_counted_where_all_are_answered(sockets: int, window: int) -> None:
    with UdpServer() as server, load_of(server, sockets=sockets, window=window) as load:
        reading = run(load)
        assert reading.sent == reading.answered == server.received > sockets * window
        assert len(server.peers) == sockets
        assert (reading.lost, reading.errors, reading.unexpected, reading.reconnects) == (0, {}, 0, 0)
        assert reading.sending_ns >= 150_000_000
        assert reading.answered - sockets * window <= reading.timely <= reading.answered


@pytest.mark.quiet  # on a busy machine more is late than was dropped
@pytest.mark.parametrize(("sockets", "window"), [(8, 1), (2, 16)])
@pytest.mark.parametrize("request_", [REQUEST, PLAIN])
def test_every_datagram_that_is_dropped_is_counted_as_lost(
    sockets: int, window: int, request_: bytes
) -> None:
    def drop_some(datagram: bytes, number: int) -> list[bytes]:
        return [] if number % 50 == 49 else echo(datagram, number)

    with (
        UdpServer(drop_some) as server,
        load_of(server, request_, sockets=sockets, window=window, timeout_ms=60) as load,
    ):
        reading = run(load, 0.3)
        assert reading.sent == server.received
        assert reading.lost == server.received // 50 > 0
        assert reading.reconnects > 0
        assert len(server.peers) > sockets  # those that lost something were replaced


def test_late_replies_count_for_nothing() -> None:
    kept: list[bytes] = []

    def answer_the_one_before(datagram: bytes, number: int) -> list[bytes]:
        kept.append(datagram)
        return echo(kept[number - 1], number) if number else []

    with UdpServer(answer_the_one_before) as server, load_of(server, sockets=1, timeout_ms=30) as load:
        reading = run(load, 0.2)
        assert (reading.answered, reading.sent) == (0, reading.lost)
        assert reading.sent >= 2
        assert reading.unexpected == reading.sent - 1


def test_double_replies_count_once() -> None:
    with (
        UdpServer(lambda datagram, number: echo(datagram, number) * 2) as server,
        load_of(server, sockets=2, window=4) as load,
    ):
        reading = run(load)
        assert reading.answered == reading.sent == server.received
        assert server.received - 16 <= reading.unexpected <= server.received


@pytest.mark.parametrize("garbage", [b"", b"x", b'{"id":"zzzzzzzz"}', b'{"id":"0000', bytes(range(256)) * 4])
def test_garbage_answers_nothing(garbage: bytes) -> None:
    with (
        UdpServer(lambda datagram, number: [garbage, *echo(datagram, number)]) as server,
        load_of(server, sockets=2) as load,
    ):
        reading = run(load, 0.1)
        assert reading.answered == reading.sent == server.received
        assert reading.unexpected >= reading.sent - 4


def test_refusals_are_counted_by_their_code() -> None:
    codes = ["rate_limited", "unauthorized", "of_tomorrow"]

    def refuse_in_turn(datagram: bytes, number: int) -> list[bytes]:
        which = number % 4
        return echo(datagram, number) if which == 3 else [refusal(datagram, codes[which])]

    with UdpServer(refuse_in_turn) as server, load_of(server, sockets=1) as load:
        reading = run(load)
        assert set(reading.errors) == {"rate_limited", "unauthorized", "other"}
        assert max(reading.errors.values()) - min(reading.errors.values()) <= 1
        assert sum(reading.errors.values()) + reading.answered == server.received


def test_requests_without_an_id_are_answered_in_order() -> None:
    with UdpServer() as server, load_of(server, PLAIN, sockets=2, window=3) as load:
        reading = run(load)
        assert reading.answered == reading.sent == server.received > 6


def test_requests_are_sent_in_turn_and_each_id_once() -> None:
    seen: list[bytes] = []

    def note(datagram: bytes, number: int) -> list[bytes]:
        seen.append(datagram)
        return echo(datagram, number)

    other = b'{"asset":"ETH","id":"00000000"}'
    with UdpServer(note) as server, load_of(server, REQUEST, other, sockets=1, window=1) as load:
        run(load, 0.1)
        first, second, third = seen[:3]
        assert (first[17:], second[:15], third[17:]) == (REQUEST[17:], other[:15], REQUEST[17:])
    ids = [datagram[7:15] if datagram.startswith(b'{"id"') else datagram[21:29] for datagram in seen]
    assert len(set(ids)) == len(ids)


def test_replies_out_of_order_are_matched_by_id() -> None:
    held: list[bytes] = []

    def answer_pairs_backwards(datagram: bytes, number: int) -> list[bytes]:
        held.append(datagram)
        if len(held) < 2:
            return []
        replies = [echo(held.pop(), 0)[0], echo(held.pop(), 0)[0]]
        return replies

    with (
        UdpServer(answer_pairs_backwards) as server,
        load_of(server, sockets=1, window=2, timeout_ms=200) as load,
    ):
        reading = run(load, 0.1)
        assert reading.unexpected == 0
        assert reading.lost == len(held) <= 1  # the last one may have been left without its other half
        assert reading.answered == server.received - len(held) > 2


def test_nobody_listening_is_noticed_and_does_not_spin() -> None:
    with UdpServer() as server:
        address = server.address
    load = Load(UDP, address, [REQUEST], most=2, timeout_ms=50)
    with contextlib.closing(load):
        load.grow(2)
        reading = run(load, 0.2)
        assert reading.unreachable > 0
        assert 2 <= reading.sent == reading.lost <= 20


def test_address_of_version_6_is_loaded() -> None:
    try:
        server = UdpServer(family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with server, load_of(server) as load:
        assert run(load, 0.05).answered == server.received > 0


# ---- times


def delayed(
    seconds: float, when: Callable[[int], bool] = lambda number: True
) -> Callable[[bytes, int], list[bytes]]:
    def answer(datagram: bytes, number: int) -> list[bytes]:
        if when(number):
            time.sleep(seconds)
        return echo(datagram, number)

    return answer


def test_time_of_an_answer_is_measured() -> None:
    with UdpServer(delayed(0.02)) as server, load_of(server, sockets=1) as load:
        reading = run(load, 0.3)
        least, most = (latency_ns(reading.latencies, share) for share in (0.0, 1.0))
        assert least >= 0.99 * 20_000_000
        assert abs(most - reading.longest_ns) <= 0.01 * reading.longest_ns


def test_histogram_holds_every_time_within_one_percent() -> None:
    """Each bucket's own middle stands for it; neighbours are never further apart than a 64th."""
    middles = []
    empty = array("Q", bytes(len(run_nothing().latencies)))
    for bucket in range(len(empty)):
        counts = array("Q", empty)
        counts[bucket] = 1
        middles.append(latency_ns(counts.tobytes(), 0.5))
    assert middles == sorted(set(middles))
    above = bisect_left(middles, 1_000)
    assert all(after / before <= 1 + 1 / 63 for before, after in itertools.pairwise(middles[above:]))
    assert middles[-1] > 60e9


def run_nothing() -> Reading:
    with contextlib.closing(Load(UDP, ("127.0.0.1", 9), [REQUEST], most=1)) as load:
        return load.reading()


def test_histogram_of_nothing_is_zero_and_of_something_else_refused() -> None:
    assert latency_ns(run_nothing().latencies, 0.99) == 0
    with pytest.raises(ValueError):
        latency_ns(b"12345678", 0.5)


# ---- at a rate


@pytest.mark.parametrize("rate", [700, 1_100, 3_000, 6_000])
def test_paced_requests_are_as_many_as_are_due(rate: int) -> None:
    with UdpServer() as server, load_of(server, sockets=8) as load:
        reading = run(load, 0.3, rate=rate)
        assert reading.sent == reading.answered == server.received == rate * 3 // 10
        assert reading.unsent == 0
        assert server.times[-1] - server.times[0] == pytest.approx(0.3, abs=0.05)


def test_paced_requests_of_a_high_rate_go_out_in_groups_and_none_is_missing() -> None:
    with UdpServer() as server, load_of(server, sockets=16, window=16) as load:
        reading = run(load, 0.01, rate=90_000)
        assert reading.sent + reading.unsent == 900
        assert reading.sent == reading.answered == server.received


@pytest.mark.parametrize("sockets", [1, 64])
def test_paced_requests_do_not_hide_that_the_server_stood_still(sockets: int) -> None:
    """A fifth of the requests were due during the stall; where sockets ran out, they count from then too."""
    with (
        UdpServer(delayed(0.2, lambda number: number == 300)) as server,
        load_of(server, sockets=sockets, window=4) as load,
    ):
        reading = run(load, 1.0, rate=1_000)
        assert reading.sent == 1_000
        assert latency_ns(reading.latencies, 0.99) > 150_000_000
        assert latency_ns(reading.latencies, 0.90) > 70_000_000
        assert latency_ns(reading.latencies, 0.50) < 70_000_000


def test_paced_requests_are_caught_up_without_a_burst() -> None:
    with (
        UdpServer(delayed(0.2, lambda number: number == 100)) as server,
        load_of(server, sockets=4, window=4) as load,
    ):
        reading = run(load, 0.6, rate=2_000)
        assert reading.sent == 1_200
        after = server.times[120:]
        longest = max(bisect_left(after, moment + 0.02) - place for place, moment in enumerate(after))
        assert longest <= 2 * 2_000 * 0.02 + 64 + 16


def test_requests_that_found_no_socket_are_told() -> None:
    with UdpServer(lambda datagram, number: []) as server, load_of(server, sockets=2, timeout_ms=80) as load:
        reading = run(load, 0.3, rate=1_000)
        assert reading.sent == server.received == reading.lost < 20
        assert reading.sent + reading.unsent == 300


# ---- HTTP


def test_every_http_request_is_counted_and_connections_are_kept() -> None:
    with HttpServer(lambda number: [http_answer()]) as server, load_of(server, sockets=6) as load:
        first, second = run(load), run(load)
        assert first.sent + second.sent == server.received
        assert first.answered == first.sent > 6
        assert server.connections == 6


PIECES = {
    "in one": [http_answer()],
    "byte by byte": [bytes([byte]) for byte in http_answer()],
    "between head and body": [http_answer()[: -len(PRICE)], PRICE],
    "no body": [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "interim": [b"HTTP/1.1 100 Continue\r\n\r\n", http_answer()],
    "long lines": [http_answer(PRICE, "200 OK", "X-Long: " + "y" * 20_000)],
    "spelled otherwise": [b"HTTP/1.1 200 OK\ncontent-LENGTH:   2\n\nok"],
    "long body": [http_answer(b"x" * 300_000)],
}


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
def test_http_response_is_read_however_it_comes(pieces: list[bytes]) -> None:
    with HttpServer(lambda number: pieces) as server, load_of(server, sockets=2) as load:
        reading = run(load, 0.1)
        assert reading.answered == reading.sent == server.received > 2
        assert (reading.reconnects, reading.unexpected) == (0, 0)


UNREADABLE = {
    "garbage": b"SSH-2.0-OpenSSH\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "status that is none": b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    "head without end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
}


@pytest.mark.parametrize("response", UNREADABLE.values(), ids=UNREADABLE)
def test_http_response_that_cannot_be_read_is_an_error(response: bytes) -> None:
    with HttpServer(lambda number: [response, None]) as server, load_of(server, sockets=2) as load:
        reading = run(load, 0.05)
        assert reading.answered == 0
        assert set(reading.errors) <= {"unreadable", "reset", "closed"}
        assert reading.errors["unreadable"] > 0
        assert reading.reconnects >= sum(reading.errors.values())


def answers_in_turn(*answers: Iterable[bytes | None]) -> Callable[[int], Iterable[bytes | None]]:
    return lambda number: answers[number % len(answers)]


def test_http_errors_are_counted_by_status() -> None:
    bad, busy = http_answer(b"", "429 Too Many Requests"), http_answer(b"no", "503 Service Unavailable")
    with (
        HttpServer(answers_in_turn([http_answer()], [bad], [busy])) as server,
        load_of(server, sockets=1) as load,
    ):
        reading = run(load)
        assert set(reading.errors) == {"429", "503"}
        assert reading.answered - reading.errors["503"] in (0, 1)
        assert reading.sent == server.received


@pytest.mark.parametrize(("ending", "name"), [(None, "closed"), (b"", "reset")])
def test_broken_http_connections_are_counted_and_replaced(ending: bytes | None, name: str) -> None:
    half = http_answer()[:30]
    with (
        HttpServer(answers_in_turn([http_answer()], [http_answer()], [half, ending])) as server,
        load_of(server, sockets=1) as load,
    ):
        reading = run(load)
        assert set(reading.errors) == {name}
        assert reading.errors[name] == server.received // 3 > 1
        assert reading.reconnects == reading.errors[name]
        assert reading.sent == server.received


def test_http_server_that_closes_after_each_answer_is_no_error() -> None:
    closing = [http_answer(PRICE, "200 OK", "Connection: close"), None]
    with HttpServer(lambda number: closing) as server, load_of(server, sockets=2) as load:
        reading = run(load, 0.1)
        assert reading.answered == reading.sent == server.received > 4
        assert reading.errors == {}


def test_http_server_that_is_too_slow_loses_requests() -> None:
    def answer(number: int) -> list[bytes]:
        if number == 5:
            time.sleep(0.15)
        return [http_answer()]

    with HttpServer(answer) as server, load_of(server, sockets=1, timeout_ms=50) as load:
        reading = run(load, 0.3)
        assert 1 <= reading.lost <= 3  # those on the new connections wait for the same sleep
        assert reading.answered == reading.sent - reading.lost


def test_http_connections_closed_between_runs_are_opened_again() -> None:
    with HttpServer(lambda number: [http_answer()]) as server, load_of(server, sockets=3) as load:
        run(load, 0.05)
        for key in list(server._selector.get_map().values()):
            if key.data == server.read:
                key.fileobj.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        time.sleep(0.05)
        load.grow(3)
        assert run(load, 0.05).errors == {}
        assert server.connections == 6


def test_growing_where_nobody_listens_raises() -> None:
    with HttpServer(lambda number: []) as server:
        address = server.address
    with (
        contextlib.closing(Load(HTTP, address, [GET], most=4)) as load,
        pytest.raises(ConnectionRefusedError),
    ):
        load.grow(4)


# ---- its life


def test_pool_grows_and_its_sockets_stay() -> None:
    with UdpServer() as server:
        load = Load(UDP, server.address, [REQUEST], most=8)
        with contextlib.closing(load):
            load.grow(3)
            run(load, 0.05)
            first = set(server.peers)
            load.grow(8)
            run(load, 0.05)
            assert (len(first), len(server.peers), load.sockets) == (3, 8, 8)
            assert first <= server.peers


def test_reading_and_stopping_from_another_thread() -> None:
    with UdpServer() as server, load_of(server) as load:
        thread = threading.Thread(target=load.run, args=(60.0,))
        thread.start()
        deadline = time.monotonic() + 5
        while load.reading().answered < 10 and time.monotonic() < deadline:
            time.sleep(0.005)
        early = load.reading()
        with pytest.raises(RuntimeError):
            load.run(1)
        with pytest.raises(RuntimeError):
            load.grow(4)
        with pytest.raises(RuntimeError):
            load.close()
        load.stop()
        thread.join(5)
        assert not thread.is_alive()
        late = load.reading()
        assert 10 <= early.answered <= late.answered == late.sent == server.received


def test_closing_twice_is_harmless_and_then_nothing_runs() -> None:
    load = Load(UDP, ("127.0.0.1", 9), [REQUEST], most=2)
    load.grow(2)
    load.close()
    load.close()
    assert load.sockets == 0
    with pytest.raises(ValueError):
        load.run(1)


def test_sockets_are_closed_with_the_load() -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = open_files()
    load = Load(UDP, ("127.0.0.1", 9), [REQUEST], most=50)
    load.grow(50)
    assert open_files() == before + 51
    del load
    assert open_files() == before


def test_running_out_of_files_is_an_os_error_and_what_is_open_serves() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with UdpServer() as server:
        load = Load(UDP, server.address, [REQUEST], most=500)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        try:
            with pytest.raises(OSError) as raised:
                load.grow(500)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert raised.value.errno == errno.EMFILE
        assert 0 < load.sockets < 200
        assert run(load, 0.05).answered > 0
        load.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 0},
        {"window": 65},
        {"most": 0},
        {"timeout_ms": 0},
        {"protocol": 2},
        {"protocol": HTTP, "window": 2},
        {"requests": []},
        {"requests": [b""]},
        {"requests": [b"x" * (MAX_REQUEST + 1)]},
        {"requests": [REQUEST, PLAIN]},
        {"address": ("localhost", 9)},
    ],
    ids=str,
)
def test_what_cannot_be_loaded_is_refused(wrong: dict[str, object]) -> None:
    usual = {"protocol": UDP, "address": ("127.0.0.1", 9), "requests": [REQUEST], "most": 1}
    arguments = usual | wrong
    first = [arguments.pop(name) for name in ("protocol", "address", "requests")]
    with pytest.raises(ValueError):
        Load(*first, **arguments)  # type: ignore[arg-type]  # a table of wrong ones


def test_growing_beyond_the_room_is_refused() -> None:
    with (
        contextlib.closing(Load(UDP, ("127.0.0.1", 9), [REQUEST], most=2)) as load,
        pytest.raises(ValueError),
    ):
        load.grow(3)


@pytest.mark.parametrize(("seconds", "rate"), [(0, 0), (-1, 0), (1, -1), (1, 1e9)])
def test_time_and_rate_that_make_no_sense_are_refused(seconds: float, rate: float) -> None:
    with (
        contextlib.closing(Load(UDP, ("127.0.0.1", 9), [REQUEST], most=1)) as load,
        pytest.raises(ValueError),
    ):
        load.run(seconds, rate)


def test_load_that_could_not_be_made_closes_nothing_of_others() -> None:
    kept = os.dup(0)
    try:
        before = os.fstat(0)
        with pytest.raises(ValueError, match="at least one socket"):
            Load(UDP, ("127.0.0.1", 9), [b"x"], most=0)
        assert os.path.samestat(os.fstat(0), before)
    finally:
        os.dup2(kept, 0)
        os.close(kept)
