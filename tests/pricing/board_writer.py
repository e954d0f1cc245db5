"""A process that writes one slot of a board at full speed: ``python -m tests.pricing.board_writer DIR``."""

from __future__ import annotations

import sys
from pathlib import Path

from trinity_site.shared_memory import open_board_writer

NODE, SLOTS = "Drill", 8
# Value and times are tied together, and neighbours share no digit: any mixture of two writes shows.
TEXTS = [str(number % 9 + 1) * (number % 40 + 1) for number in range(1000)]


def main(data_dir: Path) -> None:
    board = open_board_writer(NODE, data_dir, slots=SLOTS).view
    board.set_exchange("okx", source="okx-ws", quote="USDT")
    slot = board.place("BTC", "okx")
    write, values = board.write, list(enumerate(TEXTS))
    write(slot, TEXTS[0], 0, 0, 0)
    sys.stdout.write("writing\n")
    sys.stdout.flush()
    while True:
        for number, price in values:
            write(slot, price, number, number, number)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
