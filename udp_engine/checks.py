"""What must hold before the UDP engine starts."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning, register

from udp_engine.parameters import Parameters
from udp_engine.sockets import enlarge, open_socket


@register()
def check_buffer(**kwargs: Any) -> list[CheckMessage]:  # Any: Django's own
    """Ask for what the engine will ask for, and see what comes back."""
    if not settings.TRINITY_UDP_WORKERS:
        return []
    wanted_bytes = Parameters().buffer_bytes
    try:
        with open_socket("127.0.0.1", 0) as trial:
            given_bytes = enlarge(trial, wanted_bytes).receive_bytes
    except OSError:
        return []  # where no socket can be made at all, the engine says so itself
    if given_bytes >= wanted_bytes:
        return []
    return [
        Warning(
            f"A UDP socket gets a receive buffer of {given_bytes:,} bytes, not {wanted_bytes:,}.",
            hint=f"Bursts are lost sooner. As root: sysctl -w net.core.rmem_max={wanted_bytes}"
            f" net.core.wmem_max={wanted_bytes}",
            id="udp_engine.W001",
        )
    ]
