# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The HTTP fast path: a plain keyed `GET /price` parsed, looked up, judged and answered in one call.

Whatever is the least unusual is left alone: nothing has been counted or taken then, and the ordinary way, which is
this one's specification, answers it.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset

from billing._admission cimport gate_admit_digest, gate_fetch, gate_hash, gate_is_filled
from billing._gate cimport ADMITTED, KEY_BYTES, SCOPE_PRICES, Gate, GateVerdict
from pricing._board cimport PriceCopy, age_of
from pricing._finder cimport Finder, Label
from pricing._text cimport (
    CLOCK_MONOTONIC, LOWER, TOKEN, UPPER, VALUE, Text, put, put_digits, put_number, read_clock_ns, read_clocks_ns, span,
)
from pricing._usage cimport record_price, record_question
from telemetry._counters cimport (
    BATCH_ROWS_QUEUED, HTTP_LATENCY, SYNCMAP_HITS, TCP_REQUESTS, Counters, count, note_latency,
)
from telemetry._spool cimport APPENDED, HTTP, Appender, Record, spool_admits, spool_append, spool_enter, spool_leave

cdef enum:
    HEAD_BYTES = 2_048                 # a longer head is not plain
    HEADER_LINES = 64
    NAME_LENGTH = 32                   # of assets and exchanges
    MAX_AGE_MS = 86_400_000
    BODY_BYTES = 768                   # more than the longest of all parts together
    FIELDS_BYTES = 256                 # likewise

cdef int64_t MS = 1_000_000
cdef int64_t SECOND_NS = 1_000_000_000

cdef struct Question:
    Text asset
    Text exchange                      # length 0: any
    Text key
    int64_t max_age_ms                 # -1: none

cdef struct Second:                    # a second's text, kept for the next answers
    int64_t second
    char text[19]


cdef inline bint is_word(const char* at, size_t length, const char* word) noexcept nogil:
    """Whether a text is *word*, which is in lower case and as long."""
    cdef size_t i
    cdef char byte
    for i in range(length):
        byte = at[i]
        if c"A" <= byte <= c"Z":
            byte += 32
        if byte != word[i]:
            return 0
    return 1


# -- the question ----------------------------------------------------------------------------------------------------

cdef inline const char* take_name(const char* at, const char* end, uint8_t wanted, Text* out) noexcept nogil:
    """Take an asset's or an exchange's name, once; NULL when it is none."""
    if out.length:
        return NULL
    out.at = at
    at = span(at, end, wanted)
    out.length = at - out.at
    return at if 1 <= out.length <= NAME_LENGTH else NULL


cdef inline const char* take_age(const char* at, const char* end, int64_t* out) noexcept nogil:
    cdef const char* start = at
    if out[0] >= 0:
        return NULL
    out[0] = 0
    while at < end and c"0" <= at[0] <= c"9" and at - start < 9:
        out[0] = out[0] * 10 + (at[0] - c"0")
        at += 1
    if at == start or (start[0] == c"0" and at - start > 1) or out[0] > MAX_AGE_MS:
        return NULL
    return at


cdef const char* read_target(const char* at, const char* end, Question* out) noexcept nogil:
    """Read `GET /price?asset=…` up to the end of its line; NULL when it is not plain."""
    if end - at < 20 or memcmp(at, b"GET /price?", 11) != 0:
        return NULL
    at += 11
    while True:
        if end - at > 6 and memcmp(at, b"asset=", 6) == 0:
            at = take_name(at + 6, end, UPPER, &out.asset)
        elif end - at > 9 and memcmp(at, b"exchange=", 9) == 0:
            at = take_name(at + 9, end, LOWER, &out.exchange)
        elif end - at > 11 and memcmp(at, b"max_age_ms=", 11) == 0:
            at = take_age(at + 11, end, &out.max_age_ms)
        else:
            return NULL
        if at == NULL or at == end:
            return NULL
        if at[0] != c"&":
            break
        at += 1
    if out.asset.length == 0:
        return NULL
    return at + 11 if end - at >= 11 and memcmp(at, b" HTTP/1.1\r\n", 11) == 0 else NULL


cdef inline bint take_key(const char* at, size_t length, Text* out) noexcept nogil:
    """Take the key, once."""
    if out.length or length != KEY_BYTES:
        return 0
    out.at = at
    out.length = length
    return 1


