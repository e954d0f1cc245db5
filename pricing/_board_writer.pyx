# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The board's one writer: names and places, ticks, the status document, and what it finds half done."""
from cpython.buffer cimport PyBUF_WRITABLE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from billing._crc32 cimport crc32_fill_tables, crc32_of
from pricing._board cimport (
    EXCHANGE_INDEX, LABELS_CHECKED, LABELS_WORDS, MAX_EXCHANGES, NAME_BYTES, NAME_WORDS, PRICE_BYTES, PRICE_CHECKED,
    PRICE_WORDS, RELAXED, RELEASE, SOURCE_BYTES, STATUS_BYTES, AssetEntry, Board, BoardReader, ExchangeEntry, Labels,
    PriceCopy, Slot, StatusCopy, fence, find_asset, find_exchange, hash_name, load64, read_labels, read_latched, store8,
    store32, store64, store_time, word,
)
from pricing._text cimport utf8_of

from pricing.exceptions import BoardFull

cdef extern from "Python.h":
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

crc32_fill_tables()


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
    value.crc = crc32_of(value, PRICE_CHECKED)
    latch_write(&slot.sequence, slot.copies, sizeof(PriceCopy), PRICE_WORDS, value)


cdef inline void write_labels(ExchangeEntry* entry, Labels* value) noexcept nogil:
    value.crc = crc32_of(value, LABELS_CHECKED)
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


cdef int copy_text(char* target, str text, size_t limit, str what) except -1:
    """Fill zeroed memory with *text* and return its length."""
    cdef Py_ssize_t length = 0
    cdef const char* data = utf8_of(text, &length)
    if data is NULL or not 1 <= <size_t>length <= limit:
        raise ValueError(f"{what} must have 1 to {limit} bytes of UTF-8: {text!r}")
    memcpy(target, data, length)
    return <int>length


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
        self.draft.crc = crc32_of(self.draft.text, words * sizeof(uint64_t))
        latch_write(
            &self.board.status.sequence, self.board.status.copies, sizeof(StatusCopy), words + 1, self.draft
        )
