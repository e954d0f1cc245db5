# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The gate: API keys with their limits and counts, in memory that processes share.

The layout is in _gate.pxd; _admission.pyx judges, _gate_writer.pyx writes.
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memset

from billing._admission cimport count_in, gate_admit, gate_admit_digest, gate_find, month_at, month_of_row
from telemetry._mapped cimport check_start

from collections import namedtuple

from telemetry.exceptions import LayoutError

cdef uint64_t MAGIC = 0x3130_4554_4147_5254    # "TRGATE01" where the low byte comes first

MAX_COUNT = low_bits(COUNT_BITS)
MAX_EMISSION_NS = low_bits(EMISSION_BITS)    # 4.9 hours

GateKey = namedtuple(
    "GateKey",
    "digest key_id account_id plan flags emission_ns burst cap expires_s networks revoked revision",
    defaults=(0, 0, SCOPE_PRICES | SCOPE_REPORTS, 0, 0, 0, 0, (), False, 0),
)
Usage = namedtuple("Usage", "row key_id month counted last_used_s")


# -- layout ----------------------------------------------------------------------------------------------------------

cdef uint32_t index_entries(uint32_t rows) noexcept nogil:
    """Entries of an index that is at most half full with *rows*."""
    cdef uint32_t entries = 16
    while entries < 2 * rows:
        entries *= 2
    return entries


cdef uint32_t network_lists(uint32_t rows) noexcept nogil:
    """Places for keys that are bound to networks: few are."""
    return rows // 8 + 8


cdef GateMemory map_gate(char* base, uint32_t rows) noexcept nogil:
    """Say where each part is, in the order of the parts: the only place that adds sizes up."""
    cdef GateMemory gate
    cdef char* at = base
    gate.header = <Header*>at
    at += sizeof(Header)
    gate.rows = <Row*>at
    at += <size_t>rows * sizeof(Row)
    gate.index = <uint64_t*>at
    at += index_entries(rows) * sizeof(uint64_t)
    gate.lists = <NetworkList*>at
    at += network_lists(rows) * sizeof(NetworkList)
    gate.size = at - base
    return gate


cdef uint32_t checked_rows(rows) except 0:
    if not 1 <= rows <= MAX_ROWS:
        raise ValueError(f"a gate has 1 to {MAX_ROWS} rows, not {rows}")
    return rows


cdef int check_layout(const char* base, Py_ssize_t length) except -1:
    """Refuse memory that is not a gate of this version, byte order and size."""
    cdef const Header* header = <const Header*>base
    cdef GateMemory gate
    check_start(base, length, sizeof(Header), MAGIC, LAYOUT_VERSION)
    if not 1 <= header.rows <= MAX_ROWS:
        raise LayoutError("the number of rows", f"1 to {MAX_ROWS}", header.rows)
    gate = map_gate(<char*>base, header.rows)
    if (
        header.size != gate.size or header.index_entries != index_entries(header.rows)
        or header.network_lists != network_lists(header.rows)
    ):
        raise LayoutError(f"the recorded size of a gate of {header.rows} rows", gate.size, header.size)
    if <uint64_t>length != gate.size:
        raise LayoutError(f"the size in bytes of a gate of {header.rows} rows", gate.size, length)
    return 0


# -- what Python sees ------------------------------------------------------------------------------------------------

@cython.final
@cython.freelist(64)
cdef class Verdict:
    cdef GateVerdict of

    @property
    def code(self):
        return self.of.code

    @property
    def row(self):
        return self.of.row

    @property
    def key_id(self):
        return self.of.key_id

    @property
    def account_id(self):
        return self.of.account_id

    @property
    def plan(self):
        return self.of.plan

    @property
    def flags(self):
        return self.of.flags

    @property
    def partner(self):
        return bool(self.of.flags & PARTNER)

    @property
    def limit(self):
        return self.of.limit

    @property
    def emission_ns(self):
        return self.of.emission_ns

    @property
    def remaining(self):
        return self.of.remaining

    @property
    def reset_ns(self):
        return self.of.reset_ns

    @property
    def cap(self):
        return self.of.cap

    @property
    def cap_remaining(self):
        return self.of.cap_remaining

    @property
    def cap_reset_ns(self):
        return self.of.cap_reset_ns

    @property
    def month(self):
        return self.of.month

    @property
    def retry_after_ns(self):
        return self.of.retry_after_ns

    def __repr__(self):
        return f"Verdict(code={self.of.code}, row={self.of.row}, key_id={self.of.key_id})"


cdef const uint8_t* address_of(bytes address) except? NULL:
    if address is None:
        return NULL
    if PyBytes_GET_SIZE(address) != 16:
        raise ValueError(f"an address has 16 bytes, not {PyBytes_GET_SIZE(address)}")
    return <const uint8_t*>PyBytes_AS_STRING(address)


cdef const uint8_t* digest_of(bytes digest) except NULL:
    if PyBytes_GET_SIZE(digest) != 32:
        raise ValueError(f"a digest has 32 bytes, not {PyBytes_GET_SIZE(digest)}")
    return <const uint8_t*>PyBytes_AS_STRING(digest)


