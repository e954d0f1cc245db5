# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The price board: the latest tick of every asset on every exchange, in memory that processes share.

The layout and the reads are in _board.pxd; here is what Python sees. _board_writer.pyx writes.
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memset

from billing._crc32 cimport crc32_fill_tables, crc32_of
from pricing._text cimport utf8_of
from telemetry._mapped cimport check_start

from collections import namedtuple

from pricing.exceptions import LayoutError

cdef extern from "Python.h":
    str PyUnicode_DecodeASCII(const char* text, Py_ssize_t size, const char* errors)
    str PyUnicode_DecodeUTF8(const char* text, Py_ssize_t size, const char* errors)

cdef uint64_t MAGIC = 0x3144_5241_4F42_5254    # "TRBOARD1" where the low byte comes first

ExchangeRow = namedtuple("ExchangeRow", "name source quote ticks last_tick_mono_ns")

crc32_fill_tables()


cdef uint32_t crc32(const void* data, size_t length) noexcept nogil:
    return crc32_of(data, length)


# -- layout ----------------------------------------------------------------------------------------------------------

cdef uint32_t index_entries(uint32_t rows) noexcept nogil:
    """Entries of an index that is at most half full with *rows*."""
    cdef uint32_t entries = 16
    while entries < 2 * rows:
        entries *= 2
    return entries


cdef Board map_board(char* base, uint32_t slots) noexcept nogil:
    """Say where each part is, in the order of the parts: the only place that adds sizes up."""
    cdef Board board
    cdef char* at = base
    board.header = <Header*>at
    at += sizeof(Header)
    board.exchanges = <ExchangeEntry*>at
    at += MAX_EXCHANGES * sizeof(ExchangeEntry)
    board.exchange_index = <uint64_t*>at
    at += EXCHANGE_INDEX * sizeof(uint64_t)
    board.status = <Status*>at
    at += sizeof(Status)
    board.asset_index = <uint64_t*>at
    at += index_entries(slots) * sizeof(uint64_t)
    board.assets = <AssetEntry*>at
    at += <size_t>slots * sizeof(AssetEntry)
    board.slots = <Slot*>at
    at += <size_t>slots * sizeof(Slot)
    board.size = at - base
    return board


cdef uint32_t checked_slots(slots) except 0:
    if not 1 <= slots <= MAX_SLOTS:
        raise ValueError(f"a board has 1 to {MAX_SLOTS} slots, not {slots}")
    return slots


cdef int check_layout(const char* base, Py_ssize_t length) except -1:
    """Refuse memory that is not a board of this version, byte order and size."""
    cdef const Header* header = <const Header*>base
    check_start(base, length, sizeof(Header), MAGIC, LAYOUT_VERSION)
    if not 1 <= header.slots <= MAX_SLOTS:
        raise LayoutError("the number of slots", f"1 to {MAX_SLOTS}", header.slots)
    cdef Board board = map_board(<char*>base, header.slots)
    if header.size != board.size or header.index_entries != index_entries(header.slots):
        raise LayoutError(f"the recorded size of a board of {header.slots} slots", board.size, header.size)
    if <uint64_t>length != board.size:
        raise LayoutError(f"the size in bytes of a board of {header.slots} slots", board.size, length)
    if header.exchanges > MAX_EXCHANGES or header.assets > header.slots:
        raise LayoutError(
            "the number of rows", f"at most {MAX_EXCHANGES} exchanges and {header.slots} assets",
            f"{header.exchanges} exchanges and {header.assets} assets",
        )
    return 0


# -- what Python sees ------------------------------------------------------------------------------------------------

cdef inline str text_of(const char* text, size_t length):
    return PyUnicode_DecodeUTF8(text, length, "replace")


@cython.final
cdef class Sources:
    """An exchange's texts as Python objects, of one edition of its labels."""


