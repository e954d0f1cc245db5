// What the load reads: replies in datagrams, HTTP/1.1 responses as they come in, and times in buckets.
#pragma once
#include <stdint.h>
#include <string.h>
#include <strings.h>

// ---- outcomes: places in one table of counts. HTTP statuses stand at their own number.

enum { OUTCOME_GOOD = 0, OUTCOME_OTHER = 9, OUTCOME_CLOSED = 600, OUTCOME_RESET, OUTCOME_UNREADABLE, OUTCOMES };

static const char* const outcome_codes[] = {
    "", "bad_request", "unauthorized", "revoked", "unknown_asset", "stale", "rate_limited", "quota_exceeded", "unavailable",
};

// ---- datagrams

#define ID_DIGITS 8

static inline int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static inline void write_id(char* text, uint32_t id) {
    for (int place = ID_DIGITS - 1; place >= 0; place--, id >>= 4) text[place] = "0123456789abcdef"[id & 15];
}

// Find the id that a reply echoes; 0 where it has none of ours.
static inline int read_id(const char* reply, size_t length, uint32_t* id) {
    static const char name[] = "\"id\":\"";
    const size_t begin = sizeof name - 1;
    if (length < begin + ID_DIGITS + 2) return 0;
    const char* found = memcmp(reply + 1, name, begin) ? memmem(reply, length, name, begin) : reply + 1;
    if (!found || (size_t)(reply + length - found) < begin + ID_DIGITS + 1) return 0;
    uint32_t value = 0;
    for (const char* c = found + begin; c < found + begin + ID_DIGITS; c++) {
        int digit = hex_value(*c);
        if (digit < 0) return 0;
        value = value << 4 | (uint32_t)digit;
    }
    *id = value;
    return found[begin + ID_DIGITS] == '"';
}

// Say what a reply is: good, or an error by its code.
static inline int judge_reply(const char* reply, size_t length) {
    static const char name[] = "\"error\":\"";
    const char* found = memmem(reply, length, name, sizeof name - 1);
    if (!found) return OUTCOME_GOOD;
    const char* code = found + sizeof name - 1;
    const char* end = memchr(code, '"', reply + length - code);
    for (int place = 1; end && place < OUTCOME_OTHER; place++)
        if (strlen(outcome_codes[place]) == (size_t)(end - code) && !memcmp(code, outcome_codes[place], end - code)) return place;
    return OUTCOME_OTHER;
}

// ---- responses: read as the bytes come; only the beginning of a line is kept

#define MAX_HEAD 65536

typedef struct {
    int64_t body;          // bytes of the body still to come; -1: not said (yet)
    uint32_t head;         // bytes of the head so far
    uint16_t status;       // 0: the status line is still to come
    uint8_t in_body, last; // last: the server closes after this one
    uint8_t chunked, kept; // kept: bytes of this line in text
    char text[46];
} Response;

static inline void response_begin(Response* r) { memset(r, 0, sizeof *r); r->body = -1; }

static inline int starts_with(const Response* r, const char* name) {
    size_t length = strlen(name);
    return r->kept >= length && !strncasecmp(r->text, name, length);
}

static inline int has_word(const Response* r, const char* word) {
    for (size_t at = 0, length = strlen(word); at + length <= r->kept; at++)
        if (!strncasecmp(r->text + at, word, length)) return 1;
    return 0;
}

// Read a length; -1 where it is none.
static inline int64_t read_length(const Response* r, size_t at) {
    int64_t value = 0;
    size_t digits = 0;
    while (at < r->kept && r->text[at] == ' ') at++;
    for (; at < r->kept && r->text[at] >= '0' && r->text[at] <= '9' && digits < 12; at++, digits++) value = value * 10 + r->text[at] - '0';
    return digits && at == r->kept ? value : -1;
}

// Take the line that is complete; -1 where it cannot be understood, 1 at the end of the head.
static inline int response_line(Response* r) {
    if (!r->status) {
        if (!starts_with(r, "HTTP/1.") || r->kept < 12 || r->text[8] != ' ') return -1;
        int status = 0;
        for (int at = 9; at < 12; at++) {
            if (r->text[at] < '0' || r->text[at] > '9') return -1;
            status = status * 10 + r->text[at] - '0';
        }
        if (status < 100 || status > 599) return -1;
        r->status = (uint16_t)status;
        r->last = r->text[7] == '0';
        return 0;
    }
    if (!r->kept) return 1;
    if (starts_with(r, "content-length:")) return (r->body = read_length(r, 15)) < 0 ? -1 : 0;
    if (starts_with(r, "transfer-encoding:")) r->chunked = 1;
    else if (starts_with(r, "connection:") && has_word(r, "close")) r->last = 1;
    return 0;
}

// Read on. 0: more must come; 1: complete after *used bytes; -1: not a response with a length.
static inline int response_read(Response* r, const char* data, size_t length, size_t* used) {
    size_t at = 0;
    while (!r->in_body) {
        const char* end = memchr(data + at, '\n', length - at);
        size_t stop = end ? (size_t)(end - data) : length, piece = stop - at, room = sizeof r->text - r->kept;
        memcpy(r->text + r->kept, data + at, piece < room ? piece : room);
        r->kept += (uint8_t)(piece < room ? piece : room);
        if ((r->head += (uint32_t)piece) > MAX_HEAD) return -1;
        if (!end) return 0;
        at = stop + 1;
        if (r->kept && r->text[r->kept - 1] == '\r') r->kept--;
        int state = response_line(r);
        r->kept = 0;
        if (state < 0) return -1;
        if (!state) continue;
        if (r->status < 200) { response_begin(r); continue; } // an interim answer
        if (r->status == 204 || r->status == 304) r->body = 0;
        if (r->chunked || r->body < 0) return -1;
        r->in_body = 1;
    }
    size_t rest = length - at, take = (int64_t)rest < r->body ? rest : (size_t)r->body;
    r->body -= (int64_t)take;
    *used = at + take;
    return !r->body;
}

// ---- times: 64 buckets for each doubling, so none is wider than 1/64 of what it holds

#define HALF 64
#define BUCKETS (HALF * 32) // the last one, from 68 s on, is open

static inline int bucket_of(uint64_t ns) {
    if (ns < HALF) return (int)ns;
    int shift = 57 - __builtin_clzll(ns), bucket = (shift + 1) * HALF + (int)(ns >> shift) - HALF;
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static inline uint64_t bucket_middle(int bucket) {
    if (bucket < HALF) return (uint64_t)bucket;
    int shift = bucket / HALF - 1;
    return ((uint64_t)(bucket % HALF + HALF) << shift) + ((uint64_t)1 << shift >> 1);
}
