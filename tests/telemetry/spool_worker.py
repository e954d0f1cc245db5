"""A worker of the spool's drills: ``python -m tests.telemetry.spool_worker ROOT FIRST``.

Appends numbered records for ever, one segment after another, and tells each number over its output once the
record has been appended: what a client would have received.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from tests.telemetry.spooling import keep_ready, make_log, make_spool


def main(root: Path, number: int) -> None:
    spool = make_spool(root)
    threading.Thread(target=keep_ready, args=(spool,), daemon=True).start()
    append = spool.appender.append
    while True:
        while not append(make_log(number)):
            time.sleep(0)
        os.write(1, number.to_bytes(8, "little"))
        number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
