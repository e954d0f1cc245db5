# cython: language_level=3, boundscheck=False, wraparound=False
"""What every view of shared memory has alike: it holds a buffer until it is closed, and knows what it looks at."""
from cpython.buffer cimport PyBuffer_Release, PyObject_GetBuffer

from telemetry.exceptions import LayoutError

cdef extern from *:
    uint64_t load "__atomic_load_n"(const uint64_t* source, int order) noexcept nogil
    int ACQUIRE "__ATOMIC_ACQUIRE"


cdef int check_start(
    const char* base, Py_ssize_t length, size_t header_bytes, uint64_t magic, uint32_t version
) except -1:
    cdef const uint64_t* words = <const uint64_t*>base
    if <size_t>base % sizeof(uint64_t):
        raise LayoutError("the alignment", "8 bytes", f"{<size_t>base % sizeof(uint64_t)} bytes off")
    if length < <Py_ssize_t>header_bytes:
        raise LayoutError("the size in bytes", f"at least {header_bytes}", length)
    if load(words, ACQUIRE) != magic:
        raise LayoutError("the magic", f"{magic:#018x}", f"{words[0]:#018x}")
    if (<const uint32_t*>&words[1])[0] != version:
        raise LayoutError("the layout version", version, (<const uint32_t*>&words[1])[0])
    return 0


# Without Python attributes it takes no part in collecting garbage, so nothing drops the buffer's owner unreleased.
# One with such attributes needs cython.no_gc_clear, as Counters and the spool's Held have it.
cdef class Mapped:
    def __dealloc__(self):
        self.let_go()

    def close(self):
        self.let_go()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()

    cdef int attach(self, object buffer, int flags) except -1:
        self.let_go()
        PyObject_GetBuffer(buffer, &self.view, flags)
        self.held = True
        try:
            self.map(<char*>self.view.buf, self.view.len)
        except LayoutError:
            self.let_go()
            raise
        return 0

    cdef int map(self, char* base, Py_ssize_t length) except -1:
        raise NotImplementedError

    cdef void let_go(self) noexcept:
        if self.held:
            self.held = False
            PyBuffer_Release(&self.view)
