"""The batch over real sockets: what is asked, what comes back, what is counted."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from billing import keys
from billing._gate import GateKey
from billing.admission import pack_network
from billing.ratelimit import SECOND_NS
from tests.pricing.doubles import KEYS
from tests.udp_engine.live import Live, request, without_age
from udp_engine._batch import Batch

PADDING = 64
UNAUTHORIZED = b'{"error":"unauthorized"}'


@pytest.fixture
def live() -> Iterator[Live]:
    with Live() as live:
        yield live
        account = live.account()
        assert account.difference == 0
        assert account.latencies == account.sent


# ---- each kind of reply


@pytest.mark.parametrize("id", ["7", 'a"\\ z', "x" * 64, None])
def test_fresh_price_byte_for_byte(live: Live, id: str | None) -> None:
    (reply,) = live.ask(live.client(), request(**({} if id is None else {"id": id})))
    assert without_age(reply) == live.told(id)


@pytest.mark.parametrize(
    ("datagram", "reply"),
    [
        (request("partner", asset="!!"), b'{"error":"bad_request"}'),
        (request("partner", asset=5, id="7"), b'{"id":"7","error":"bad_request"}'),
        (request("partner", id="é"), b'{"error":"bad_request"}'),
        (request(None, id="7") + b" " * 9, b'{"id":"7","error":"unauthorized"}'),
        (request("unknown"), UNAUTHORIZED),
        (request("reports"), UNAUTHORIZED),
        (request("elsewhere"), UNAUTHORIZED),
        (request("tb_live_"), UNAUTHORIZED),
        (request("revoked", id="7"), b'{"id":"7","error":"revoked"}'),
        (request("expired"), b'{"error":"revoked"}'),
    ],
)
def test_refusal_byte_for_byte(live: Live, datagram: bytes, reply: bytes) -> None:
    assert live.ask(live.client(), datagram) == [reply]
    assert live.account().drops == {}


def test_rate_limited_says_when(live: Live) -> None:
    replies = live.ask(live.client(), *[request("free", id=str(number)) for number in range(7)])
    assert [without_age(reply) for reply in replies[:5]] == [live.told(str(number)) for number in range(5)]
    for number, reply in enumerate(replies[5:], 5):
        begin, _, wait = reply.partition(b'"retry_ms":')
        assert begin == b'{"id":"%d","error":"rate_limited",' % number
        assert 0 < int(wait.removesuffix(b"}")) <= 1_000
    assert live.account().totals["rate_limited"] == 2


def test_used_up_quota_is_refused(live: Live) -> None:
    live.use_up("free")
    assert live.ask(live.client(), request("free")) == [b'{"error":"quota_exceeded"}']
    assert live.account().totals["quota_exceeded"] == 1


def test_gate_that_is_not_filled_refuses_all() -> None:
    with Live(is_filled=False) as live:
        asked = [request(id="7"), request("unknown"), request("x", asset="!!")]
        assert live.ask(live.client(), *asked) == [
            b'{"id":"7","error":"unavailable"}',
            b'{"error":"unavailable"}',
            b'{"error":"bad_request"}',
        ]
        assert live.account().totals["auth_failures"] == 0


def test_networks_of_a_key_are_held_to_the_sender() -> None:
    with Live() as live:
        network = (pack_network("127.0.0.0/24"),)
        live.gate.put(GateKey(keys.digest(KEYS["unknown"]), 99, networks=network))
        assert len(live.ask(live.client("127.0.0.9"), request("unknown"))[0]) > 60
        assert live.ask(live.client("127.0.1.9"), request("unknown")) == [UNAUTHORIZED]


def test_counters_tell_what_was_asked(live: Live) -> None:
    live.ask(live.client(), request(), request("unknown"), request(asset="!!"), b"hello")
    totals = live.account().totals
    assert [totals[name] for name in ("udp_packets_received", "udp_requests", "syncmap_hits")] == [4, 2, 1]
    assert totals["auth_failures"] == 1


def test_what_is_not_on_the_board_becomes_a_question(live: Live) -> None:
    client = live.client()
    live.send(client, request(asset="eth", id="9", exchange="kraken", max_age_ms=50), request(asset=None))
    live.send(client, b'{"assets":["BTC","eth"],"api_key":"%b"}' % KEYS["partner"].encode())
    one, several = live.drain()
    assert (one.asset, one.assets, one.exchange, one.max_age_ms, one.id) == ("ETH", (), "kraken", 50, "9")
    assert one.request_bytes == len(request(asset="eth", id="9", exchange="kraken", max_age_ms=50))
    assert (several.asset, several.assets, several.exchange, several.id) == (None, ("BTC", "ETH"), None, None)
    assert client.replies(1) == [b'{"error":"bad_request"}']
    assert live.batch.answer(one, b"late one") and live.batch.answer(several, b"late other")
    assert client.replies(2) == [b"late one", b"late other"]


def test_answer_that_the_kernel_does_not_take_counts_as_unsent(live: Live) -> None:
    live.send(live.client(), request(asset="ETH"))
    (question,) = live.drain()
    assert not live.batch.answer(question, b"x" * 65_536)
    assert live.account().drops == {"unsent": 1}


# ---- replies to one address leave together


def ids(replies: list[bytes]) -> list[str]:
    return [reply.split(b'"', 4)[3].decode() for reply in replies]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
def test_replies_to_one_address_leave_together_and_read_as_single_ones(host: str) -> None:
    asked = [request(id=name) for name in ("1", "22", "x" * 40, '"' * 9, "5")]
    to = host if host != "0.0.0.0" else "127.0.0.1"
    with Live(host) as live, Live(host, groups=False) as single:
        together = live.ask(live.client(to), *asked, to=to)
        alone = single.ask(single.client(to), *asked, to=to)
        assert (live.batch.grouped, single.batch.grouped) == (5, 0)
        assert live.batch.refused_groups == 0
        assert [without_age(reply).rstrip(b" ") for reply in together] == [
            live.told(name) for name in ("1", "22", "x" * 40, '"' * 9, "5")
        ]
        assert [without_age(reply) for reply in alone] == [
            single.told(name) for name in ("1", "22", "x" * 40, '"' * 9, "5")
        ]
        assert (live.account().sent, live.account().difference) == (5, 0)


def test_replies_group_where_other_clients_stand_between(live: Live) -> None:
    clients = [live.client() for _ in range(3)]
    for number in range(30):
        live.send(clients[number % 3], request(id=str(number)))
    live.drain()
    for number, client in enumerate(clients):
        assert ids(client.replies(10)) == [str(id) for id in range(number, 30, 3)]
    assert live.batch.grouped == 30


def test_full_batch_of_one_client_leaves_together(live: Live) -> None:
    client = live.client()
    replies = live.ask(client, *[request(id=str(number)) for number in range(64)])
    assert ids(replies) == [str(number) for number in range(64)]
    assert live.batch.grouped == 64


@pytest.mark.parametrize(
    "lengths", [(32, 1, 64), (1, 64), (64, 1), (1, 32, 64, 1), (64, 32, 1, 64), (8, 8, 8)]
)
def test_reply_gets_at_most_64_spaces(live: Live, lengths: tuple[int, ...]) -> None:
    """Escapes make an id longer than it was in the request, so replies differ by up to 128 bytes."""
    names = ['"' * length for length in lengths]
    replies = live.ask(live.client(), *[request(id=name) for name in names])
    plain = [reply.rstrip(b" ") for reply in replies]
    assert {without_age(reply) for reply in plain} == {live.told(name) for name in names}
    assert max(len(reply) - len(rest) for reply, rest in zip(replies, plain, strict=True)) <= PADDING


def test_refusals_to_strangers_are_neither_grouped_nor_padded_nor_longer(live: Live) -> None:
    asked = [request("unknown", id="x" * length) for length in (1, 30, 2)] + [request("revoked")] * 2
    replies = live.ask(live.client(), *asked)
    assert live.batch.grouped == 0
    assert len(replies) == 5
    for datagram, reply in zip(asked, replies, strict=True):
        assert len(reply) <= len(datagram)
        assert reply == reply.rstrip(b" ")


def test_price_does_not_pad_a_refusal_beside_it(live: Live) -> None:
    replies = live.ask(live.client(), request("unknown"), request(), request(), request("unknown"))
    assert sorted(len(reply) for reply in replies)[:2] == [len(UNAUTHORIZED)] * 2
    assert live.batch.grouped == 2


# ---- what is never longer, and seldom


def test_refusal_longer_than_the_request_is_dropped(live: Live) -> None:
    assert live.ask(live.client(), b'{"asset":"BTC"}', b'{"id":"%b","x":1}' % (b'"' * 9)) == []
    assert live.ask(live.client(), b'{"asset":"BTC" %b}' % (b" " * 8)) == [UNAUTHORIZED]
    assert live.account().drops == {"too_short": 1, "malformed": 1}


def test_refusals_to_one_network_are_few() -> None:
    with Live(refusals_per_s=1, refusal_burst=3) as live:
        asked = [request("unknown")] * 4
        assert len(live.ask(live.client("127.0.0.8"), *asked[:2])) == 2
        assert len(live.ask(live.client("127.0.0.9"), *asked)) == 1  # of the same /24
        assert len(live.ask(live.client("127.0.1.9"), *asked)) == 3
        assert live.account().drops == {"limited": 4}
        assert len(live.ask(live.client("127.0.0.8"), request())) == 1  # good keys are no part of this


def test_networks_that_share_a_place_share_its_refusals() -> None:
    with Live(refusals_per_s=1, refusal_burst=3, networks=1) as live:
        found = [live.ask(live.client(f"127.0.{number}.9"), request("unknown")) for number in range(9)]
        assert sum(map(len, found)) == 3


# ---- sizes


def sized(size: int) -> bytes:
    plain = request()
    return plain + b" " * (size - len(plain))


@pytest.mark.parametrize(
    ("size", "drops"), [(1_200, {}), (1_201, {"oversized": 1}), (9_000, {"oversized": 1})]
)
def test_datagram_of_1200_bytes_is_the_longest(live: Live, size: int, drops: dict[str, int]) -> None:
    replies = live.ask(live.client(), sized(size))
    assert [without_age(reply) for reply in replies] == [live.told()] * (not drops)
    assert live.account().drops == drops


def test_empty_datagram_is_dropped(live: Live) -> None:
    assert live.ask(live.client(), b"") == []
    assert live.account().drops == {"empty": 1}


def test_end_of_another_clients_request_is_never_read(live: Live) -> None:
    """A datagram ends where the kernel says, not where the last one in its place did."""
    good = request(id="secret")
    first, second = live.client(), live.client()
    assert len(live.ask(first, good)) == 1
    for cut in (1, 20, len(good) - 1):
        assert live.ask(second, good[:cut]) == []
    assert live.ask(second, request("unknown")) == [UNAUTHORIZED]
    assert live.account().drops == {"truncated": 3}


# ---- which address answers


@pytest.mark.parametrize(
    ("host", "asked"),
    [("0.0.0.0", "127.0.0.5"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::", "127.0.0.5")],
)
def test_reply_comes_from_the_address_that_was_asked(host: str, asked: str) -> None:
    with Live(host) as live:
        client = live.client("::1" if ":" in asked else "127.0.0.1")
        live.send(client, request(), request(id="7"), request("unknown"), to=asked)
        live.drain()
        for _ in range(3):
            _, sender = client.recvfrom(2_000)
            assert sender[:2] == (asked, live.port)
        live.send(client, request(asset="ETH"), to=asked)
        (question,) = live.drain()
        assert live.batch.answer(question, b"late")
        assert client.recvfrom(2_000)[1][:2] == (asked, live.port)


def test_replies_from_two_of_our_addresses_do_not_leave_together() -> None:
    with Live("0.0.0.0") as live:
        client = live.client()
        for number in range(10):
            live.send(client, request(id=str(number)), to=f"127.0.0.{5 + number % 2}")
        live.drain()
        found = [client.recvfrom(2_000) for _ in range(10)]
        assert {(reply.split(b'"', 4)[3], sender[0]) for reply, sender in found} == {
            (b"%d" % number, f"127.0.0.{5 + number % 2}") for number in range(10)
        }


@pytest.mark.parametrize(("host", "asked", "interface_at"), [("0.0.0.0", "127.0.0.5", 16), ("::", "::1", 32)])
def test_routing_chooses_the_way_back_and_not_the_interface_of_the_request(
    host: str, asked: str, interface_at: int
) -> None:
    """struct cmsghdr has 16 bytes; in_pktinfo begins with the interface, in6_pktinfo ends with it."""
    with Live(host) as live:
        live.send(live.client("::1" if ":" in asked else "127.0.0.1"), request(asset="ETH"), to=asked)
        (question,) = live.drain()
        assert struct.unpack_from("=i", question.control, interface_at) == (0,)
        assert ipaddress.ip_address(asked).packed in question.control


# ---- who is not answered


privileged = pytest.mark.skipif(os.geteuid() != 0, reason="only root binds the lower ports")


@pytest.mark.parametrize(
    "port", [1_900, 5_353, 11_211, *[pytest.param(port, marks=privileged) for port in (7, 19, 53)]]
)
def test_port_of_a_reflector_is_not_answered(live: Live, port: int) -> None:
    assert live.ask(live.client("127.0.0.77", port), request(), request("unknown")) == []
    assert live.account().drops == {"bad_source": 2}


def test_our_own_address_is_not_answered(live: Live) -> None:
    live.socket.sendto(request(), ("127.0.0.1", live.port))
    live.drain()
    assert live.account().drops == {"bad_source": 1}
    same_port = live.client("127.0.0.2", live.port)
    assert len(live.ask(same_port, request())) == 1


@pytest.mark.parametrize(
    ("host", "own"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::", "::ffff:127.0.0.1")]
)
def test_our_own_address_is_not_answered_where_we_have_many(host: str, own: str) -> None:
    with Live(host) as live:
        live.socket.sendto(request(), (own, live.port))
        live.drain()
        assert live.account().drops == {"bad_source": 1}


# ---- many


def test_a_thousand_in_the_queue_are_all_answered(live: Live) -> None:
    clients = [live.client() for _ in range(10)]
    live.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    for number in range(1_000):
        live.send(clients[number % 10], request(id=str(number)))
    live.batch.drain()
    for number, client in enumerate(clients):
        assert ids(client.replies(100)) == [str(id) for id in range(number, 1_000, 10)]
    assert (live.account().received, live.account().sent) == (1_000, 1_000)


def test_budget_ends_a_drain() -> None:
    with Live(budget=2) as live:
        client = live.client()
        live.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        live.send(client, *[request()] * 200)
        for answered in (128, 200, 200):
            live.batch.drain()
            assert live.account().sent == answered
        assert len(client.replies(200)) == 200


def test_nothing_to_read_is_nothing_to_do(live: Live) -> None:
    assert live.batch.drain() == []
    assert (live.account().received, live.batch.is_blocked, live.batch.resume()) == (0, False, True)
    assert live.batch.abandon() == 0


def test_closed_socket_raises(live: Live) -> None:
    batch = Batch(-1, live.finder, live.gate, live.counters, live.spool.appender)
    with pytest.raises(OSError, match="Bad file descriptor"):
        batch.drain()


@pytest.mark.parametrize(
    "wrong", [{"budget": 0}, {"refusals_per_s": 0}, {"refusal_burst": 0}, {"networks": 0}, {"networks": 3}]
)
def test_batch_of_senseless_numbers_is_refused(live: Live, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Batch(-1, live.finder, live.gate, live.counters, live.spool.appender, **wrong)  # type: ignore[arg-type]  # all are int


def test_address_is_16_bytes(live: Live) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        live.batch.respond(request(), b"\x7f\0\0\1", 50_000, SECOND_NS, 1)
