"""What every view of shared memory has alike: it holds a buffer until it is closed, and knows what it looks at."""
from libc.stdint cimport uint32_t, uint64_t


# Refuse memory that does not begin with an aligned header of this magic, then this version: eight bytes and four.
cdef int check_start(
    const char* base, Py_ssize_t length, size_t header_bytes, uint64_t magic, uint32_t version
) except -1


cdef class Mapped:
    cdef Py_buffer view
    cdef bint held                     # the view must be released

    cdef int attach(self, object buffer, int flags) except -1
    cdef int map(self, char* base, Py_ssize_t length) except -1    # raises LayoutError: the buffer is let go of
    cdef void let_go(self) noexcept   # a subclass forgets where its parts are, and then calls this one
