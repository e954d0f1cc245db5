# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The price board: the latest tick of every asset on every exchange, in memory that processes share.

The layout and the reads are in _board.pxd; here are the writer's stores and what Python sees.
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_Clear
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.string cimport memcpy, memset

from collections import namedtuple

from pricing.exceptions import BoardFull, LayoutError

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size)    # NULL, with an error set, for lone surrogates
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    str PyUnicode_DecodeASCII(const char* text, Py_ssize_t size, const char* errors)
    str PyUnicode_DecodeUTF8(const char* text, Py_ssize_t size, const char* errors)

cdef uint64_t MAGIC = 0x3144_5241_4F42_5254    # "TRBOARD1" where the low byte comes first

ExchangeRow = namedtuple("ExchangeRow", "name source quote ticks last_tick_mono_ns")


# -- CRC-32, eight bytes a step (the "slicing" tables of Kounavis and Berry) ------------------------------------------

cdef uint32_t crc_tables[8][256]


cdef void fill_crc_tables() noexcept:
    cdef uint32_t value
    cdef unsigned int byte, bit, table
    for byte in range(256):
        value = byte
        for bit in range(8):
            value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
        crc_tables[0][byte] = value
    for byte in range(256):
        for table in range(1, 8):
            value = crc_tables[table - 1][byte]
            crc_tables[table][byte] = (value >> 8) ^ crc_tables[0][value & 0xFF]


fill_crc_tables()


cdef uint32_t crc32(const void* data, size_t length) noexcept nogil:
    cdef const uint8_t* at = <const uint8_t*>data
    cdef uint32_t value = 0xFFFFFFFF
    while length >= 8:
        value ^= at[0] | <uint32_t>at[1] << 8 | <uint32_t>at[2] << 16 | <uint32_t>at[3] << 24
        value = (
            crc_tables[7][value & 0xFF] ^ crc_tables[6][value >> 8 & 0xFF]
            ^ crc_tables[5][value >> 16 & 0xFF] ^ crc_tables[4][value >> 24]
            ^ crc_tables[3][at[4]] ^ crc_tables[2][at[5]] ^ crc_tables[1][at[6]] ^ crc_tables[0][at[7]]
        )
        at += 8
        length -= 8
    while length:
        value = (value >> 8) ^ crc_tables[0][(value ^ at[0]) & 0xFF]
        at += 1
        length -= 1
    return ~value


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
    if <size_t>base % sizeof(uint64_t):
        raise LayoutError("the alignment", "8 bytes", f"{<size_t>base % sizeof(uint64_t)} bytes off")
    if length < <Py_ssize_t>sizeof(Header):
        raise LayoutError("the size in bytes", f"at least {sizeof(Header)}", length)
    if load64(<const word*>&header.magic, ACQUIRE) != MAGIC:
        raise LayoutError("the magic", f"{MAGIC:#018x}", f"{header.magic:#018x}")
    if header.version != LAYOUT_VERSION:
        raise LayoutError("the layout version", LAYOUT_VERSION, header.version)
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


# -- stores ----------------------------------------------------------------------------------------------------------

cdef inline void put_words(void* copy, size_t words, const void* value) noexcept nogil:
    cdef size_t i
    for i in range(words):
        store64(&(<word*>copy)[i], (<const word*>value)[i], RELAXED)


cdef inline void latch_write(uint64_t* sequence, void* copies, size_t stride, size_t words, const void* value) noexcept nogil:
    """Replace a latched value: odd, copy 0, even, copy 1.

    Readers are always sent to the copy that is not being filled. A sequence left odd by a writer that died in
    copy 0 is taken up as it is: readers go on with copy 1 until the copy 0 is whole.
    """
    cdef uint64_t odd = load64(<word*>sequence, RELAXED) | 1
    store64(<word*>sequence, odd, RELEASE)
    fence(RELEASE)  # the odd sequence before the first word of copy 0
    put_words(copies, words, value)
    store64(<word*>sequence, odd + 1, RELEASE)
    fence(RELEASE)  # the even sequence before the first word of copy 1
    put_words(<char*>copies + stride, words, value)