@cython.final
@cython.freelist(64)
cdef class Price:
    cdef readonly str asset, exchange, source, quote, price
    cdef readonly int64_t traded_ns, received_ns, received_mono_ns

    def __init__(
        self, str asset not None, str exchange not None, str source not None, str quote not None, str price not None,
        int64_t traded_ns, int64_t received_ns, int64_t received_mono_ns,
    ):
        self.asset, self.exchange, self.source, self.quote, self.price = asset, exchange, source, quote, price
        self.traded_ns, self.received_ns, self.received_mono_ns = traded_ns, received_ns, received_mono_ns

    def age_ns(self, int64_t mono_ns):
        cdef PriceCopy copy
        copy.traded_ns, copy.received_ns, copy.received_mono_ns = self.traded_ns, self.received_ns, self.received_mono_ns
        return age_of(&copy, mono_ns)

    def __reduce__(self):
        return Price, self._fields()

    def __eq__(self, other):
        return self._fields() == (<Price>other)._fields() if isinstance(other, Price) else NotImplemented

    def __hash__(self):
        return hash(self._fields())

    def __repr__(self):
        return (
            f"Price(asset={self.asset!r}, exchange={self.exchange!r}, source={self.source!r}, quote={self.quote!r}, "
            f"price={self.price!r}, traded_ns={self.traded_ns}, received_ns={self.received_ns}, "
            f"received_mono_ns={self.received_mono_ns})"
        )

    cdef tuple _fields(self):
        return (
            self.asset, self.exchange, self.source, self.quote, self.price,
            self.traded_ns, self.received_ns, self.received_mono_ns,
        )


cdef class BoardReader(Mapped):
    def __init__(self, buffer):
        self.attach(buffer, PyBUF_SIMPLE)

    cdef int map(self, char* base, Py_ssize_t length) except -1:
        check_layout(base, length)
        self.board = map_board(base, (<Header*>base).slots)
        self.sources = [None] * MAX_EXCHANGES
        self.last_status = b""
        return 0

    cdef void let_go(self) noexcept:
        self.board.header = NULL
        Mapped.let_go(self)

    cdef int check_open(self) except -1:
        if self.board.header is NULL:
            raise ValueError("the board is closed")
        return 0

    cdef int64_t asset_row(self, str asset) except -2:
        cdef Py_ssize_t length = 0
        self.check_open()
        cdef const char* name = utf8_of(asset, &length)
        return -1 if name is NULL else find_asset(&self.board, name, length)

    cdef int64_t exchange_row(self, str exchange) except -2:
        cdef Py_ssize_t length = 0
        self.check_open()
        cdef const char* name = utf8_of(exchange, &length)
        return -1 if name is NULL else find_exchange(&self.board, name, length)

    cdef object sources_of(self, uint32_t exchange):
        """The texts beside an exchange's prices, made anew only when their edition has changed."""
        cdef Sources known = self.sources[exchange]
        cdef ExchangeEntry* entry = &self.board.exchanges[exchange]
        cdef Labels labels
        if known is not None and known.edition == load32(&entry.edition, ACQUIRE):
            return known
        cdef uint64_t name[NAME_WORDS]
        if not read_labels(&self.board, exchange, &labels, &self.counts) or labels.source_length == 0:
            return None
        read_name(entry, name)
        if <int32_t>(load32(&entry.edition, RELAXED) - labels.edition) > 0:
            return None  # the row was given away meanwhile: the name may be the next exchange's
        known = Sources.__new__(Sources)
        known.edition = labels.edition
        known.name = text_of(<const char*>name, (<const uint8_t*>name)[NAME_BYTES])
        known.source = text_of(labels.source, labels.source_length)
        known.quote = text_of(labels.quote, labels.quote_length)
        self.sources[exchange] = known
        return known

    cdef object make_price(self, str asset, const PriceCopy* found):
        """The price with its texts; None when the labels changed after it was read."""
        cdef Sources sources = self.sources_of(found.exchange)
        if sources is None or <uint16_t>sources.edition != found.edition:
            return None
        cdef Price price = Price.__new__(Price)
        price.asset = asset
        price.exchange = sources.name
        price.source = sources.source
        price.quote = sources.quote
        price.price = PyUnicode_DecodeASCII(found.price, found.length, NULL)
        price.traded_ns = found.traded_ns
        price.received_ns = found.received_ns
        price.received_mono_ns = found.received_mono_ns
        return price

    def get(self, str asset not None, str exchange not None):
        cdef int64_t row = self.asset_row(asset), column = self.exchange_row(exchange)
        cdef PriceCopy found
        cdef Py_ssize_t length = 0
        if row < 0 or column < 0 or not read_price(&self.board, row, column, &found, &self.counts):
            return None
        cdef const char* name = utf8_of(exchange, &length)
        if not is_still(&self.board, column, name, length):
            return None
        return self.make_price(asset, &found)

    def best(self, str asset not None, int64_t mono_ns, int64_t ttl_ns):
        cdef int64_t row = self.asset_row(asset)
        cdef PriceCopy found
        if row < 0 or not read_best(&self.board, row, mono_ns, ttl_ns, &found, &self.counts):
            return None
        return self.make_price(asset, &found)

    def all(self, str asset not None):
        cdef int64_t row = self.asset_row(asset)
        cdef uint32_t exchange
        cdef PriceCopy found
        prices = []
        if row < 0:
            return prices
        for exchange in range(load32(&self.board.header.exchanges, ACQUIRE)):
            if read_price(&self.board, row, exchange, &found, &self.counts):
                price = self.make_price(asset, &found)
                if price is not None:
                    prices.append(price)
        return prices

    def home(self, str asset not None):
        cdef int64_t row = self.asset_row(asset)
        cdef uint8_t home = 0 if row < 0 else load8(&self.board.assets[row].home, ACQUIRE)
        cdef Sources sources = None if home == 0 else self.sources_of(home - 1)
        if sources is None or load8(&self.board.assets[row].home, ACQUIRE) != home:
            return None  # a row is no home before it is given away
        return sources.name

    def assets(self):
        cdef uint32_t row
        self.check_open()
        return [
            text_of(self.board.assets[row].name, self.board.assets[row].name_length)
            for row in range(load32(&self.board.header.assets, ACQUIRE))
        ]

    def exchanges(self):
        cdef uint32_t exchange
        cdef ExchangeEntry* entry
        cdef Sources sources
        self.check_open()
        rows = []
        for exchange in range(load32(&self.board.header.exchanges, ACQUIRE)):
            sources = self.sources_of(exchange)
            if sources is not None:
                entry = &self.board.exchanges[exchange]
                rows.append(ExchangeRow(
                    sources.name, sources.source, sources.quote,
                    load64(<word*>&entry.ticks, RELAXED), load_time(&entry.last_tick_mono_ns, RELAXED),
                ))
        return rows

    def status(self):
        self.check_open()
        cdef Status* status = self.board.status
        cdef int tries, spoilt = 0
        cdef uint64_t seen
        cdef StatusCopy* copy
        for tries in range(STATUS_TRIES):
            seen = load64(<word*>&status.sequence, ACQUIRE)
            if seen < 2:
                break
            copy = &status.copies[(seen ^ spoilt) & 1]
            document = read_document(copy)
            fence(ACQUIRE)
            if load64(<word*>&status.sequence, RELAXED) != seen:
                self.counts.retries += 1
            elif document is None:
                self.counts.spoilt += 1
                spoilt ^= 1
            else:
                self.last_status = document
                break
        return self.last_status

    @property
    def generation(self):
        self.check_open()
        return load64(<word*>&self.board.header.generation, ACQUIRE)

    @property
    def writer_pid(self):
        self.check_open()
        return load_time(&self.board.header.writer_pid, ACQUIRE)

    @property
    def heartbeat_mono_ns(self):
        self.check_open()
        return load_time(&self.board.header.heartbeat_mono_ns, ACQUIRE)

    @property
    def slots(self):
        self.check_open()
        return self.board.header.slots

    @property
    def read_counts(self):
        return {
            "retries": self.counts.retries, "spoilt": self.counts.spoilt, "exhausted": self.counts.exhausted,
        }


