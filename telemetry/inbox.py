"""What a queue brings, routed by its type, and whose fault it is when it cannot be written."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError

from telemetry import envelope
from telemetry.documents import decode
from telemetry.exceptions import Poison
from telemetry.ledger import set_aside, write_envelopes

TRIES = 5
FIRST_PAUSE_S = 0.05

logger = logging.getLogger(__name__)


def take(document: bytes) -> None:
    """Write a document, or set it aside with the reason. Raises only when the database is at fault.

    What nobody has foreseen is tried five times within about a second: it may have been the moment.
    """
    for attempt in range(TRIES):
        try:
            route(document)
        except Poison as poison:
            return keep_aside(document, str(poison))
        except Exception as error:
            if is_outage(error):
                raise
            if attempt == TRIES - 1:
                logger.exception("An envelope could not be written: it is set aside")
                return keep_aside(document, f"{type(error).__name__}: {error}")
            time.sleep(random.uniform(0, FIRST_PAUSE_S * 2**attempt))
        else:
            return None
    return None


def route(document: bytes) -> None:
    """Hand a document to who takes its type."""
    content = decode(document)
    kind = content.get("type") if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in ROUTES:
        raise Poison("nobody takes its type")
    ROUTES[kind](content)


def is_outage(error: Exception) -> bool:
    """Say whether the database could not be asked or could not do it now; what was asked may be all right."""
    if isinstance(error, DataError | IntegrityError):
        return False
    return isinstance(error, DatabaseError | InterfaceError)


def keep_aside(document: bytes, reason: str) -> None:
    logger.error("An envelope is set aside: %s", reason)
    set_aside(document, reason)


def _usage_log(content: object) -> None:
    write_envelopes([envelope.unpack(content)])


ROUTES: dict[str, Callable[[object], None]] = {envelope.TYPE: _usage_log}
