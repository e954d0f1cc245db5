"""The price board's layout in shared memory, and the reads that other compiled modules inline.

One writer, any number of readers, no lock. Every store that a reader may meet is a C11 atomic, so the order
holds on ARM as well as on x86. Numbers are in the machine's own byte order; the magic tells a foreign one.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from telemetry._mapped cimport Mapped

cdef extern from *:
    """
    /* Structs are copied as 64-bit words while another process may be storing them. */
    typedef uint64_t __attribute__((__may_alias__)) board_word;
    """
    ctypedef uint64_t word "board_word"
    uint64_t load64 "__atomic_load_n"(const word* source, int order) noexcept nogil
    uint32_t load32 "__atomic_load_n"(const uint32_t* source, int order) noexcept nogil
    uint8_t load8 "__atomic_load_n"(const uint8_t* source, int order) noexcept nogil
    int64_t load_time "__atomic_load_n"(const int64_t* source, int order) noexcept nogil
    void store64 "__atomic_store_n"(word* target, uint64_t value, int order) noexcept nogil
    void store32 "__atomic_store_n"(uint32_t* target, uint32_t value, int order) noexcept nogil
    void store8 "__atomic_store_n"(uint8_t* target, uint8_t value, int order) noexcept nogil
    void store_time "__atomic_store_n"(int64_t* target, int64_t value, int order) noexcept nogil
    void fence "__atomic_thread_fence"(int order) noexcept nogil
    int RELAXED "__ATOMIC_RELAXED"
    int ACQUIRE "__ATOMIC_ACQUIRE"
    int RELEASE "__ATOMIC_RELEASE"

cpdef enum:
    LAYOUT_VERSION = 1
    PRICE_BYTES = 40         # longest price text
    NAME_BYTES = 32          # longest asset, exchange or quote name in UTF-8
    SOURCE_BYTES = 40        # longest source tag: an exchange's name and "-ws-sim" fit
    MAX_EXCHANGES = 64
    STATUS_BYTES = 262_144   # longest status document
    MAX_SLOTS = 16_777_216
    READ_TRIES = 512         # a read that the writer overtakes so often is a miss: at most some 50 µs

cdef enum:
    EXCHANGE_INDEX = 128     # entries; a power of two, at least twice the rows
    PRICE_WORDS = 10         # 64-bit words of a PriceCopy that are copied
    PRICE_CHECKED = 72       # bytes of a PriceCopy under its CRC
    NAME_WORDS = 5           # 64-bit words at the start of an ExchangeEntry: the name, its length, zeros
    LABELS_WORDS = 11
    LABELS_CHECKED = 80
    STATUS_TRIES = 8

cdef struct Header:                    # 64 bytes
    uint64_t magic                     # "TRBOARD1"; stored last when a board is formatted
    uint32_t version                   # LAYOUT_VERSION
    uint32_t slots                     # capacity: slots, and as many asset rows
    uint64_t size                      # bytes of the whole board
    uint32_t index_entries             # of the asset index: a power of two, at least twice the asset rows
    uint32_t assets                    # asset rows in use; only grows
    uint32_t exchanges                 # exchange rows in use; only grows, then rows without a place are used again
    uint32_t reserved
    uint64_t generation                # how many writers there have been
    int64_t writer_pid
    int64_t heartbeat_mono_ns          # CLOCK_MONOTONIC of the writer's last beat

cdef struct Labels:                    # 88 bytes, latched: what a reader says beside an exchange's prices
    uint16_t source_length             # 0: the row is nobody's
    uint16_t quote_length
    uint32_t edition                   # raised when a label changes; prices of another edition are misses
    char source[SOURCE_BYTES]
    char quote[NAME_BYTES]
    uint32_t crc                       # CRC-32 of the 80 bytes above
    uint32_t zero

cdef struct ExchangeEntry:             # 256 bytes
    char name[NAME_BYTES]                      # changes only while the labels are nobody's
    uint8_t name_length                # 0 while the name changes
    uint8_t reserved[19]
    uint32_t edition                   # that of the labels
    uint64_t sequence                  # of the labels' latch
    Labels labels[2]
    uint64_t ticks                     # written to any slot of this exchange; in another cache line than the name
    int64_t last_tick_mono_ns          # when the newest trade took place, as CLOCK_MONOTONIC; 0 = none yet

cdef struct AssetEntry:                # 320 bytes
    char name[NAME_BYTES]                      # never changes once indexed
    uint8_t name_length
    uint8_t home                       # exchange row + 1; 0 = none
    uint16_t reserved
    uint32_t slots[MAX_EXCHANGES]                 # by exchange row: slot + 1; 0 = none. The first seven share the name's cache line
    uint32_t spare[7]

cdef struct PriceCopy:                 # 120 bytes
    uint32_t asset                     # row: whose price it is, so that a reused slot is told from the old one
    uint8_t exchange                   # row
    uint8_t length                     # of the price; 0 = no price
    uint16_t edition                   # of the exchange's labels when it was written (low 16 bits)
    int64_t traded_ns                  # wall clock of the exchange
    int64_t received_ns                # our wall clock
    int64_t received_mono_ns           # our CLOCK_MONOTONIC
    char price[PRICE_BYTES]                     # the exchange's digits, zero-padded
    uint32_t crc                       # CRC-32 of the 72 bytes above
    uint32_t zero
    uint64_t reserved[5]

cdef struct Slot:                      # 256 bytes
    uint64_t sequence                  # of the latch: readers take copy (sequence & 1)
    uint64_t reserved
    PriceCopy copies[2]

cdef struct StatusCopy:                # 262,152 bytes
    uint32_t length
    uint32_t crc                       # CRC-32 of the text, zero-padded to whole words
    char text[STATUS_BYTES]

cdef struct Status:                    # latched like a slot
    uint64_t sequence
    StatusCopy copies[2]
    uint64_t reserved[5]               # ends on a cache line

cdef struct Board:                     # where the parts of one mapped board are; filled by map_board alone
    Header* header
    ExchangeEntry* exchanges
    uint64_t* exchange_index           # open addressing: hash's high half << 32 | row + 1; 0 = free
    uint64_t* asset_index
    AssetEntry* assets
    Slot* slots
    Status* status
    uint64_t size

cdef struct ReadCounts:                # a reader's own, not shared
    uint64_t retries                   # the writer came between: read again
    uint64_t spoilt                    # a copy whose CRC was wrong: the other one taken
    uint64_t exhausted                 # READ_TRIES were not enough: told as a miss


cdef uint32_t crc32(const void* data, size_t length) noexcept nogil    # zlib's


cdef inline uint64_t hash_name(const char* name, size_t length) noexcept nogil:
    """FNV-1a, 64 bits: names are short, and the writer alone decides which are stored."""
    cdef uint64_t value = 0xCBF29CE484222325, prime = 0x100000001B3
    cdef size_t i
    for i in range(length):
        value = (value ^ <uint8_t>name[i]) * prime
    return value


cdef inline int64_t find_row(
    const uint64_t* index, uint32_t entries, const char* rows, size_t row_bytes, const char* name, size_t length
) noexcept nogil:
    """Row number of *name*, or -1. Rows begin with the name's 32 bytes and its length."""
    cdef uint64_t hashed = hash_name(name, length), entry
    cdef uint32_t place = <uint32_t>hashed & (entries - 1), probe
    cdef const char* row
    if length == 0 or length > NAME_BYTES:
        return -1
    for probe in range(entries):
        entry = load64(<const word*>&index[place], ACQUIRE)
        if entry == 0:
            return -1
        if entry >> 32 == hashed >> 32:
            row = rows + <size_t>((<uint32_t>entry) - 1) * row_bytes
            if <uint8_t>row[NAME_BYTES] == length and memcmp(row, name, length) == 0:
                return <int64_t>(<uint32_t>entry) - 1
        place = (place + 1) & (entries - 1)
    return -1


