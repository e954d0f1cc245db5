"""The simulator's own HTTP interface: what is going on, and faults on command.

``GET /control`` · ``GET /control/<exchange>``,
``GET|POST|DELETE /control/<exchange>/fault`` · ``POST /control/<exchange>/blast``; ``all`` means every one.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import msgspec

from exchanges.simulator.exchange import SimulatedExchange, UnknownAnnouncement
from exchanges.simulator.faults import KINDS, parse_fault

if TYPE_CHECKING:
    from exchanges.simulator.server import Simulator


class BlastOrder(msgspec.Struct, forbid_unknown_fields=True):
    """So many frames to every subscriber, as fast as they are taken."""

    frames: Annotated[int, msgspec.Meta(gt=0, le=5_000_000)]


def control(
    simulator: "Simulator", method: str, path: str, query: Mapping[str, str], body: bytes
) -> tuple[int, bytes]:
    """Answer one control request with a status and JSON."""
    parts = path.strip("/").split("/")
    if parts[0] != "control" or len(parts) > 3 or (len(parts) == 3 and parts[2] not in ("fault", "blast")):
        return _error(404, f"no such path: {path}")
    name = parts[1] if len(parts) > 1 else "all"
    if name != "all" and name not in simulator.exchanges:
        return _error(404, f"no exchange {name}; there are {', '.join(simulator.exchanges)}")
    exchanges = simulator.named(name)
    if len(parts) < 3:
        return _json(200, {e.name: _state(e) for e in exchanges}) if method == "GET" else _not_allowed("GET")
    if parts[2] == "blast":
        return _blast(simulator, exchanges, method, body)
    return _fault(simulator, name, method, query, body)


def _fault(
    simulator: "Simulator", name: str, method: str, query: Mapping[str, str], body: bytes
) -> tuple[int, bytes]:
    exchanges = simulator.named(name)
    status = 200
    match method:
        case "GET":
            pass
        case "POST":
            try:
                simulator.begin_fault(name, parse_fault(body))
            except (msgspec.DecodeError, UnknownAnnouncement) as error:
                return _error(400, str(error))
            status = 201
        case "DELETE":
            kind = query.get("kind", "")
            if kind and kind not in KINDS:
                return _error(400, f"no fault of kind {kind}")
            for exchange in exchanges:
                exchange.clear(kind, simulator.now_ns())
        case _:
            return _not_allowed("GET, POST, DELETE")
    return _json(status, {exchange.name: exchange.faults for exchange in exchanges})


def _blast(
    simulator: "Simulator", exchanges: list[SimulatedExchange], method: str, body: bytes
) -> tuple[int, bytes]:
    if method != "POST":
        return _not_allowed("POST")
    try:
        order = msgspec.json.decode(body, type=BlastOrder)
    except msgspec.DecodeError as error:
        return _error(400, str(error))
    for exchange in exchanges:
        simulator.begin_blast(exchange.name, order.frames)
    return _json(202, order)


def _state(exchange: SimulatedExchange) -> dict[str, object]:
    return {
        "connections": len(exchange.lines),
        "symbols": sorted({symbol for line in exchange.lines for symbol in line.session.subscribed}),
        "counts": exchange.counts,
        "faults": exchange.faults,
        "blasts": exchange.blasts,
    }


def _not_allowed(methods: str) -> tuple[int, bytes]:
    return _error(405, f"only {methods}")


def _error(status: int, text: str) -> tuple[int, bytes]:
    return _json(status, {"error": text, "kinds": KINDS} if status == 400 else {"error": text})


def _json(status: int, document: object) -> tuple[int, bytes]:
    return status, msgspec.json.encode(document)