cdef bytes read_document(const StatusCopy* copy):
    """The document in one copy; None when its CRC is wrong."""
    cdef uint32_t length = load32(&copy.length, RELAXED), crc = load32(&copy.crc, RELAXED)
    cdef size_t words = (<size_t>length + 7) // 8, i
    if length > STATUS_BYTES:
        return None
    cdef bytes text = PyBytes_FromStringAndSize(NULL, words * sizeof(uint64_t))
    cdef word* out = <word*>PyBytes_AS_STRING(text)
    for i in range(words):
        out[i] = load64(&(<const word*>copy.text)[i], RELAXED)
    return text[:length] if crc32(out, words * sizeof(uint64_t)) == crc else None


# -- making one --------------------------------------------------------------------------------------------------------

def board_size(slots):
    return map_board(NULL, checked_slots(slots)).size


def format_board(buffer, slots):
    cdef uint32_t count = checked_slots(slots)
    cdef Py_buffer view
    PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    cdef Board board = map_board(<char*>view.buf, count)
    try:
        if <size_t>view.buf % sizeof(uint64_t) or <uint64_t>view.len != board.size:
            raise LayoutError(f"the size in bytes of a board of {count} slots", board.size, view.len)
        memset(view.buf, 0, view.len)
        board.header.version = LAYOUT_VERSION
        board.header.slots = count
        board.header.size = board.size
        board.header.index_entries = index_entries(count)
        store64(<word*>&board.header.magic, MAGIC, RELEASE)
    finally:
        PyBuffer_Release(&view)
