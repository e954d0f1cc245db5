"""Billing's only door to Valkey or Redis: what nodes have counted, and word that keys have changed.

Adapter: no Django. Each node keeps its totals in one hash per month, and tells the others over a channel
what has changed; who has not listened reads the hashes. Repeats are harmless. All names begin with the
installation's, since of two databases that use one server each has ids of its own.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, cast

import msgspec
import redis
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry as BlockingRetry

from billing.exceptions import SharingError
from telemetry.seldom import Seldom

USAGE = "tb:usage"  # …:<installation>:<month>:nodes, …:<month>:node:<node>, …:holder:<node>; channel …:told
KEYS_CHANNEL = "tb:keys"
EXPIRY_S = 62 * 86_400
HOLD_S = 10  # of a node's name, from one time to the next
CHUNK = 5_000
TIMEOUT_S = 1.0
READ_TIMEOUT_S = 10.0
ALIVE_S = 2.0  # without a word the server is asked whether it is there
RETRY_S = 0.5
ANNOUNCE_TIMEOUT_S = 0.3
ANNOUNCE_RETRY_NS = 5_000_000_000

logger = logging.getLogger(__name__)


class Told(msgspec.Struct, array_like=True):
    """A message on the usage channel: totals by key id."""

    node: str
    month: int
    totals: dict[int, int]
    instance: str
    """Of the keyring: two nodes may have one name by mistake."""


_decoder = msgspec.msgpack.Decoder(Told)


class Sharing:
    """One node's part in the exchange of counts. `aclose` when done.

    *installation* has to be set before anything else: its nodes are those that share.
    """

    def __init__(self, url: str, *, node: str) -> None:
        self._client = Redis.from_url(
            url,
            socket_connect_timeout=TIMEOUT_S,
            # Every use has a limit of its own. The library would use wait_for, which in Python 3.11 loses a
            # cancellation that comes just when the command has been sent.
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),
            max_connections=8,
        )
        self.node = node
        self.installation = ""
        self._instance = secrets.token_hex(8)
        self._holds = 0
        self._holder: bytes | None = None  # as it was last seen
        self._may_log = Seldom(time.monotonic_ns)
        self.is_listening = False
        self.malformed = 0

    async def tell(self, month: int, totals: Mapping[int, int]) -> None:
        """Store what this node has counted, and tell the others. Raises SharingError; may be repeated."""
        nodes, mine = self._nodes(month), self._totals(month, self.node)
        for chunk in _chunks(totals):
            message = msgspec.msgpack.encode(Told(self.node, month, chunk, self._instance))
            async with translated(TIMEOUT_S), self._client.pipeline(transaction=False) as pipeline:
                pipeline.sadd(nodes, self.node)
                pipeline.hset(mine, mapping=chunk)  # type: ignore[arg-type]  # integers are sent as they are
                pipeline.expire(nodes, EXPIRY_S)
                pipeline.expire(mine, EXPIRY_S)
                pipeline.publish(self._name("told"), message)
                await pipeline.execute()

    async def read(self, month: int) -> dict[str, dict[int, int]]:
        """Return the totals of every node, this one's too, as far as they are stored. Raises SharingError."""
        async with translated(READ_TIMEOUT_S):
            names = cast("set[bytes]", await self._client.smembers(self._nodes(month)))
            nodes = [name.decode() for name in names]
            return {node: await self._read_node(month, node) for node in nodes}

    async def _read_node(self, month: int, node: str) -> dict[int, int]:
        totals = {}
        # Bit by bit: the server answers the others in between.
        async for key_id, total in self._client.hscan_iter(self._totals(month, node), count=CHUNK):
            try:
                totals[int(key_id)] = int(total)
            except ValueError:
                self.malformed += 1
        return totals

    async def run(
        self,
        *,
        connected: Callable[[], Awaitable[None]],
        told: Callable[[Told], None],
        keys_changed: Callable[[], None],
    ) -> None:
        """Listen until cancelled, and connect again whenever the server was away.

        *connected* is awaited each time, when nothing can be missed any more, to read what was told before.
        """
        while True:
            try:
                await self._listen(connected, told, keys_changed)
            except SharingError as error:
                if self._may_log():
                    logger.warning("Counts are not shared with other nodes: %s", error)
            except Exception:
                if self._may_log():
                    logger.exception("Listening to other nodes failed; it is tried again and again")
            finally:
                self.is_listening = False
            await asyncio.sleep(RETRY_S)

    async def _listen(
        self,
        connected: Callable[[], Awaitable[None]],
        told: Callable[[Told], None],
        keys_changed: Callable[[], None],
    ) -> None:
        name = self._name("told")
        async with self._client.pubsub() as channel:
            async with translated(TIMEOUT_S):
                await channel.subscribe(name, KEYS_CHANNEL)
            await connected()
            self.is_listening = True
            while name == self._name("told"):  # until the database is another one
                message = await self._next(channel)
                if message["type"] != "message":
                    continue
                if message["channel"] == KEYS_CHANNEL.encode():
                    keys_changed()
                elif (row := self._parse(message["data"])) is not None and row.instance != self._instance:
                    told(row)

    async def hold_name(self) -> bool:
        """Hold this node's name for HOLD_S more; False when another keyring that is alive has it.

        What a dead one has left stays as it is until it expires. Raises SharingError.
        """
        name, before = self._name("holder", self.node), self._holder
        async with translated(TIMEOUT_S):
            self._holder = holder = cast("bytes | None", await self._client.get(name))
            if holder is None or holder.startswith(self._instance.encode()):
                self._holds += 1
                await self._client.set(name, f"{self._instance} {self._holds}", ex=HOLD_S)
                return True
        return before is None or holder == before

    async def aclose(self) -> None:
        await self._client.aclose()

    def _name(self, *parts: object) -> str:
        return ":".join(map(str, (USAGE, self.installation, *parts)))

    def _nodes(self, month: int) -> str:
        return self._name(month, "nodes")

    def _totals(self, month: int, node: str) -> str:
        return self._name(month, "node", node)

    async def _next(self, channel: PubSub) -> dict[str, Any]:  # Any: the client library's own shape
        """Wait for a message; a connection that says nothing is asked whether anybody is there."""
        async with translated(2 * ALIVE_S + TIMEOUT_S):
            message = await channel.get_message(timeout=ALIVE_S)
            if message is None:
                await channel.ping()
                message = await channel.get_message(timeout=ALIVE_S)
                if message is None:
                    raise SharingError("the server has stopped answering")
        return cast("dict[str, Any]", message)

    def _parse(self, data: bytes) -> Told | None:
        try:
            return _decoder.decode(data)
        except msgspec.DecodeError:
            self.malformed += 1
            return None