cdef inline bint take_header(const char* name, size_t length, Text value, Question* out, int* hosts) noexcept nogil:
    """Look at one header; 0 when it makes the request unusual."""
    if length == 4:
        if is_word(name, 4, b"host"):
            hosts[0] += 1
            return value.length != 0
    elif length == 6:
        return not is_word(name, 6, b"expect")
    elif length == 7:
        return not (is_word(name, 7, b"upgrade") or is_word(name, 7, b"trailer"))
    elif length == 9:
        if is_word(name, 9, b"x-api-key"):
            return take_key(value.at, value.length, &out.key)
    elif length == 10:
        if is_word(name, 10, b"connection"):
            return value.length == 10 and is_word(value.at, 10, b"keep-alive")
    elif length == 13:
        if is_word(name, 13, b"authorization"):
            return (
                value.length > 7 and is_word(value.at, 7, b"bearer ")
                and take_key(value.at + 7, value.length - 7, &out.key)
            )
    elif length == 14:
        return not is_word(name, 14, b"content-length")
    elif length == 16:
        return not is_word(name, 16, b"proxy-connection")
    elif length == 17:
        return not is_word(name, 17, b"transfer-encoding")
    return 1


cdef bint read_headers(const char* at, const char* end, Question* out) noexcept nogil:
    """Read the header lines, which must end where the bytes end; 0 when they are not plain."""
    cdef const char* name
    cdef size_t length
    cdef Text value
    cdef int lines = 0, hosts = 0
    while end - at >= 2 and not (at[0] == c"\r" and at[1] == c"\n"):
        name = at
        at = span(at, end, TOKEN)
        length = at - name
        lines += 1
        if length == 0 or at == end or at[0] != c":" or lines > HEADER_LINES:
            return 0
        at += 1
        while at < end and (at[0] == c" " or at[0] == c"\t"):
            at += 1
        value.at = at
        at = span(at, end, VALUE)
        if end - at < 2 or at[0] != c"\r" or at[1] != c"\n":
            return 0
        value.length = at - value.at
        while value.length and (value.at[value.length - 1] == c" " or value.at[value.length - 1] == c"\t"):
            value.length -= 1
        if not take_header(name, length, value, out, &hosts):
            return 0
        at += 2
    return end - at == 2 and hosts == 1 and out.key.length != 0


# -- the answer ------------------------------------------------------------------------------------------------------

