"""What keeps the log readable when strangers decide how often something is said."""

import logging
import time

from telemetry import seldom


class Seldom(logging.Filter):
    """Let one record a minute through, in one line."""

    def __init__(self) -> None:
        super().__init__()
        self._may_log = seldom.Seldom(time.monotonic_ns)

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = None  # the traceback tells of this program, which did nothing wrong
        return self._may_log()
