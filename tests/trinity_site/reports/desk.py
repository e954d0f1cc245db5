"""A report worker's application over a real database, asked as a server would."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from billing import keys
from billing._gate import SCOPE_PRICES, GateKey
from pricing.metrics import Metrics
from telemetry.parameters import ReportParameters
from tests.pricing.doubles import World, spool_state
from tests.telemetry.reported import ACCOUNT
from trinity_site.reports.api import ReportApi
from trinity_site.reports.maker import Maker
from trinity_site.reports.room import Room

NOW_S = datetime(2026, 11, 22, 13, tzinfo=UTC).timestamp()
HEALTH_PORT = 9091
SECRET = b"s" * 32
_chance = random.Random(3)
KEY, PRICES_ONLY = keys.generate(_chance.randbytes), keys.generate(_chance.randbytes)


class Desk:
    """The application; *account_id* is whose key asks."""

    def __init__(self, account_id: int = ACCOUNT, parameters: ReportParameters | None = None) -> None:
        self.world = World()
        gate = self.world.gate
        gate.put(GateKey(keys.digest(KEY), 70, account_id=account_id))
        gate.put(GateKey(keys.digest(PRICES_ONLY), 71, account_id=account_id, flags=SCOPE_PRICES))
        self.now_s = NOW_S
        self.parameters = parameters or ReportParameters(page_rows=50)
        self.maker = Maker(SECRET, self.parameters)
        self.room = Room(self.parameters.at_once, self.parameters.at_once_of_account)
        asking = Room(self.parameters.asked_at_once, self.parameters.asked_at_once_of_account)
        self.counters = self.world.counters
        metrics = Metrics(
            self.world.board,
            gate,
            self.counters.reader,
            self.world.clock.mono_ns,
            spool=spool_state,
            tier2=None,
            worker=63,
        )
        self.api = ReportApi(
            self.maker,
            self.room,
            asking,
            self.world.admission,
            self.counters,
            metrics,
            secret=SECRET,
            health_port=HEALTH_PORT,
            wall_s=lambda: self.now_s,
            mono_ns=self.world.clock.mono_ns,
        )

    async def ask(self, target: str, **options: Any) -> Conversation:  # Any: a conversation's keywords
        conversation = Conversation(target, **options)
        await conversation.with_(self.api)
        return conversation

    async def aclose(self) -> None:
        self.maker.close()
        await self.world.aclose()


class Conversation:
    """One request and what came back; the client leaves after so many pieces, or stays."""

    def __init__(
        self,
        target: str,
        *,
        method: str = "GET",
        key: str | None = KEY,
        headers: Mapping[str, str] | None = None,
        port: int = 9090,
        leaves_after: int | None = None,
    ) -> None:
        path, _, query = target.partition("?")
        sent = {**({} if key is None else {"X-API-Key": key}), **(headers or {})}
        self._scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
            "server": ("127.0.0.1", port),
            "client": ("192.0.2.7", 50_000),
        }
        self._leaves_after = leaves_after
        self.left = asyncio.Event()
        self.pieces: list[bytes] = []
        self.is_whole = False
        self.status = 0
        self.headers: dict[str, str] = {}

    async def with_(self, api: ReportApi) -> None:
        if self._leaves_after == 0:
            self.left.set()
        await api(self._scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        self.pieces.append(message["body"])
        self.is_whole = not message.get("more_body", False)
        if self._leaves_after is not None and len(self.pieces) >= self._leaves_after:
            self.left.set()
            await asyncio.sleep(0)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)
