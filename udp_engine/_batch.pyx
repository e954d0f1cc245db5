# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Receive, answer, send: up to 64 datagrams at a time, without Python until one must be answered from elsewhere."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset, strerror, strlen

from billing._admission cimport gate_admit_digest, gate_fetch, gate_hash, gate_is_filled
from billing._gate cimport ADMITTED, EXPIRED, QUOTA_EXCEEDED, RATE_LIMITED, REVOKED, SCOPE_PRICES, SCOPE_REPORTS
from pricing._board cimport age_of
from pricing._finder cimport Label
from pricing._text cimport CLOCK_MONOTONIC, Text, put, put_number, read_clock_ns, read_clocks_ns
from pricing._usage cimport record_price, record_question
from telemetry cimport _counters as counted
from telemetry._counters cimport count, drop, note_latency
from telemetry._spool cimport (
    APPENDED, PRICES, REPORT_SUMMARY, UDP, spool_admits, spool_append, spool_enter, spool_leave, spool_open, spool_promise,
    spool_refuse,
)
from udp_engine._datagram cimport BAD_REQUEST, DROPPED, NO_ASSET, ONE_ASSET, read_datagram

cdef int64_t MS = 1_000_000
cdef int64_t SECOND_NS = 1_000_000_000
cdef int64_t GROUPS_PAUSE_NS = SECOND_NS
cdef enum:
    CLOCK_EVERY = 8                    # answers: they take 2 µs, and reading it for each a tenth of that
cdef uint8_t MAPPED[12]                # ::ffff:0:0/96, how IPv4 is written in 16 bytes
MAPPED[:] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]


cdef inline bint is_reflector(uint16_t port) noexcept nogil:
    """Ports of services that answer whatever comes, and of those that amplify: a client is at none of them."""
    return (
        port == 0 or port == 7 or port == 13 or port == 17 or port == 19 or port == 53 or port == 111 or port == 123
        or port == 137 or port == 161 or port == 389 or port == 520 or port == 1900 or port == 5353 or port == 11211
    )


cdef inline unsigned int hash_name(const Name* name) noexcept nogil:
    """Ports are enough to tell most clients of one moment apart."""
    if name.any.sa_family == AF_INET:
        return name.v4.sin_port ^ name.v4.sin_port >> 8
    return name.v6.sin6_port ^ name.v6.sin6_port >> 8


cdef inline void read_own_address(msghdr* message, uint8_t* out) noexcept nogil:
    """Read to which of our addresses a datagram came, and let routing choose the way back: no interface stays in it.

    A link-local address means nothing without its interface.
    """
    cdef cmsghdr* control = CMSG_FIRSTHDR(message)
    cdef uint8_t* info
    memset(out, 0, 16)
    if control == NULL:
        return
    info = CMSG_DATA(control)
    if control.cmsg_level == IPPROTO_IP and control.cmsg_type == IP_PKTINFO:      # ipi_ifindex, ipi_spec_dst, ipi_addr
        memset(info, 0, sizeof(int))
        memcpy(out, MAPPED, 12)
        memcpy(out + 12, info + 4, 4)
    elif control.cmsg_level == IPPROTO_IPV6 and control.cmsg_type == IPV6_PKTINFO:    # ipi6_addr, ipi6_ifindex
        memcpy(out, info, 16)
        if not (info[0] == 0xFE and info[1] & 0xC0 == 0x80):
            memset(info + 16, 0, sizeof(int))


# -- replies ---------------------------------------------------------------------------------------------------------

cdef inline char* put_id(char* at, const Text* text) noexcept nogil:
    """Write `"id":"…",` where there is one."""
    cdef size_t i
    if text.length == 0:
        return at
    at = put(at, b'"id":"', 6)
    for i in range(text.length):
        if text.at[i] == c'"' or text.at[i] == c"\\":
            at[0] = c"\\"
            at += 1
        at[0] = text.at[i]
        at += 1
    return put(at, b'",', 2)


