"""zlib's CRC-32, inlined. A module that calls it fills the tables first: they are its own."""
from libc.stdint cimport uint32_t

cdef extern from "../billing/_crc32.h":    # from any package beside this one
    void crc32_fill_tables() noexcept
    uint32_t crc32_of(const void* text, size_t length) noexcept nogil
