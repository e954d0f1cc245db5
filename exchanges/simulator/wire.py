"""Frames as bytes, and the ways to spoil them. Sans-I/O."""

import zlib
from functools import cache

from websockets.frames import Frame, Opcode


def text_frame(text: str) -> bytes:
    return bytes_of(Frame(Opcode.TEXT, text.encode()))


def bytes_of(frame: Frame) -> bytes:
    return bytes(frame.serialize(mask=False))


_PRICE_KEYS = ('"price":', '"p":', '"px":')


def cut_price(text: str) -> str:
    """Cut *text* within its first price's digits and close what is open: valid JSON, another number."""
    starts = [text.index(key) + len(key) for key in _PRICE_KEYS if key in text]
    if not starts:
        return text
    start = min(starts)
    return close_json(text[: start + 3].rstrip("."))


def close_json(text: str) -> str:
    """Add the quotes and brackets that are missing at the end of *text*."""
    open_brackets: list[str] = []
    quoted = escaped = False
    for letter in text:
        if quoted:
            quoted = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
        elif letter == '"':
            quoted = True
        elif letter in "{[":
            open_brackets.append("}" if letter == "{" else "]")
        elif letter in "}]":
            open_brackets.pop()
    return text + ('"' if quoted else "") + "".join(reversed(open_brackets))


@cache
def bomb(size: int) -> bytes:
    """Compress *size* blanks as permessage-deflate does, about a thousandth of that."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = b" " * 2**20
    parts = [packer.compress(block) for _ in range(size // len(block))]
    parts += [packer.compress(block[: size % len(block)]), packer.flush(zlib.Z_SYNC_FLUSH)]
    return b"".join(parts).removesuffix(b"\x00\x00\xff\xff")
