"""The counters' layout in shared memory, and the additions that other compiled modules inline.

A row per worker: the 24 counters, datagrams dropped by reason, latencies in buckets. One writer per row, so an addition
is a plain load and a store; both are C11 atomics, so no reader sees half a number.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from *:
    uint64_t counters_load "__atomic_load_n"(const uint64_t* source, int order) noexcept nogil
    void counters_store "__atomic_store_n"(uint64_t* target, uint64_t value, int order) noexcept nogil
    int highest_bit "63 - __builtin_clzll"(uint64_t value) noexcept nogil    # of one that is not 0
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

cpdef enum:                            # why a datagram was not answered
    DROPPED_KERNEL                     # by the kernel: the socket's buffer was full
    DROPPED_BAD_SOURCE                 # from a port that is nobody's, a reflector's, or our own
    DROPPED_EMPTY
    DROPPED_OVERSIZED
    DROPPED_NOT_UTF8
    DROPPED_MALFORMED                  # no JSON object
    DROPPED_TRUNCATED                  # ends too early
    DROPPED_TOO_DEEP
    DROPPED_BAD_ESCAPE
    DROPPED_DUPLICATE_FIELD
    DROPPED_REPLY_SHAPED               # looks like an answer: to answer it could go on for ever
    DROPPED_TOO_SHORT                  # shorter than the refusal that would answer it
    DROPPED_LIMITED                    # its network has had its refusals for now
    DROPPED_SHED                       # too many wait for the lower tiers
    DROPPED_UNSENT                     # the kernel did not take the reply
    DROPPED_STOPPED                    # still waiting when the worker had to leave

cpdef enum:                            # what latencies are of
    HTTP_LATENCY
    UDP_LATENCY

cpdef enum:
    LAYOUT_VERSION = 2
    MAX_WORKERS = 80
    LATENCY_BUCKETS = 224              # eight for each doubling, from LOWEST_LATENCY_NS on
    LOWEST_LATENCY_NS = 128

cdef enum:
    COUNTERS = 24
    REASONS = 16
    REASON_PLACES = 24
    LATENCIES = 2
    LOWEST_BIT = 7                     # of LOWEST_LATENCY_NS

cdef struct Header:                    # 64 bytes
    uint64_t magic                     # "TRCOUNT1"; stored last when the memory is formatted
    uint32_t version                   # LAYOUT_VERSION
    uint32_t workers                   # rows
    uint64_t size                      # bytes of the whole
    uint64_t epoch                     # wall clock in ns when it was made: what was counted before is not in it
    uint64_t mono_epoch                # CLOCK_MONOTONIC in ns of the same instant
    uint64_t reserved[3]

cdef struct Row:                       # 4,096 bytes: cache lines that no other worker writes
    uint64_t values[COUNTERS]
    uint64_t claims                    # how many processes have counted here, one after another; 0 = never used
    uint64_t socket                    # SO_COOKIE of the worker's UDP socket, which outlives the worker
    uint64_t kernel_drops              # of that socket, as counted here: the kernel's own count wraps at 2^32
    uint64_t rcvbuf_bytes              # what the kernel gave
    uint64_t sndbuf_bytes
    uint64_t took_ns[LATENCIES]        # what the answers in the buckets took together
    uint64_t reserved
    uint64_t drops[REASON_PLACES]
    uint64_t refused                   # questions not answered for want of room in the usage spool
    uint64_t shed                      # and answered without a record
    uint64_t spare[6]
    uint64_t latency[LATENCIES][LATENCY_BUCKETS]

cdef struct Table:
    Header header
    Row rows[MAX_WORKERS]


cdef class Counters:
    cdef Row* row                      # a row of its own when closed, so that an addition needs no check
    cdef Row nowhere
    cdef Py_buffer view
    cdef bint held


cdef inline void count(Counters counters, unsigned int index, uint64_t n) noexcept nogil:
    """Add *n*; the caller keeps *index* below COUNTERS. A row never goes back: its next process adds on."""
    cdef uint64_t* value = &counters.row.values[index]
    counters_store(value, value[0] + n, COUNTERS_RELAXED)


cdef inline void drop(Counters counters, unsigned int reason, uint64_t n) noexcept nogil:
    """Count *n* datagrams as not answered; the caller keeps *reason* below REASONS."""
    cdef uint64_t* value = &counters.row.drops[reason]
    counters_store(value, value[0] + n, COUNTERS_RELAXED)
    count(counters, UDP_PACKETS_DROPPED, n)


cdef inline unsigned int latency_bucket(uint64_t ns) noexcept nogil:
    """Eight buckets for each doubling: a bucket's bounds are at most an eighth apart."""
    cdef int bit
    cdef unsigned int bucket
    if ns < LOWEST_LATENCY_NS:
        return 0
    bit = highest_bit(ns)
    bucket = <unsigned int>((bit - LOWEST_BIT) * 8 + ((ns >> (bit - 3)) & 7))
    return bucket if bucket < LATENCY_BUCKETS else LATENCY_BUCKETS - 1


cdef inline void note_latency(Counters counters, unsigned int kind, uint64_t ns, uint64_t n) noexcept nogil:
    """Count *n* answers that each took *ns*."""
    cdef uint64_t* value = &counters.row.latency[kind][latency_bucket(ns)]
    cdef uint64_t* took = &counters.row.took_ns[kind]
    counters_store(value, value[0] + n, COUNTERS_RELAXED)
    counters_store(took, took[0] + ns * n, COUNTERS_RELAXED)
