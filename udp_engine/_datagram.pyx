# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A strict reader of requests. Faults are found from left to right, and the first one is what a datagram is dropped for."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from pricing._text cimport DIGIT, LOWER, UPPER, kind, span
from telemetry._counters cimport (
    DROPPED_BAD_ESCAPE, DROPPED_DUPLICATE_FIELD, DROPPED_EMPTY, DROPPED_MALFORMED, DROPPED_NOT_UTF8, DROPPED_OVERSIZED,
    DROPPED_REPLY_SHAPED, DROPPED_TOO_DEEP, DROPPED_TRUNCATED,
)

cdef enum:                             # fields, as bits of those that were seen
    ASSET = 1
    ASSETS = 2
    API_KEY = 4
    ID = 8
    EXCHANGE = 16
    AGE = 32
    UNKNOWN_FIELD = 64
    REPLY_FIELD = 128

cdef struct Reader:
    char* at
    char* end
    unsigned int fault                 # why reading has stopped, where a function has said no


# -- characters ------------------------------------------------------------------------------------------------------

cdef inline bint stop(Reader* reader, unsigned int fault) noexcept nogil:
    reader.fault = fault
    return 0


cdef inline bint is_ascii(const char* at, size_t length) noexcept nogil:
    cdef uint64_t word, bits = 0
    cdef size_t i = 0
    while i + 8 <= length:
        memcpy(&word, at + i, 8)
        bits |= word
        i += 8
    while i < length:
        bits |= <uint64_t>(<uint8_t>at[i])
        i += 1
    return bits & 0x8080808080808080ULL == 0


cdef bint is_utf8(const char* text, size_t length) noexcept nogil:
    """Well-formed by the Unicode Standard's table 3-7: nothing overlong, no surrogates, nothing above U+10FFFF."""
    cdef const uint8_t* at = <const uint8_t*>text
    cdef const uint8_t* end = at + length
    cdef uint8_t first, low, high
    cdef int more
    while at < end:
        first = at[0]
        at += 1
        if first < 0x80:
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= first <= 0xDF:
            more = 1
        elif 0xE0 <= first <= 0xEF:
            more = 2
            if first == 0xE0:
                low = 0xA0
            elif first == 0xED:
                high = 0x9F
        elif 0xF0 <= first <= 0xF4:
            more = 3
            if first == 0xF0:
                low = 0x90
            elif first == 0xF4:
                high = 0x8F
        else:
            return 0
        if end - at < more or not low <= at[0] <= high:
            return 0
        at += 1
        for more in range(more - 1, 0, -1):
            if not 0x80 <= at[0] <= 0xBF:
                return 0
            at += 1
    return 1


cdef inline bint skip_space(Reader* reader) noexcept nogil:
    """Go to what follows; 0 at the end."""
    while reader.at < reader.end:
        if reader.at[0] != c" " and reader.at[0] != c"\n" and reader.at[0] != c"\r" and reader.at[0] != c"\t":
            return 1
        reader.at += 1
    return stop(reader, DROPPED_TRUNCATED)


# -- strings ---------------------------------------------------------------------------------------------------------

cdef bint read_hex(Reader* reader, uint32_t* out) noexcept nogil:
    """Read the four digits after `\\u`."""
    cdef int i
    cdef char byte
    out[0] = 0
    for i in range(4):
        if reader.at == reader.end:
            return stop(reader, DROPPED_TRUNCATED)
        byte = reader.at[0]
        if kind(byte) & DIGIT:
            out[0] = out[0] * 16 + (byte - c"0")
        elif c"a" <= byte <= c"f" or c"A" <= byte <= c"F":
            out[0] = out[0] * 16 + ((byte | 32) - c"a" + 10)
        else:
            return stop(reader, DROPPED_BAD_ESCAPE)
        reader.at += 1
    return 1


cdef inline bint take_byte(Reader* reader, char wanted) noexcept nogil:
    """Go past a byte of a surrogate's second half."""
    if reader.at == reader.end:
        return stop(reader, DROPPED_TRUNCATED)
    if reader.at[0] != wanted:
        return stop(reader, DROPPED_BAD_ESCAPE)
    reader.at += 1
    return 1


