"""What travels from a node to the database: some places of one segment, with the records in them. Pure.

| field | is |
|---|---|
| `v`, `type` | 1, `usage_log`: `type` says who takes it, so another kind of write needs no new queue |
| `node`, `segment`, `boot_ns` | which segment, and when the process that wrote it began |
| `offset`, `count` | the places from *offset*, counted from 0: damaged ones are among them |
| `damaged` | places in which no whole record was found |
| `final` | no place comes after these, ever; *count* may then be 0 |
| `tally` | the five words of the process, as the segment's header has them |
| `payload` | the whole records one after another, compressed |
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from typing_extensions import Buffer

from telemetry._rows import clean
from telemetry._spool import HEADER_BYTES, MAX_SEGMENT_BYTES, NODE_BYTES, RECORD_BYTES, Tally
from telemetry.exceptions import Poison

VERSION = 1
TYPE = "usage_log"
MOST = 65_536
"""Places of one envelope at most: 10 MiB of records."""
LAST_PLACE = (MAX_SEGMENT_BYTES - HEADER_BYTES) // RECORD_BYTES
BIGGEST = 2**63 - 1  # what a database's number holds
MOST_ROWS = 2**31 - 1
PAYLOAD_BYTES = MOST * RECORD_BYTES + 16_384  # of records that cannot be compressed
LEVEL = 1  # records are alike: higher levels cost several times as much and gain a tenth
NODE = re.compile(r"[^\0\ud800-\udfff]+")  # what a database takes as text
SEGMENT = re.compile(r"(0|[1-9][0-9]*)-(0|[1-9][0-9]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The places [offset, offset + count) of a segment. It may overlap others, and come twice, or late."""

    node: str
    segment: str
    boot_ns: int
    offset: int
    count: int
    damaged: int
    final: bool
    tally: Tally
    payload: bytes = field(repr=False)

    @property
    def end(self) -> int:
        return self.offset + self.count


def pack(envelope: Envelope) -> dict[str, object]:
    """Make the document that a queue carries."""
    fields = {name: getattr(envelope, name) for name in FIELDS}
    return {"v": VERSION, "type": TYPE} | fields | {"tally": list(envelope.tally)}


def unpack(document: object) -> Envelope:
    """Read a document from a queue; Poison for whatever `pack` does not make. The payload is not opened."""
    if not isinstance(document, Mapping):
        raise Poison("it is no mapping")
    if (document.get("v"), document.get("type")) != (VERSION, TYPE):
        raise Poison("it is of another version or type")
    if document.keys() - {"v", "type"} != FIELDS.keys():
        raise Poison(f"its fields are not {', '.join(FIELDS)}")
    for name, is_good in FIELDS.items():
        if not is_good(document[name]):
            raise Poison(f"its {name} cannot be")
    fields = {name: document[name] for name in FIELDS}
    envelope = Envelope(**(fields | {"tally": Tally(*fields["tally"])}))
    if envelope.end > LAST_PLACE:
        raise Poison("no segment has so many places")
    if envelope.damaged > envelope.count:
        raise Poison("more places are damaged than there are")
    return envelope


def compress(records: Buffer) -> bytes:
    return zlib.compress(records, LEVEL)


def read_records(envelope: Envelope) -> memoryview:
    """Open the payload: whole records by their places, whose texts are UTF-8. Poison when they do not fit."""
    expected = (envelope.count - envelope.damaged) * RECORD_BYTES
    decompressor = zlib.decompressobj()
    try:
        found = bytearray(decompressor.decompress(envelope.payload, expected + 1))
    except zlib.error as error:
        raise Poison(f"its payload cannot be decompressed ({error})") from error
    if len(found) != expected or not decompressor.eof or decompressor.unused_data:
        raise Poison("its payload is not as long as it says")
    if not clean(found, envelope.offset, envelope.end):
        raise Poison("its records are not those of its places")
    return memoryview(found)


def _is_node(value: object) -> bool:
    if not isinstance(value, str) or NODE.fullmatch(value) is None:
        return False
    return len(value.encode()) <= NODE_BYTES


def _number(most: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and 0 <= value <= most


def _is_segment(value: object) -> bool:
    if not isinstance(value, str) or len(value) > 30 or (parts := SEGMENT.fullmatch(value)) is None:
        return False
    return int(parts[1]) <= MOST_ROWS and int(parts[2]) <= BIGGEST


def _is_tally(value: object) -> bool:
    if not isinstance(value, list | tuple) or len(value) != len(Tally._fields):
        return False
    return all(map(_number(BIGGEST), value))


def _is_payload(value: object) -> bool:
    return isinstance(value, bytes) and len(value) <= PAYLOAD_BYTES


FIELDS: dict[str, Callable[[object], bool]] = {
    "node": _is_node,
    "segment": _is_segment,
    "boot_ns": _number(BIGGEST),
    "offset": _number(LAST_PLACE),
    "count": _number(MOST),
    "damaged": _number(MOST),
    "final": lambda value: isinstance(value, bool),
    "tally": _is_tally,
    "payload": _is_payload,
}
