"""Frames per second from a loopback WebSocket to the board, on one core: the product's own connection and
intake.

    python -m tests.benchmarks.bench_socket [--frames 200000] [--exchange okx]

A child process serves ready-made single-trade frames as fast as they are taken. Prints one JSON document:
the rate on the wall clock, and CPU per frame of the receiving process with the rate that one core of its
own would give.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import uvloop

from exchanges.feed.connection import FeedConnection, Network
from exchanges.feed.intake import Intake
from exchanges.feed.protocol import FeedProtocol
from exchanges.feed.spec import Listing
from pricing._board import board_size, format_board
from pricing._board_writer import BoardWriter
from tests.benchmarks.bench_frames import ASSET, STEP_NS, shipped, single_trade_frames

_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_CHUNK_FRAMES = 400


def _wire(text: str) -> bytes:
    """Return an unmasked text frame (RFC 6455 section 5.2)."""
    payload = text.encode()
    length = len(payload)
    header = bytes((0x81, length)) if length < 126 else b"\x81\x7e" + length.to_bytes(2, "big")
    return header + payload


def serve(exchange: str, frames: int, ready: Connection) -> None:
    """Serve one connection: the handshake, every frame, a close. Runs in the child."""
    start_ns = time.time_ns() - frames * STEP_NS
    symbol, texts = single_trade_frames(exchange, frames, start_ns)
    chunks = [
        b"".join(_wire(text) for text in texts[at : at + _CHUNK_FRAMES])
        for at in range(0, frames, _CHUNK_FRAMES)
    ]

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        accept = base64.b64encode(hashlib.sha1(key.split(b": ")[1] + _ACCEPT).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        await reader.read(1)  # the subscription
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
        writer.write(b"\x88\x02\x03\xe8")
        await reader.read(8)  # the answer; then a server is the one to close (RFC 6455 section 7.1.1)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(conversation, "127.0.0.1", 0)
        ready.send((symbol, server.sockets[0].getsockname()[1]))
        await server.serve_forever()

    uvloop.run(main())


class _Timed(FeedProtocol):
    """Notes when the conversation began: dialling is no part of the rate."""

    began_cpu_ns = began_wall_ns = 0

    def opened(self, wall_ns: int, mono_ns: int) -> None:
        self.began_cpu_ns, self.began_wall_ns = time.process_time_ns(), time.perf_counter_ns()
        super().opened(wall_ns, mono_ns)


async def receive(exchange: str, symbol: str, port: int, frames: int) -> dict[str, Any]:
    spec = msgspec.structs.replace(shipped(exchange), ws_url=f"ws://127.0.0.1:{port}/")
    memory = bytearray(board_size(64))
    format_board(memory, 64)
    intake = Intake(spec, BoardWriter(memory, 1, 1))
    intake.follow([Listing(asset=ASSET, exchange=exchange, symbol=symbol)])
    protocol = _Timed(spec, [symbol], uuid=lambda: "")

    async def no_token(url: str, network: Network) -> bytes:
        raise ConnectionError(url)

    connection = FeedConnection(
        protocol, network=Network(allow_loopback=True), sink=intake, ask_token=no_token
    )
    await connection.run()
    cpu_ns = time.process_time_ns() - protocol.began_cpu_ns
    wall_ns = time.perf_counter_ns() - protocol.began_wall_ns
    if intake.written < frames * 0.99:
        raise RuntimeError(f"only {intake.written} of {frames} frames reached the board: {intake.refusals}")
    return {
        "exchange": exchange,
        "frames": frames,
        "frames_per_s": round(frames * 1e9 / wall_ns),
        "cpu_us_per_frame": round(cpu_ns / frames / 1000, 2),
        "frames_per_s_of_one_core": round(frames * 1e9 / cpu_ns),
    }


def measure(*, frames: int, exchange: str = "okx", rounds: int = 3) -> dict[str, Any]:
    """Return the round with the least CPU per frame."""
    own, other = sorted(os.sched_getaffinity(0))[:2] if len(os.sched_getaffinity(0)) > 1 else (None, None)
    results = []
    for _ in range(rounds):
        here, there = multiprocessing.Pipe()
        child = multiprocessing.get_context("spawn").Process(
            target=serve, args=(exchange, frames, there), daemon=True
        )
        child.start()
        try:
            symbol, port = here.recv()
            if own is not None and child.pid is not None:
                os.sched_setaffinity(child.pid, {other})
                os.sched_setaffinity(0, {own})
            results.append(uvloop.run(receive(exchange, symbol, port, frames)))
        finally:
            child.terminate()
            child.join()
            if own is not None:
                os.sched_setaffinity(0, {own, other})
    return min(results, key=lambda result: result["cpu_us_per_frame"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--exchange", default="okx")
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
