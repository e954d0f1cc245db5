"""A document of the queue as bytes: MessagePack, in which binary stays binary. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from telemetry.exceptions import Poison


def encode(document: Mapping[str, object]) -> bytes:
    return msgspec.msgpack.encode(document)


def decode(document: bytes) -> object:
    """Read what `encode` has made; Poison for bytes that are no document at all."""
    try:
        return msgspec.msgpack.decode(document)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Poison(f"it cannot be decoded ({error})") from error
