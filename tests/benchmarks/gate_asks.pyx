# cython: language_level=3, boundscheck=False, wraparound=False
"""Questions to a gate without Python in between; compiled by bench_gate.py when it runs."""
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from billing._admission cimport gate_admit, gate_admit_digest
from billing._gate cimport ACQUIRE, ADMITTED, KEY_BYTES, RELAXED, SCOPE_PRICES, Gate, GateVerdict, load


def admit_all(Gate gate, list keys, uint64_t mono_ns):
    """Ask once for each key's text; gives how many were admitted."""
    cdef int64_t admitted = 0, number
    cdef GateVerdict verdict
    cdef const char* key
    for number in range(len(keys)):
        key = <bytes>keys[number]
        admitted += gate_admit(&gate.memory, key, KEY_BYTES, mono_ns, 1, SCOPE_PRICES, NULL, 1, &verdict) == ADMITTED
    return admitted


def admit_digests(Gate gate, list digests, uint64_t mono_ns):
    """The same without reading and hashing the text."""
    cdef int64_t admitted = 0, number
    cdef GateVerdict verdict
    cdef const uint8_t* digest
    for number in range(len(digests)):
        digest = <bytes>digests[number]
        admitted += gate_admit_digest(&gate.memory, digest, mono_ns, 1, SCOPE_PRICES, NULL, 1, &verdict) == ADMITTED
    return admitted


def touch_rows(Gate gate, list digests, uint64_t nothing):
    """Load a word of the index and one of the row, each load after the last one's end: what the memory itself costs."""
    cdef uint64_t last = 0
    cdef uint32_t mask = gate.memory.header.index_entries - 1, rows = gate.memory.header.rows
    cdef int64_t number
    cdef const uint64_t* digest
    for number in range(len(digests)):
        digest = <const uint64_t*><const char*><bytes>digests[number]
        last = load(&gate.memory.index[(digest[0] + (last & nothing)) & mask], ACQUIRE)
        last = load(&gate.memory.rows[(digest[1] + (last & nothing)) % rows].tat_ns, RELAXED)
    return last