cdef inline int64_t find_asset(const Board* board, const char* name, size_t length) noexcept nogil:
    return find_row(
        board.asset_index, board.header.index_entries, <const char*>board.assets, sizeof(AssetEntry), name, length
    )


cdef inline int64_t find_exchange(const Board* board, const char* name, size_t length) noexcept nogil:
    """Row of an exchange. It can be given to another one: who reads a price by it asks `is_still` afterwards."""
    return find_row(
        board.exchange_index, EXCHANGE_INDEX, <const char*>board.exchanges, sizeof(ExchangeEntry), name, length
    )


cdef inline void read_name(const ExchangeEntry* entry, uint64_t* out) noexcept nogil:
    """Copy out the name's words; what is read after this call is newer than they are."""
    cdef size_t i
    for i in range(NAME_WORDS):
        out[i] = load64(&(<const word*>entry)[i], RELAXED)
    fence(ACQUIRE)


cdef inline bint is_still(const Board* board, uint32_t exchange, const char* name, size_t length) noexcept nogil:
    """Whether a row has the name by which it was found; then a price read in between is that exchange's.

    A row has no price before it has its new name, so a price of the next exchange shows the new name as well.
    """
    cdef uint64_t now[NAME_WORDS]
    read_name(&board.exchanges[exchange], now)
    return (<const uint8_t*>now)[NAME_BYTES] == length and memcmp(now, name, length) == 0


cdef inline bint latch_read(
    const word* sequence, const void* copies, size_t stride, size_t words, uint64_t seen, int other, void* out
) noexcept nogil:
    """Copy out what was current at *seen*; 0 when the writer has come between. *other* = 1 takes the other copy."""
    cdef const word* source = <const word*>(<const char*>copies + ((seen ^ other) & 1) * stride)
    cdef size_t i
    for i in range(words):
        (<word*>out)[i] = load64(&source[i], RELAXED)
    fence(ACQUIRE)
    return load64(sequence, RELAXED) == seen


