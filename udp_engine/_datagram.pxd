"""One datagram read: a strict JSON reader that knows the protocol's fields, changes the bytes in place, and allocates nothing."""
from libc.stdint cimport int64_t

from pricing._text cimport Text

cdef enum:
    DATAGRAM_BYTES = 1_200             # a longer one is not read
    MAX_ASSETS = 30
    MAX_ID = 64
    MAX_NAME = 32                      # of an asset or an exchange
    MAX_AGE_MS = 86_400_000
    MAX_DEPTH = 4                      # the object itself is the first level

cdef enum:                             # what a datagram is
    DROPPED                            # in silence, for `reason`
    BAD_REQUEST                        # an object, with something wrong in it
    NO_ASSET                           # nor anything that goes with one
    ONE_ASSET
    SEVERAL_ASSETS

cdef struct Request:
    int outcome
    unsigned int reason                # of telemetry._counters.DROP_REASONS
    Text asset                         # in upper case
    Text exchange                      # in lower case; length 0: any
    Text key                           # at is NULL: none
    Text id                            # length 0: none
    int64_t max_age_ms                 # -1: none
    unsigned int count                 # of assets
    Text assets[MAX_ASSETS]            # different ones, in the order asked for


# Reads *datagram*, whose strings are unescaped where they lie: what *out* points to is valid until its bytes are used again.
cdef void read_datagram(char* datagram, size_t length, Request* out) noexcept nogil
