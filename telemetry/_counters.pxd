"""The counters' layout in shared memory, and the addition that other compiled modules inline.

One writer per row, so an addition is a plain load and a store; both are C11 atomics, so no reader sees half a number.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from *:
    uint64_t counters_load "__atomic_load_n"(const uint64_t* source, int order) noexcept nogil
    void counters_store "__atomic_store_n"(uint64_t* target, uint64_t value, int order) noexcept nogil
    int COUNTERS_RELAXED "__ATOMIC_RELAXED"
    int COUNTERS_ACQUIRE "__ATOMIC_ACQUIRE"
    int COUNTERS_RELEASE "__ATOMIC_RELEASE"

cpdef enum:
    TCP_REQUESTS
    UDP_REQUESTS
    LRS_REQUESTS
    SYNCMAP_HITS
    ELASTICACHE_HITS
    CACHE_MISSES
    UDP_PACKETS_RECEIVED
    UDP_PACKETS_DROPPED
    UDP_PACKETS_SENT
    BG_WORK_SUBMITTED
    BG_WORK_DROPPED
    BG_WORK_COMPLETED
    BATCH_ROWS_QUEUED
    DB_OPEN_CONNS
    DB_IN_USE_CONNS
    DB_WAIT_COUNT
    AUTH_FAILURES
    RATE_LIMITED
    QUOTA_EXCEEDED
    REST_FALLBACKS
    FEED_TICKS
    FEED_RECONNECTS
    STALE_REFUSALS
    GOVERNOR_DELAYS

cpdef enum:
    LAYOUT_VERSION = 1
    MAX_WORKERS = 64

cdef enum:
    COUNTERS = 24

cdef struct Header:                    # 64 bytes
    uint64_t magic                     # "TRCOUNT1"; stored last when the memory is formatted
    uint32_t version                   # LAYOUT_VERSION
    uint32_t workers                   # rows
    uint64_t size                      # bytes of the whole
    uint64_t reserved[5]

cdef struct Row:                       # 256 bytes: four cache lines that no other worker writes
    uint64_t values[COUNTERS]
    uint64_t claims                    # how many processes have counted here, one after another; 0 = never used
    uint64_t reserved[7]

cdef struct Table:
    Header header
    Row rows[MAX_WORKERS]


cdef class Counters:
    cdef Row* row                      # a row of its own when closed, so that an addition needs no check
    cdef Row nowhere
    cdef Py_buffer view
    cdef bint held


cdef inline void count(Counters counters, unsigned int index, uint64_t n) noexcept:
    """Add *n*; the caller keeps *index* below COUNTERS. A row never goes back: its next process adds on."""
    cdef uint64_t* value = &counters.row.values[index]
    counters_store(value, value[0] + n, COUNTERS_RELAXED)
