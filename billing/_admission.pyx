# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What every answer runs through: a key's text, its look-up, what it may, how often. No Python in between."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from billing._crc32 cimport crc32_fill_tables, crc32_of
from billing._gate cimport (
    ADMITTED, EMISSION_BITS, EXPIRED, FREE, KEY_BYTES, LIVE, MALFORMED, PARTNER, QUOTA_EXCEEDED, RATE_LIMITED, READ_TRIES,
    REVOKED, UNKNOWN, WRONG_NETWORK, WRONG_SCOPE, NetworkList, fence, fetch, low_bits, store, swap,
)

cdef extern from "_sha256.h":
    ctypedef void (*sha256_blocks_fn)(uint32_t* state, const uint8_t* data, size_t blocks) noexcept nogil
    sha256_blocks_fn sha256_choose() noexcept
    void sha256_blocks_portable(uint32_t* state, const uint8_t* data, size_t blocks) noexcept nogil
    void sha256(sha256_blocks_fn blocks, const void* text, size_t length, uint8_t* digest) noexcept nogil

cdef const char* PREFIX = "tb_live_"
cdef const char* ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
cdef uint8_t letters[256]                      # place in the alphabet + 1; 0 = not in it
cdef sha256_blocks_fn sha256_blocks = sha256_choose()

crc32_fill_tables()
memset(letters, 0, sizeof(letters))
for place in range(62):
    letters[<uint8_t>ALPHABET[place]] = place + 1


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
        out.emission_ns = words.rate & low_bits(EMISSION_BITS)
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


# -- for other modules -------------------------------------------------------------------------------------------------

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


cdef int64_t gate_find(const GateMemory* gate, const uint8_t* digest) noexcept nogil:
    cdef uint64_t wanted[4]
    cdef KeyWords words
    cdef GateVerdict verdict
    memcpy(wanted, digest, sizeof(wanted))
    return find_key(gate, wanted, &words, &verdict)


def hash_key(bytes text not None, *, bint portable=False):
    cdef bytes digest = PyBytes_FromStringAndSize(NULL, 32)
    sha256(
        sha256_blocks_portable if portable else sha256_blocks, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text),
        <uint8_t*>PyBytes_AS_STRING(digest),
    )
    return digest
