"""What answers plain questions from the board alone, for the compiled modules that do: HTTP's fast path, the UDP batch."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from pricing._board cimport MAX_EXCHANGES, BoardReader, PriceCopy
from pricing._text cimport Text
from telemetry._spool cimport NAME_BYTES, QUOTE_BYTES

cdef enum:
    LABEL_BYTES = 256

cdef struct Label:                     # what an answer says of an exchange, between the price and its time
    bint looked_at                     # at this edition
    bint known                         # and it can be told without an escape
    uint16_t edition
    size_t length
    char text[LABEL_BYTES]
    uint8_t source                     # and what a usage record says of it
    uint8_t flags
    char exchange[NAME_BYTES]
    char quote[QUOTE_BYTES]


cdef class Finder:
    cdef BoardReader board             # closed: nothing is found
    cdef int64_t ttl_ms
    cdef str template                  # of labels
    cdef object listed                 # an asset's name -> the exchanges that may answer
    cdef bint behind                   # a question met what is new on the board: learn() before it is asked again
    cdef Label labels[MAX_EXCHANGES]
    cdef list names                    # by exchange row: whose label it is
    cdef uint64_t* allowed             # by asset row: a bit for each exchange row that may answer
    cdef uint32_t places               # in it
    cdef uint32_t assets               # of which are known

    # Copies a fresh price out that may be told as it is, with the label of its exchange row; 0 = somebody else must look.
    cdef bint find(
        self, const Text* asset, const Text* exchange, int64_t max_age_ms, int64_t mono_ns, PriceCopy* out
    ) noexcept nogil
    cdef int look_at(self, uint32_t exchange) except -1
    cdef int allow(self) except -1