cdef bint read_code_point(Reader* reader, uint32_t* out) noexcept nogil:
    """Read what follows `\\u`, with its second half where it is a surrogate."""
    cdef uint32_t second = 0
    if not read_hex(reader, out):
        return 0
    if out[0] < 0xD800 or out[0] > 0xDFFF:
        return 1
    if out[0] > 0xDBFF:
        return stop(reader, DROPPED_BAD_ESCAPE)
    if not (take_byte(reader, c"\\") and take_byte(reader, c"u") and read_hex(reader, &second)):
        return 0
    if not 0xDC00 <= second <= 0xDFFF:
        return stop(reader, DROPPED_BAD_ESCAPE)
    out[0] = 0x10000 + ((out[0] - 0xD800) << 10) + (second - 0xDC00)
    return 1


cdef inline char* put_utf8(char* at, uint32_t point) noexcept nogil:
    if point < 0x80:
        at[0] = <char>point
        return at + 1
    if point < 0x800:
        at[0] = <char>(0xC0 | point >> 6)
        at[1] = <char>(0x80 | point & 63)
        return at + 2
    if point < 0x10000:
        at[0] = <char>(0xE0 | point >> 12)
        at[1] = <char>(0x80 | point >> 6 & 63)
        at[2] = <char>(0x80 | point & 63)
        return at + 3
    at[0] = <char>(0xF0 | point >> 18)
    at[1] = <char>(0x80 | point >> 12 & 63)
    at[2] = <char>(0x80 | point >> 6 & 63)
    at[3] = <char>(0x80 | point & 63)
    return at + 4


cdef bint read_escape(Reader* reader, char** out) noexcept nogil:
    """Undo one escape; the reader is after the backslash. What comes out is shorter than what went in."""
    cdef uint32_t point = 0
    cdef char byte
    if reader.at == reader.end:
        return stop(reader, DROPPED_TRUNCATED)
    byte = reader.at[0]
    reader.at += 1
    if byte == c'"' or byte == c"\\" or byte == c"/":
        point = byte
    elif byte == c"b":
        point = 8
    elif byte == c"f":
        point = 12
    elif byte == c"n":
        point = 10
    elif byte == c"r":
        point = 13
    elif byte == c"t":
        point = 9
    elif byte != c"u":
        return stop(reader, DROPPED_BAD_ESCAPE)
    elif not read_code_point(reader, &point):
        return 0
    out[0] = put_utf8(out[0], point)
    return 1


cdef inline bint read_string(Reader* reader, Text* out) noexcept nogil:
    """Read a string; the reader is after its opening quote, and then after the closing one."""
    cdef char* at = reader.at
    cdef char* target
    out.at = at
    while at < reader.end and at[0] != c'"' and at[0] != c"\\" and <uint8_t>at[0] >= 0x20:
        at += 1
    target = at
    while at < reader.end:
        if at[0] == c'"':
            out.length = target - out.at
            reader.at = at + 1
            return 1
        if <uint8_t>at[0] < 0x20:
            return stop(reader, DROPPED_MALFORMED)
        if at[0] == c"\\":
            reader.at = at + 1
            if not read_escape(reader, &target):
                return 0
            at = reader.at
            continue
        target[0] = at[0]
        target += 1
        at += 1
    return stop(reader, DROPPED_TRUNCATED)


# -- values that are not looked at -----------------------------------------------------------------------------------

cdef bint skip_word(Reader* reader, const char* word) noexcept nogil:
    while word[0]:
        if reader.at == reader.end:
            return stop(reader, DROPPED_TRUNCATED)
        if reader.at[0] != word[0]:
            return stop(reader, DROPPED_MALFORMED)
        reader.at += 1
        word += 1
    return 1


cdef inline bint skip_digits(Reader* reader) noexcept nogil:
    """Go past one digit or more."""
    if reader.at == reader.end:
        return stop(reader, DROPPED_TRUNCATED)
    if not kind(reader.at[0]) & DIGIT:
        return stop(reader, DROPPED_MALFORMED)
    reader.at = <char*>span(reader.at, reader.end, DIGIT)
    return 1


