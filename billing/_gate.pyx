# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The gate: API keys with their limits and counts, in memory that processes share.

The layout is in _gate.pxd. First what every answer runs through, then the writer, then what Python sees.
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.string cimport memcmp, memcpy, memset

from collections import namedtuple

from billing.exceptions import GateFull
from telemetry.exceptions import LayoutError

cdef extern from "_crc32.h":
    void crc32_fill_tables() noexcept
    uint32_t crc32_of(const void* text, size_t length) noexcept nogil

cdef extern from "_sha256.h":
    ctypedef void (*sha256_blocks_fn)(uint32_t* state, const uint8_t* data, size_t blocks) noexcept nogil
    sha256_blocks_fn sha256_choose() noexcept
    void sha256_blocks_portable(uint32_t* state, const uint8_t* data, size_t blocks) noexcept nogil
    void sha256(sha256_blocks_fn blocks, const void* text, size_t length, uint8_t* digest) noexcept nogil

cdef uint64_t MAGIC = 0x3130_4554_4147_5254    # "TRGATE01" where the low byte comes first
cdef uint64_t COUNT_MASK = (<uint64_t>1 << COUNT_BITS) - 1
cdef uint64_t EMISSION_MASK = (<uint64_t>1 << EMISSION_BITS) - 1
cdef uint64_t MILLISECOND_NS = 1_000_000

MAX_COUNT = COUNT_MASK
MAX_EMISSION_NS = EMISSION_MASK    # 4.9 hours

cdef const char* PREFIX = "tb_live_"
cdef const char* ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
cdef uint8_t letters[256]                      # place in the alphabet + 1; 0 = not in it
cdef sha256_blocks_fn sha256_blocks = sha256_choose()

crc32_fill_tables()
memset(letters, 0, sizeof(letters))
for place in range(62):
    letters[<uint8_t>ALPHABET[place]] = place + 1

GateKey = namedtuple(
    "GateKey",
    "digest key_id account_id plan flags emission_ns burst cap expires_s networks revoked revision",
    defaults=(0, 0, SCOPE_PRICES | SCOPE_REPORTS, 0, 0, 0, 0, (), False, 0),
)
Usage = namedtuple("Usage", "row key_id month counted last_used_s")


# -- a key's text ----------------------------------------------------------------------------------------------------

cdef bint is_wellformed(const char* key, size_t length) noexcept nogil:
    """Length, prefix, alphabet, and the checksum in the last six characters. No secret is in any of it."""
    cdef uint64_t checksum = 0
    cdef size_t i
    if length != KEY_BYTES or memcmp(key, PREFIX, 8) != 0:
        return 0
    for i in range(8, KEY_BYTES):
        if letters[<uint8_t>key[i]] == 0:
            return 0
    for i in range(KEY_BYTES - 6, KEY_BYTES):
        checksum = checksum * 62 + letters[<uint8_t>key[i]] - 1
    return checksum == crc32_of(key, KEY_BYTES - 6)


# -- look-up ---------------------------------------------------------------------------------------------------------

cdef struct KeyWords:                          # of a row, read together
    uint64_t status
    uint64_t rate
    uint64_t cap


cdef inline bint read_key(Row* row, const uint64_t* digest, KeyWords* words, GateVerdict* out) noexcept nogil:
    """Read what decides; 0 when the row is not this digest's.

    The digest is compared last: a row that was taken for another key has the other digest before anything else
    of that key is seen.
    """
    cdef uint64_t differs = 0
    cdef int i
    words.status = load(&row.status, ACQUIRE)
    words.rate = load(&row.rate, RELAXED)
    words.cap = load(&row.cap, RELAXED)
    out.key_id = load(&row.key_id, RELAXED)
    out.account_id = load(&row.account_id, RELAXED)
    fence(ACQUIRE)
    for i in range(4):
        differs |= load(&row.digest[i], RELAXED) ^ digest[i]
    return differs == 0 and (words.status & 0xFF) != FREE


cdef inline int64_t search(
    const GateMemory* gate, const uint64_t* digest, KeyWords* words, GateVerdict* out
) noexcept nogil:
    cdef uint32_t entries = gate.header.index_entries, rows = gate.header.rows, probe, number
    cdef uint32_t place = <uint32_t>digest[0] & (entries - 1)
    cdef uint64_t entry
    cdef Row* row
    for probe in range(entries):
        entry = load(&gate.index[place], ACQUIRE)
        if entry == 0:
            return -1
        number = <uint32_t>entry - 1
        if entry >> 32 == digest[0] >> 32 and number < rows:
            row = &gate.rows[number]
            fetch(&row.tat_ns, 1)
            if read_key(row, digest, words, out):
                return number
        place = (place + 1) & (entries - 1)
    return -1


