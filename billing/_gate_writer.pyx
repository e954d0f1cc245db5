# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The gate's one writer: keys come and go, and what it finds half done it finishes."""
cimport cython
from cpython.buffer cimport PyBUF_WRITABLE
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from billing._gate cimport (
    BARRED, COUNT_BITS, EMISSION_BITS, FREE, LIVE, MAX_BURST, MAX_NETWORKS, MILLISECOND_NS, RELAXED, RELEASE, Gate,
    NetworkList, Row, digest_of, fence, load, low_bits, networks_of, store, swap,
)

from billing._gate import Usage
from billing.exceptions import GateFull


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


# -- the writer ------------------------------------------------------------------------------------------------------

cdef class GateWriter(Gate):
    cdef Ring free_rows, free_lists
    cdef uint64_t (*told)[2]           # by row: the counts that changed() has told

    def __init__(self, buffer, int64_t pid, int64_t mono_ns):
        self.attach(buffer, PyBUF_WRITABLE)
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
                        number, row.key_id, word >> COUNT_BITS, word & low_bits(COUNT_BITS), load(&row.last_used_s, RELAXED)
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
    if month >> 18 or count > low_bits(COUNT_BITS):
        raise ValueError(f"no month and count are {month} and {count}")
    return <uint64_t>month << COUNT_BITS | count


cdef int check_limits(
    uint64_t plan, uint64_t flags, uint64_t emission_ns, uint64_t burst, uint64_t cap, uint64_t expires_s
) except -1:
    if plan > 0xFFFF or flags > 0xFF or cap > low_bits(COUNT_BITS) or expires_s > 0xFFFF_FFFF:
        raise ValueError(f"out of range: {plan=} {flags=} {cap=} {expires_s=}")
    if emission_ns > low_bits(EMISSION_BITS) or (emission_ns and not 1 <= burst <= MAX_BURST):
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
