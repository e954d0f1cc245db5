"""The gate's layout in shared memory: who may ask, how often, and what has been counted.

One writer of rows, any number of processes that judge and count, no lock. Every word is stored whole, and what
decides together shares a word: readers never wait, and a writer killed anywhere leaves each limit old or new.
Numbers are in the machine's own byte order; the magic tells a foreign one.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from telemetry._mapped cimport Mapped

cdef extern from *:
    """
    static inline int gate_swap(uint64_t *target, uint64_t *seen, uint64_t value) {
        return __atomic_compare_exchange_n(target, seen, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
    """
    uint64_t load "__atomic_load_n"(const uint64_t* source, int order) noexcept nogil
    void store "__atomic_store_n"(uint64_t* target, uint64_t value, int order) noexcept nogil
    bint swap "gate_swap"(uint64_t* target, uint64_t* seen, uint64_t value) noexcept nogil    # *seen* is made current
    void fence "__atomic_thread_fence"(int order) noexcept nogil
    void fetch "__builtin_prefetch"(const void* at, int for_writing) noexcept nogil
    int RELAXED "__ATOMIC_RELAXED"
    int ACQUIRE "__ATOMIC_ACQUIRE"
    int RELEASE "__ATOMIC_RELEASE"

cpdef enum:
    LAYOUT_VERSION = 1
    KEY_BYTES = 46                     # of a key's text: prefix, secret, checksum
    MAX_ROWS = 16_777_216
    MAX_NETWORKS = 8                   # per key
    MAX_BURST = 1_048_575

cpdef enum:                            # verdicts, as billing.admission.Code has them
    ADMITTED
    MALFORMED
    UNKNOWN
    REVOKED
    EXPIRED
    WRONG_NETWORK
    WRONG_SCOPE
    QUOTA_EXCEEDED
    RATE_LIMITED

cpdef enum:                            # flags of a key
    PARTNER = 1                        # no rate, no cap
    SCOPE_PRICES = 2
    SCOPE_REPORTS = 4
    DEMO = 8

cdef enum:
    FREE = 0                           # states of a row
    LIVE = 1
    BARRED = 2                         # revoked, and remembered
    COUNT_BITS = 46                    # of a count below its month, and of milliseconds
    EMISSION_BITS = 44                 # of a rate below its burst
    READ_TRIES = 8
    MILLISECOND_NS = 1_000_000

cdef struct Header:                    # 128 bytes
    uint64_t magic                     # "TRGATE01"; stored last when a gate is formatted
    uint32_t version                   # LAYOUT_VERSION
    uint32_t rows                      # capacity
    uint64_t size                      # bytes of the whole gate
    uint32_t index_entries             # a power of two, at least twice the rows
    uint32_t network_lists             # capacity
    uint64_t generation                # how many writers there have been
    int64_t writer_pid
    int64_t heartbeat_mono_ns          # CLOCK_MONOTONIC of the writer's last beat
    uint64_t keys                      # rows that are not free
    uint64_t month                     # 202611 << 46 | millisecond of CLOCK_MONOTONIC at which the next begins, 0 = unknown
    uint64_t moves                     # of entries of the index to other places; odd while one is under way
    uint64_t reserved[6]

cdef struct Row:                       # 128 bytes: a cache line that is read, one that is written with every answer
    uint64_t digest[4]                 # SHA-256 of the key's text; never changes while the row is not free
    uint64_t key_id                    # of the database; likewise
    uint64_t rate                      # burst << 44 | emission in ns; 0 = no rate limit
    uint64_t cap                       # requests per month; 0 = none
    uint64_t status                    # expires_s << 32 | plan << 16 | flags << 8 | state
    uint64_t tat_ns                    # GCRA: when the bucket will be full, by CLOCK_MONOTONIC
    uint64_t used[2]                   # month << 46 | count, of odd and of even months
    uint64_t others                    # month << 46 | count of the other nodes
    uint64_t last_used_s               # wall clock
    uint64_t networks                  # change << 40 | how many << 32 | list + 1; 0 = from anywhere
    uint64_t account_id
    uint64_t revision                  # of the database's row; an older one changes nothing

cdef struct NetworkList:               # 136 bytes
    uint64_t addresses[MAX_NETWORKS][2]
    uint64_t prefixes                  # a byte each, the first one lowest

cdef struct GateMemory:                # where the parts of one mapped gate are; filled by map_gate alone
    Header* header                     # NULL once closed
    uint64_t* index                    # open addressing: high half of the digest's first word << 32 | row + 1
    Row* rows
    NetworkList* lists
    uint64_t size

cdef struct GateVerdict:               # what billing._gate.Verdict has
    int code
    int32_t row                        # -1: nobody's
    uint64_t key_id                    # known to every refusal that names a key
    uint64_t account_id
    uint16_t plan
    uint8_t flags
    uint32_t limit                     # burst; 0 = no rate limit
    uint64_t emission_ns
    uint32_t remaining                 # at once, after this one
    uint64_t reset_ns                  # until there is one more; 0 = the bucket is full
    uint64_t cap                       # 0 = none
    uint64_t cap_remaining
    uint64_t cap_reset_ns              # until the next month; 0 = unknown
    uint32_t month                     # 202611
    uint64_t retry_after_ns            # of a 429


cdef inline uint64_t low_bits(int bits) noexcept nogil:
    """So many ones: what a word that holds two numbers is cut with."""
    return (<uint64_t>1 << bits) - 1


cdef const uint8_t* digest_of(bytes digest) except NULL
cdef tuple networks_of(const GateMemory* gate, uint64_t word)


cdef class Gate(Mapped):
    cdef GateMemory memory             # for modules that cimport; header is NULL once closed

    cdef int check_open(self) except -1
    cdef Row* row_at(self, int64_t row) except NULL
