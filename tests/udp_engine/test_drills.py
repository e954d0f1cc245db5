"""Two engines that are made to talk to each other by forged senders: they fall silent."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import msgspec
import pytest

from billing._gate import ADMITTED
from telemetry._counters import DROP_REASONS
from tests.pricing.doubles import KEYS
from tests.udp_engine.datagrams import TABLE
from tests.udp_engine.live import Live, request
from tests.udp_engine.working import PricesDouble, until, working
from udp_engine import wire
from udp_engine.wire import CODES

QUIET_S = 0.03

SEVERAL = b'{"assets":["ETH","NOPE","OLD"],"api_key":"%b"}' % KEYS["partner"].encode()
REQUESTS = {
    "rate_limited": request("free"),
    "price": request(),
    "price of tier 2": request(asset="ETH"),
    "prices": SEVERAL,
    "unknown_asset": request(asset="NOPE"),
    "stale": request(asset="OLD"),
    "bad_request": request(asset="!!"),
    "unauthorized": request("unknown"),
    "revoked": request("revoked"),
    "quota_exceeded": request("pro"),
    "with an id": request(id="7"),
    "refused with an id": request("unknown", id="7"),
}
REPLIES = {
    **{code: wire.render_refusal(code, "7") for code in CODES},
    "padded": b'{"error":"stale"}' + b" " * 60,
    "retry": b'{"error":"rate_limited","retry_ms":5}',
    "a price": b'{"asset":"BTC","price":"1","quote":"USD","source":"s","ts":1,"age_ms":1,"tier":1}',
    "prices": b'{"id":"7","prices":[],"omitted":["BTC"]}',
}


class Pair:
    """Engine A, and B whose address is forged."""

    def __init__(self, first: Live, second: Live) -> None:
        self.first, self.second = first, second

    @property
    def exchanged(self) -> int:
        """Datagrams that either has received."""
        return self.first.account().received + self.second.account().received

    async def seed(self, datagram: bytes, source: Live) -> int:
        """Send to A from *source*, wait for silence, and say how many datagrams have been exchanged."""
        before = self.exchanged
        target = self.first.socket.getsockname()
        if source is self.first:
            source.socket.sendto(datagram, target)
        else:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forged:
                forged.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                forged.bind(source.socket.getsockname())
                forged.sendto(datagram, target)
        # Closed before A has read it: the answer goes to the engine at that address.
        await until(lambda: self.exchanged > before)
        seen, quiet_since, began = self.exchanged, time.monotonic(), time.monotonic()
        while time.monotonic() < quiet_since + QUIET_S and time.monotonic() < began + 1:
            await asyncio.sleep(0.005)
            if self.exchanged != seen:
                seen, quiet_since = self.exchanged, time.monotonic()
        assert time.monotonic() < began + 1, "they do not fall silent"
        return seen - before


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Live() as first, Live() as second:
        for engine in (first, second):
            engine.use_up("pro")
            while engine.gate.admit(KEYS["free"].encode(), time.monotonic_ns(), 1).code == ADMITTED:
                pass
        yield Pair(first, second)


async def test_two_engines_made_to_answer_each_other_fall_silent(pair: Pair) -> None:
    async with working(pair.first, PricesDouble()), working(pair.second, PricesDouble()):
        for name, datagram in REQUESTS.items():
            assert await pair.seed(datagram, pair.second) == 2, name
        for name, datagram in REPLIES.items():
            assert await pair.seed(datagram, pair.second) == 1, name
    first, second = pair.first.account(), pair.second.account()
    assert first.sent == second.dropped == second.drops["reply_shaped"] == len(REQUESTS)
    assert second.sent == 0
    assert first.totals["rate_limited"] == 1
    assert first.totals["quota_exceeded"] == 1
    assert first.drops == {"reply_shaped": len(REPLIES)}


async def test_engine_that_is_made_to_answer_itself_stays_silent(pair: Pair) -> None:
    async with working(pair.first, PricesDouble()):
        for name, datagram in (REQUESTS | REPLIES).items():
            assert await pair.seed(datagram, pair.first) == 1, name
    assert pair.first.account().drops == {"bad_source": len(REQUESTS | REPLIES)}


async def test_nothing_that_is_dropped_is_ever_answered(pair: Pair) -> None:
    dropped = [datagram for datagram, outcome in TABLE if outcome[0] == "drop" and len(datagram) < 2_000]
    assert len({outcome[1] for _, outcome in TABLE if outcome[0] == "drop"} - set(DROP_REASONS)) == 0
    client = pair.first.client()
    async with working(pair.first, PricesDouble()):
        pair.first.send(client, *dropped)
        await until(lambda: pair.first.account().received == len(dropped) > 100)
    account = pair.first.account()
    assert (account.sent, account.dropped, client.rest()) == (0, len(dropped), [])


def test_every_reply_is_known_for_one() -> None:
    """What the pair relies on: no request can look like a reply."""
    members = {name for reply in REPLIES.values() for name in msgspec.json.decode(reply)}
    assert {"error", "price", "prices"} <= members
    for name in REQUESTS.values():
        assert not {"error", "price", "prices"} & set(msgspec.json.decode(name))