cdef void write_second(int64_t second, char* out) noexcept nogil:
    """Write `2026-11-22T13:00:00`; the date as in https://howardhinnant.github.io/date_algorithms.html#civil_from_days."""
    cdef int64_t days = second // 86_400 + 719_468
    cdef uint32_t of_day = <uint32_t>(second % 86_400)
    cdef uint32_t era = <uint32_t>(days // 146_097), day_of_era = <uint32_t>(days % 146_097)
    cdef uint32_t year = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    cdef uint32_t day = day_of_era - (365 * year + year // 4 - year // 100)
    cdef uint32_t month = (5 * day + 2) // 153
    day = day - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    put_digits(out, era * 400 + year + (month <= 2), 4)
    out[4] = out[7] = c"-"
    put_digits(out + 5, month, 2)
    put_digits(out + 8, day, 2)
    out[10] = c"T"
    put_digits(out + 11, of_day // 3_600, 2)
    out[13] = out[16] = c":"
    put_digits(out + 14, of_day // 60 % 60, 2)
    put_digits(out + 17, of_day % 60, 2)


cdef inline char* put_time(char* at, int64_t wall_ns, Second* known) noexcept nogil:
    """As pricing.protocol.render_time does."""
    cdef int64_t second = wall_ns // SECOND_NS
    if known.second != second:
        write_second(second, known.text)
        known.second = second
    at = put(at, known.text, 19)
    at[0] = c"."
    put_digits(at + 1, <uint32_t>(wall_ns % SECOND_NS // 1_000), 6)
    at[7] = c"Z"
    return at + 8


cdef inline uint64_t whole_seconds(uint64_t wait_ns) noexcept nogil:
    """As billing.ratelimit.retry_after_s does."""
    cdef uint64_t seconds = (wait_ns + SECOND_NS - 1) // SECOND_NS
    return seconds if seconds else 1


cdef uint32_t month_days(uint32_t month) noexcept nogil:
    cdef uint32_t year = month // 100
    month %= 100
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


cdef inline char* put_state(char* at, uint64_t remaining, uint64_t reset_ns) noexcept nogil:
    at = put(at, b";r=", 3)
    at = put_number(at, remaining)
    if reset_ns:
        at = put(at, b";t=", 3)
        at = put_number(at, whole_seconds(reset_ns))
    return at


cdef char* put_limits(char* at, const GateVerdict* verdict) noexcept nogil:
    """Write both fields as billing.ratelimit does; nothing for a key without limits."""
    if verdict.limit == 0 and verdict.cap == 0:
        return at
    at = put(at, b"ratelimit-policy: ", 18)
    if verdict.limit:
        at = put(at, b'"rate";q=', 9)
        at = put_number(at, verdict.limit)
        at = put(at, b";w=", 3)
        at = put_number(at, whole_seconds(verdict.limit * verdict.emission_ns))
    if verdict.cap:
        at = put(at, b', "month";q=', 12) if verdict.limit else put(at, b'"month";q=', 10)
        at = put_number(at, verdict.cap)
        at = put(at, b";w=", 3)
        at = put_number(at, 86_400 * month_days(verdict.month))
    at = put(at, b"\r\nratelimit: ", 13)
    if verdict.limit:
        at = put(at, b'"rate"', 6)
        at = put_state(at, verdict.remaining, verdict.reset_ns)
    if verdict.cap:
        at = put(at, b', "month"', 9) if verdict.limit else put(at, b'"month"', 7)
        at = put_state(at, verdict.cap_remaining, verdict.cap_reset_ns)
    return put(at, b"\r\n", 2)


cdef bytes lines_of(fields):
    return b"".join([b"%s: %s\r\n" % field for field in fields])


cdef class FastPath:
    cdef Finder finder
    cdef Gate gate
    cdef Counters counters
    cdef Appender appender
    cdef object clock                  # None: the machine's own
    cdef Second traded                 # of the latest answer
    cdef Second received
    cdef bytes status
    cdef bytes common                  # header lines of every answer
    cdef bytes exposed                 # and of those that tell of limits
    cdef object defaults               # the server's own headers, as they were last
    cdef bytes default_lines

    def __init__(
        self, Finder finder not None, Gate gate not None, Counters counters not None, Appender appender not None, *,
        bytes status not None, common, exposed, clock=None,
    ):
        self.finder = finder
        self.gate = gate
        self.counters = counters
        self.appender = appender
        self.clock = clock
        self.status = status
        self.common = lines_of(common)
        self.exposed = lines_of(exposed)
        self.traded.second = self.received.second = -1
        self.default_lines = b""

    def follow(self, listed):
        self.finder.follow(listed)

    def answer(self, bytes data not None, bytes address, list defaults not None):
        cdef Question question
        cdef const char* at = PyBytes_AS_STRING(data)
        cdef const char* end = at + PyBytes_GET_SIZE(data)
        cdef PriceCopy price
        cdef GateVerdict verdict
        cdef uint8_t digest[32]
        cdef char body[BODY_BYTES]
        cdef size_t body_bytes
        cdef int64_t mono_ns = 0, wall_ns = 0
        cdef bytes answer
        if end - at > HEAD_BYTES or not gate_is_filled(&self.gate.memory):
            return None
        self.read_clock(&mono_ns, &wall_ns)
        memset(&question, 0, sizeof(question))
        question.max_age_ms = -1
        at = read_target(at, end, &question)
        if at == NULL or not read_headers(at, end, &question):
            return None
        # A key among a million lies far away: the price is found while its entry comes, and told while its row does.
        if not gate_hash(&self.gate.memory, question.key.at, question.key.length, digest):
            return None
        if not self.find(&question, mono_ns, &price):
            return None
        gate_fetch(&self.gate.memory, digest)
        body_bytes = self.put_body(body, &question, &price, age_of(&price, mono_ns)) - body
        if not spool_admits(&self.appender.memory):
            return None
        spool_enter(&self.appender.memory)
        if gate_admit_digest(
            &self.gate.memory, digest, mono_ns, wall_ns // SECOND_NS, SCOPE_PRICES,
            <const uint8_t*>PyBytes_AS_STRING(address) if address is not None else NULL, 1, &verdict,
        ) != ADMITTED:
            spool_leave(&self.appender.memory)
            return None
        self.record(&verdict, &question, &price, wall_ns, self.now_ns() - mono_ns)
        spool_leave(&self.appender.memory)
        count(self.counters, TCP_REQUESTS, 1)
        count(self.counters, SYNCMAP_HITS, 1)
        if defaults is not self.defaults:
            self.default_lines = lines_of(defaults)
            self.defaults = defaults
        answer = self.render(&verdict, body, body_bytes)
        note_latency(self.counters, HTTP_LATENCY, self.now_ns() - mono_ns, 1)
        return answer

    cdef void record(
        self, const GateVerdict* verdict, const Question* question, const PriceCopy* price, int64_t wall_ns, int64_t took_ns
    ) noexcept nogil:
        cdef Record record
        record_question(&record, verdict, &question.asset, HTTP, wall_ns, took_ns)
        record_price(&record, verdict, price, &self.finder.labels[price.exchange])
        if spool_append(&self.appender.memory, &record) == APPENDED:
            count(self.counters, BATCH_ROWS_QUEUED, 1)

    cdef int read_clock(self, int64_t* mono_ns, int64_t* wall_ns) except -1:
        if self.clock is not None:
            mono_ns[0], wall_ns[0] = self.clock()
            return 0
        read_clocks_ns(mono_ns, wall_ns)
        return 0

    cdef int64_t now_ns(self) except -1:
        return read_clock_ns(CLOCK_MONOTONIC) if self.clock is None else self.clock()[0]

    cdef bint find(self, const Question* question, int64_t mono_ns, PriceCopy* out) except -1:
        """Find a fresh price that may be told; 0 when the ordinary way must look for one."""
        cdef Finder finder = self.finder
        if finder.find(&question.asset, &question.exchange, question.max_age_ms, mono_ns, out):
            return 1
        if not finder.behind:
            return 0
        finder.learn()
        return finder.find(&question.asset, &question.exchange, question.max_age_ms, mono_ns, out)

    cdef bytes render(self, const GateVerdict* verdict, const char* body, size_t body_bytes):
        """Put the answer together as pricing.http and uvicorn do."""
        cdef char fields[FIELDS_BYTES]
        cdef size_t fields_bytes = put_limits(fields, verdict) - fields
        cdef size_t exposed_bytes = PyBytes_GET_SIZE(self.exposed) if fields_bytes else 0
        cdef char length[24]
        cdef size_t length_bytes = put_number(length, body_bytes) - length
        cdef bytes answer = PyBytes_FromStringAndSize(
            NULL,
            PyBytes_GET_SIZE(self.status) + PyBytes_GET_SIZE(self.default_lines) + PyBytes_GET_SIZE(self.common)
            + fields_bytes + exposed_bytes + 16 + length_bytes + 4 + body_bytes,
        )
        cdef char* at = PyBytes_AS_STRING(answer)
        at = put(at, PyBytes_AS_STRING(self.status), PyBytes_GET_SIZE(self.status))
        at = put(at, PyBytes_AS_STRING(self.default_lines), PyBytes_GET_SIZE(self.default_lines))
        at = put(at, PyBytes_AS_STRING(self.common), PyBytes_GET_SIZE(self.common))
        at = put(at, fields, fields_bytes)
        at = put(at, PyBytes_AS_STRING(self.exposed), exposed_bytes)
        at = put(at, b"content-length: ", 16)
        at = put(at, length, length_bytes)
        at = put(at, b"\r\n\r\n", 4)
        put(at, body, body_bytes)
        return answer

    cdef char* put_body(
        self, char* at, const Question* question, const PriceCopy* price, int64_t age_ns
    ) noexcept:
        """As pricing.protocol.render_price does."""
        cdef const Label* label = &self.finder.labels[price.exchange]
        at = put(at, b'{"asset":"', 10)
        at = put(at, question.asset.at, question.asset.length)
        at = put(at, b'","price":"', 11)
        at = put(at, price.price, price.length)
        at = put(at, label.text, label.length)
        at = put_time(at, price.traded_ns, &self.traded)
        at = put(at, b'","received_at":"', 17)
        at = put_time(at, price.received_ns, &self.received)
        at = put(at, b'","age_ms":', 11)
        at = put_number(at, age_ns // MS)
        return put(at, b',"tier":1,"cached":true}', 24)
