"""A process that writes a board at full speed: ``python -m tests.pricing.board_writer DIR [turns]``.

One slot; or, with ``turns``, a crowded board whose last row goes from one exchange to another all the time.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pricing._board import MAX_EXCHANGES
from pricing._board_writer import BoardWriter
from trinity_site.shared_memory import open_board_writer

NODE, SLOTS, CROWDED_SLOTS = "Drill", 8, 128
# The price says whose it is; names of different lengths, so that half-written ones would show.
IN_TURN = {"an exchange of many words": "1", "short": "2"}
# Value and times are tied together, and neighbours share no digit: any mixture of two writes shows.
TEXTS = [str(number % 9 + 1) * (number % 40 + 1) for number in range(1000)]


def write_one_slot(board: BoardWriter) -> None:
    board.set_exchange("okx", source="okx-ws", quote="USDT")
    slot = board.place("BTC", "okx")
    write, values = board.write, list(enumerate(TEXTS))
    write(slot, TEXTS[0], 0, 0, 0)
    say_writing()
    while True:
        for number, price in values:
            write(slot, price, number, number, number)


def take_turns(board: BoardWriter) -> None:
    for number in range(MAX_EXCHANGES - 1):
        board.set_exchange(f"e{number}", source=f"e{number}-ws", quote="USD")
        board.place("BTC", f"e{number}")
    say_writing()
    while True:
        for name, price in IN_TURN.items():
            board.set_exchange(name, source=f"{name}-ws", quote="USD")
            slot = board.place("BTC", name)
            for _ in range(20):
                board.write(slot, price, 0, 0, 0)
            board.remove("BTC", name)


def say_writing() -> None:
    sys.stdout.write("writing\n")
    sys.stdout.flush()


def main(data_dir: Path, *turns: str) -> None:
    slots = CROWDED_SLOTS if turns else SLOTS
    board = open_board_writer(NODE, data_dir, slots=slots).view
    (take_turns if turns else write_one_slot)(board)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