cdef inline int64_t find_key(
    const GateMemory* gate, const uint64_t* digest, KeyWords* words, GateVerdict* out
) noexcept nogil:
    """Row number of a digest, with what was read of it; -1 when it is nobody's.

    An unknown key costs what its digest makes it cost: that says nothing of how near its text is to a known one.
    Who finds nothing looks again if an entry may have moved past him meanwhile.
    """
    cdef uint64_t moves
    cdef int64_t row
    cdef int tries
    for tries in range(READ_TRIES):
        moves = load(&gate.header.moves, ACQUIRE)
        row = search(gate, digest, words, out)
        fence(ACQUIRE)
        if row >= 0 or (moves & 1 == 0 and load(&gate.header.moves, RELAXED) == moves):
            return row
    return -1


# -- what a key may ----------------------------------------------------------------------------------------------------

cdef inline bint is_within(const uint8_t* address, const NetworkList* list_, int number) noexcept nogil:
    cdef uint8_t network[16]
    cdef uint64_t half
    cdef int i, bits = load(&list_.prefixes, RELAXED) >> 8 * number & 0xFF
    for i in range(2):
        half = load(&list_.addresses[number][i], RELAXED)
        memcpy(&network[8 * i], &half, 8)
    if bits > 128 or memcmp(address, network, bits // 8) != 0:
        return 0
    return bits % 8 == 0 or (address[bits // 8] ^ network[bits // 8]) >> (8 - bits % 8) == 0


cdef bint is_from_here(const GateMemory* gate, Row* row, const uint8_t* address) noexcept nogil:
    """Whether the address is in one of the key's networks, if it has any. What changes while it is read is read again."""
    cdef uint64_t seen, word = load(&row.networks, ACQUIRE)
    cdef uint32_t number
    cdef int tries, i
    cdef bint within
    for tries in range(READ_TRIES):
        if <uint32_t>word == 0:
            return 1
        number = <uint32_t>word - 1
        if address is NULL or number >= gate.header.network_lists:
            return 0
        within = 0
        for i in range(<int>(word >> 32 & 0xFF)):
            within = within or is_within(address, &gate.lists[number], i)
        fence(ACQUIRE)
        seen = word
        word = load(&row.networks, ACQUIRE)
        if word == seen:
            return within
    return 0


cdef inline int permit(
    const GateMemory* gate, Row* row, uint64_t status, uint64_t wall_s, uint8_t scope, const uint8_t* address
) noexcept nogil:
    cdef uint64_t expires_s = status >> 32
    if (status & 0xFF) != LIVE:
        return REVOKED
    if expires_s != 0 and wall_s >= expires_s:
        return EXPIRED
    if not is_from_here(gate, row, address):
        return WRONG_NETWORK
    if (status >> 8 & scope) != scope:
        return WRONG_SCOPE
    return ADMITTED


# -- how often ---------------------------------------------------------------------------------------------------------

cdef inline uint32_t next_month(uint32_t month) noexcept nogil:
    return month + 89 if month % 100 == 12 else month + 1


cdef inline uint32_t month_at(const GateMemory* gate, uint64_t mono_ns, uint64_t* left_ns) noexcept nogil:
    """The month at an instant, and how long it goes on (0: unknown). It ends by itself, the writer may be late or dead."""
    cdef uint64_t word = load(&gate.header.month, ACQUIRE), ends_ns = (word & COUNT_MASK) * MILLISECOND_NS
    left_ns[0] = 0
    if ends_ns == 0:
        return word >> COUNT_BITS
    if mono_ns >= ends_ns:
        return next_month(word >> COUNT_BITS)
    left_ns[0] = ends_ns - mono_ns
    return word >> COUNT_BITS


cdef inline uint32_t month_of_row(Row* row, uint32_t month) noexcept nogil:
    """No earlier one than the row has counted in: a month that has ended is never opened again."""
    cdef uint32_t odd = load(&row.used[1], RELAXED) >> COUNT_BITS, even = load(&row.used[0], RELAXED) >> COUNT_BITS
    month = odd if odd > month else month
    return even if even > month else month


cdef inline uint64_t count_in(uint64_t word, uint32_t month) noexcept nogil:
    return word & COUNT_MASK if word >> COUNT_BITS == month else 0


cdef inline uint64_t under_cap(uint64_t cap, uint64_t count, uint64_t others) noexcept nogil:
    return 0 if count >= cap or others >= cap - count else cap - count - others


cdef inline bint count_one(Row* row, uint32_t month, uint64_t cap, uint64_t* cap_left) noexcept nogil:
    """Count a request in *month*; 0, nothing counted, when the cap has been reached."""
    cdef uint64_t* used = &row.used[month & 1]
    cdef uint64_t seen = load(used, RELAXED), count, room
    while True:
        if seen >> COUNT_BITS > month:     # two months on: this one is over
            month = seen >> COUNT_BITS
        count = count_in(seen, month)
        room = under_cap(cap, count, count_in(load(&row.others, RELAXED), month))
        if cap != 0 and room == 0:
            cap_left[0] = 0
            return 0
        if swap(used, &seen, <uint64_t>month << COUNT_BITS | (count + 1)):
            cap_left[0] = room - 1 if cap else 0
            return 1


cdef inline void tell_rate(uint64_t tat_ns, uint64_t now_ns, GateVerdict* out) noexcept nogil:
    """billing.ratelimit.left"""
    cdef uint64_t ahead = tat_ns - now_ns if tat_ns > now_ns else 0
    cdef uint64_t tolerance = (out.limit - 1) * out.emission_ns
    out.remaining = (tolerance - ahead) // out.emission_ns + 1 if ahead <= tolerance else 0
    out.reset_ns = ahead + out.remaining * out.emission_ns - tolerance if ahead else 0


cdef inline bint take_rate(Row* row, uint64_t now_ns, bint take, GateVerdict* out) noexcept nogil:
    """billing.ratelimit.take, in one compare-and-swap."""
    cdef uint64_t tat = load(&row.tat_ns, RELAXED), start, tolerance = (out.limit - 1) * out.emission_ns
    while True:
        start = tat if tat > now_ns else now_ns
        if not take or start - now_ns > tolerance:
            tell_rate(tat, now_ns, out)
            return start - now_ns <= tolerance
        if swap(&row.tat_ns, &tat, start + out.emission_ns):
            tell_rate(start + out.emission_ns, now_ns, out)
            return 1


cdef inline int meter(
    const GateMemory* gate, Row* row, const KeyWords* words, uint64_t mono_ns, bint take, GateVerdict* out
) noexcept nogil:
    """Take a request from the bucket and count it, or neither.

    Only where two processes ask for the last of the month at once does the loser's place in its bucket stay taken.
    """
    cdef uint64_t cap_left = 0
    cdef bint partner = out.flags & PARTNER, has_room = 1, has_turn = 1
    out.month = month_of_row(row, month_at(gate, mono_ns, &out.cap_reset_ns))
    if words.rate and not partner:
        out.limit = words.rate >> EMISSION_BITS
        out.emission_ns = words.rate & EMISSION_MASK
    if words.cap and not partner:
        out.cap = words.cap
        out.cap_remaining = under_cap(
            out.cap, count_in(load(&row.used[out.month & 1], RELAXED), out.month),
            count_in(load(&row.others, RELAXED), out.month),
        )
        has_room = out.cap_remaining != 0
    if out.limit:
        has_turn = take_rate(row, mono_ns, take and has_room, out)
    if has_room and has_turn and take:
        has_room = count_one(row, out.month, out.cap, &cap_left)
        out.cap_remaining = cap_left
    if not has_room:
        out.retry_after_ns = out.cap_reset_ns
        return QUOTA_EXCEEDED
    if not has_turn:
        out.retry_after_ns = out.reset_ns
        return RATE_LIMITED
    return ADMITTED


cdef int judge(
    const GateMemory* gate, const uint64_t* digest, uint64_t mono_ns, uint64_t wall_s,
    uint8_t scope, const uint8_t* address, bint take, GateVerdict* out
) noexcept nogil:
    cdef KeyWords words
    cdef Row* row
    out.row = <int32_t>find_key(gate, digest, &words, out)
    if out.row < 0:
        out.key_id = out.account_id = 0
        out.code = UNKNOWN
        return out.code
    row = &gate.rows[out.row]
    out.flags = words.status >> 8 & 0xFF
    out.plan = words.status >> 16 & 0xFFFF
    out.code = permit(gate, row, words.status, wall_s, scope, address)
    if out.code == ADMITTED:
        out.code = meter(gate, row, &words, mono_ns, take, out)
    if out.code == ADMITTED and take and load(&row.last_used_s, RELAXED) != wall_s:
        store(&row.last_used_s, wall_s, RELAXED)
    return out.code


cdef int gate_admit_digest(
    const GateMemory* gate, const uint8_t* digest, uint64_t mono_ns, uint64_t wall_s,
    uint8_t scope, const uint8_t* address, bint take, GateVerdict* out
) noexcept nogil:
    cdef uint64_t words[4]
    memset(out, 0, sizeof(GateVerdict))
    memcpy(words, digest, sizeof(words))
    return judge(gate, words, mono_ns, wall_s, scope, address, take, out)


cdef bint gate_hash(const GateMemory* gate, const char* key, size_t length, uint8_t* digest) noexcept nogil:
    cdef uint32_t place
    if not is_wellformed(key, length):
        return 0
    sha256(sha256_blocks, key, length, digest)
    memcpy(&place, digest, sizeof(place))
    fetch(&gate.index[place & (gate.header.index_entries - 1)], 0)
    return 1


cdef void gate_fetch(const GateMemory* gate, const uint8_t* digest) noexcept nogil:
    """A guess: the first entry that is like it is its own but once in four milliards."""
    cdef uint32_t place, half, number, probe, entries = gate.header.index_entries
    cdef uint64_t entry
    memcpy(&place, digest, sizeof(place))
    memcpy(&half, digest + 4, sizeof(half))
    for probe in range(READ_TRIES):
        entry = load(&gate.index[(place + probe) & (entries - 1)], RELAXED)
        number = <uint32_t>entry - 1
        if entry == 0 or (entry >> 32 == half and number >= gate.header.rows):
            return
        if entry >> 32 == half:
            fetch(&gate.rows[number], 0)
            fetch(&gate.rows[number].tat_ns, 1)
            return


cdef int gate_admit(
    const GateMemory* gate, const char* key, size_t length, uint64_t mono_ns, uint64_t wall_s,
    uint8_t scope, const uint8_t* address, bint take, GateVerdict* out
) noexcept nogil:
    cdef uint64_t digest[4]
    memset(out, 0, sizeof(GateVerdict))
    if not is_wellformed(key, length):
        out.row = -1
        out.code = MALFORMED
        return out.code
    sha256(sha256_blocks, key, length, <uint8_t*>digest)
    return judge(gate, digest, mono_ns, wall_s, scope, address, take, out)


# -- layout ----------------------------------------------------------------------------------------------------------

cdef uint32_t index_entries(uint32_t rows) noexcept nogil:
    """Entries of an index that is at most half full with *rows*."""
    cdef uint32_t entries = 16
    while entries < 2 * rows:
        entries *= 2
    return entries


cdef uint32_t network_lists(uint32_t rows) noexcept nogil:
    """Places for keys that are bound to networks: few are."""
    return rows // 8 + 8


cdef GateMemory map_gate(char* base, uint32_t rows) noexcept nogil:
    """Say where each part is, in the order of the parts: the only place that adds sizes up."""
    cdef GateMemory gate
    cdef char* at = base
    gate.header = <Header*>at
    at += sizeof(Header)
    gate.rows = <Row*>at
    at += <size_t>rows * sizeof(Row)
    gate.index = <uint64_t*>at
    at += index_entries(rows) * sizeof(uint64_t)
    gate.lists = <NetworkList*>at
    at += network_lists(rows) * sizeof(NetworkList)
    gate.size = at - base
    return gate


cdef uint32_t checked_rows(rows) except 0:
    if not 1 <= rows <= MAX_ROWS:
        raise ValueError(f"a gate has 1 to {MAX_ROWS} rows, not {rows}")
    return rows


cdef int check_layout(const char* base, Py_ssize_t length) except -1:
    """Refuse memory that is not a gate of this version, byte order and size."""
    cdef const Header* header = <const Header*>base
    cdef GateMemory gate
    if <size_t>base % sizeof(uint64_t):
        raise LayoutError("the alignment", "8 bytes", f"{<size_t>base % sizeof(uint64_t)} bytes off")
    if length < <Py_ssize_t>sizeof(Header):
        raise LayoutError("the size in bytes", f"at least {sizeof(Header)}", length)
    if load(&header.magic, ACQUIRE) != MAGIC:
        raise LayoutError("the magic", f"{MAGIC:#018x}", f"{header.magic:#018x}")
    if header.version != LAYOUT_VERSION:
        raise LayoutError("the layout version", LAYOUT_VERSION, header.version)
    if not 1 <= header.rows <= MAX_ROWS:
        raise LayoutError("the number of rows", f"1 to {MAX_ROWS}", header.rows)
    gate = map_gate(<char*>base, header.rows)
    if (
        header.size != gate.size or header.index_entries != index_entries(header.rows)
        or header.network_lists != network_lists(header.rows)
    ):
        raise LayoutError(f"the recorded size of a gate of {header.rows} rows", gate.size, header.size)
    if <uint64_t>length != gate.size:
        raise LayoutError(f"the size in bytes of a gate of {header.rows} rows", gate.size, length)
    return 0


# -- numbers of free places, the one that was given up first taken first ---------------------------------------------

@cython.final
cdef class Ring:
    cdef uint32_t* numbers
    cdef uint32_t capacity, first, count

    def __cinit__(self, uint32_t capacity):
        self.capacity = capacity
        self.numbers = <uint32_t*>PyMem_Calloc(capacity, sizeof(uint32_t))
        if self.numbers is NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.numbers)

    cdef void push(self, uint32_t number) noexcept:
        self.numbers[(self.first + self.count) % self.capacity] = number
        self.count += 1

    cdef int64_t pop(self) noexcept:
        cdef uint32_t number = self.numbers[self.first]
        if self.count == 0:
            return -1
        self.first = (self.first + 1) % self.capacity
        self.count -= 1
        return number


# -- what Python sees ------------------------------------------------------------------------------------------------

@cython.final
@cython.freelist(64)
cdef class Verdict:
    cdef GateVerdict of

    @property
    def code(self):
        return self.of.code

    @property
    def row(self):
        return self.of.row

    @property
    def key_id(self):
        return self.of.key_id

    @property
    def account_id(self):
        return self.of.account_id

    @property
    def plan(self):
        return self.of.plan

    @property
    def flags(self):
        return self.of.flags

    @property
    def partner(self):
        return bool(self.of.flags & PARTNER)

    @property
    def limit(self):
        return self.of.limit

    @property
    def emission_ns(self):
        return self.of.emission_ns

    @property
    def remaining(self):
        return self.of.remaining

    @property
    def reset_ns(self):
        return self.of.reset_ns

    @property
    def cap(self):
        return self.of.cap

    @property
    def cap_remaining(self):
        return self.of.cap_remaining

    @property
    def cap_reset_ns(self):
        return self.of.cap_reset_ns

    @property
    def month(self):
        return self.of.month

    @property
    def retry_after_ns(self):
        return self.of.retry_after_ns

    def __repr__(self):
        return f"Verdict(code={self.of.code}, row={self.of.row}, key_id={self.of.key_id})"


cdef const uint8_t* address_of(bytes address) except? NULL:
    if address is None:
        return NULL
    if PyBytes_GET_SIZE(address) != 16:
        raise ValueError(f"an address has 16 bytes, not {PyBytes_GET_SIZE(address)}")
    return <const uint8_t*>PyBytes_AS_STRING(address)


cdef const uint8_t* digest_of(bytes digest) except NULL:
    if PyBytes_GET_SIZE(digest) != 32:
        raise ValueError(f"a digest has 32 bytes, not {PyBytes_GET_SIZE(digest)}")
    return <const uint8_t*>PyBytes_AS_STRING(digest)


@cython.no_gc_clear  # clearing would drop the buffer's owner without releasing the buffer
cdef class Gate:
    def __init__(self, buffer):
        self.attach(buffer)

    def __dealloc__(self):
        self.close()

    def close(self):
        self.memory.header = NULL
        if self.held:
            self.held = False
            PyBuffer_Release(&self.view)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()

    cdef int attach(self, object buffer) except -1:
        self.close()
        PyObject_GetBuffer(buffer, &self.view, PyBUF_WRITABLE)
        self.held = True
        try:
            check_layout(<const char*>self.view.buf, self.view.len)
        except LayoutError:
            self.close()
            raise
        self.memory = map_gate(<char*>self.view.buf, (<Header*>self.view.buf).rows)
        return 0

    cdef int check_open(self) except -1:
        if self.memory.header is NULL:
            raise ValueError("the gate is closed")
        return 0

    cdef Row* row_at(self, int64_t row) except NULL:
        self.check_open()
        if not 0 <= row < self.memory.header.rows or load(&self.memory.rows[row].status, ACQUIRE) & 0xFF == FREE:
            raise ValueError(f"row {row} is nobody's")
        return &self.memory.rows[row]

    def admit(
        self, bytes key not None, uint64_t mono_ns, uint64_t wall_s, uint8_t scope=SCOPE_PRICES, bytes address=None,
        *, bint take=True,
    ):
        cdef Verdict verdict = Verdict.__new__(Verdict)
        self.check_open()
        gate_admit(
            &self.memory, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), mono_ns, wall_s, scope,
            address_of(address), take, &verdict.of,
        )
        return verdict

    def admit_digest(
        self, bytes digest not None, uint64_t mono_ns, uint64_t wall_s, uint8_t scope=SCOPE_PRICES, bytes address=None,
        *, bint take=True,
    ):
        cdef Verdict verdict = Verdict.__new__(Verdict)
        self.check_open()
        gate_admit_digest(
            &self.memory, digest_of(digest), mono_ns, wall_s, scope, address_of(address), take, &verdict.of
        )
        return verdict

    def find(self, bytes digest not None):
        cdef uint64_t wanted[4]
        cdef KeyWords words
        cdef GateVerdict verdict
        self.check_open()
        memcpy(wanted, digest_of(digest), sizeof(wanted))
        row = find_key(&self.memory, wanted, &words, &verdict)
        return None if row < 0 else row

    def key(self, int64_t row):
        cdef Row* at = self.row_at(row)
        cdef uint64_t status = load(&at.status, ACQUIRE), rate = load(&at.rate, RELAXED)
        return GateKey(
            (<const char*>at.digest)[:32], at.key_id, at.account_id, status >> 16 & 0xFFFF, status >> 8 & 0xFF,
            rate & EMISSION_MASK, rate >> EMISSION_BITS, load(&at.cap, RELAXED), status >> 32,
            networks_of(&self.memory, load(&at.networks, ACQUIRE)), (status & 0xFF) == BARRED, at.revision,
        )

    def usage(self, int64_t row):
        """The latest month that was counted in."""
        cdef Row* at = self.row_at(row)
        cdef uint32_t month = month_of_row(at, 0)
        cdef uint64_t count = count_in(load(&at.used[month & 1], RELAXED), month)
        return Usage(row, at.key_id, month, count, load(&at.last_used_s, RELAXED))

    def total(self, int64_t row, uint32_t month):
        cdef Row* at = self.row_at(row)
        return count_in(load(&at.used[month & 1], RELAXED), month) + count_in(load(&at.others, RELAXED), month)

    @property
    def rows(self):
        self.check_open()
        return self.memory.header.rows

    @property
    def keys(self):
        self.check_open()
        return load(&self.memory.header.keys, ACQUIRE)

    @property
    def generation(self):
        self.check_open()
        return load(&self.memory.header.generation, ACQUIRE)

    @property
    def writer_pid(self):
        self.check_open()
        return <int64_t>load(<uint64_t*>&self.memory.header.writer_pid, ACQUIRE)

    @property
    def heartbeat_mono_ns(self):
        self.check_open()
        return <int64_t>load(<uint64_t*>&self.memory.header.heartbeat_mono_ns, ACQUIRE)

    def month(self, uint64_t mono_ns):
        cdef uint64_t left_ns
        self.check_open()
        return month_at(&self.memory, mono_ns, &left_ns)


cdef tuple networks_of(const GateMemory* gate, uint64_t word):
    """For people and for the writer: read without looking whether it changes."""
    cdef const NetworkList* list_
    cdef int i
    if <uint32_t>word == 0:
        return ()
    list_ = &gate.lists[<uint32_t>word - 1]
    return tuple([
        ((<const char*>list_.addresses[i])[:16], <int>(list_.prefixes >> 8 * i & 0xFF)) for i in range(word >> 32 & 0xFF)
    ])


# -- the writer ------------------------------------------------------------------------------------------------------

cdef class GateWriter(Gate):
    cdef Ring free_rows, free_lists
    cdef uint64_t (*told)[2]           # by row: the counts that changed() has told

    def __init__(self, buffer, int64_t pid, int64_t mono_ns):
        self.attach(buffer)
        self.allocate()
        self.repair()
        store(<uint64_t*>&self.memory.header.writer_pid, pid, RELEASE)
        self.beat(mono_ns)
        store(&self.memory.header.generation, self.memory.header.generation + 1, RELEASE)

    def __dealloc__(self):
        PyMem_Free(self.told)

    cdef int allocate(self) except -1:
        self.free_rows = Ring(self.memory.header.rows)
        self.free_lists = Ring(self.memory.header.network_lists)
        PyMem_Free(self.told)
        self.told = <uint64_t (*)[2]>PyMem_Calloc(self.memory.header.rows, sizeof(self.told[0]))
        if self.told is NULL:
            raise MemoryError
        return 0

    # -- taking over

    cdef int repair(self) except -1:
        """Finish what a killed writer left half done, and learn what is free."""
        cdef uint32_t number
        cdef uint64_t keys = 0
        cdef Row* row
        cdef bytearray taken = bytearray(self.memory.header.network_lists)
        for number in range(self.memory.header.index_entries):
            while self.memory.index[number] != 0 and not self.is_right(number):
                self.drop_entry(number)
        store(&self.memory.header.moves, self.memory.header.moves + 1 & ~<uint64_t>1, RELEASE)
        for number in range(self.memory.header.rows):
            row = &self.memory.rows[number]
            if row.status & 0xFF == FREE:
                self.free_rows.push(number)
                continue
            keys += 1
            if self.entry_of(row.digest) < 0:
                self.index_row(number)
            if <uint32_t>row.networks:
                taken[<uint32_t>row.networks - 1] = 1
        for number in range(self.memory.header.network_lists):
            if not taken[number]:
                self.free_lists.push(number)
        store(&self.memory.header.keys, keys, RELEASE)
        return 0

    cdef bint is_right(self, uint32_t place) noexcept:
        """Whether an entry leads to a taken row, and is the first that does."""
        cdef uint32_t number = <uint32_t>self.memory.index[place] - 1
        cdef Row* row = &self.memory.rows[number]
        return (
            number < self.memory.header.rows and row.status & 0xFF != FREE and self.entry_of(row.digest) == place
        )

    # -- the index

    cdef int64_t entry_of(self, const uint64_t* digest) noexcept:
        """Place in the index of a digest's row; -1 when it has none."""
        cdef uint32_t mask = self.memory.header.index_entries - 1, place = <uint32_t>digest[0] & mask, probe
        cdef uint64_t entry
        for probe in range(self.memory.header.index_entries):
            entry = self.memory.index[place]
            if entry == 0:
                return -1
            if entry >> 32 == digest[0] >> 32 and <uint32_t>entry - 1 < self.memory.header.rows:
                if memcmp(self.memory.rows[<uint32_t>entry - 1].digest, digest, 32) == 0:
                    return place
            place = (place + 1) & mask
        return -1

    cdef void index_row(self, uint32_t number) noexcept:
        """Make a finished row findable."""
        cdef uint64_t first = self.memory.rows[number].digest[0]
        cdef uint32_t mask = self.memory.header.index_entries - 1, place = <uint32_t>first & mask
        while self.memory.index[place] != 0:
            place = (place + 1) & mask
        store(&self.memory.index[place], first >> 32 << 32 | (number + 1), RELEASE)

    cdef void drop_entry(self, uint32_t hole) noexcept:
        """Free a place, and move up what was kept from its own place by it: searches stay short for ever.

        An entry is stored in its new place before the old one is stored over; see find_key for who looks meanwhile.
        """
        cdef uint32_t mask = self.memory.header.index_entries - 1, place = hole, home
        cdef uint64_t entry
        store(&self.memory.header.moves, self.memory.header.moves | 1, RELEASE)
        fence(RELEASE)
        while True:
            place = (place + 1) & mask
            entry = self.memory.index[place]
            if entry == 0:
                break
            home = <uint32_t>self.memory.rows[<uint32_t>entry - 1].digest[0]
            if ((place - home) & mask) >= ((place - hole) & mask):
                store(&self.memory.index[hole], entry, RELEASE)
                hole = place
        store(&self.memory.index[hole], 0, RELEASE)
        store(&self.memory.header.moves, self.memory.header.moves + 1, RELEASE)

    cdef int64_t row_of(self, bytes digest) except -2:
        cdef uint64_t words[4]
        cdef int64_t place
        self.check_open()
        memcpy(words, digest_of(digest), sizeof(words))
        place = self.entry_of(words)
        return -1 if place < 0 else <int64_t>(<uint32_t>self.memory.index[place]) - 1

    # -- rows

    def put(self, key not None):
        cdef bytes digest
        cdef uint64_t key_id, account_id, plan, flags, emission_ns, burst, cap, expires_s, revision, status
        cdef int64_t number
        cdef Row* row
        digest, key_id, account_id, plan, flags, emission_ns, burst, cap, expires_s, networks, revoked, revision = key
        number = self.row_of(digest)
        check_limits(plan, flags, emission_ns, burst, cap, expires_s)
        if number >= 0 and self.memory.rows[number].revision > revision:
            return number
        wanted = checked_networks(networks)
        status = expires_s << 32 | plan << 16 | flags << 8 | (BARRED if revoked else LIVE)
        is_new = number < 0
        if is_new:
            number = self.take_row(digest, key_id, account_id, len(wanted) > 0)
        row = &self.memory.rows[number]
        self.set_networks(row, wanted)
        set_word(&row.rate, burst << EMISSION_BITS | emission_ns if emission_ns else 0)
        set_word(&row.cap, cap)
        set_word(&row.revision, revision)
        set_word(&row.status, status)
        if is_new:
            self.index_row(number)
            store(&self.memory.header.keys, self.memory.header.keys + 1, RELEASE)
        return number

    cdef int64_t take_row(self, bytes digest, uint64_t key_id, uint64_t account_id, bint with_networks) except -1:
        """Make the row that was free for longest this key's, with nothing counted. Not findable yet."""
        cdef uint64_t words[4]
        cdef int i
        cdef Row* row
        if self.free_rows.count == 0:
            raise GateFull("rows", self.memory.header.rows)
        if with_networks and self.free_lists.count == 0:
            raise GateFull("network lists", self.memory.header.network_lists)
        number = self.free_rows.pop()
        row = &self.memory.rows[number]
        memcpy(words, PyBytes_AS_STRING(digest), sizeof(words))
        for i in range(4):
            store(&row.digest[i], words[i], RELAXED)
        fence(RELEASE)  # the digest before all else: see read_key
        store(&row.key_id, key_id, RELAXED)
        store(&row.account_id, account_id, RELAXED)
        store(&row.networks, 0, RELAXED)
        store(&row.tat_ns, 0, RELAXED)
        store(&row.used[0], 0, RELAXED)
        store(&row.used[1], 0, RELAXED)
        store(&row.others, 0, RELAXED)
        store(&row.last_used_s, 0, RELAXED)
        self.told[number][0] = self.told[number][1] = 0
        return number

    cdef int set_networks(self, Row* row, tuple wanted) except -1:
        """Point the row at a fresh list, then give the old one up: a reader sees either, whole."""
        cdef uint64_t old = row.networks, word = old + (<uint64_t>1 << 40) & ~((<uint64_t>1 << 40) - 1)
        cdef NetworkList* list_
        cdef uint64_t halves[2]
        cdef uint64_t prefixes = 0
        cdef int64_t number
        cdef int i
        if networks_of(&self.memory, old) == wanted:
            return 0
        if wanted:
            number = self.free_lists.pop()
            if number < 0:
                raise GateFull("network lists", self.memory.header.network_lists)
            list_ = &self.memory.lists[number]
            for i, (address, prefix) in enumerate(wanted):
                memcpy(halves, PyBytes_AS_STRING(address), 16)
                store(&list_.addresses[i][0], halves[0], RELAXED)
                store(&list_.addresses[i][1], halves[1], RELAXED)
                prefixes |= <uint64_t>prefix << 8 * i
            store(&list_.prefixes, prefixes, RELAXED)
            word |= <uint64_t>len(wanted) << 32 | <uint64_t>(number + 1)
        store(&row.networks, word, RELEASE)
        fence(RELEASE)  # the row's word before anything is stored in the list that it had
        if <uint32_t>old:
            self.free_lists.push(<uint32_t>old - 1)
        return 0

    def revoke(self, bytes digest not None, uint64_t revision):
        cdef int64_t number = self.row_of(digest)
        cdef Row* row
        if number < 0:
            return False
        row = &self.memory.rows[number]
        if row.revision <= revision:
            store(&row.revision, revision, RELAXED)
            store(&row.status, row.status & ~<uint64_t>0xFF | BARRED, RELEASE)
        return True

    def remove(self, bytes digest not None):
        cdef int64_t number = self.row_of(digest)
        cdef Row* row
        if number < 0:
            return False
        row = &self.memory.rows[number]
        place = self.entry_of(row.digest)
        store(&row.status, FREE, RELEASE)
        fence(RELEASE)
        self.drop_entry(place)
        store(&self.memory.header.keys, self.memory.header.keys - 1, RELEASE)
        if <uint32_t>row.networks:
            self.free_lists.push(<uint32_t>row.networks - 1)
        self.free_rows.push(number)
        return True

    # -- counts and time

    def set_others(self, int64_t row, uint32_t month, uint64_t count):
        store(&self.row_at(row).others, counted(month, count), RELAXED)

    def restore(self, int64_t row, uint32_t month, uint64_t count):
        cdef uint64_t* used = &self.row_at(row).used[month & 1]
        cdef uint64_t seen = load(used, RELAXED), word = counted(month, count)
        while word > seen:
            if swap(used, &seen, word):
                break

    def changed(self):
        cdef uint32_t number
        cdef uint64_t word
        cdef Row* row
        cdef int i
        self.check_open()
        found = []
        for number in range(self.memory.header.rows):
            row = &self.memory.rows[number]
            if row.status & 0xFF == FREE:
                continue
            for i in range(2):
                word = load(&row.used[i], RELAXED)
                if word != self.told[number][i]:
                    self.told[number][i] = word
                    found.append(Usage(
                        number, row.key_id, word >> COUNT_BITS, word & COUNT_MASK, load(&row.last_used_s, RELAXED)
                    ))
        return found

    def set_month(self, uint32_t month, uint64_t ends_mono_ns):
        self.check_open()
        cdef uint64_t ends_ms = (ends_mono_ns + MILLISECOND_NS - 1) // MILLISECOND_NS
        store(&self.memory.header.month, counted(month, ends_ms), RELEASE)

    def beat(self, int64_t mono_ns):
        self.check_open()
        store(<uint64_t*>&self.memory.header.heartbeat_mono_ns, mono_ns, RELEASE)


cdef inline void set_word(uint64_t* target, uint64_t value) noexcept:
    """Store what is new, and nothing where it is not: the line stays in the caches of all who read it."""
    if target[0] != value:
        store(target, value, RELEASE)


cdef uint64_t counted(uint32_t month, uint64_t count) except? 0:
    if month >> 18 or count > COUNT_MASK:
        raise ValueError(f"no month and count are {month} and {count}")
    return <uint64_t>month << COUNT_BITS | count


cdef int check_limits(
    uint64_t plan, uint64_t flags, uint64_t emission_ns, uint64_t burst, uint64_t cap, uint64_t expires_s
) except -1:
    if plan > 0xFFFF or flags > 0xFF or cap > COUNT_MASK or expires_s > 0xFFFF_FFFF:
        raise ValueError(f"out of range: {plan=} {flags=} {cap=} {expires_s=}")
    if emission_ns > EMISSION_MASK or (emission_ns and not 1 <= burst <= MAX_BURST):
        raise ValueError(f"out of range: {emission_ns=} {burst=}")
    return 0


cdef tuple checked_networks(networks):
    if not networks:
        return ()
    if len(networks) > MAX_NETWORKS:
        raise ValueError(f"a key has at most {MAX_NETWORKS} networks, not {len(networks)}")
    for address, prefix in networks:
        if not isinstance(address, bytes) or len(address) != 16 or not 0 <= prefix <= 128:
            raise ValueError(f"not 16 bytes and a prefix: {address!r} {prefix!r}")
    return tuple([(address, prefix) for address, prefix in networks])


def gate_size(rows):
    return map_gate(NULL, checked_rows(rows)).size


def format_gate(buffer, rows):
    cdef uint32_t capacity = checked_rows(rows)
    cdef GateMemory gate
    cdef Py_buffer view
    PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    try:
        gate = map_gate(<char*>view.buf, capacity)
        if <uint64_t>view.len != gate.size:
            raise LayoutError(f"the size in bytes of a gate of {capacity} rows", gate.size, view.len)
        memset(view.buf, 0, view.len)
        gate.header.version = LAYOUT_VERSION
        gate.header.rows = capacity
        gate.header.size = gate.size
        gate.header.index_entries = index_entries(capacity)
        gate.header.network_lists = network_lists(capacity)
        store(&gate.header.magic, MAGIC, RELEASE)
    finally:
        PyBuffer_Release(&view)


def check_gate(buffer):
    cdef Py_buffer view
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        check_layout(<const char*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


def hash_key(bytes text not None, *, bint portable=False):
    cdef bytes digest = PyBytes_FromStringAndSize(NULL, 32)
    sha256(
        sha256_blocks_portable if portable else sha256_blocks, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text),
        <uint8_t*>PyBytes_AS_STRING(digest),
    )
    return digest
