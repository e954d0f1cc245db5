# cython: language_level=3, boundscheck=False, wraparound=False
"""The usage spool's segments: one process appends, others read what it has written.

The layout is in _spool.pxd. First the append, then reading, then what Python sees.
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport errno
from libc.stdint cimport UINT32_MAX
from libc.string cimport memmove

import os
from collections import namedtuple

from telemetry.exceptions import LayoutError

cdef extern from "<sys/mman.h>":
    int msync(void* start, size_t length, int flags) noexcept nogil
    int MS_SYNC

cdef extern from "<string.h>":
    size_t strnlen(const char* text, size_t most) noexcept nogil

cdef extern from "_crc32c.h":
    ctypedef uint32_t (*crc32c_fn)(uint32_t crc, const void* text, size_t length) noexcept nogil
    crc32c_fn crc32c_choose() noexcept
    uint32_t crc32c_portable(uint32_t crc, const void* text, size_t length) noexcept nogil

cdef extern from *:
    """
    /* One thread puts sealed segments on the list, another takes the whole list. */
    #define spool_push(list, item) do { \\
        (item)->link = __atomic_load_n(list, __ATOMIC_RELAXED); \\
    } while (!__atomic_compare_exchange_n(list, &(item)->link, item, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
    #define spool_take(list) __atomic_exchange_n(list, NULL, __ATOMIC_ACQUIRE)
    #define spool_give(place, item) __atomic_store_n(place, item, __ATOMIC_RELEASE)
    #define spool_look(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
    """
    void spool_push(SegmentMemory** list_, SegmentMemory* item) noexcept nogil
    SegmentMemory* spool_take(SegmentMemory** list_) noexcept nogil
    void spool_give(SegmentMemory** place, SegmentMemory* item) noexcept nogil
    SegmentMemory* spool_look(SegmentMemory** place) noexcept nogil

cdef uint64_t MAGIC = 0x314C_4F4F_5053_5254    # "TRSPOOL1" where the low byte comes first
cdef size_t RECORD_CRC_BYTES = sizeof(Record) - sizeof(uint64_t)
cdef size_t IDENTITY_CRC_BYTES = sizeof(Identity) - sizeof(uint32_t)
cdef crc32c_fn crc32c_of = crc32c_choose()

SOURCES = ("none", "ws", "rest", "index")
PROTOCOLS = ("http", "udp")
ENDPOINTS = (
    "price", "prices", "usage",
    "reports/usage", "reports/summary", "reports/report-usage", "reports/report-summary",
)

SegmentHeader = namedtuple("SegmentHeader", "node row created_ns boot_ns segment_bytes capacity seed")
Tally = namedtuple("Tally", "entered left opened closed shed")
UsageLog = namedtuple(
    "UsageLog",
    "time_ns key_id account_id month latency_us status assets tier source flags protocol endpoint"
    " asset exchange price quote sequence",
    defaults=(0,) * 7 + ("",) * 4 + (0,),
)


# -- appending -------------------------------------------------------------------------------------------------------

cdef inline uint64_t checked_count(uint64_t seed, uint64_t count) noexcept nogil:
    return <uint64_t>crc32c_of(<uint32_t>seed, &count, sizeof(count)) << 32 | count


cdef void seal(SpoolMemory* spool, SegmentMemory* segment) noexcept nogil:
    """Whoever finds it on the list may let go of its memory at once: nothing here touches it afterwards."""
    spool.own = segment.header.tally
    spool.tally = &spool.own
    spool.current = &spool.nowhere
    segment.sealed = 1
    spool_store(&segment.header.sealed, checked_count(segment.seed, segment.used), SPOOL_RELEASE)
    spool_push(&spool.retired, segment)


cdef SegmentMemory* go_on(SpoolMemory* spool) noexcept nogil:
    """Make the prepared segment the current one; NULL when there is none."""
    cdef SegmentMemory* segment
    if spool.current != &spool.nowhere:
        seal(spool, spool.current)         # as it is: what was to make it durable has failed
    segment = spool_take(&spool.next)
    if segment is NULL:
        return NULL
    segment.header.tally = spool.own       # a kill half way leaves smaller words: the greatest of each counts
    spool.tally = &segment.header.tally
    spool.current = segment
    if spool_load(&segment.limit, SPOOL_RELAXED) == 0:
        seal(spool, segment)
        return NULL
    return segment


cdef bint spool_make_room(SpoolMemory* spool) noexcept nogil:
    cdef const SegmentMemory* next_one
    cdef uint64_t limit
    if spool.current.used >= spool_load(&spool.current.limit, SPOOL_RELAXED):
        go_on(spool)
    limit = spool_load(&spool.current.limit, SPOOL_RELAXED)
    next_one = spool_look(&spool.next)
    if next_one is not NULL:
        limit += spool_load(&next_one.limit, SPOOL_RELAXED)
    return spool.current.used + spool_owed(spool) < limit or spool.sheds


cdef int spool_append(SpoolMemory* spool, const Record* record) noexcept nogil:
    cdef SegmentMemory* segment = spool.current
    cdef Record* place
    cdef uint64_t sequence, crc
    if segment.used >= spool_load(&segment.limit, SPOOL_RELAXED):
        segment = go_on(spool)
        if segment is NULL:
            spool_raise(&spool.tally.shed)
            return FULL
    place = &segment.records[segment.used]
    sequence = segment.used + 1
    crc = crc32c_of(<uint32_t>(segment.seed ^ sequence), record, RECORD_CRC_BYTES)
    memcpy(place, record, RECORD_CRC_BYTES)
    spool_store(&place.last, crc << 32 | sequence, SPOOL_RELEASE)
    segment.used = sequence
    spool_store(&segment.header.written, checked_count(segment.seed, sequence), SPOOL_RELEASE)
    spool_store(&spool.appended, spool.appended + 1, SPOOL_RELAXED)
    if sequence == segment.header.identity.capacity:
        seal(spool, segment)               # at once: whoever deletes what has been passed on need not wait
    return APPENDED


# -- reading ---------------------------------------------------------------------------------------------------------

cdef bint is_whole(const Record* record, uint64_t seed, uint64_t sequence) noexcept nogil:
    """Whether this is the record of that place, as it was appended."""
    if <uint32_t>record.last != sequence:
        return 0
    return record.last >> 32 == crc32c_of(<uint32_t>(seed ^ sequence), record, RECORD_CRC_BYTES)


cdef int check_identity(const Identity* found) except -1:
    cdef uint64_t capacity = (found.segment_bytes - HEADER_BYTES) // RECORD_BYTES
    if found.magic != MAGIC:
        raise LayoutError("the magic", f"{MAGIC:#018x}", f"{found.magic:#018x}")
    if found.version != LAYOUT_VERSION:
        raise LayoutError("the layout version", LAYOUT_VERSION, found.version)
    if found.crc != crc32c_of(0, found, IDENTITY_CRC_BYTES):
        raise LayoutError("the header's checksum", f"{crc32c_of(0, found, IDENTITY_CRC_BYTES):#010x}", f"{found.crc:#010x}")
    if found.record_bytes != RECORD_BYTES:
        raise LayoutError("the size of a record", RECORD_BYTES, found.record_bytes)
    if not MIN_SEGMENT_BYTES <= found.segment_bytes <= MAX_SEGMENT_BYTES or found.capacity != capacity:
        raise LayoutError(f"the capacity in {found.segment_bytes} bytes", capacity, found.capacity)
    return 0


cdef const Identity* find_identity(const void* page, Py_ssize_t length) except NULL:
    """The identity or its copy, whichever is whole; the first one's fault when neither is."""
    cdef const Header* header = <const Header*>page
    if length < <Py_ssize_t>sizeof(Identity):
        raise LayoutError("the size in bytes", f"at least {sizeof(Identity)}", length)
    try:
        check_identity(&header.identity)
    except LayoutError:
        if length < HEADER_BYTES:
            raise
        try:
            check_identity(&header.copy)
        except LayoutError:
            pass
        else:
            return &header.copy
        raise
    return &header.identity


cdef object read_count(const uint64_t* word, uint64_t seed, uint64_t capacity):
    cdef uint64_t found = spool_load(word, SPOOL_ACQUIRE), count = found & UINT32_MAX
    return count if count <= capacity and found == checked_count(seed, count) else None


cdef str text_of(const char* field, size_t size):
    return field[:strnlen(field, size)].decode("utf-8", "replace")


# -- what Python sees ------------------------------------------------------------------------------------------------

def crc32c(const uint8_t[::1] text, uint32_t crc=0, *, bint portable=False):
    cdef const void* at = &text[0] if text.shape[0] else NULL
    return (crc32c_portable if portable else crc32c_of)(crc, at, text.shape[0])


def make_header(str node, uint32_t row, uint64_t created_ns, uint64_t segment_bytes, uint64_t boot_ns):
    cdef Header header
    cdef bytes name = node.encode()
    if not 1 <= len(name) <= NODE_BYTES:
        raise ValueError(f"a node's name is 1 to {NODE_BYTES} bytes: {node!r}")
    if not MIN_SEGMENT_BYTES <= segment_bytes <= MAX_SEGMENT_BYTES or segment_bytes % HEADER_BYTES:
        raise ValueError(
            f"a segment is {MIN_SEGMENT_BYTES} to {MAX_SEGMENT_BYTES} bytes in pages of {HEADER_BYTES}, not {segment_bytes}"
        )
    memset(&header, 0, sizeof(header))
    header.identity.magic = MAGIC
    header.identity.version = LAYOUT_VERSION
    header.identity.record_bytes = RECORD_BYTES
    header.identity.segment_bytes = segment_bytes
    header.identity.created_ns = created_ns
    header.identity.boot_ns = boot_ns
    header.identity.row = row
    header.identity.capacity = (segment_bytes - HEADER_BYTES) // RECORD_BYTES
    spool_text(header.identity.node, NODE_BYTES, name, len(name))
    header.identity.crc = crc32c_of(0, &header.identity, IDENTITY_CRC_BYTES)
    header.copy = header.identity
    return (<char*>&header)[:sizeof(header)]


def read_header(const uint8_t[::1] page):
    cdef const void* start = &page[0] if page.shape[0] else NULL
    cdef const Identity* found = find_identity(start, page.shape[0])
    return SegmentHeader(
        text_of(found.node, NODE_BYTES), found.row, found.created_ns, found.boot_ns, found.segment_bytes,
        found.capacity, found.crc,
    )


def read_counts(const uint8_t[::1] page, header):
    cdef const Header* found = <const Header*>&page[0]
    cdef uint64_t seed = header.seed, capacity = header.capacity
    if page.shape[0] < HEADER_BYTES:
        raise ValueError(f"a header is {HEADER_BYTES} bytes, not {page.shape[0]}")
    sealed = read_count(&found.sealed, seed, capacity)
    if found.written == 0:
        return sealed, 0
    return sealed, read_count(&found.written, seed, capacity)


def read_tally(const uint8_t[::1] page):
    cdef const TallyWords* found = &(<const Header*>&page[0]).tally
    if page.shape[0] < HEADER_BYTES:
        raise ValueError(f"a header is {HEADER_BYTES} bytes, not {page.shape[0]}")
    return Tally(found.entered, found.left, found.opened, found.closed, found.shed)


def sift(uint8_t[::1] records, uint64_t start, uint64_t seed):
    cdef uint64_t count = <uint64_t>records.shape[0] // RECORD_BYTES, kept = 0, place, end = 0
    cdef Record* found
    if count:
        found = <Record*>&records[0]
        with nogil:
            for place in range(count):
                if is_whole(&found[place], seed, start + place + 1):
                    if kept != place:
                        memmove(&found[kept], &found[place], RECORD_BYTES)
                    kept += 1
                    end = place + 1
    return kept, end


def decode(const uint8_t[::1] records):
    cdef Py_ssize_t place, count = records.shape[0] // RECORD_BYTES
    cdef const Record* record
    logs = []
    for place in range(count):
        record = <const Record*>&records[place * RECORD_BYTES]
        logs.append(UsageLog(
            record.time_ns, record.key_id, record.account_id, record.month, record.latency_us, record.status,
            record.assets, record.tier, record.source, record.flags, record.protocol, record.endpoint,
            text_of(record.asset, NAME_BYTES), text_of(record.exchange, NAME_BYTES),
            text_of(record.price, PRICE_BYTES), text_of(record.quote, QUOTE_BYTES), record.last & UINT32_MAX,
        ))
    return logs


cdef int fill_text(char* field, size_t size, str text) except -1:
    cdef bytes encoded = text.encode()
    spool_text(field, size, encoded, len(encoded))
    return 0


@cython.final
@cython.no_gc_clear  # clearing would drop the buffer's owner without releasing the buffer
cdef class Held:
    """The memory of one published segment."""

    cdef SegmentMemory segment
    cdef Py_buffer view
    cdef bint has_view

    def __init__(self, memory, uint64_t number):
        cdef Header* header
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        self.has_view = True
        if <size_t>self.view.buf % sizeof(uint64_t):
            raise LayoutError("the alignment", "8 bytes", f"{<size_t>self.view.buf % sizeof(uint64_t)} bytes off")
        find_identity(self.view.buf, self.view.len)
        header = <Header*>self.view.buf
        if header.identity.segment_bytes != <uint64_t>self.view.len:
            raise LayoutError("the size in bytes", header.identity.segment_bytes, self.view.len)
        if header.written or header.sealed:
            raise ValueError("the segment is not empty: a process appends only to segments that it has made")
        self.segment.header = header
        self.segment.records = <Record*>(<char*>self.view.buf + HEADER_BYTES)
        self.segment.limit = header.identity.capacity
        self.segment.seed = header.identity.crc
        self.segment.number = number

    def __dealloc__(self):
        self.release()

    cdef void release(self):
        if self.has_view:
            self.has_view = False
            PyBuffer_Release(&self.view)


cdef class Appender:
    def __cinit__(self):
        self.held = {}
        self.memory.current = &self.memory.nowhere
        self.memory.tally = &self.memory.own

    def admits(self):
        return spool_admits(&self.memory)

    def refuse(self):
        spool_refuse(&self.memory)

    def enter(self):
        spool_enter(&self.memory)

    def leave(self):
        spool_leave(&self.memory)

    def open_answer(self):
        spool_open(&self.memory)

    def close_answer(self):
        spool_close(&self.memory)

    def promise(self):
        spool_promise(&self.memory)

    def fulfil(self):
        spool_fulfil(&self.memory)

    def append(self, log):
        cdef Record record
        memset(&record, 0, sizeof(record))
        record.time_ns = log.time_ns
        record.key_id = log.key_id
        record.account_id = log.account_id
        record.month = log.month
        record.latency_us = min(log.latency_us, UINT32_MAX)
        record.status = log.status
        record.assets = min(log.assets, 255)
        record.tier = log.tier
        record.source = log.source
        record.flags = log.flags
        record.protocol = log.protocol
        record.endpoint = log.endpoint
        fill_text(record.asset, NAME_BYTES, log.asset)
        fill_text(record.exchange, NAME_BYTES, log.exchange)
        fill_text(record.price, PRICE_BYTES, log.price)
        fill_text(record.quote, QUOTE_BYTES, log.quote)
        return spool_append(&self.memory, &record) == APPENDED

    @property
    def wanting(self):
        return not self.closed and spool_look(&self.memory.next) is NULL

    @property
    def appended(self):
        return spool_load(&self.memory.appended, SPOOL_RELAXED)

    @property
    def refused(self):
        return spool_load(&self.memory.refused, SPOOL_RELAXED)

    @property
    def tally(self):
        cdef const TallyWords* found = self.memory.tally
        return Tally(found.entered, found.left, found.opened, found.closed, found.shed)

    @property
    def sheds(self):
        return bool(self.memory.sheds)

    @sheds.setter
    def sheds(self, bint value):
        self.memory.sheds = value

    def publish(self, memory):
        if not self.wanting:
            raise ValueError("the spool is closed, or has a segment prepared")
        self.numbers += 1
        cdef Held held = Held(memory, self.numbers)
        self.held[self.numbers] = held
        spool_give(&self.memory.next, &held.segment)
        return self.numbers

    def condemn(self, uint64_t number):
        cdef Held held = self.held[number]
        spool_store(&held.segment.limit, 0, SPOOL_RELAXED)

    def sync(self, uint64_t number):
        cdef Held held = self.held[number]
        cdef SegmentMemory* segment = &held.segment
        cdef uint64_t written = spool_load(&segment.header.written, SPOOL_ACQUIRE) & UINT32_MAX
        cdef int error = 0
        if written == segment.synced or spool_load(&segment.limit, SPOOL_RELAXED) == 0:
            return
        with nogil:
            if msync(segment.header, HEADER_BYTES + written * RECORD_BYTES, MS_SYNC) != 0:
                error = errno
        if error:
            raise OSError(error, os.strerror(error))
        segment.synced = written

    def take_retired(self):
        cdef SegmentMemory* segment = spool_take(&self.memory.retired)
        numbers = []
        while segment is not NULL:
            numbers.append(segment.number)
            segment = segment.link
        return numbers[::-1]

    def release(self, uint64_t number):
        cdef Held held = self.held[number]
        if not held.segment.sealed and not self.closed:
            raise ValueError(f"segment {number} may still be appended to")
        del self.held[number]
        held.release()

    def close(self):
        self.closed = True
        if self.memory.current != &self.memory.nowhere:
            seal(&self.memory, self.memory.current)
        spool_take(&self.memory.next)
        return self.take_retired()
