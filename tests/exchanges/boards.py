"""A board in ordinary memory with a feed's status on it, for what reads boards."""

from types import SimpleNamespace
from typing import Any

from exchanges.feed.status import FeedStatus, NodeStatus, encode_status
from pricing._board import STATUS_BYTES, board_size, format_board
from pricing._board_writer import BoardWriter

NOW_NS = 1_000_000_000_000
"""CLOCK_MONOTONIC of a test."""
WALL_NS = 1_763_816_400_000_000_000


def make_board(mono_ns: int = NOW_NS, **feeds: FeedStatus) -> BoardWriter:
    """Return a board whose writer has just beaten and reports *feeds*."""
    buffer = bytearray(board_size(64))
    format_board(buffer, 64)
    board = BoardWriter(buffer, pid=1, mono_ns=mono_ns)
    for name in feeds:
        board.set_exchange(name, source=f"{name}-ws", quote="USD")
    status = NodeStatus(generated_ns=WALL_NS, feeds=feeds)
    board.write_status(encode_status(status, limit_bytes=STATUS_BYTES))
    board.beat(mono_ns)
    return board


def write_price(board: BoardWriter, asset: str, exchange: str, price: str, *, mono_ns: int = NOW_NS) -> None:
    board.write(board.place(asset, exchange), price, WALL_NS, WALL_NS, mono_ns)


def state_with(board: BoardWriter) -> dict[str, Any]:  # Any: ASGI's lifespan state
    """Return the state that a server gives its requests."""
    return {"runtime": SimpleNamespace(board=board)}
