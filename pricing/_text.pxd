"""Bytes that compiled modules read and write alike: kinds of characters, names, numbers, clocks. All of it is inlined."""
from cpython.exc cimport PyErr_Clear
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size)    # NULL, with an error set, for lone surrogates

cdef extern from *:
    """
    #include <time.h>

    enum { TEXT_TOKEN = 1, TEXT_VALUE = 2, TEXT_UPPER = 4, TEXT_LOWER = 8, TEXT_JSON = 16, TEXT_DIGIT = 32 };

    /* What each byte may be part of. Above 0x7E: of nothing. */
    #define T TEXT_TOKEN | TEXT_VALUE | TEXT_JSON
    #define V TEXT_VALUE | TEXT_JSON
    static const uint8_t text_kinds[256] = {
        ['\\t'] = TEXT_VALUE,
        [' '] = V, ['!'] = T, ['"'] = TEXT_VALUE, ['#' ... '\\''] = T, ['('] = V, [')'] = V, ['*'] = T, ['+'] = T,
        [','] = V, ['-'] = T | TEXT_LOWER, ['.'] = T, ['/'] = V,
        ['0' ... '9'] = T | TEXT_UPPER | TEXT_LOWER | TEXT_DIGIT, [':' ... '@'] = V,
        ['A' ... 'Z'] = T | TEXT_UPPER, ['['] = V, ['\\\\'] = TEXT_VALUE, [']'] = V, ['^'] = T,
        ['_'] = T | TEXT_LOWER, ['`'] = T, ['a' ... 'z'] = T | TEXT_LOWER, ['{'] = V, ['|'] = T, ['}'] = V, ['~'] = T,
    };
    #undef T
    #undef V

    static inline int64_t text_clock(clockid_t clock) {
        struct timespec now;
        clock_gettime(clock, &now);
        return now.tv_sec * 1000000000LL + now.tv_nsec;
    }

    /* The wall clock first: whatever comes between, wall + what has passed since mono is never in the future. */
    static inline void text_clocks(int64_t* mono_ns, int64_t* wall_ns) {
        *wall_ns = text_clock(CLOCK_REALTIME);
        *mono_ns = text_clock(CLOCK_MONOTONIC);
    }
    """
    int TOKEN "TEXT_TOKEN"             # of a header's name (RFC 9110, 5.6.2)
    int VALUE "TEXT_VALUE"             # of its value, as far as plain ones go
    int UPPER "TEXT_UPPER"             # of an asset
    int LOWER "TEXT_LOWER"             # of an exchange
    int JSON "TEXT_JSON"               # needs no escape
    int DIGIT "TEXT_DIGIT"
    const uint8_t text_kinds[256]
    int64_t read_clock_ns "text_clock"(int clock) noexcept nogil
    void read_clocks_ns "text_clocks"(int64_t* mono_ns, int64_t* wall_ns) noexcept nogil
    int CLOCK_MONOTONIC
    int CLOCK_REALTIME
    int CLOCK_REALTIME_COARSE

cdef struct Text:                      # within the bytes that are read
    const char* at
    size_t length


cdef inline uint8_t kind(char byte) noexcept nogil:
    return text_kinds[<uint8_t>byte]


cdef inline const char* span(const char* at, const char* end, uint8_t wanted) noexcept nogil:
    """Where the characters of a kind end."""
    while at < end and kind(at[0]) & wanted:
        at += 1
    return at


cdef inline char* put(char* at, const char* text, size_t length) noexcept nogil:
    memcpy(at, text, length)
    return at + length


cdef inline char* put_number(char* at, uint64_t value) noexcept nogil:
    cdef char digits[20]
    cdef int i = 20
    while True:
        i -= 1
        digits[i] = <char>(c"0" + value % 10)
        value //= 10
        if value == 0:
            return put(at, digits + i, 20 - i)


cdef inline void put_digits(char* at, uint32_t value, int digits) noexcept nogil:
    cdef int i
    for i in range(digits - 1, -1, -1):
        at[i] = <char>(c"0" + value % 10)
        value //= 10


cdef inline const char* utf8_of(str text, Py_ssize_t* length) noexcept:
    """UTF-8 of *text*, owned by it; NULL for what has none (a lone surrogate), which is no name."""
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, length)
    if data is NULL:
        PyErr_Clear()
    return data
