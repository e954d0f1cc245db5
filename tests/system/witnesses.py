"""Customers who ask one question after another and remember every answer, to be held against the usage logs.

Each has a key of its own and asks one thing at a time, so whatever is logged of a key belongs to its last
question before that. Over UDP, where an answer may be late, to the last one about that asset.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from pricing.problems import PROBLEMS
from telemetry._spool import HTTP, PRICE, PRICES, UDP, USAGE

HTTP_PATIENCE_S = 60.0  # it ends when the worker does: then nothing comes of the question any more
UDP_PATIENCE_S = 3.0
PAUSE_S = 0.003
REFUSED = (403, 429)
UNRECORDED = frozenset({"usage_unavailable", "keys_unavailable"})  # told before the gate is asked


class Customer(NamedTuple):
    key_id: int
    key: str


class Told(NamedTuple):
    """What an answer said, as far as its record says it."""

    status: int
    endpoint: int
    asset: str = ""
    """The first one, where several were asked for."""
    assets: int = 0
    exchange: str = ""
    price: str = ""
    quote: str = ""
    tier: int = 0


@dataclass(slots=True)
class Question:
    key_id: int
    protocol: int
    about: str
    """Over UDP, the first asset."""
    asked_us: int
    told: Told | None = None
    """None: no answer came, so there may be a record or none."""
    answered_us: int = 0
    several: bool = False
    records: tuple[int, int] = (0, 1)
    """How many there must be at least and at most."""

    def answer(self, told: Told, records: tuple[int, int] = (1, 1)) -> None:
        self.told, self.answered_us, self.records = told, wall_us(), records


class Witness(threading.Thread):
    """Asks until it is told to stop."""

    protocol = HTTP

    def __init__(self, port: int, customer: Customer, assets: Sequence[str], draw: random.Random) -> None:
        super().__init__(name=f"witness {customer.key_id}", daemon=True)
        self.customer = customer
        self.questions: list[Question] = []
        self.answers = 0
        self.repeated = 0  # answers to what was answered before
        self._assets = draw.sample(assets, len(assets))
        self._port, self._draw = port, draw
        self._stopping = threading.Event()

    def is_refused(self) -> bool:
        """Say whether its last answer was that there is no room for a record."""
        answered = (question for question in reversed(self.questions) if question.told is not None)
        last = next(answered, None)
        return last is not None and last.told is not None and (last.told.status, last.records[0]) == (503, 0)

    def run(self) -> None:
        with contextlib.closing(self):
            while not self._stopping.wait(PAUSE_S):
                self.ask(self._assets[len(self.questions) % len(self._assets)])
            self.finish()

    def stop(self) -> None:
        self._stopping.set()

    def ask(self, asset: str) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Wait for what may still come."""

    def close(self) -> None:
        raise NotImplementedError

    def note(self, about: str = "") -> Question:
        question = Question(self.customer.key_id, self.protocol, about, wall_us())
        self.questions.append(question)
        return question

    def is_rare(self) -> bool:
        """Say whether to ask something else than the price of one asset."""
        return self._draw.random() < 0.1


class HttpWitness(Witness):
    connection: http.client.HTTPConnection | None = None

    def ask(self, asset: str) -> None:
        if not self.is_rare():
            self.get(f"/price?asset={asset}", PRICE, asset, 1)
        elif self._draw.random() < 0.5:
            self.get(f"/prices?assets={asset},NOPE,NONE", PRICES, asset, 3)
        else:
            self.get("/usage", USAGE, "", 0)

    def get(self, path: str, endpoint: int, asset: str, assets: int) -> None:
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=HTTP_PATIENCE_S)
        question = self.note()
        try:
            self.connection.request("GET", path, headers={"X-API-Key": self.customer.key})
            answer = self.connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return
        told = json.loads(body)
        if answer.status in REFUSED:
            asset, assets = "", 0  # nobody has read what it was about
        records = (0, 0) if told.get("code") in UNRECORDED else (1, 1)
        question.answer(make_told(answer.status, endpoint, asset, assets, told), records)
        self.answers += 1

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class UdpWitness(Witness):
    protocol = UDP

    def __init__(self, port: int, customer: Customer, assets: Sequence[str], draw: random.Random) -> None:
        super().__init__(port, customer, assets, draw)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))

    def ask(self, asset: str) -> None:
        several = self.is_rare()
        asked = {"assets": [asset, "NOPE", "NONE"]} if several else {"asset": asset}
        number = str(len(self.questions))
        request = msgspec.json.encode({"api_key": self.customer.key, "id": number, **asked})
        self.note(asset).several = several
        self._socket.send(request)
        self._receive(number)

    def finish(self) -> None:
        self._receive("")

    def close(self) -> None:
        self._socket.close()

    def _receive(self, awaited: str) -> None:
        """Take what comes until the answer that is awaited; a late one belongs to its own question."""
        deadline_s = time.monotonic() + UDP_PATIENCE_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                reply = json.loads(self._socket.recv(65_535))
            except OSError:
                return
            self._take(reply)
            if reply["id"] == awaited:
                return

    def _take(self, reply: dict[str, Any]) -> None:  # Any: JSON
        question = self.questions[int(reply["id"])]
        self.repeated += question.told is not None
        self.answers += 1
        code, asset = reply.get("error"), question.about
        if code == "unavailable":  # no price, or no room for a record: the word is the same
            question.answer(make_told(503, PRICE, asset, 1, reply), (0, 1))
        elif "prices" in reply:
            question.answer(make_told(200, PRICES, asset, 3, reply))
        else:
            kind = (PRICES, asset, 3) if question.several else (PRICE, asset, 1)
            question.answer(make_told(PROBLEMS[code][0] if code else 200, *kind, reply))


def make_told(
    status: int, endpoint: int, asset: str, assets: int, answer: dict[str, Any]
) -> Told:  # Any: JSON
    if status != 200 or endpoint != PRICE:
        return Told(status, endpoint, asset, assets)
    exchange = answer.get("exchange") or answer["source"].partition("-")[0]
    return Told(status, endpoint, asset, assets, exchange, answer["price"], answer["quote"], answer["tier"])


def wall_us() -> int:
    return time.time_ns() // 1_000
