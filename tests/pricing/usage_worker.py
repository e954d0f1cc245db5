"""A worker of the usage drills: ``python -m tests.pricing.usage_worker FOLDER SEED``.

Answers over HTTP and UDP at random, at once and later, against the gate and the counters in FOLDER, and tells
over its output how many answers to counted questions it has given: what clients would have received.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from billing._gate import Gate
from pricing._finder import Finder
from pricing.http import make_fast_path
from telemetry._counters import Counters
from telemetry.recorder import Recorder
from tests.pricing.doubles import KEYS, START_MONO_NS, START_WALL_NS, World, ask
from tests.pricing.test_http import make_api
from tests.telemetry.spooling import SIZE, SMALL, keep_ready, make_spool
from udp_engine import slow, wire
from udp_engine._batch import Batch, Question

COUNTER_ROW = 5
ROOMY = replace(SMALL, spool_bytes=10_000 * SIZE)  # nobody empties it while hundreds of workers are killed
ASKING = [*["partner"] * 8, "unlimited", "free", "revoked", "elsewhere", "unknown"]
HOME = bytes(10) + b"\xff\xff\xc0\x00\x02\x07", 50_000, START_MONO_NS, START_WALL_NS // 10**9


def mapped(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


class Worker:
    def __init__(self, folder: Path, seed: int) -> None:
        self.chance, self.answered = random.Random(seed), 0
        world = self.world = World()
        gate = world.gate = Gate(mapped(folder / "gate"))  # type: ignore[assignment]  # it writes no rows
        counters = self.counters = Counters(mapped(folder / "counters"), COUNTER_ROW)
        world.counters.add = counters.add  # type: ignore[method-assign]
        self.spool = make_spool(folder / "spool", parameters=ROOMY)
        world.spool = self.spool  # type: ignore[assignment]  # it has an appender, too
        world.admission = world.make_admission()
        world.tick("BTC", "coinbase", "67123.450")
        self.api, appender = make_api(world), self.spool.appender
        listed = world.service.view.listed()
        time = START_MONO_NS, START_WALL_NS
        self.path = make_fast_path(world.board, gate, counters, appender, ttl_ms=13_000, clock=lambda: time)
        self.path.follow(listed)
        finder = Finder(world.board, ttl_ms=13_000, label=wire.LABEL)
        finder.follow(listed)
        self.batch, self.finder = Batch(-1, finder, gate, counters, appender), finder
        self.recorder = Recorder(appender, counters)
        self.owed: list[Question] = []

    async def run(self) -> None:
        acts: list[Callable[[], bool]] = [self.http, self.http, self.udp, self.udp, self.owe, self.settle]
        while True:
            for _ in range(50):
                self.tell(self.chance.choice(acts)())
            self.tell(await self.ordinary())

    def tell(self, counted: bool) -> None:
        if counted:
            self.answered += 1
            os.write(1, self.answered.to_bytes(8, "little"))

    def key(self) -> str:
        return KEYS[self.chance.choice(ASKING)]

    def http(self) -> bool:
        question = b"GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: %b\r\n\r\n" % self.key().encode()
        return self.path.answer(question, None, []) is not None

    async def ordinary(self) -> bool:
        target = self.chance.choice(["/price?asset=NOPE", "/prices?assets=BTC,NOPE", "/usage", "/price"])
        answer = await ask(self.api, target, key=self.key())
        return target != "/usage" and answer.status in (200, 400, 404)

    def udp(self) -> bool:
        reply = self.batch.respond(b'{"asset":"BTC","api_key":"%b"}' % self.key().encode(), *HOME)
        self.finder.learn()
        return self.given(reply)

    def owe(self) -> bool:
        names = b'{"asset":"ETH","api_key":"%b"}', b'{"assets":["ETH","UNI"],"api_key":"%b"}'
        return self.given(self.batch.respond(self.chance.choice(names) % self.key().encode(), *HOME))

    def given(self, reply: bytes | Question | None) -> bool:
        if isinstance(reply, Question):
            self.owed.append(reply)
            return False
        return reply is not None and b"price" in reply

    def settle(self) -> bool:
        if not self.owed or self.chance.random() < 0.5:  # more are owed than settled
            return False
        question = self.owed.pop(self.chance.randrange(len(self.owed)))
        self.recorder.close(slow.asked_by(question), 503)
        return True


def main(folder: Path, seed: int) -> None:
    worker = Worker(folder, seed)
    threading.Thread(target=keep_ready, args=(worker.spool,), daemon=True).start()
    asyncio.run(worker.run())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