class Announcer:
    """Tells all nodes that keys have changed, for code that cannot await. A server that is away costs little.

    Nodes look at the database twice a second all the same: this only makes them look at once.
    """

    def __init__(self, url: str, *, mono_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._client = redis.Redis.from_url(
            url,
            socket_connect_timeout=ANNOUNCE_TIMEOUT_S,
            socket_timeout=ANNOUNCE_TIMEOUT_S,
            retry=BlockingRetry(NoBackoff(), 0),
        )
        self._mono_ns = mono_ns
        self._may_log = Seldom(mono_ns)
        self._not_before_ns: int | None = None

    def announce(self) -> None:
        """Publish, or give up at once; raises nothing."""
        if self._not_before_ns is not None and self._mono_ns() < self._not_before_ns:
            return
        try:
            self._client.publish(KEYS_CHANNEL, b"changed")
        except (RedisError, OSError) as error:
            self._not_before_ns = self._mono_ns() + ANNOUNCE_RETRY_NS
            if self._may_log():
                logger.warning("Nodes were not told that keys have changed, they find it later: %s", error)
        else:
            self._not_before_ns = None

    def close(self) -> None:
        self._client.close()


@asynccontextmanager
async def translated(timeout_s: float) -> AsyncIterator[None]:
    """Bound what is inside, and turn whatever the client library raises into SharingError."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        raise SharingError(str(error) or type(error).__name__) from error


def _chunks(totals: Mapping[int, int]) -> Iterator[dict[int, int]]:
    items = iter(totals.items())
    while chunk := dict(islice(items, CHUNK)):
        yield chunk
