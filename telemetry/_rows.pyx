# cython: language_level=3, boundscheck=False, wraparound=False
"""Usage logs on their way into the database: rows of a COPY BINARY, and sums by the hour.

Records are read where they lie, by the Record of _spool.pxd. First what one record is, then rows, then sums.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport (
    INT16_MAX, INT32_MAX, INT64_MAX, UINT32_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t,
)
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from telemetry._spool cimport NAME_BYTES, RECORD_BYTES, SIMULATED, Record

cdef extern from "<string.h>":
    size_t strnlen(const char* text, size_t most) noexcept nogil

cdef extern from "<endian.h>":
    uint16_t htobe16(uint16_t number) noexcept nogil
    uint32_t htobe32(uint32_t number) noexcept nogil
    uint64_t htobe64(uint64_t number) noexcept nogil

cdef enum:
    DAY_S = 86_400
    HOUR_S = 3_600
    COLUMN_COUNT = 18
    ROW_BYTES = 127                        # of a row of empty texts: each column after its length in 4 bytes
    PART_COLUMN_COUNT = 17
    PART_BYTES = 137

cdef uint64_t SECOND_NS = 1_000_000_000
cdef int64_t EPOCH_2000_US = 946_684_800_000_000    # PostgreSQL's zero

COLUMNS = (
    "at", "account_id", "key_id", "segment_id", "sequence", "month", "latency_us",
    "status", "assets", "tier", "source", "protocol", "endpoint", "simulated",
    "asset", "exchange", "price", "quote",
)
PART_COLUMNS = (
    "account_id", "hour", "key_id", "month", "asset", "exchange",
    "source", "simulated", "protocol", "endpoint", "status", "tier",
    "answers", "assets", "latency_us", "latency_us_max", "node",
)
COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"


# -- one record ------------------------------------------------------------------------------------------------------

cdef inline uint64_t place(const Record* record) noexcept nogil:
    """Where it lies in its segment, counted from 0; no place at all for one without a sequence."""
    return (record.last & UINT32_MAX) - 1


cdef inline bint continues(const uint8_t* text, size_t left, size_t which, uint8_t least, uint8_t most) noexcept nogil:
    return which < left and least <= text[which] <= most


cdef size_t character(const uint8_t* text, size_t left) noexcept nogil:
    """Say how many bytes the first character of a text has; 0 when it is none. As RFC 3629 has them."""
    cdef uint8_t first = text[0], least = 0x80, most = 0xBF
    cdef size_t length = 2 if first < 0xE0 else 3 if first < 0xF0 else 4, which
    if first < 0x80:
        return 1
    if first < 0xC2 or first > 0xF4:
        return 0
    if first == 0xE0:
        least = 0xA0                       # shorter forms exist
    elif first == 0xED:
        most = 0x9F                        # halves of a pair are no characters
    elif first == 0xF0:
        least = 0x90
    elif first == 0xF4:
        most = 0x8F                        # Unicode ends there
    if not continues(text, left, 1, least, most):
        return 0
    for which in range(2, length):
        if not continues(text, left, which, 0x80, 0xBF):
            return 0
    return length


cdef void clean_text(char* field, size_t size) noexcept nogil:
    cdef size_t length = strnlen(field, size), at = 0, step
    memset(field + length, 0, size - length)
    while at < length:
        step = character(<const uint8_t*>field + at, length - at)
        if step == 0:
            field[at] = c"?"
            step = 1
        at += step


cdef void clean_record(Record* record) noexcept nogil:
    record.account_id = min(record.account_id, <uint64_t>INT64_MAX)
    record.key_id = min(record.key_id, <uint64_t>INT64_MAX)
    record.month = min(record.month, <uint32_t>INT32_MAX)
    record.latency_us = min(record.latency_us, <uint32_t>INT32_MAX)
    record.status = min(record.status, <uint16_t>INT16_MAX)
    clean_text(record.asset, sizeof(record.asset))
    clean_text(record.exchange, sizeof(record.exchange))
    clean_text(record.price, sizeof(record.price))
    clean_text(record.quote, sizeof(record.quote))


# -- rows ------------------------------------------------------------------------------------------------------------

cdef inline char* put_16(char* to, uint16_t number) noexcept nogil:
    cdef uint32_t size = htobe32(sizeof(number))
    number = htobe16(number)
    memcpy(to, &size, sizeof(size))
    memcpy(to + sizeof(size), &number, sizeof(number))
    return to + sizeof(size) + sizeof(number)


cdef inline char* put_32(char* to, uint32_t number) noexcept nogil:
    cdef uint32_t size = htobe32(sizeof(number))
    number = htobe32(number)
    memcpy(to, &size, sizeof(size))
    memcpy(to + sizeof(size), &number, sizeof(number))
    return to + sizeof(size) + sizeof(number)


cdef inline char* put_64(char* to, uint64_t number) noexcept nogil:
    cdef uint32_t size = htobe32(sizeof(number))
    number = htobe64(number)
    memcpy(to, &size, sizeof(size))
    memcpy(to + sizeof(size), &number, sizeof(number))
    return to + sizeof(size) + sizeof(number)


cdef inline char* put_bool(char* to, bint value) noexcept nogil:
    cdef uint32_t size = htobe32(1)
    memcpy(to, &size, sizeof(size))
    to[sizeof(size)] = value
    return to + sizeof(size) + 1


cdef inline char* put_text(char* to, const char* field, size_t most) noexcept nogil:
    cdef size_t length = strnlen(field, most)
    cdef uint32_t size = htobe32(<uint32_t>length)
    memcpy(to, &size, sizeof(size))
    memcpy(to + sizeof(size), field, length)
    return to + sizeof(size) + length


cdef inline size_t texts_of(const Record* record) noexcept nogil:
    """How many bytes its four texts have together."""
    return (
        strnlen(record.asset, sizeof(record.asset)) + strnlen(record.exchange, sizeof(record.exchange))
        + strnlen(record.price, sizeof(record.price)) + strnlen(record.quote, sizeof(record.quote))
    )


cdef char* put_row(char* to, const Record* record, uint32_t segment_id) noexcept nogil:
    """Write the ROW_BYTES and texts of one row; COLUMNS names them."""
    cdef uint16_t columns = htobe16(COLUMN_COUNT)
    memcpy(to, &columns, sizeof(columns))
    to = put_64(to + sizeof(columns), <uint64_t>(<int64_t>(record.time_ns // 1000) - EPOCH_2000_US))
    to = put_64(to, record.account_id)
    to = put_64(to, record.key_id)
    to = put_32(to, segment_id)
    to = put_32(to, <uint32_t>record.last)
    to = put_32(to, record.month)
    to = put_32(to, record.latency_us)
    to = put_16(to, record.status)
    to = put_16(to, record.assets)
    to = put_16(to, record.tier)
    to = put_16(to, record.source)
    to = put_16(to, record.protocol)
    to = put_16(to, record.endpoint)
    to = put_bool(to, record.flags & SIMULATED)
    to = put_text(to, record.asset, sizeof(record.asset))
    to = put_text(to, record.exchange, sizeof(record.exchange))
    to = put_text(to, record.price, sizeof(record.price))
    return put_text(to, record.quote, sizeof(record.quote))


# -- sums ------------------------------------------------------------------------------------------------------------

cdef struct Key:                           # 96 bytes, all of them compared
    uint64_t account_id
    uint64_t key_id
    char asset[NAME_BYTES]
    char exchange[NAME_BYTES]
    uint32_t hour                          # since 1970
    uint32_t month
    uint16_t status
    uint8_t source
    uint8_t simulated
    uint8_t protocol
    uint8_t endpoint
    uint8_t tier
    uint8_t unused

cdef struct Sums:
    uint64_t answers
    uint64_t assets
    uint64_t latency_us
    uint64_t latency_us_max

cdef struct Group:
    Key key
    Sums sums                              # no answers: nobody's place


cdef uint64_t hash_of(const Key* key) noexcept nogil:
    cdef const uint64_t* words = <const uint64_t*>key
    cdef uint64_t mixed = 0
    cdef size_t which
    for which in range(sizeof(Key) // sizeof(uint64_t)):
        mixed = (mixed ^ words[which]) * <uint64_t>0x9E37_79B9_7F4A_7C15
        mixed ^= mixed >> 32
    return mixed


cdef Group* find(Group* groups, uint64_t size, const Key* key) noexcept nogil:
    """Find a key's place, or where it belongs; *size* is a power of two, and some places are nobody's."""
    cdef uint64_t at = hash_of(key) & (size - 1)
    while groups[at].sums.answers and memcmp(&groups[at].key, key, sizeof(Key)):
        at = (at + 1) & (size - 1)
    return &groups[at]


cdef void read_key(Key* key, const Record* record) noexcept nogil:
    memset(key, 0, sizeof(Key))
    key.account_id = record.account_id
    key.key_id = record.key_id
    memcpy(key.asset, record.asset, sizeof(key.asset))
    memcpy(key.exchange, record.exchange, sizeof(key.exchange))
    key.hour = <uint32_t>(record.time_ns // (HOUR_S * SECOND_NS))
    key.month = record.month
    key.status = record.status
    key.source = record.source
    key.simulated = record.flags & SIMULATED
    key.protocol = record.protocol
    key.endpoint = record.endpoint
    key.tier = record.tier


cdef char* put_part(char* to, const Group* group, const char* node, size_t node_bytes) noexcept nogil:
    """Write the PART_BYTES and texts of one row; PART_COLUMNS names them."""
    cdef uint16_t columns = htobe16(PART_COLUMN_COUNT)
    cdef const Key* key = &group.key
    memcpy(to, &columns, sizeof(columns))
    to = put_64(to + sizeof(columns), key.account_id)
    to = put_64(to, <uint64_t>(<int64_t>key.hour * HOUR_S * 1_000_000 - EPOCH_2000_US))
    to = put_64(to, key.key_id)
    to = put_32(to, key.month)
    to = put_text(to, key.asset, NAME_BYTES)
    to = put_text(to, key.exchange, NAME_BYTES)
    to = put_16(to, key.source)
    to = put_bool(to, key.simulated)
    to = put_16(to, key.protocol)
    to = put_16(to, key.endpoint)
    to = put_16(to, key.status)
    to = put_16(to, key.tier)
    to = put_64(to, group.sums.answers)
    to = put_64(to, group.sums.assets)
    to = put_64(to, group.sums.latency_us)
    to = put_32(to, <uint32_t>group.sums.latency_us_max)
    return put_text(to, node, node_bytes)


cdef class Groups:
    cdef Group* groups
    cdef uint64_t size
    cdef uint64_t used

    def __cinit__(self):
        self.size = 64
        self.groups = <Group*>calloc(self.size, sizeof(Group))
        if self.groups is NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.groups)

    cdef int add_one(self, const Key* key, const Sums* sums) except -1 nogil:
        cdef Group* group
        if self.used * 2 >= self.size:
            self.grow()
        group = find(self.groups, self.size, key)
        if group.sums.answers == 0:
            group.key = key[0]
            self.used += 1
        group.sums.answers += sums.answers
        group.sums.assets += sums.assets
        group.sums.latency_us += sums.latency_us
        group.sums.latency_us_max = max(group.sums.latency_us_max, sums.latency_us_max)
        return 0

    cdef int grow(self) except -1 nogil:
        cdef uint64_t size = self.size * 4, at
        cdef Group* groups = <Group*>calloc(size, sizeof(Group))
        if groups is NULL:
            with gil:
                raise MemoryError
        for at in range(self.size):
            if self.groups[at].sums.answers:
                find(groups, size, &self.groups[at].key)[0] = self.groups[at]
        free(self.groups)
        self.groups = groups
        self.size = size
        return 0

    def add(self, const uint8_t[::1] records):
        cdef Py_ssize_t which, count = records.shape[0] // RECORD_BYTES
        cdef const Record* found = records_in(records)
        cdef Key key
        cdef Sums sums
        with nogil:
            for which in range(count):
                read_key(&key, &found[which])
                sums.answers = 1
                sums.assets = found[which].assets
                sums.latency_us = sums.latency_us_max = found[which].latency_us
                self.add_one(&key, &sums)

    def rows(self, str node):
        cdef uint64_t at
        cdef Key* key
        cdef Sums* sums
        rows = []
        for at in range(self.size):
            key, sums = &self.groups[at].key, &self.groups[at].sums
            if sums.answers:
                rows.append((
                    key.account_id, key.hour, key.key_id, key.month, text_of(key.asset), text_of(key.exchange),
                    key.source, key.simulated == SIMULATED, key.protocol, key.endpoint, key.status, key.tier,
                    sums.answers, sums.assets, sums.latency_us, sums.latency_us_max, node,
                ))
        return rows

    def copy_rows(self, str node):
        cdef bytes name = node.encode(), rows
        cdef const char* node_text = name
        cdef size_t node_bytes = len(name)
        cdef Py_ssize_t size = self.used * (PART_BYTES + node_bytes)
        cdef uint64_t at
        cdef char* to
        with nogil:
            for at in range(self.size):
                size += strnlen(self.groups[at].key.asset, NAME_BYTES) + strnlen(self.groups[at].key.exchange, NAME_BYTES)
        rows = PyBytes_FromStringAndSize(NULL, size)
        to = PyBytes_AS_STRING(rows)
        with nogil:
            for at in range(self.size):
                if self.groups[at].sums.answers:
                    to = put_part(to, &self.groups[at], node_text, node_bytes)
        return rows


# -- what Python sees ------------------------------------------------------------------------------------------------

cdef const Record* records_in(const uint8_t[::1] records) except? NULL:
    if records.shape[0] % RECORD_BYTES:
        raise ValueError(f"records are {RECORD_BYTES} bytes each: {records.shape[0]} are not whole ones")
    return <const Record*>&records[0] if records.shape[0] else NULL


cdef str text_of(const char* field):
    return field[:strnlen(field, NAME_BYTES)].decode("utf-8")


def clean(uint8_t[::1] records, uint64_t start, uint64_t end):
    cdef Py_ssize_t which = 0, count = records.shape[0] // RECORD_BYTES
    cdef Record* found = <Record*>records_in(records)
    with nogil:
        while which < count and start <= place(&found[which]) < end:
            start = place(&found[which]) + 1
            clean_record(&found[which])
            which += 1
    return which == count


def place_of(const uint8_t[::1] records, uint64_t wanted):
    cdef Py_ssize_t low = 0, high = records.shape[0] // RECORD_BYTES, middle
    cdef const Record* found = records_in(records)
    while low < high:
        middle = (low + high) // 2
        if place(&found[middle]) < wanted:
            low = middle + 1
        else:
            high = middle
    return low


def days_of(const uint8_t[::1] records):
    cdef Py_ssize_t which, count = records.shape[0] // RECORD_BYTES
    cdef const Record* found = records_in(records)
    cdef uint64_t day, last = 0
    days = set()
    for which in range(count):
        day = found[which].time_ns // (DAY_S * SECOND_NS)
        if day != last or which == 0:
            days.add(day)
            last = day
    return days


def copy_rows(const uint8_t[::1] records, uint32_t segment_id):
    cdef Py_ssize_t which, count = records.shape[0] // RECORD_BYTES, size = count * ROW_BYTES
    cdef const Record* found = records_in(records)
    cdef bytes rows
    cdef char* to
    with nogil:
        for which in range(count):
            size += texts_of(&found[which])
    rows = PyBytes_FromStringAndSize(NULL, size)
    to = PyBytes_AS_STRING(rows)
    with nogil:
        for which in range(count):
            to = put_row(to, &found[which], segment_id)
    return rows