cdef bint skip_number(Reader* reader, bint* is_whole) noexcept nogil:
    is_whole[0] = 1
    if reader.at[0] == c"-":
        reader.at += 1
    if reader.at < reader.end and reader.at[0] == c"0":
        reader.at += 1
    elif not skip_digits(reader):
        return 0
    if reader.at < reader.end and reader.at[0] == c".":
        is_whole[0] = 0
        reader.at += 1
        if not skip_digits(reader):
            return 0
    if reader.at < reader.end and (reader.at[0] == c"e" or reader.at[0] == c"E"):
        is_whole[0] = 0
        reader.at += 1
        if reader.at < reader.end and (reader.at[0] == c"+" or reader.at[0] == c"-"):
            reader.at += 1
        return skip_digits(reader)
    return 1


cdef bint skip_value(Reader* reader, int depth) noexcept nogil:
    """Go past any value; *depth* is the level on which an object or array here would be."""
    cdef Text ignored
    cdef bint is_whole
    cdef char byte
    if not skip_space(reader):
        return 0
    byte = reader.at[0]
    if byte == c'"':
        reader.at += 1
        return read_string(reader, &ignored)
    if byte == c"{" or byte == c"[":
        if depth > MAX_DEPTH:
            return stop(reader, DROPPED_TOO_DEEP)
        reader.at += 1
        return skip_members(reader, depth + 1, c"}" if byte == c"{" else c"]")
    if byte == c"-" or kind(byte) & DIGIT:
        return skip_number(reader, &is_whole)
    if byte == c"t":
        return skip_word(reader, b"true")
    if byte == c"f":
        return skip_word(reader, b"false")
    if byte == c"n":
        return skip_word(reader, b"null")
    return stop(reader, DROPPED_MALFORMED)


cdef bint skip_members(Reader* reader, int depth, char closing) noexcept nogil:
    """Go past the rest of an object or array; the reader is after its opening bracket."""
    cdef Text name
    if not skip_space(reader):
        return 0
    if reader.at[0] == closing:
        reader.at += 1
        return 1
    while True:
        if closing == c"}" and not read_name(reader, &name):
            return 0
        if not skip_value(reader, depth):
            return 0
        if not next_member(reader, closing):
            return 0
        if (reader.at - 1)[0] == closing:
            return 1


cdef inline bint read_name(Reader* reader, Text* out) noexcept nogil:
    """Read a member's name and its colon."""
    if not skip_space(reader):
        return 0
    if reader.at[0] != c'"':
        return stop(reader, DROPPED_MALFORMED)
    reader.at += 1
    return read_string(reader, out) and skip_colon(reader)


cdef inline bint skip_colon(Reader* reader) noexcept nogil:
    if not skip_space(reader):
        return 0
    if reader.at[0] != c":":
        return stop(reader, DROPPED_MALFORMED)
    reader.at += 1
    return 1


cdef inline bint next_member(Reader* reader, char closing) noexcept nogil:
    """Go past the comma or the closing bracket after a member."""
    if not skip_space(reader):
        return 0
    if reader.at[0] != c"," and reader.at[0] != closing:
        return stop(reader, DROPPED_MALFORMED)
    reader.at += 1
    return 1


# -- the fields ------------------------------------------------------------------------------------------------------

cdef inline unsigned int field_of(const Text* name) noexcept nogil:
    cdef const char* at = name.at
    cdef size_t length = name.length
    if length == 5:
        if memcmp(at, b"asset", 5) == 0:
            return ASSET
        if memcmp(at, b"error", 5) == 0 or memcmp(at, b"price", 5) == 0:
            return REPLY_FIELD
    elif length == 7:
        if memcmp(at, b"api_key", 7) == 0:
            return API_KEY
        if memcmp(at, b"answers", 7) == 0:
            return REPLY_FIELD
    elif length == 6:
        if memcmp(at, b"assets", 6) == 0:
            return ASSETS
        if memcmp(at, b"prices", 6) == 0:
            return REPLY_FIELD
    elif length == 2:
        if memcmp(at, b"id", 2) == 0:
            return ID
    elif length == 8:
        if memcmp(at, b"exchange", 8) == 0:
            return EXCHANGE
    elif length == 10:
        if memcmp(at, b"max_age_ms", 10) == 0:
            return AGE
    return UNKNOWN_FIELD


