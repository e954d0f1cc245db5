"""A plain client of the simulator: the websockets library, and HTTP by hand."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect

from exchanges.simulator.dialects import DIALECTS
from exchanges.simulator.server import Simulator

FAST = 200.0  # trades a second, so that tests need not wait


@asynccontextmanager
async def subscribed(
    sim: Simulator, name: str, *assets: str, **options: Any
) -> AsyncIterator[ClientConnection]:
    """Connect and subscribe to *assets* (BTC and ETH when none are named). Any: the library's own options."""
    dialect = DIALECTS[name]
    symbols = [dialect.NOTATION.symbol(asset) for asset in assets or ("BTC", "ETH")]
    options = {"ping_interval": None, "close_timeout": 0.2, "max_size": 2**20, "proxy": None} | options
    async with connect(sim.ws_url(name), **options) as client:
        for frame in dialect.request(symbols, sim.now_ns()):
            await client.send(frame)
        await sim.until(lambda: any(line.session.subscribed for line in sim.exchange(name).lines))
        yield client


async def frames_until(client: ClientConnection, wanted: str, *, timeout_s: float = 5.0) -> list[str]:
    """Read up to and including the first frame with *wanted* in it."""
    frames: list[str] = []
    async with asyncio.timeout(timeout_s):
        while not frames or wanted not in frames[-1]:
            frame = await client.recv()
            assert isinstance(frame, str)
            frames.append(frame)
    return frames


async def quiet(client: ClientConnection, *, seconds: float = 0.3) -> list[str]:
    """Return the frames of the next moment."""
    frames: list[str] = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                frames.append(str(await client.recv()))
    except TimeoutError:
        return frames


async def http(method: str, url: str, body: object = None, **headers: str) -> tuple[int, Any]:  # Any: JSON
    """Send one HTTP request and return the status and the body, as JSON when it is."""
    status, _, content = await raw_http(method, url, body, **headers)
    try:
        return status, json.loads(content)
    except ValueError:
        return status, content.decode("latin-1")


async def raw_http(method: str, url: str, body: object = None, **headers: str) -> tuple[int, str, bytes]:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
    target = address.path + (f"?{address.query}" if address.query else "")
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + content)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    top, _, rest = answer.partition(b"\r\n\r\n")
    return int(top.split(b" ", 2)[1]), top.decode("latin-1"), rest
