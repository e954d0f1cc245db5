"""Judging a request by the gate: what other compiled modules call, each through one pointer."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from billing._gate cimport ACQUIRE, COUNT_BITS, MILLISECOND_NS, RELAXED, GateMemory, GateVerdict, Row, load, low_bits


# Whether every key and count is in it. Who judges asks this first: before, a key may be missing, or its count.
cdef inline bint gate_is_filled(const GateMemory* gate) noexcept nogil:
    return gate.header != NULL and load(&gate.header.month, ACQUIRE) >> COUNT_BITS != 0


# Judges a key's text and, where *take* is set, takes and counts the request. *address*: 16 bytes, or NULL for unknown.
cdef int gate_admit(
    const GateMemory* gate, const char* key, size_t length, uint64_t mono_ns, uint64_t wall_s,
    uint8_t scope, const uint8_t* address, bint take, GateVerdict* out
) noexcept nogil

# The same for who already knows the SHA-256: 32 bytes.
cdef int gate_admit_digest(
    const GateMemory* gate, const uint8_t* digest, uint64_t mono_ns, uint64_t wall_s,
    uint8_t scope, const uint8_t* address, bint take, GateVerdict* out
) noexcept nogil

# In three steps, for who has something else to do while the memory brings what is asked for: hash a key (0: it is none) …
cdef bint gate_hash(const GateMemory* gate, const char* key, size_t length, uint8_t* digest) noexcept nogil

# … have its row brought, and then gate_admit_digest.
cdef void gate_fetch(const GateMemory* gate, const uint8_t* digest) noexcept nogil

# The row of a digest, revoked ones too; -1 when it is nobody's.
cdef int64_t gate_find(const GateMemory* gate, const uint8_t* digest) noexcept nogil


cdef inline uint32_t next_month(uint32_t month) noexcept nogil:
    return month + 89 if month % 100 == 12 else month + 1


cdef inline uint32_t month_at(const GateMemory* gate, uint64_t mono_ns, uint64_t* left_ns) noexcept nogil:
    """The month at an instant, and how long it goes on (0: unknown). It ends by itself, the writer may be late or dead."""
    cdef uint64_t word = load(&gate.header.month, ACQUIRE), ends_ns = (word & low_bits(COUNT_BITS)) * MILLISECOND_NS
    left_ns[0] = 0
    if ends_ns == 0:
        return word >> COUNT_BITS
    if mono_ns >= ends_ns:
        return next_month(word >> COUNT_BITS)
    left_ns[0] = ends_ns - mono_ns
    return word >> COUNT_BITS


cdef inline uint32_t month_of_row(Row* row, uint32_t month) noexcept nogil:
    """No earlier one than the row has counted in: a month that has ended is never opened again."""
    cdef uint32_t odd = load(&row.used[1], RELAXED) >> COUNT_BITS, even = load(&row.used[0], RELAXED) >> COUNT_BITS
    month = odd if odd > month else month
    return even if even > month else month


cdef inline uint64_t count_in(uint64_t word, uint32_t month) noexcept nogil:
    return word & low_bits(COUNT_BITS) if word >> COUNT_BITS == month else 0
