"""What gate and board have alike: other memory is refused, what is taken is held and let go of."""

from __future__ import annotations

import gc
import mmap
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from billing._gate import Gate, check_gate, format_gate, gate_size
from billing._gate_writer import GateWriter
from pricing._board import BoardReader, board_size, format_board
from pricing._board_writer import BoardWriter
from telemetry._mapped import Mapped
from telemetry.exceptions import LayoutError
from tests.twins import board as board_twin
from tests.twins import gate as gate_twin

PLACES = 6


class Layout(NamedTuple):
    name: str
    places: str  # what there is room for
    magic: int
    header_bytes: int
    size: Callable[[int], int]
    twin_size: Callable[[int], int]
    format: Callable[[Any, int], None]  # Any here and below: whatever has a buffer
    views: tuple[Callable[[Any], Mapped], ...]
    look: Callable[[Any], object]  # at memory that may be read-only

    def make(self) -> bytearray:
        memory = bytearray(self.size(PLACES))
        self.format(memory, PLACES)
        return memory


class WrittenGate(GateWriter):
    def __init__(self, buffer: Any) -> None:
        super().__init__(buffer, 1, 0)


class WrittenBoard(BoardWriter):
    def __init__(self, buffer: Any) -> None:
        super().__init__(buffer, 1, 0)


GATE = Layout(
    *("gate", "rows", 0x3130_4554_4147_5254, 128),
    *(gate_size, gate_twin.gate_size, format_gate, (Gate, WrittenGate), check_gate),
)
BOARD = Layout(
    *("board", "slots", 0x3144_5241_4F42_5254, 64),
    *(board_size, board_twin.board_size, format_board, (BoardReader, WrittenBoard), BoardReader),
)
LAYOUTS = pytest.mark.parametrize("layout", [GATE, BOARD], ids=lambda layout: layout.name)
VIEWS = pytest.mark.parametrize(
    ("layout", "view"),
    [(layout, view) for layout in (GATE, BOARD) for view in layout.views],
    ids=lambda value: getattr(value, "__name__", ""),
)


@LAYOUTS
@pytest.mark.parametrize("places", [0, -1, 2**24 + 1])
def test_impossible_number_of_places_is_refused(places: int, layout: Layout) -> None:
    with pytest.raises(ValueError, match=f"a {layout.name} has 1 to 16777216 {layout.places}"):
        layout.size(places)


@LAYOUTS
@pytest.mark.parametrize("places", [1, 2, 7, 8, 9, 150, 4096, 1_000_000])
def test_size_is_that_of_the_twin(places: int, layout: Layout) -> None:
    assert layout.size(places) == layout.twin_size(places)


@LAYOUTS
def test_format_refuses_memory_of_another_size(layout: Layout) -> None:
    with pytest.raises(LayoutError, match=f"is 100, expected {layout.size(PLACES)}"):
        layout.format(bytearray(100), PLACES)


def put(at: int, kind: str, *values: int) -> Callable[[bytearray], bytearray]:
    def spoil(memory: bytearray) -> bytearray:
        struct.pack_into(f"={kind}", memory, at, *values)
        return memory

    return spoil


OTHER_SIZE = r"size in bytes of a {name} of 6 {places} is \d+, expected"
SPOILT: dict[str, tuple[Callable[[bytearray], Any], str]] = {
    "empty": (lambda memory: bytearray(), r"size in bytes is 0, expected at least {header_bytes}"),
    "zeros": (lambda memory: bytearray(len(memory)), r"magic is 0x0{{16}}, expected {magic:#x}"),
    "foreign": (put(0, "Q", 0x2145), r"magic is 0x0*2145"),
    "other byte order": (lambda memory: memory[7::-1] + memory[8:], r"magic is 0x54"),
    "older version": (put(8, "I", 0), r"version is 0, expected 1"),
    "newer version": (put(8, "I", 2), r"version is 2, expected 1"),
    "no places": (put(12, "I", 0), r"number of {places} is 0, expected 1 to"),
    "other places": (put(12, "I", 9), r"recorded size of a {name} of 9 {places}"),
    "huge places": (put(12, "I", 2**32 - 1), r"number of {places} is 4294967295"),
    "other size": (put(16, "Q", 99), r"recorded size .* is 99, expected"),
    "other index": (put(24, "I", 2**20), r"recorded size"),
    "header alone": (lambda memory: memory[:128], OTHER_SIZE),
    "truncated": (lambda memory: memory[:-8], OTHER_SIZE),
    "too long": (lambda memory: memory + bytes(8), OTHER_SIZE),
    "unaligned": (
        lambda memory: memoryview(bytearray(b"\0" + memory))[1:],
        r"alignment is 1 bytes off, expected 8 bytes",
    ),
}


@LAYOUTS
@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT)
def test_memory_that_is_no_such_layout_is_refused(
    spoil: Callable[[bytearray], Any], message: str, layout: Layout
) -> None:
    memory = spoil(layout.make())
    for opener in (*layout.views, layout.look):
        with pytest.raises(LayoutError, match=message.format(**layout._asdict())):
            opener(memory)


@VIEWS
def test_refused_memory_is_let_go(layout: Layout, view: Callable[[Any], Mapped]) -> None:
    memory, mapped = mmap.mmap(-1, 4096), view(layout.make())
    with pytest.raises(LayoutError):
        mapped.__init__(memory)
    memory.close()


@VIEWS
def test_memory_is_held_until_its_view_is_closed(layout: Layout, view: Callable[[Any], Mapped]) -> None:
    memory = mmap.mmap(-1, layout.size(PLACES))
    layout.format(memory, PLACES)
    with view(memory) as mapped, pytest.raises(BufferError):
        memory.close()
    mapped.close()
    memory.close()


@VIEWS
def test_view_that_holds_itself_lets_go_when_it_is_collected(layout: Layout, view: type[Mapped]) -> None:
    memory = mmap.mmap(-1, layout.size(PLACES))
    layout.format(memory, PLACES)
    mapped: Any = type("Ring", (view,), {})(memory)  # Any: has an attribute more
    mapped.itself = mapped
    del mapped
    gc.collect()
    memory.close()
