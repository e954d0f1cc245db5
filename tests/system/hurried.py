"""`manage.py` for drills: a node whose waits are short, and whose messages may be shuffled.

What the ledger does not have after two seconds is sent again, not after a minute; what has died is started
again after half a second at most. With TEST_UNRULY the shipper's messages are published late, twice, and in
another order, and some of them never.
"""

import functools
import os
import random
import sys
from collections.abc import Callable

from django.core.management import execute_from_command_line

from telemetry import carriers, packing
from trinity_site import roles, supervisor

MOST_HELD = 8
LOST = 0.1

Publish = Callable[[bytes], None]


def unruly(publish: Publish) -> Publish:
    """Return a way to *publish* that keeps some messages back and then publishes any of them, up to twice."""
    held: list[bytes] = []

    def publish_some(document: bytes) -> None:
        held.append(document)
        random.shuffle(held)
        while len(held) > random.randrange(MOST_HELD):
            one = held.pop()
            for _ in range(0 if random.random() < LOST else random.randint(1, 2)):
                publish(one)

    return publish_some


class UnrulyQueue(carriers.Queued):
    def __init__(self, publish: Publish, *, timeout_s: float) -> None:
        super().__init__(unruly(publish), timeout_s=timeout_s)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trinity_site.settings.dev")
    packing.PATIENCE_NS = 2_000_000_000
    packing.MOST_DOUBLINGS = 1
    supervisor.Life = functools.partial(supervisor.Life, cap_s=0.5)  # type: ignore[misc,assignment]  # a hurry
    roles.manage = lambda settings: (sys.executable, "-m", "tests.system.hurried")
    if os.environ.get("TEST_UNRULY"):
        carriers.Queued = UnrulyQueue  # type: ignore[misc]  # before the command imports it
    execute_from_command_line(sys.argv)
