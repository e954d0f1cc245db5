# cython: language_level=3, boundscheck=False, wraparound=False
"""Appends without Python in between; compiled by bench_spool.py when it runs."""
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset
from telemetry._spool cimport (
    APPENDED, HTTP, NAME_BYTES, PRICE, PRICE_BYTES, QUOTE_BYTES, WS, Appender, Record, spool_append,
    spool_text,
)


cdef void fill(Record* record, uint64_t number) noexcept nogil:
    """What a worker has at hand when it has answered: numbers, and texts with their lengths."""
    record.time_ns = <uint64_t>1763816400 * 1000000000 + number
    record.key_id = number & 0xFFFF
    record.account_id = number & 0xFFF
    record.month = 202611
    record.latency_us = number & 0xFF
    record.status = 200
    record.assets = 1
    record.tier = 1
    record.source = WS
    record.flags = 0
    record.protocol = HTTP
    record.endpoint = PRICE
    spool_text(record.asset, NAME_BYTES, "BTC", 3)
    spool_text(record.exchange, NAME_BYTES, "coinbase", 8)
    spool_text(record.price, PRICE_BYTES, "67123.45", 8)
    spool_text(record.quote, QUOTE_BYTES, "USD", 3)


def append_all(Appender appender, int64_t count):
    """Fill in and append *count* records; gives how many found room."""
    cdef int64_t number, appended = 0
    cdef Record record
    with nogil:
        for number in range(count):
            fill(&record, number)
            appended += spool_append(&appender.memory, &record) == APPENDED
    return appended


def fill_all(int64_t count):
    """The same without appending: what is no part of it."""
    cdef int64_t number
    cdef uint64_t sum = 0
    cdef Record record
    with nogil:
        for number in range(count):
            fill(&record, number)
            sum += record.time_ns + record.asset[number & 31]
    return sum
