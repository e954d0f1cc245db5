"""Usage records filled in by the compiled modules that answer: HTTP's fast path, the UDP batch. All of it is inlined."""
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint16_t
from libc.string cimport memcpy, memset

from billing._gate cimport GateVerdict
from pricing._board cimport PriceCopy
from pricing._finder cimport Label
from pricing._text cimport Text
from telemetry._spool cimport NAME_BYTES, PRICE, PRICE_BYTES, QUOTE_BYTES, Record


cdef inline void record_question(
    Record* record, const GateVerdict* verdict, const Text* asset, uint8_t protocol, int64_t wall_ns, int64_t took_ns
) noexcept nogil:
    """Fill in who has asked for an asset, read at *wall_ns*; what is told of it is still nothing, and it is not counted."""
    took_ns = took_ns if took_ns > 0 else 0
    memset(record, 0, sizeof(Record))
    record.time_ns = wall_ns + took_ns
    record.key_id = verdict.key_id
    record.account_id = verdict.account_id
    record.latency_us = took_ns // 1_000 if took_ns // 1_000 < UINT32_MAX else UINT32_MAX
    record.assets = 1
    record.protocol = protocol
    record.endpoint = PRICE
    memcpy(record.asset, asset.at, asset.length if asset.length < NAME_BYTES else NAME_BYTES)


cdef inline void record_price(
    Record* record, const GateVerdict* verdict, const PriceCopy* price, const Label* label
) noexcept nogil:
    """Fill in a price of the board that was told, and that the gate has counted the question."""
    record.month = verdict.month
    record.status = 200
    record.tier = 1
    record.source = label.source
    record.flags = label.flags
    memcpy(record.exchange, label.exchange, NAME_BYTES)
    memcpy(record.price, price.price, PRICE_BYTES)
    memcpy(record.quote, label.quote, QUOTE_BYTES)