cdef inline bint read_latched(
    const uint64_t* sequence, const void* copies, size_t stride, size_t words, size_t checked,
    void* out, ReadCounts* counts
) noexcept nogil:
    """Copy one whole value out; 0 when there is none. Never waits: READ_TRIES at most.

    The CRC-32 of the first *checked* bytes follows them. It finds what the sequence cannot: spoilt memory, a second writer.
    """
    cdef int tries, spoilt = 0
    cdef uint64_t seen
    for tries in range(READ_TRIES):
        seen = load64(<const word*>sequence, ACQUIRE)
        if seen < 2:
            return 0  # no value has ever been finished
        if not latch_read(<const word*>sequence, copies, stride, words, seen, spoilt, out):
            counts.retries += 1
            continue
        if (<uint32_t*>(<char*>out + checked))[0] == crc32(out, checked):
            return 1
        counts.spoilt += 1
        spoilt += 1
        if spoilt == 2:
            return 0
    counts.exhausted += 1
    return 0


cdef inline bint read_slot(
    const Board* board, uint32_t slot, uint32_t asset, uint32_t exchange, PriceCopy* out, ReadCounts* counts
) noexcept nogil:
    """Copy out the price in *slot* if it has one and it is still that asset's on that exchange."""
    cdef Slot* place = &board.slots[slot]
    if slot >= board.header.slots:
        return 0
    if not read_latched(
        &place.sequence, place.copies, sizeof(PriceCopy), PRICE_WORDS, PRICE_CHECKED, out, counts
    ):
        return 0
    return (
        out.length != 0 and out.asset == asset and out.exchange == exchange
        and out.edition == <uint16_t>load32(&board.exchanges[exchange].edition, ACQUIRE)
    )


cdef inline bint read_price(
    const Board* board, uint32_t asset, uint32_t exchange, PriceCopy* out, ReadCounts* counts
) noexcept nogil:
    """Copy out the price of one asset row on one exchange row; 0 = a miss."""
    cdef uint32_t entry = load32(&board.assets[asset].slots[exchange], ACQUIRE)
    return entry != 0 and read_slot(board, entry - 1, asset, exchange, out, counts)


cdef inline int64_t age_of(const PriceCopy* price, int64_t mono_ns) noexcept nogil:
    """Nanoseconds since the trade: how late it came plus how long it has been here. Never negative."""
    cdef int64_t late = price.received_ns - price.traded_ns, kept = mono_ns - price.received_mono_ns
    return (late if late > 0 else 0) + (kept if kept > 0 else 0)


cdef inline bint read_best(
    const Board* board, uint32_t asset, int64_t mono_ns, int64_t ttl_ns, PriceCopy* out, ReadCounts* counts
) noexcept nogil:
    """Copy out the home exchange's price if it is fresh, else the freshest fresh one; 0 = none is fresh."""
    cdef uint32_t home = load8(&board.assets[asset].home, ACQUIRE), exchange
    cdef uint32_t exchanges = load32(&board.header.exchanges, ACQUIRE)
    cdef int64_t best = -1, age
    cdef PriceCopy candidate
    if home != 0 and read_price(board, asset, home - 1, out, counts) and age_of(out, mono_ns) <= ttl_ns:
        return 1
    for exchange in range(exchanges):
        if exchange + 1 == home or not read_price(board, asset, exchange, &candidate, counts):
            continue
        age = age_of(&candidate, mono_ns)
        if age <= ttl_ns and (best < 0 or age < best):
            best = age
            out[0] = candidate
    return best >= 0


cdef inline bint read_labels(const Board* board, uint32_t exchange, Labels* out, ReadCounts* counts) noexcept nogil:
    """Copy out an exchange's source tag and quote currency."""
    cdef ExchangeEntry* entry = &board.exchanges[exchange]
    return read_latched(
        &entry.sequence, entry.labels, sizeof(Labels), LABELS_WORDS, LABELS_CHECKED, out, counts
    )


cdef class Sources:
    cdef uint32_t edition
    cdef str name, source, quote


cdef class BoardReader(Mapped):
    cdef Board board          # for modules that cimport; header is NULL once closed
    cdef ReadCounts counts
    cdef list sources         # by exchange row: the texts of the edition last seen
    cdef bytes last_status    # what status() says when the writer overtakes it again and again

    cdef int check_open(self) except -1
    cdef int64_t asset_row(self, str asset) except -2
    cdef int64_t exchange_row(self, str exchange) except -2
    cdef object sources_of(self, uint32_t exchange)
    cdef object make_price(self, str asset, const PriceCopy* found)