cdef inline void write_slot(Slot* slot, PriceCopy* value) noexcept nogil:
    value.crc = crc32(value, PRICE_CHECKED)
    latch_write(&slot.sequence, slot.copies, sizeof(PriceCopy), PRICE_WORDS, value)


cdef inline void write_labels(ExchangeEntry* entry, Labels* value) noexcept nogil:
    value.crc = crc32(value, LABELS_CHECKED)
    latch_write(&entry.sequence, entry.labels, sizeof(Labels), LABELS_WORDS, value)
    store32(&entry.edition, value.edition, RELEASE)


cdef inline bint is_outdated(uint64_t entry, const char* rows, size_t row_bytes) noexcept nogil:
    """Whether an index entry leads to a row that has another name by now."""
    cdef const char* row = rows + <size_t>(<uint32_t>entry - 1) * row_bytes
    return entry >> 32 != hash_name(row, <uint8_t>row[NAME_BYTES]) >> 32


cdef void index_row(
    uint64_t* index, uint32_t entries, const char* rows, size_t row_bytes, uint32_t number
) noexcept nogil:
    """Make a finished row findable. Outdated entries are written over, never emptied: readers probe across them."""
    cdef const char* row = rows + number * row_bytes
    cdef uint64_t hashed = hash_name(row, <uint8_t>row[NAME_BYTES])
    cdef uint32_t place = <uint32_t>hashed & (entries - 1)
    while index[place] != 0 and not is_outdated(index[place], rows, row_bytes):
        place = (place + 1) & (entries - 1)
    store64(<word*>&index[place], hashed >> 32 << 32 | (number + 1), RELEASE)


cdef void index_exchange(Board* board, uint32_t row) noexcept nogil:
    cdef ExchangeEntry* entry = &board.exchanges[row]
    if entry.name_length and find_exchange(board, entry.name, entry.name_length) < 0:
        index_row(board.exchange_index, EXCHANGE_INDEX, <const char*>board.exchanges, sizeof(ExchangeEntry), row)


cdef void index_asset(Board* board, uint32_t row) noexcept nogil:
    cdef AssetEntry* entry = &board.assets[row]
    if find_asset(board, entry.name, entry.name_length) < 0:
        index_row(
            board.asset_index, board.header.index_entries, <const char*>board.assets, sizeof(AssetEntry), row
        )


# -- texts -----------------------------------------------------------------------------------------------------------

cdef inline const char* utf8_of(str text, Py_ssize_t* length) noexcept:
    """UTF-8 of *text*, owned by it; NULL for what has none (a lone surrogate), which is no board's name."""
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, length)
    if data is NULL:
        PyErr_Clear()
    return data


cdef int copy_text(char* target, str text, size_t limit, str what) except -1:
    """Fill zeroed memory with *text* and return its length."""
    cdef Py_ssize_t length = 0
    cdef const char* data = utf8_of(text, &length)
    if data is NULL or not 1 <= <size_t>length <= limit:
        raise ValueError(f"{what} must have 1 to {limit} bytes of UTF-8: {text!r}")
    memcpy(target, data, length)
    return <int>length


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


@cython.no_gc_clear  # clearing would drop the buffer's owner without releasing the buffer
cdef class BoardReader:
    def __init__(self, buffer):
        self.attach(buffer, PyBUF_SIMPLE)

    def __dealloc__(self):
        self.close()

    def close(self):
        self.board.header = NULL
        if self.held:
            self.held = False
            PyBuffer_Release(&self.view)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()

    cdef int attach(self, object buffer, int flags) except -1:
        self.close()
        PyObject_GetBuffer(buffer, &self.view, flags)
        self.held = True
        try:
            check_layout(<const char*>self.view.buf, self.view.len)
        except LayoutError:
            self.close()
            raise
        self.board = map_board(<char*>self.view.buf, (<Header*>self.view.buf).slots)
        self.sources = [None] * MAX_EXCHANGES
        self.last_status = b""
        return 0

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


cdef struct Owner:                     # the writer's own note of what a slot is for
    uint32_t asset
    uint8_t exchange
    bint placed