cdef inline bint make_asset(Text* name) noexcept nogil:
    """Make an asset's name upper case; 0 when it cannot be one."""
    cdef char* at = <char*>name.at
    cdef char* end = at + name.length
    if not 1 <= name.length <= MAX_NAME:
        return 0
    while at < end:
        if c"a" <= at[0] <= c"z":
            at[0] -= 32
        elif not kind(at[0]) & UPPER:
            return 0
        at += 1
    return 1


cdef inline bint make_exchange(Text* name) noexcept nogil:
    """Make an exchange's name lower case; 0 when it cannot be one."""
    cdef char* at = <char*>name.at
    cdef char* end = at + name.length
    if not 1 <= name.length <= MAX_NAME or at[0] == c"_" or at[0] == c"-":
        return 0
    while at < end:
        if c"A" <= at[0] <= c"Z":
            at[0] += 32
        elif not kind(at[0]) & LOWER:
            return 0
        at += 1
    return 1


cdef inline bint is_id(const Text* text) noexcept nogil:
    cdef size_t i
    if not 1 <= text.length <= MAX_ID:
        return 0
    for i in range(text.length):
        if not 0x20 <= <uint8_t>text.at[i] <= 0x7E:
            return 0
    return 1


cdef bint read_age(Reader* reader, int64_t* out, bint* is_good) noexcept nogil:
    """Read a whole number of milliseconds."""
    cdef const char* at
    cdef bint is_whole = 0
    if reader.at[0] != c"-" and not kind(reader.at[0]) & DIGIT:
        is_good[0] = 0
        return skip_value(reader, 2)
    at = reader.at
    if not skip_number(reader, &is_whole):
        return 0
    if not is_whole or at[0] == c"-" or reader.at - at > 9:
        is_good[0] = 0
        return 1
    out[0] = 0
    while at < reader.at:
        out[0] = out[0] * 10 + (at[0] - c"0")
        at += 1
    if out[0] > MAX_AGE_MS:
        is_good[0] = 0
    return 1


cdef bint add_asset(Request* request, Text* name) noexcept nogil:
    """Add an asset once; 0 when it cannot be added."""
    cdef unsigned int i
    if not make_asset(name):
        return 0
    for i in range(request.count):
        if request.assets[i].length == name.length and memcmp(request.assets[i].at, name.at, name.length) == 0:
            return 1
    if request.count == MAX_ASSETS:
        return 0
    request.assets[request.count] = name[0]
    request.count += 1
    return 1


cdef bint read_assets(Reader* reader, Request* out, bint* is_good) noexcept nogil:
    """Read a list of assets; the reader is before its bracket."""
    cdef Text name
    if reader.at[0] != c"[":
        is_good[0] = 0
        return skip_value(reader, 2)
    reader.at += 1
    if not skip_space(reader):
        return 0
    if reader.at[0] == c"]":
        reader.at += 1
        is_good[0] = 0
        return 1
    while True:
        if not skip_space(reader):
            return 0
        if reader.at[0] == c'"':
            reader.at += 1
            if not read_string(reader, &name):
                return 0
            if not add_asset(out, &name):
                is_good[0] = 0
        else:
            is_good[0] = 0
            if not skip_value(reader, 3):
                return 0
        if not next_member(reader, c"]"):
            return 0
        if (reader.at - 1)[0] == c"]":
            return 1


cdef bint read_text(Reader* reader, Text* out, bint* is_good) noexcept nogil:
    if reader.at[0] != c'"':
        is_good[0] = 0
        return skip_value(reader, 2)
    reader.at += 1
    return read_string(reader, out)


cdef bint read_field(Reader* reader, unsigned int field, Request* out, bint* is_good) noexcept nogil:
    """Read a field's value; *is_good* is cleared where it cannot be used."""
    cdef Text text
    text.at = NULL
    if field == AGE:
        return read_age(reader, &out.max_age_ms, is_good)
    if field == ASSETS:
        return read_assets(reader, out, is_good)
    if field == UNKNOWN_FIELD:
        is_good[0] = 0
        return skip_value(reader, 2)
    if not read_text(reader, &text, is_good):
        return 0
    if text.at == NULL:
        return 1
    if field == API_KEY:
        out.key = text
    elif field == ASSET and make_asset(&text):
        out.asset = text
    elif field == EXCHANGE and make_exchange(&text):
        out.exchange = text
    elif field == ID and is_id(&text):
        out.id = text
    else:
        is_good[0] = 0
    return 1