cdef inline char* put_price(
    char* at, const Request* request, const PriceCopy* price, const Label* label, int64_t mono_ns
) noexcept nogil:
    at[0] = c"{"
    at = put_id(at + 1, &request.id)
    at = put(at, b'"asset":"', 9)
    at = put(at, request.asset.at, request.asset.length)
    at = put(at, b'","price":"', 11)
    at = put(at, price.price, price.length)
    at = put(at, label.text, label.length)
    at = put_number(at, price.traded_ns // MS)
    at = put(at, b',"age_ms":', 10)
    at = put_number(at, age_of(price, mono_ns) // MS)
    return put(at, b',"tier":1}', 10)


cdef inline char* put_refusal(char* at, const Text* id, const char* code, int64_t retry_ms) noexcept nogil:
    at[0] = c"{"
    at = put_id(at + 1, id)
    at = put(at, b'"error":"', 9)
    at = put(at, code, strlen(code))
    at = put(at, b'"', 1)
    if retry_ms >= 0:
        at = put(at, b',"retry_ms":', 12)
        at = put_number(at, retry_ms)
    return put(at, b"}", 1)


# -- what asyncio answers --------------------------------------------------------------------------------------------

cdef object text_of(const Text* text):
    return None if text.length == 0 else text.at[:text.length].decode("ascii")


cdef class Question:
    def __repr__(self):
        return f"Question(asset={self.asset!r}, assets={self.assets!r}, exchange={self.exchange!r}, id={self.id!r})"


# -- the batch -------------------------------------------------------------------------------------------------------

cdef class Batch:
    def __cinit__(self, *args, **options):
        self.context = <Context*>calloc(1, sizeof(Context))
        if self.context is NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.context)
        free(self.buckets)
        free(self.turns)

    def __init__(
        self, int fd, Finder finder, Gate gate not None, Counters counters not None,
        Appender appender not None, *, unsigned int budget=16, own=None, bint tells_address=False, bint groups=True,
        uint32_t refusals_per_s=200, uint32_t refusal_burst=20, uint32_t networks=65_536, uint64_t secret=0,
    ):
        cdef unsigned int i
        if budget < 1 or refusals_per_s < 1 or refusal_burst < 1:
            raise ValueError("budget, refusals_per_s and refusal_burst are at least 1")
        if networks < 1 or networks & (networks - 1):
            raise ValueError(f"networks is a power of two, not {networks}")
        self.fd, self.finder, self.gate, self.counters, self.appender = fd, finder, gate, counters, appender
        self.budget, self.tells_address, self.groups = budget, tells_address, groups
        self.own_port = 0
        if own is not None:
            address, self.own_port = own
            memcpy(self.own_address, PyBytes_AS_STRING(address), 16)
        self.refusal_ns = SECOND_NS // refusals_per_s
        self.refusal_burst_ns = self.refusal_ns * refusal_burst
        self.bucket_mask, self.secret = networks - 1, secret
        free(self.buckets)
        self.buckets = <Bucket*>calloc(networks, sizeof(Bucket))
        free(self.turns)
        self.turns = NULL if finder is not None else <Bucket*>calloc(networks, sizeof(Bucket))
        if self.buckets is NULL or (self.turns is NULL and finder is None):
            raise MemoryError
        for i in range(BATCH):
            self.context.in_places[i].iov_base = self.context.datagrams[i]
            self.context.in_places[i].iov_len = IN_BYTES
            self.context.incoming[i].msg_hdr.msg_iov = &self.context.in_places[i]
            self.context.incoming[i].msg_hdr.msg_iovlen = 1
            self.context.incoming[i].msg_hdr.msg_name = &self.context.names[i]
        self.was_received = BATCH

    # -- receive

    cdef int receive(self) noexcept nogil:
        """Fill the context; the count, 0 when there is nothing now, -1 with the errno kept."""
        cdef Context* context = self.context
        cdef unsigned int i
        cdef int received
        for i in range(self.was_received):  # the kernel has changed what it has filled
            context.incoming[i].msg_hdr.msg_namelen = sizeof(Name)
            context.incoming[i].msg_hdr.msg_flags = 0
            if self.tells_address:
                context.incoming[i].msg_hdr.msg_control = context.controls[i]
                context.incoming[i].msg_hdr.msg_controllen = CONTROL_BYTES
        self.was_received = 0
        received = recvmmsg(self.fd, context.incoming, BATCH, MSG_DONTWAIT, NULL)
        if received < 0:
            self.last_errno = errno
            return 0 if self.last_errno == EAGAIN or self.last_errno == EINTR else -1
        self.was_received = received
        count(self.counters, counted.UDP_PACKETS_RECEIVED, received)
        return received

    cdef bint read_source(self, unsigned int i, uint8_t* address) noexcept nogil:
        """Read who has sent a datagram into 16 bytes; 0 when nobody may be answered there."""
        cdef const Name* name = &self.context.names[i]
        cdef uint8_t ours[16]
        cdef uint16_t port
        if name.any.sa_family == AF_INET:
            memcpy(address, MAPPED, 12)
            memcpy(address + 12, &name.v4.sin_addr, 4)
            port = ntohs(name.v4.sin_port)
        else:
            memcpy(address, name.v6.sin6_addr.s6_addr, 16)
            port = ntohs(name.v6.sin6_port)
        if not self.tells_address:
            memcpy(ours, self.own_address, 16)
        else:
            read_own_address(&self.context.incoming[i].msg_hdr, ours)
        return not is_reflector(port) and (port != self.own_port or memcmp(address, ours, 16) != 0)

    # -- answer

    cdef void answer_all(self, unsigned int number, int64_t mono_ns, int64_t wall_ns) noexcept nogil:
        """Decide on each datagram. Keys lie far apart: the memory brings all of them while others are read."""
        cdef Context* context = self.context
        cdef Request* request
        cdef uint8_t address[16]
        cdef unsigned int i
        cdef bint is_filled = gate_is_filled(&self.gate.memory)
        context.slow_count = 0
        for i in range(number):
            context.lengths[i] = 0
            context.proven[i] = context.hashed[i] = 0
            request = &context.requests[i]
            if not self.read_source(i, address):
                request.outcome, request.reason = DROPPED, counted.DROPPED_BAD_SOURCE
                continue
            read_datagram(context.datagrams[i], context.incoming[i].msg_len, request)
            if request.outcome > BAD_REQUEST and (request.outcome == NO_ASSET) != (self.turns != NULL):
                request.outcome = BAD_REQUEST
            if is_filled and request.key.at != NULL and request.outcome > BAD_REQUEST:
                context.hashed[i] = gate_hash(
                    &self.gate.memory, request.key.at, request.key.length, context.digests[i]
                )
        for i in range(number):
            if context.hashed[i]:
                gate_fetch(&self.gate.memory, context.digests[i])
        for i in range(number):
            if i % CLOCK_EVERY == 0:
                self.took_ns = read_clock_ns(CLOCK_MONOTONIC) - mono_ns
            self.decide(i, mono_ns, wall_ns, is_filled)

    cdef void decide(self, unsigned int i, int64_t mono_ns, int64_t wall_ns, bint is_filled) noexcept nogil:
        """Write the reply, count the drop, or leave the question to somebody else."""
        cdef Context* context = self.context
        cdef const Request* request = &context.requests[i]
        cdef uint8_t address[16]
        if request.outcome == DROPPED:
            drop(self.counters, request.reason, 1)
            return
        self.read_source(i, address)
        if request.outcome == BAD_REQUEST:
            self.refuse(i, b"bad_request", -1, address, mono_ns)
            return
        count(self.counters, counted.LRS_REQUESTS if self.turns else counted.UDP_REQUESTS, 1)
        if not is_filled:
            self.refuse(i, b"unavailable", -1, address, mono_ns)
        elif not context.hashed[i]:
            count(self.counters, counted.AUTH_FAILURES, 1)
            self.refuse(i, b"unauthorized", -1, address, mono_ns)
        elif not spool_admits(&self.appender.memory):
            spool_refuse(&self.appender.memory)
            self.refuse(i, b"unavailable", -1, address, mono_ns)
        else:
            spool_enter(&self.appender.memory)
            if self.turns:
                self.admit_summary(i, address, mono_ns, wall_ns)
            else:
                self.answer_key(i, address, mono_ns, wall_ns)
            spool_leave(&self.appender.memory)

    cdef void answer_key(self, unsigned int i, const uint8_t* address, int64_t mono_ns, int64_t wall_ns) noexcept nogil:
        """Judge the key; what is answered has been recorded before it is sent, what is left to somebody else is owed."""
        cdef Context* context = self.context
        cdef const Request* request = &context.requests[i]
        cdef GateVerdict* verdict = &context.verdicts[i]
        cdef const Label* label
        cdef PriceCopy price
        cdef Record record
        gate_admit_digest(
            &self.gate.memory, context.digests[i], mono_ns, wall_ns // SECOND_NS, SCOPE_PRICES, address, 1, verdict
        )
        if verdict.code != ADMITTED:
            self.refuse_key(i, address, mono_ns, wall_ns)
            return
        context.proven[i] = 1
        if request.outcome != ONE_ASSET or not self.finder.find(
            &request.asset, &request.exchange, request.max_age_ms, mono_ns, &price
        ):
            context.slow[context.slow_count] = i
            context.slow_count += 1
            spool_open(&self.appender.memory)
            return
        label = &self.finder.labels[price.exchange]
        count(self.counters, counted.SYNCMAP_HITS, 1)
        context.lengths[i] = put_price(context.replies[i], request, &price, label, mono_ns) - context.replies[i]
        record_question(&record, verdict, &request.asset, UDP, wall_ns, self.took_ns)
        record_price(&record, verdict, &price, label)
        self.record(&record)

    cdef void admit_summary(
        self, unsigned int i, const uint8_t* address, int64_t mono_ns, int64_t wall_ns
    ) noexcept nogil:
        """Judge a key that asks what it has used: nothing is taken, so one that has used up its limits may ask as well.

        Nor do they bound how often: each account has its turns, and what comes out of turn is left unanswered.
        """
        cdef Context* context = self.context
        cdef GateVerdict* verdict = &context.verdicts[i]
        gate_admit_digest(
            &self.gate.memory, context.digests[i], mono_ns, wall_ns // SECOND_NS, SCOPE_REPORTS, address, 0, verdict
        )
        if verdict.code != ADMITTED and verdict.code != RATE_LIMITED and verdict.code != QUOTA_EXCEEDED:
            self.refuse_key(i, address, mono_ns, wall_ns)
        elif not self.take_turn(self.turns, verdict.account_id, mono_ns):
            drop(self.counters, counted.DROPPED_LIMITED, 1)
        else:
            context.slow[context.slow_count] = i
            context.slow_count += 1
            spool_promise(&self.appender.memory)

    cdef void refuse_key(self, unsigned int i, const uint8_t* address, int64_t mono_ns, int64_t wall_ns) noexcept nogil:
        """Refuse a key; a refusal that names one is recorded when it is told."""
        cdef const Request* request = &self.context.requests[i]
        cdef const GateVerdict* verdict = &self.context.verdicts[i]
        cdef Record record
        cdef uint16_t status = 403
        if verdict.code == RATE_LIMITED:
            status = 429
            count(self.counters, counted.RATE_LIMITED, 1)
            self.refuse(i, b"rate_limited", <int64_t>((verdict.retry_after_ns + MS - 1) // MS), address, mono_ns)
        elif verdict.code == QUOTA_EXCEEDED:
            status = 429
            count(self.counters, counted.QUOTA_EXCEEDED, 1)
            self.refuse(i, b"quota_exceeded", -1, address, mono_ns)
        else:
            count(self.counters, counted.AUTH_FAILURES, 1)
            self.refuse(
                i, b"revoked" if verdict.code == REVOKED or verdict.code == EXPIRED else b"unauthorized", -1, address,
                mono_ns,
            )
        if self.context.lengths[i] and verdict.key_id:
            record_question(
                &record, verdict, &request.assets[0] if request.count else &request.asset, UDP, wall_ns, self.took_ns
            )
            record.status = status
            if request.outcome != ONE_ASSET:
                record.endpoint = PRICES if request.count else REPORT_SUMMARY
                record.assets = <uint8_t>request.count
            self.record(&record)

    cdef void record(self, const Record* record) noexcept nogil:
        if spool_append(&self.appender.memory, record) == APPENDED:
            count(self.counters, counted.BATCH_ROWS_QUEUED, 1)

    cdef void refuse(
        self, unsigned int i, const char* code, int64_t retry_ms, const uint8_t* address, int64_t mono_ns
    ) noexcept nogil:
        """Refuse whoever has no good key: with no more bytes than came, and seldom."""
        cdef Context* context = self.context
        cdef size_t length = put_refusal(
            context.replies[i], &context.requests[i].id, code, retry_ms
        ) - context.replies[i]
        if length > context.incoming[i].msg_len:
            drop(self.counters, counted.DROPPED_TOO_SHORT, 1)
        elif not self.may_refuse(address, mono_ns):
            drop(self.counters, counted.DROPPED_LIMITED, 1)
        else:
            context.lengths[i] = length

    cdef bint may_refuse(self, const uint8_t* address, int64_t mono_ns) noexcept nogil:
        """Take one refusal from what the sender's network may have. Networks that share a bucket share that."""
        cdef uint64_t network = 0
        if memcmp(address, MAPPED, 12) == 0:
            memcpy(&network, address + 12, 3)
            network |= <uint64_t>1 << 63
        else:
            memcpy(&network, address, 8)
        return self.take_turn(self.buckets, network, mono_ns)

    cdef bint take_turn(self, Bucket* buckets, uint64_t who, int64_t mono_ns) noexcept nogil:
        cdef Bucket* bucket
        cdef int64_t full_ns
        who ^= self.secret
        who = (who ^ who >> 30) * 0xBF58476D1CE4E5B9ULL  # splitmix64's last steps
        who = (who ^ who >> 27) * 0x94D049BB133111EBULL
        bucket = &buckets[(who ^ who >> 31) & self.bucket_mask]
        full_ns = bucket.full_ns if bucket.full_ns > mono_ns else mono_ns
        if full_ns + self.refusal_ns - mono_ns > self.refusal_burst_ns:
            return 0
        bucket.full_ns = full_ns + self.refusal_ns
        return 1

    # -- send

    cdef void prepare(self, bint may_group) noexcept nogil:
        """Line the replies up. Those to one address can be one send, which the kernel cuts up (UDP_SEGMENT)."""
        cdef Context* context = self.context
        cdef unsigned int i, at
        cdef uint8_t* place
        memset(context.run_places, 0, sizeof(context.run_places))
        context.out_count = context.out_done = 0
        for i in range(self.was_received):
            if context.lengths[i] == 0:
                continue
            place = &context.run_places[hash_name(&context.names[i]) & (PLACES - 1)]
            if may_group and place[0] and self.join(&context.runs[place[0] - 1], i):
                continue
            at = context.out_count
            context.runs[at].first = context.runs[at].last = i
            context.runs[at].segments = 1
            context.runs[at].size = context.runs[at].shortest = context.lengths[i]
            context.out_count += 1
            place[0] = <uint8_t>context.out_count
        for at in range(context.out_count):
            self.make_send(at)

    cdef bint join(self, Run* run, unsigned int i) noexcept nogil:
        """Put a reply to those of a run if it goes to the same address, from the same, and is about as long."""
        cdef Context* context = self.context
        cdef const msghdr* ours = &context.incoming[i].msg_hdr
        cdef const msghdr* theirs = &context.incoming[run.first].msg_hdr
        cdef size_t length = context.lengths[i]
        cdef size_t size = length if length > run.size else run.size
        cdef size_t shortest = length if length < run.shortest else run.shortest
        if (
            not context.proven[i] or not context.proven[run.first]
            or size > shortest + PADDING
            or size * (run.segments + 1) > SEGMENTS_BYTES
            or ours.msg_namelen != theirs.msg_namelen
            or ours.msg_controllen + CMSG_SPACE(sizeof(uint16_t)) > CONTROL_BYTES
            or memcmp(&context.names[i], &context.names[run.first], ours.msg_namelen) != 0
        ):
            return 0
        if self.tells_address and (
            ours.msg_controllen != theirs.msg_controllen
            or memcmp(context.controls[i], context.controls[run.first], ours.msg_controllen) != 0
        ):
            return 0
        context.next[run.last] = i
        run.last = i
        run.segments += 1
        run.size, run.shortest = size, shortest
        return 1

    cdef void make_send(self, unsigned int at) noexcept nogil:
        """Make one message of a run's replies, all but the last one as long as the longest."""
        cdef Context* context = self.context
        cdef const Run* run = &context.runs[at]
        cdef msghdr* message = &context.outgoing[at].msg_hdr
        cdef iovec* place = &context.out_places[self.places_before(at)]
        cdef cmsghdr* control
        cdef uint16_t size = <uint16_t>run.size
        cdef size_t control_bytes = 0
        cdef unsigned int i = run.first, segment
        message.msg_name = &context.names[i]
        message.msg_namelen = context.incoming[i].msg_hdr.msg_namelen
        message.msg_iov = place
        message.msg_iovlen = run.segments
        for segment in range(run.segments):
            place[segment].iov_base = context.replies[i]
            place[segment].iov_len = context.lengths[i]
            if segment + 1 < run.segments:
                memset(context.replies[i] + context.lengths[i], c" ", run.size - context.lengths[i])
                place[segment].iov_len = run.size
                i = context.next[i]
        if self.tells_address:
            control_bytes = context.incoming[run.first].msg_hdr.msg_controllen
            memcpy(context.out_controls[at], context.controls[run.first], control_bytes)
        message.msg_control = context.out_controls[at]
        if run.segments > 1:
            control = <cmsghdr*>(context.out_controls[at] + control_bytes)
            control.cmsg_level, control.cmsg_type = SOL_UDP, UDP_SEGMENT
            control.cmsg_len = CMSG_LEN(sizeof(uint16_t))
            memcpy(CMSG_DATA(control), &size, sizeof(uint16_t))
            control_bytes += CMSG_SPACE(sizeof(uint16_t))
        message.msg_controllen = control_bytes

    cdef unsigned int places_before(self, unsigned int at) noexcept nogil:
        """Where a run's part of `out_places` begins."""
        cdef Run* runs = self.context.runs
        runs[at].place = runs[at - 1].place + runs[at - 1].segments if at else 0
        return runs[at].place

    cdef void was_sent(self, unsigned int at) noexcept nogil:
        """Count a run's replies, which then need not be sent again."""
        cdef Context* context = self.context
        cdef const Run* run = &context.runs[at]
        cdef unsigned int i = run.first, segment
        count(self.counters, counted.UDP_PACKETS_SENT, run.segments)
        if run.segments > 1:
            self.grouped += run.segments
        for segment in range(run.segments):
            context.lengths[i] = 0
            i = context.next[i]

    cdef bint send(self, int64_t mono_ns) noexcept nogil:
        """Send what is lined up; 0 when the kernel takes no more for now, and the rest stays."""
        cdef Context* context = self.context
        cdef int sent, i
        while context.out_done < context.out_count:
            sent = sendmmsg(
                self.fd, &context.outgoing[context.out_done], context.out_count - context.out_done, MSG_DONTWAIT
            )
            if sent > 0:
                for i in range(sent):
                    self.was_sent(context.out_done + i)
                context.out_done += sent
                continue
            self.last_errno = errno
            if self.last_errno == EINTR:
                continue
            if self.last_errno == EAGAIN:
                return 0
            if context.runs[context.out_done].segments > 1:
                self.note_refusal(mono_ns)
                self.prepare(0)
                continue
            drop(self.counters, counted.DROPPED_UNSENT, 1)
            context.lengths[context.runs[context.out_done].first] = 0
            context.out_done += 1
        return 1

    cdef void note_refusal(self, int64_t mono_ns) noexcept nogil:
        """Send each reply by itself for a while where the kernel or the path can do no other."""
        self.refused_groups += 1
        if (
            self.last_errno == EINVAL or self.last_errno == EIO or self.last_errno == EMSGSIZE
            or self.last_errno == EOPNOTSUPP
        ):
            self.ungrouped_until_ns = mono_ns + GROUPS_PAUSE_NS

    # -- asyncio's side

    def drain(self):
        cdef list questions = []
        cdef int64_t began_ns = 0, wall_ns = 0
        cdef unsigned int turn, replies
        cdef int received
        if not self.resume():
            return questions
        for turn in range(self.budget):
            with nogil:
                received = self.receive()
                if received > 0:
                    read_clocks_ns(&began_ns, &wall_ns)
                    self.answer_all(received, began_ns, wall_ns)
                    self.prepare(self.groups and began_ns >= self.ungrouped_until_ns)
                    replies = self.replies_of(received)
                    self.send(began_ns)
                    note_latency(
                        self.counters, counted.UDP_LATENCY, read_clock_ns(CLOCK_MONOTONIC) - began_ns, replies
                    )
            if received < 0 and questions:
                break  # they are not lost for it; an error that stays is raised the next time
            if received < 0:
                raise OSError(self.last_errno, strerror(self.last_errno).decode())
            if received == 0:
                break
            self.hand_over(questions, began_ns)
            if self.finder is not None:
                self.finder.learn()
            if received < BATCH or self.is_blocked or len(questions) >= BATCH:
                break
        return questions

    @property
    def is_blocked(self):
        return self.context.out_done < self.context.out_count

    def resume(self):
        cdef bint is_done
        with nogil:
            is_done = self.send(read_clock_ns(CLOCK_MONOTONIC))
        return is_done

    def abandon(self):
        cdef Context* context = self.context
        cdef size_t left = 0
        while context.out_done < context.out_count:
            left += context.runs[context.out_done].segments
            context.out_done += 1
        drop(self.counters, counted.DROPPED_UNSENT, left)
        return left

    def close(self):
        self.abandon()
        self.fd = -1

    cdef unsigned int replies_of(self, unsigned int number) noexcept nogil:
        cdef unsigned int i, replies = 0
        for i in range(number):
            replies += self.context.lengths[i] != 0
        return replies

    cdef int hand_over(self, list questions, int64_t received_ns) except -1:
        cdef unsigned int i
        for i in range(self.context.slow_count):
            questions.append(self.question_of(self.context.slow[i], received_ns))
        return 0

    cdef Question question_of(self, unsigned int i, int64_t received_ns):
        cdef const Request* request = &self.context.requests[i]
        cdef const msghdr* message = &self.context.incoming[i].msg_hdr
        cdef Question question = Question.__new__(Question)
        cdef unsigned int j
        question.asset = text_of(&request.asset)
        question.assets = tuple([text_of(&request.assets[j]) for j in range(request.count)])
        question.exchange = text_of(&request.exchange)
        question.max_age_ms = None if request.max_age_ms < 0 else request.max_age_ms
        question.id = text_of(&request.id)
        question.key_row = self.context.verdicts[i].row
        question.key_id = self.context.verdicts[i].key_id
        question.account_id = self.context.verdicts[i].account_id
        question.month = 0 if self.turns else self.context.verdicts[i].month
        question.request_bytes = self.context.incoming[i].msg_len
        question.received_ns = received_ns
        question.name = PyBytes_FromStringAndSize(<char*>&self.context.names[i], message.msg_namelen)
        question.control = b""
        if self.tells_address:
            question.control = PyBytes_FromStringAndSize(self.context.controls[i], message.msg_controllen)
        return question

    def answer(self, Question question not None, bytes reply not None):
        cdef mmsghdr message
        cdef iovec place
        cdef int sent
        memset(&message, 0, sizeof(message))
        place.iov_base = PyBytes_AS_STRING(reply)
        place.iov_len = PyBytes_GET_SIZE(reply)
        message.msg_hdr.msg_name = PyBytes_AS_STRING(question.name)
        message.msg_hdr.msg_namelen = <socklen_t>PyBytes_GET_SIZE(question.name)
        message.msg_hdr.msg_iov = &place
        message.msg_hdr.msg_iovlen = 1
        message.msg_hdr.msg_control = PyBytes_AS_STRING(question.control)
        message.msg_hdr.msg_controllen = PyBytes_GET_SIZE(question.control)
        while True:
            sent = sendmmsg(self.fd, &message, 1, MSG_DONTWAIT)
            if sent == 1:
                count(self.counters, counted.UDP_PACKETS_SENT, 1)
                note_latency(
                    self.counters, counted.UDP_LATENCY, read_clock_ns(CLOCK_MONOTONIC) - question.received_ns, 1
                )
                return True
            if errno != EINTR:
                drop(self.counters, counted.DROPPED_UNSENT, 1)
                return False

    def respond(self, bytes datagram not None, bytes address not None, uint16_t port, int64_t mono_ns, int64_t wall_s):
        cdef Context* context = self.context
        cdef size_t length = PyBytes_GET_SIZE(datagram)
        if self.is_blocked:
            raise ValueError("replies wait to be sent")
        if PyBytes_GET_SIZE(address) != 16:
            raise ValueError(f"an address has 16 bytes, not {PyBytes_GET_SIZE(address)}")
        length = min(length, <size_t>IN_BYTES)
        memcpy(context.datagrams[0], PyBytes_AS_STRING(datagram), length)
        memset(&context.names[0], 0, sizeof(Name))
        context.names[0].any.sa_family = AF_INET6
        context.names[0].v6.sin6_port = htons(port)
        memcpy(context.names[0].v6.sin6_addr.s6_addr, PyBytes_AS_STRING(address), 16)
        context.incoming[0].msg_hdr.msg_namelen = sizeof(context.names[0].v6)
        context.incoming[0].msg_hdr.msg_controllen = 0
        context.incoming[0].msg_len = <unsigned int>length
        self.was_received = 1
        count(self.counters, counted.UDP_PACKETS_RECEIVED, 1)
        with nogil:
            self.answer_all(1, mono_ns, wall_s * SECOND_NS)
        if context.slow_count:
            return self.question_of(0, mono_ns)
        if context.lengths[0] == 0:
            return None
        return PyBytes_FromStringAndSize(context.replies[0], context.lengths[0])
