# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A fresh price that may be told, found without Python: which listings are public is kept beside the board's rows."""
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from pricing._board cimport (
    ACQUIRE, Sources, age_of, find_asset, find_exchange, is_still, load32, read_best, read_price,
)
from pricing._text cimport JSON, kind, text_kinds
from telemetry._spool cimport spool_text
from telemetry.usage import read_source

cdef int64_t MS = 1_000_000


cdef class Finder:
    def __cinit__(self, BoardReader board not None, *, int64_t ttl_ms, str label not None):
        board.check_open()
        self.board = board
        self.ttl_ms = ttl_ms
        self.template = label
        self.listed = {}
        self.names = [None] * MAX_EXCHANGES
        memset(self.labels, 0, sizeof(self.labels))
        self.places = board.board.header.slots
        self.allowed = <uint64_t*>calloc(self.places, sizeof(uint64_t))
        if self.allowed is NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.allowed)

    cdef bint find(
        self, const Text* asset, const Text* exchange, int64_t max_age_ms, int64_t mono_ns, PriceCopy* out
    ) noexcept nogil:
        cdef int64_t row, column
        cdef int64_t ttl_ns = (max_age_ms if 0 <= max_age_ms < self.ttl_ms else self.ttl_ms) * MS
        cdef const Label* label
        cdef int i
        if self.board.board.header == NULL:
            return 0
        row = find_asset(&self.board.board, asset.at, asset.length)
        if row < 0:
            return 0
        if row >= self.assets:
            self.behind = 1
            return 0
        if exchange.length == 0:
            if not read_best(&self.board.board, row, mono_ns, ttl_ns, out, &self.board.counts):
                return 0
        else:
            column = find_exchange(&self.board.board, exchange.at, exchange.length)
            if (
                column < 0
                or not read_price(&self.board.board, row, column, out, &self.board.counts)
                or not is_still(&self.board.board, column, exchange.at, exchange.length)
                or age_of(out, mono_ns) > ttl_ns
            ):
                return 0
        label = &self.labels[out.exchange]
        if not label.looked_at or label.edition != out.edition:
            self.behind = 1
            return 0
        if not label.known or not self.allowed[row] >> out.exchange & 1:
            return 0
        for i in range(out.length):
            if not kind(out.price[i]) & JSON:
                return 0
        return out.traded_ns >= 0 and out.received_ns >= 0

    def follow(self, listed):
        self.listed = listed
        self.allow()

    def learn(self):
        cdef uint32_t exchange
        if not self.behind:
            return
        self.board.check_open()
        self.behind = 0
        for exchange in range(load32(&self.board.board.header.exchanges, ACQUIRE)):
            self.look_at(exchange)
        self.allow()

    cdef int look_at(self, uint32_t exchange) except -1:
        """Make an exchange's label, once for each edition of its texts."""
        cdef Label* label = &self.labels[exchange]
        cdef Sources found = self.board.sources_of(exchange)
        cdef bytes text, name, quote
        if found is None:
            label.looked_at = 0
            self.names[exchange] = None
            return 0
        if label.looked_at and label.edition == <uint16_t>found.edition:
            return 0
        text = self.template.format(quote=found.quote, source=found.source, exchange=found.name).encode()
        words = (found.quote + found.source + found.name).encode()
        label.known = len(text) <= LABEL_BYTES and all([text_kinds[byte] & JSON for byte in words])
        if label.known:
            memcpy(label.text, PyBytes_AS_STRING(text), len(text))
            label.length = len(text)
        label.source, label.flags = read_source(found.source)
        name, quote = found.name.encode(), found.quote.encode()
        spool_text(label.exchange, NAME_BYTES, name, len(name))
        spool_text(label.quote, QUOTE_BYTES, quote, len(quote))
        label.edition = <uint16_t>found.edition
        label.looked_at = 1
        self.names[exchange] = found.name
        return 0

    cdef int allow(self) except -1:
        """Work out anew which exchange rows may answer for which asset row."""
        cdef uint32_t row, assets
        cdef uint64_t bits
        if self.board.board.header == NULL:
            return 0
        rows = {name: <uint64_t>1 << row for row, name in enumerate(self.names) if name is not None}
        names = self.board.assets()
        assets = min(<uint32_t>len(names), self.places)
        for row in range(assets):
            bits = 0
            for exchange in self.listed.get(names[row], ()):
                bits |= <uint64_t>rows.get(exchange, 0)
            self.allowed[row] = bits
        self.assets = assets
        return 0