cdef class Gate(Mapped):
    def __init__(self, buffer):
        self.attach(buffer, PyBUF_WRITABLE)

    cdef int map(self, char* base, Py_ssize_t length) except -1:
        check_layout(base, length)
        self.memory = map_gate(base, (<Header*>base).rows)
        return 0

    cdef void let_go(self) noexcept:
        self.memory.header = NULL
        Mapped.let_go(self)

    cdef int check_open(self) except -1:
        if self.memory.header is NULL:
            raise ValueError("the gate is closed")
        return 0

    cdef Row* row_at(self, int64_t row) except NULL:
        self.check_open()
        if not 0 <= row < self.memory.header.rows or load(&self.memory.rows[row].status, ACQUIRE) & 0xFF == FREE:
            raise ValueError(f"row {row} is nobody's")
        return &self.memory.rows[row]

    def admit(
        self, bytes key not None, uint64_t mono_ns, uint64_t wall_s, uint8_t scope=SCOPE_PRICES, bytes address=None,
        *, bint take=True,
    ):
        cdef Verdict verdict = Verdict.__new__(Verdict)
        self.check_open()
        gate_admit(
            &self.memory, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), mono_ns, wall_s, scope,
            address_of(address), take, &verdict.of,
        )
        return verdict

    def admit_digest(
        self, bytes digest not None, uint64_t mono_ns, uint64_t wall_s, uint8_t scope=SCOPE_PRICES, bytes address=None,
        *, bint take=True,
    ):
        cdef Verdict verdict = Verdict.__new__(Verdict)
        self.check_open()
        gate_admit_digest(
            &self.memory, digest_of(digest), mono_ns, wall_s, scope, address_of(address), take, &verdict.of
        )
        return verdict

    def find(self, bytes digest not None):
        self.check_open()
        row = gate_find(&self.memory, digest_of(digest))
        return None if row < 0 else row

    def key(self, int64_t row):
        cdef Row* at = self.row_at(row)
        cdef uint64_t status = load(&at.status, ACQUIRE), rate = load(&at.rate, RELAXED)
        return GateKey(
            (<const char*>at.digest)[:32], at.key_id, at.account_id, status >> 16 & 0xFFFF, status >> 8 & 0xFF,
            rate & low_bits(EMISSION_BITS), rate >> EMISSION_BITS, load(&at.cap, RELAXED), status >> 32,
            networks_of(&self.memory, load(&at.networks, ACQUIRE)), (status & 0xFF) == BARRED, at.revision,
        )

    def usage(self, int64_t row):
        """The latest month that was counted in."""
        cdef Row* at = self.row_at(row)
        cdef uint32_t month = month_of_row(at, 0)
        cdef uint64_t count = count_in(load(&at.used[month & 1], RELAXED), month)
        return Usage(row, at.key_id, month, count, load(&at.last_used_s, RELAXED))

    def total(self, int64_t row, uint32_t month):
        cdef Row* at = self.row_at(row)
        return count_in(load(&at.used[month & 1], RELAXED), month) + count_in(load(&at.others, RELAXED), month)

    @property
    def rows(self):
        self.check_open()
        return self.memory.header.rows

    @property
    def keys(self):
        self.check_open()
        return load(&self.memory.header.keys, ACQUIRE)

    @property
    def generation(self):
        self.check_open()
        return load(&self.memory.header.generation, ACQUIRE)

    @property
    def writer_pid(self):
        self.check_open()
        return <int64_t>load(<uint64_t*>&self.memory.header.writer_pid, ACQUIRE)

    @property
    def heartbeat_mono_ns(self):
        self.check_open()
        return <int64_t>load(<uint64_t*>&self.memory.header.heartbeat_mono_ns, ACQUIRE)

    def month(self, uint64_t mono_ns):
        cdef uint64_t left_ns
        self.check_open()
        return month_at(&self.memory, mono_ns, &left_ns)


cdef tuple networks_of(const GateMemory* gate, uint64_t word):
    """For people and for the writer: read without looking whether it changes."""
    cdef const NetworkList* list_
    cdef int i
    if <uint32_t>word == 0:
        return ()
    list_ = &gate.lists[<uint32_t>word - 1]
    return tuple([
        ((<const char*>list_.addresses[i])[:16], <int>(list_.prefixes >> 8 * i & 0xFF)) for i in range(word >> 32 & 0xFF)
    ])


def gate_size(rows):
    return map_gate(NULL, checked_rows(rows)).size


def format_gate(buffer, rows):
    cdef uint32_t capacity = checked_rows(rows)
    cdef GateMemory gate
    cdef Py_buffer view
    PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    try:
        gate = map_gate(<char*>view.buf, capacity)
        if <uint64_t>view.len != gate.size:
            raise LayoutError(f"the size in bytes of a gate of {capacity} rows", gate.size, view.len)
        memset(view.buf, 0, view.len)
        gate.header.version = LAYOUT_VERSION
        gate.header.rows = capacity
        gate.header.size = gate.size
        gate.header.index_entries = index_entries(capacity)
        gate.header.network_lists = network_lists(capacity)
        store(&gate.header.magic, MAGIC, RELEASE)
    finally:
        PyBuffer_Release(&view)


def check_gate(buffer):
    cdef Py_buffer view
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        check_layout(<const char*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
