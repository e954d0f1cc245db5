"""The layout of a spool segment, and the append that other compiled modules call.

A segment is a page of header and then records of one size, in a file that is mapped by its one writer. A record
counts from the store of its last word on: that is stored last, so a writer killed anywhere leaves at most one
record that does not count, whose answer has not been sent. Counts in the header carry their own checksum.
Numbers are in the machine's own byte order; the magic tells a foreign one.

An answer is bracketed, so that what a killed process was doing can be told afterwards:

    at once:    spool_admits, spool_enter, the gate, spool_append, spool_leave, and it is sent
    for later:  spool_admits, spool_enter, the gate, spool_open, spool_leave
    then:       spool_enter, spool_append, spool_close, spool_leave, and it is sent
    uncounted:  the same, with spool_promise and spool_fulfil: nobody pays for it, so it leaves no evidence
    a refusal:  spool_admits, spool_enter, the gate, spool_append where it names a key, spool_leave, and it is sent

Of a dead process `opened - closed` answers were admitted by the gate and never recorded, more or less
`entered - left`, which is 0 or 1.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from *:
    uint64_t spool_load "__atomic_load_n"(const uint64_t* source, int order) noexcept nogil
    void spool_store "__atomic_store_n"(uint64_t* target, uint64_t value, int order) noexcept nogil
    int SPOOL_RELAXED "__ATOMIC_RELAXED"
    int SPOOL_ACQUIRE "__ATOMIC_ACQUIRE"
    int SPOOL_RELEASE "__ATOMIC_RELEASE"

cpdef enum:
    LAYOUT_VERSION = 1
    HEADER_BYTES = 4096
    RECORD_BYTES = 160
    MIN_SEGMENT_BYTES = 65_536
    MAX_SEGMENT_BYTES = 1_073_741_824
    NAME_BYTES = 32                    # of an asset or an exchange
    PRICE_BYTES = 40
    QUOTE_BYTES = 8                    # as the exchange tables allow
    NODE_BYTES = 64

cpdef enum:                            # what an append says
    APPENDED
    FULL                               # nothing was written: there is no segment with room. Only where one answers all the same

cpdef enum:                            # where a price came from
    NO_SOURCE
    WS
    REST
    INDEX

cpdef enum:                            # flags
    SIMULATED = 1

cpdef enum:
    HTTP
    UDP

cpdef enum:                            # what was asked for
    PRICE
    PRICES
    USAGE
    REPORT_USAGE
    REPORT_SUMMARY
    REPORT_REPORT_USAGE
    REPORT_REPORT_SUMMARY

cdef struct Record:                    # 160 bytes; texts are UTF-8, padded with zeros
    uint64_t time_ns                   # wall clock of the answer
    uint64_t key_id                    # of the database
    uint64_t account_id                # whose key it is; 0 = the demo's
    uint32_t month                     # 202611, in which the gate has counted it; 0 = not counted
    uint32_t latency_us                # saturates
    uint16_t status                    # HTTP's numbers, over UDP too
    uint8_t assets                     # how many were asked for; saturates
    uint8_t tier                       # 1 to 3; 0 = no price
    uint8_t source
    uint8_t flags
    uint8_t protocol
    uint8_t endpoint
    char asset[NAME_BYTES]             # the first one, where several were asked for
    char exchange[NAME_BYTES]
    char price[PRICE_BYTES]            # the digits that were served
    char quote[QUOTE_BYTES]
    uint64_t last                      # CRC-32C of all before << 32 | sequence, from 1; 0 = not written

cdef struct TallyWords:                # what the process has done since its start
    uint64_t entered                   # brackets begun
    uint64_t left                      # and ended
    uint64_t opened                    # answers put off
    uint64_t closed                    # and recorded in the end
    uint64_t shed                      # answers without a record: there was no room

cdef struct Identity:                  # 120 bytes, twice in the header: a flipped bit costs no segment
    uint64_t magic                     # "TRSPOOL1"
    uint32_t version                   # LAYOUT_VERSION
    uint32_t record_bytes              # RECORD_BYTES
    uint64_t segment_bytes             # of the whole file
    uint64_t created_ns
    uint64_t boot_ns                   # when its process opened the spool: the same in all its segments
    uint32_t row
    uint32_t capacity                  # records
    char node[NODE_BYTES]
    uint32_t reserved
    uint32_t crc                       # of all before; a count's goes on from it, a record's from it ^ the sequence

cdef struct Header:
    Identity identity
    uint64_t padding[9]
    uint64_t sealed                    # CRC-32C << 32 | records in it; 0 = not sealed
    uint64_t more[7]
    uint64_t written                   # likewise, after each append: in a cache line of its own
    TallyWords tally                        # of the process, while this is its current segment: in that cache line, too
    uint64_t rest[218]
    Identity copy
    uint64_t unused[241]

cdef struct SegmentMemory:             # a segment that this process writes
    Header* header
    Record* records
    uint64_t used                      # records in it
    uint64_t limit                     # the capacity; 0 once it must be sealed as it is
    uint64_t synced                    # records that the last sync has made durable
    uint64_t seed                      # the identity's CRC
    bint sealed
    SegmentMemory* link                # the one sealed before, while nobody has taken it from the list
    uint64_t number                    # what Appender.publish has given

cdef struct SpoolMemory:
    SegmentMemory* current             # never NULL and never sealed: *nowhere*, which has no room, where there is none
    SegmentMemory* next                # prepared; NULL once it has become the current one
    SegmentMemory* retired             # sealed and not yet let go of, the last one first
    TallyWords* tally                       # in the current segment's header; *own* while there is none
    TallyWords own
    uint64_t promised                  # answers put off that the gate has not counted
    uint64_t appended
    uint64_t refused                   # questions that were not answered: there was no room
    bint sheds                         # whether to answer without a record rather than not at all
    SegmentMemory nowhere


# Make room where the current segment has none: spool_admits asks it.
cdef bint spool_make_room(SpoolMemory* spool) noexcept nogil


# How many answers were put off and have no record yet.
cdef inline uint64_t spool_owed(const SpoolMemory* spool) noexcept nogil:
    return spool.tally.opened - spool.tally.closed + spool.promised


# Whether an answer may be begun: its record has a place, beside those of all answers that are owed.
cdef inline bint spool_admits(SpoolMemory* spool) noexcept nogil:
    cdef SegmentMemory* segment = spool.current
    return segment.used + spool_owed(spool) < spool_load(&segment.limit, SPOOL_RELAXED) or spool_make_room(spool)


# Count a question that is refused for want of room.
cdef inline void spool_refuse(SpoolMemory* spool) noexcept nogil:
    spool_store(&spool.refused, spool.refused + 1, SPOOL_RELAXED)


# A release: the compiler keeps the order of the bracket, which is all that a kill needs.
cdef inline void spool_raise(uint64_t* word) noexcept nogil:
    spool_store(word, word[0] + 1, SPOOL_RELEASE)


cdef inline void spool_enter(SpoolMemory* spool) noexcept nogil:
    spool_raise(&spool.tally.entered)


cdef inline void spool_leave(SpoolMemory* spool) noexcept nogil:
    spool_raise(&spool.tally.left)


cdef inline void spool_open(SpoolMemory* spool) noexcept nogil:
    spool_raise(&spool.tally.opened)


cdef inline void spool_close(SpoolMemory* spool) noexcept nogil:
    spool_raise(&spool.tally.closed)


cdef inline void spool_promise(SpoolMemory* spool) noexcept nogil:
    spool.promised += 1


cdef inline void spool_fulfil(SpoolMemory* spool) noexcept nogil:
    spool.promised -= 1


# Append one record: APPENDED, or FULL and counted as shed. No system call, no allocation; for one thread at a time. What
# the caller puts into *last* does not matter.
cdef int spool_append(SpoolMemory* spool, const Record* record) noexcept nogil


# Fill a text field of a record: cut to *size* bytes, padded with zeros.
cdef inline void spool_text(char* field, size_t size, const char* text, size_t length) noexcept nogil:
    length = length if length < size else size
    memcpy(field, text, length)
    memset(field + length, 0, size - length)


cdef class Appender:
    cdef SpoolMemory memory            # for modules that cimport; says FULL once closed
    cdef dict held                     # number → what keeps its memory
    cdef uint64_t numbers
    cdef bint closed
