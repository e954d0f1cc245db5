# cython: language_level=3, boundscheck=False, wraparound=False
"""Reads of a board without Python in between; compiled by bench_board.py when it runs."""
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport strlen
from pricing._board cimport (
    ACQUIRE, BoardReader, PriceCopy, ReadCounts, find_asset, find_exchange, load64, read_best, read_price, word,
)


def read_prices(BoardReader reader, list assets, list exchanges, int64_t rounds):
    """Look both names up and copy the price out, for each pair; gives how many were found."""
    cdef int64_t found = 0, number, count = len(assets), row, column, turn
    cdef PriceCopy price
    cdef ReadCounts counts
    cdef const char* asset
    cdef const char* exchange
    for turn in range(rounds):
        for number in range(count):
            asset, exchange = <bytes>assets[number], <bytes>exchanges[number]
            row = find_asset(&reader.board, asset, strlen(asset))
            column = find_exchange(&reader.board, exchange, strlen(exchange))
            if row >= 0 and column >= 0 and read_price(&reader.board, row, column, &price, &counts):
                found += 1
    return found


def read_bests(BoardReader reader, list assets, int64_t rounds, int64_t mono_ns, int64_t ttl_ns):
    """Look the asset up and copy the best price out; gives how many were found."""
    cdef int64_t found = 0, number, count = len(assets), row, turn
    cdef PriceCopy price
    cdef ReadCounts counts
    cdef const char* asset
    for turn in range(rounds):
        for number in range(count):
            asset = <bytes>assets[number]
            row = find_asset(&reader.board, asset, strlen(asset))
            if row >= 0 and read_best(&reader.board, row, mono_ns, ttl_ns, &price, &counts):
                found += 1
    return found


def touch_slots(BoardReader reader, int64_t[::1] numbers, int64_t nothing):
    """Load one word of each slot, each load after the last one's end: what the memory itself costs."""
    cdef uint64_t last = 0
    cdef int64_t i
    for i in range(numbers.shape[0]):
        last = load64(<const word*>&reader.board.slots[numbers[i] + <int64_t>(last & <uint64_t>nothing)].sequence, ACQUIRE)
    return last