cdef class BoardWriter(BoardReader):
    cdef Owner* owners                 # by slot
    cdef uint32_t* free                # a stack of free slot numbers
    cdef uint32_t free_count
    cdef StatusCopy* draft

    def __init__(self, buffer, int64_t pid, int64_t mono_ns):
        self.attach(buffer, PyBUF_WRITABLE)
        self.allocate()
        self.repair()
        store_time(&self.board.header.writer_pid, pid, RELEASE)
        self.beat(mono_ns)
        store64(<word*>&self.board.header.generation, self.board.header.generation + 1, RELEASE)

    def __dealloc__(self):
        self.release()

    cdef int allocate(self) except -1:
        cdef size_t slots = self.board.header.slots
        self.release()
        self.owners = <Owner*>PyMem_Malloc(slots * sizeof(Owner))
        self.free = <uint32_t*>PyMem_Malloc(slots * sizeof(uint32_t))
        self.draft = <StatusCopy*>PyMem_Malloc(sizeof(StatusCopy))
        if self.owners is NULL or self.free is NULL or self.draft is NULL:
            raise MemoryError
        memset(self.owners, 0, slots * sizeof(Owner))
        return 0

    cdef void release(self) noexcept:
        PyMem_Free(self.owners)
        PyMem_Free(self.free)
        PyMem_Free(self.draft)
        self.owners = NULL
        self.free = NULL
        self.draft = NULL

    # -- taking over ---------------------------------------------------------------------------------------------

    cdef int repair(self) except -1:
        """Finish what a killed writer left half done, and learn which slots are taken."""
        self.repair_exchanges()
        self.repair_assets()
        self.repair_slots()
        self.repair_status()
        return 0

    cdef void repair_exchanges(self) noexcept:
        cdef uint32_t row
        cdef ExchangeEntry* entry
        cdef Labels labels
        for row in range(self.board.header.exchanges):
            entry = &self.board.exchanges[row]
            index_exchange(&self.board, row)
            if read_labels(&self.board, row, &labels, &self.counts):
                write_labels(entry, &labels)

    cdef void repair_assets(self) noexcept:
        cdef uint32_t row, exchange, slot
        cdef AssetEntry* entry
        for row in range(self.board.header.assets):
            entry = &self.board.assets[row]
            index_asset(&self.board, row)
            for exchange in range(self.board.header.exchanges):
                slot = entry.slots[exchange]
                if 0 < slot <= self.board.header.slots:
                    self.owners[slot - 1] = Owner(row, exchange, True)

    cdef void repair_slots(self) noexcept:
        """Write again what readers see wherever the two copies are not the same, and stack the free slots."""
        cdef uint32_t number
        cdef Slot* slot
        cdef PriceCopy value
        self.free_count = 0
        for number in range(self.board.header.slots, 0, -1):
            slot = &self.board.slots[number - 1]
            if slot.sequence & 1 or memcmp(&slot.copies[0], &slot.copies[1], PRICE_WORDS * sizeof(uint64_t)):
                if not read_latched(
                    &slot.sequence, slot.copies, sizeof(PriceCopy), PRICE_WORDS, PRICE_CHECKED, &value, &self.counts
                ):
                    memset(&value, 0, sizeof(value))
                write_slot(slot, &value)
            if not self.owners[number - 1].placed:
                self.free[self.free_count] = number - 1
                self.free_count += 1

    cdef int repair_status(self) except -1:
        if self.board.status.sequence != 0:
            self.write_status(self.status())
        return 0

    # -- names and places ----------------------------------------------------------------------------------------

    def set_exchange(self, str name not None, *, str source not None, str quote not None):
        cdef int64_t row = self.exchange_row(name)
        cdef Labels labels, old
        memset(&labels, 0, sizeof(labels))
        labels.source_length = copy_text(labels.source, source, SOURCE_BYTES, "a source")
        labels.quote_length = copy_text(labels.quote, quote, NAME_BYTES, "a quote currency")
        if row < 0:
            self.append_exchange(name, &labels)
            return
        cdef ExchangeEntry* entry = &self.board.exchanges[row]
        labels.edition = entry.edition
        old = entry.labels[0]
        if memcmp(&labels, &old, LABELS_CHECKED):
            labels.edition += 1
            write_labels(entry, &labels)

    cdef int append_exchange(self, str name, Labels* labels) except -1:
        cdef uint32_t row = self.board.header.exchanges
        cdef ExchangeEntry* entry = &self.board.exchanges[row]
        cdef uint64_t named[NAME_WORDS]
        memset(named, 0, sizeof(named))
        (<uint8_t*>named)[NAME_BYTES] = copy_text(<char*>named, name, NAME_BYTES, "an exchange's name")
        if row == MAX_EXCHANGES:
            self.take_over_row(self.unused_exchange(), named, labels)
            return 0
        memset(entry, 0, sizeof(ExchangeEntry))
        memcpy(entry, named, sizeof(named))
        labels.edition = 1
        write_labels(entry, labels)
        store32(&self.board.header.exchanges, row + 1, RELEASE)
        index_exchange(&self.board, row)
        return 0

    cdef int64_t unused_exchange(self) except -1:
        """The first exchange row that has no place."""
        cdef bint used[MAX_EXCHANGES]
        cdef uint32_t slot, row
        memset(used, 0, sizeof(used))
        for slot in range(self.board.header.slots):
            if self.owners[slot].placed:
                used[self.owners[slot].exchange] = True
        for row in range(MAX_EXCHANGES):
            if not used[row]:
                return row
        raise BoardFull("exchanges", MAX_EXCHANGES)

    cdef void take_over_row(self, uint32_t row, const uint64_t* named, Labels* labels) noexcept:
        """Give an unused row to another exchange; to readers it is nobody's while its name changes.

        No home leads to it and it has the labels of nobody before the name is touched; without a length no
        half-written name is found. A reader that looked the old name up before finds no price or another name.
        """
        cdef ExchangeEntry* entry = &self.board.exchanges[row]
        cdef Labels nobody
        cdef uint32_t asset
        for asset in range(self.board.header.assets):
            if self.board.assets[asset].home == row + 1:
                store8(&self.board.assets[asset].home, 0, RELEASE)
        memset(&nobody, 0, sizeof(nobody))
        nobody.edition = entry.edition + 1
        write_labels(entry, &nobody)
        fence(RELEASE)  # the edition of nobody before the name's first word
        store64(&(<word*>entry)[NAME_WORDS - 1], 0, RELEASE)
        put_words(entry, NAME_WORDS - 1, named)
        store64(<word*>&entry.ticks, 0, RELAXED)
        store_time(&entry.last_tick_mono_ns, 0, RELAXED)
        store64(&(<word*>entry)[NAME_WORDS - 1], named[NAME_WORDS - 1], RELEASE)
        labels.edition = nobody.edition + 1
        write_labels(entry, labels)
        index_exchange(&self.board, row)

    cdef int64_t asset_row_for(self, str asset) except -1:
        """The asset's row, appended when it is new: first the row, then the count, then the index."""
        cdef int64_t row = self.asset_row(asset)
        if row >= 0:
            return row
        row = self.board.header.assets
        if row == self.board.header.slots:
            raise BoardFull("assets", self.board.header.slots)
        cdef AssetEntry* entry = &self.board.assets[row]
        memset(entry, 0, sizeof(AssetEntry))
        entry.name_length = copy_text(entry.name, asset, NAME_BYTES, "an asset's name")
        store32(&self.board.header.assets, row + 1, RELEASE)
        index_asset(&self.board, row)
        return row

    cdef int64_t known_exchange(self, str exchange) except -1:
        cdef int64_t row = self.exchange_row(exchange)
        if row < 0:
            raise KeyError(exchange)
        return row

    def place(self, str asset not None, str exchange not None):
        cdef int64_t column = self.known_exchange(exchange), row = self.asset_row(asset)
        if row >= 0 and self.board.assets[row].slots[column]:
            return self.board.assets[row].slots[column] - 1
        if self.free_count == 0:
            raise BoardFull("slots", self.board.header.slots)
        row = self.asset_row_for(asset)
        cdef uint32_t slot = self.free[self.free_count - 1]
        self.free_count -= 1
        self.owners[slot] = Owner(row, column, True)
        self.forget(slot)
        store32(&self.board.assets[row].slots[column], slot + 1, RELEASE)
        return slot

    def remove(self, str asset not None, str exchange not None):
        cdef int64_t row = self.asset_row(asset), column = self.exchange_row(exchange)
        if row < 0 or column < 0 or self.board.assets[row].slots[column] == 0:
            return
        cdef uint32_t slot = self.board.assets[row].slots[column] - 1
        store32(&self.board.assets[row].slots[column], 0, RELEASE)
        self.forget(slot)
        self.owners[slot].placed = False
        self.free[self.free_count] = slot
        self.free_count += 1

    def set_home(self, str asset not None, str exchange):
        cdef int64_t column = -1 if exchange is None else self.known_exchange(exchange)
        cdef int64_t row = self.asset_row_for(asset)
        store8(&self.board.assets[row].home, <uint8_t>(column + 1), RELEASE)

    # -- prices --------------------------------------------------------------------------------------------------

    cdef void forget(self, uint32_t slot) noexcept:
        cdef PriceCopy value
        memset(&value, 0, sizeof(value))
        write_slot(&self.board.slots[slot], &value)

    cdef int check_placed(self, uint32_t slot) except -1:
        self.check_open()
        if slot >= self.board.header.slots or not self.owners[slot].placed:
            raise ValueError(f"slot {slot} is nobody's place")
        return 0

    def write(
        self, uint32_t slot, str price not None, int64_t traded_ns, int64_t received_ns, int64_t received_mono_ns
    ):
        cdef Py_ssize_t length = 0
        cdef const char* digits = utf8_of(price, &length)
        cdef PriceCopy value
        self.check_placed(slot)
        if digits is NULL or not 1 <= length <= PRICE_BYTES or length != PyUnicode_GET_LENGTH(price):
            raise ValueError(f"a price must have 1 to {PRICE_BYTES} ASCII characters: {price!r}")
        cdef ExchangeEntry* exchange = &self.board.exchanges[self.owners[slot].exchange]
        memset(&value, 0, sizeof(value))
        memcpy(value.price, digits, length)
        value.length = <uint8_t>length
        value.asset = self.owners[slot].asset
        value.exchange = self.owners[slot].exchange
        value.edition = <uint16_t>exchange.edition
        value.traded_ns = traded_ns
        value.received_ns = received_ns
        value.received_mono_ns = received_mono_ns
        write_slot(&self.board.slots[slot], &value)
        store64(<word*>&exchange.ticks, exchange.ticks + 1, RELAXED)
        cdef int64_t late_ns = received_ns - traded_ns
        cdef int64_t traded_mono_ns = received_mono_ns - (late_ns if late_ns > 0 else 0)
        if traded_mono_ns > exchange.last_tick_mono_ns:
            store_time(&exchange.last_tick_mono_ns, traded_mono_ns, RELAXED)

    def clear(self, uint32_t slot):
        self.check_placed(slot)
        self.forget(slot)

    def beat(self, int64_t mono_ns):
        self.check_open()
        store_time(&self.board.header.heartbeat_mono_ns, mono_ns, RELEASE)

    def write_status(self, bytes document not None):
        cdef Py_ssize_t length = PyBytes_GET_SIZE(document)
        cdef size_t words = (<size_t>length + 7) // 8
        self.check_open()
        if length > STATUS_BYTES:
            raise ValueError(f"a status document has at most {STATUS_BYTES} bytes, not {length}")
        memset(self.draft, 0, (words + 1) * sizeof(uint64_t))
        memcpy(self.draft.text, PyBytes_AS_STRING(document), length)
        self.draft.length = <uint32_t>length
        self.draft.crc = crc32(self.draft.text, words * sizeof(uint64_t))
        latch_write(
            &self.board.status.sequence, self.board.status.copies, sizeof(StatusCopy), words + 1, self.draft
        )


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