cdef inline bint go_together(unsigned int seen) noexcept nogil:
    """Whether fields make a question: of one asset, of several, or of none and of nothing that goes with one."""
    if seen & ASSET:
        return not seen & ASSETS
    return seen & ASSETS != 0 or not seen & (EXCHANGE | AGE)


cdef bint read_object(Reader* reader, Request* out, bint* is_good) noexcept nogil:
    """Read the object that a datagram is, and that nothing follows it."""
    cdef unsigned int seen = 0, field
    cdef Text name
    if not skip_space(reader):
        return 0
    if reader.at[0] != c"{":
        return stop(reader, DROPPED_MALFORMED)
    reader.at += 1
    if not skip_space(reader):
        return 0
    if reader.at[0] == c"}":
        reader.at += 1
    else:
        while True:
            if not skip_space(reader):
                return 0
            if reader.at[0] != c'"':
                return stop(reader, DROPPED_MALFORMED)
            reader.at += 1
            if not read_string(reader, &name):
                return 0
            field = field_of(&name)
            if field == REPLY_FIELD:
                return stop(reader, DROPPED_REPLY_SHAPED)
            if field & seen & ~<unsigned int>UNKNOWN_FIELD:
                return stop(reader, DROPPED_DUPLICATE_FIELD)
            seen |= field
            if not skip_colon(reader) or not skip_space(reader) or not read_field(reader, field, out, is_good):
                return 0
            if not next_member(reader, c"}"):
                return 0
            if (reader.at - 1)[0] == c"}":
                break
    if skip_space(reader):
        return stop(reader, DROPPED_MALFORMED)
    if not go_together(seen):
        is_good[0] = 0
    return 1


cdef void read_datagram(char* datagram, size_t length, Request* out) noexcept nogil:
    cdef Reader reader
    cdef bint is_good = 1
    out.outcome = DROPPED
    out.asset.length = out.exchange.length = out.key.length = out.id.length = 0
    out.key.at = NULL
    out.asset.at = datagram            # nothing, of length 0, is read from somewhere too
    out.max_age_ms = -1
    out.count = 0
    if length == 0:
        out.reason = DROPPED_EMPTY
        return
    if length > DATAGRAM_BYTES:
        out.reason = DROPPED_OVERSIZED
        return
    if not is_ascii(datagram, length) and not is_utf8(datagram, length):
        out.reason = DROPPED_NOT_UTF8
        return
    reader.at = datagram
    reader.end = datagram + length
    if not read_object(&reader, out, &is_good):
        out.reason = reader.fault
    elif not is_good:
        out.outcome = BAD_REQUEST
    else:
        out.outcome = SEVERAL_ASSETS if out.count else ONE_ASSET if out.asset.length else NO_ASSET


# -- the public face -------------------------------------------------------------------------------------------------

cdef object text_of(const Text* text):
    return None if text.length == 0 else text.at[:text.length].decode("ascii")


def parse(bytes datagram not None):
    cdef Request request
    cdef bytes copy = PyBytes_FromStringAndSize(PyBytes_AS_STRING(datagram), PyBytes_GET_SIZE(datagram))
    cdef unsigned int i
    read_datagram(PyBytes_AS_STRING(copy), PyBytes_GET_SIZE(copy), &request)
    if request.outcome == DROPPED:
        return "drop", request.reason
    if request.outcome == BAD_REQUEST:
        return "bad_request", text_of(&request.id)
    key = None if request.key.at == NULL else request.key.at[:request.key.length]
    demands = text_of(&request.exchange), None if request.max_age_ms < 0 else request.max_age_ms, key, text_of(&request.id)
    if request.outcome == NO_ASSET:
        return "summary", *demands[2:]
    if request.outcome == ONE_ASSET:
        return "price", text_of(&request.asset), *demands
    return "prices", tuple([text_of(&request.assets[i]) for i in range(request.count)]), *demands
